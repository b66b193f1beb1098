"""The benchmark, tiny: its rows, its arithmetic, and what it says when memory is short."""

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from demoe.bench import large, measure, peers, rows
from demoe.bench.table import table
from demoe.cli import bench
from demoe.errors import OutputError, WeightsError
from demoe.model.architectures import build
from demoe.model.checkpoint import read_state_dict, write_weights
from demoe.model.demoe.config import NetworkConfig
from demoe.model.demoe.flops import flops_per_pixel
from demoe.model.demoe.network import DeMoENet

CPU = torch.device("cpu")
SIZE, REPEATS = 128, 3
CONFIG = NetworkConfig(4, (0, 1, 1, 1), 1, (1, 0, 1, 1), router_width=8, router_hidden=4)


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    write_weights(path, DeMoENet(CONFIG).state_dict(), {})
    return path


@pytest.fixture(scope="module")
def small_matrices():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(measure.MATRIX_SIDES, "cpu", (64,))
        patch.setattr(measure, "MATRIX_SECONDS", 0.02)
        yield


@pytest.fixture(scope="module")
def printed_and_written(weights, small_matrices, tmp_path_factory):
    target = tmp_path_factory.mktemp("result") / "bench.json"
    words = ("--size", str(SIZE), "--repeats", str(REPEATS), "--tile", "64", "--device", "cpu")
    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.MonkeyPatch.context() as patch:
        # Processes of their own take seconds each.
        patch.setattr(rows, "in_own_process", lambda function, *given: function(*given))
        code = bench.main(parse(*words, "--model", str(weights), "--json", str(target)))
    assert code == 0
    return out.getvalue(), target.read_text(encoding="utf-8")


@pytest.fixture
def result(printed_and_written) -> dict:
    return json.loads(printed_and_written[1])


# -- operations counted -------------------------------------------------------------------


def test_the_published_network_has_the_published_number_of_operations():
    macs = flops_per_pixel(NetworkConfig()) * 256 * 256 / 2
    assert round(macs / 1e9, 2) == 10.84
    assert round(flops_per_pixel(NetworkConfig()) / 1e3) == 331


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        NetworkConfig(8, (1, 2), 0, (2, 1), experts=2),
        NetworkConfig(4, (2, 2, 2, 2), 2, (2, 2, 2, 2)),
    ],
    ids=["uneven", "two levels", "as published"],
)
def test_counted_operations_are_those_that_convolutions_do(config):
    network = DeMoENet(config).eval()
    done = 0

    def count(module, _, output):
        nonlocal done
        done += 2 * output.numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)

    def operations(side: int) -> int:
        nonlocal done
        done = 0
        with torch.inference_mode():
            network(torch.rand(1, 3, side, side))
        return done

    # What follows a global pooling is the same for both pictures and cancels.
    difference = operations(64) - operations(32)
    assert difference == pytest.approx(flops_per_pixel(config) * (64**2 - 32**2), rel=1e-12)


# -- the whole benchmark ------------------------------------------------------------------


def test_every_row_is_measured_as_often_as_asked(result):
    assert [row["name"] for row in result["rows"]] == [
        rows.BARE,
        rows.MONAI,
        rows.BARE_KEEPING,
        "demoe, array to array, one expert",
        "demoe, array to array, routed",
        "demoe, TIFF to OME-Zarr, one expert",
    ]
    for row in result["rows"]:
        assert row["side"] == SIZE
        assert len(row["seconds"]) == REPEATS
        assert min(row["seconds"]) > 0
        assert row["note"] == ""
    assert result["settings"]["tile"] == [64, 64]
    # Each of the four tiles has neighbours on two sides.
    read = min(SIZE, 64 + result["settings"]["halo"])
    assert read > 64
    assert result["settings"]["reads_per_pixel"] == 4 * read**2 / SIZE**2
    assert result["settings"]["backend"].split(",")[0] in ("torch", "openvino")
    assert len(result["matrix_product_gflops"]) == len(result["rows"]) + 1


def test_figures_are_quotients_of_medians(result):
    flops = flops_per_pixel(CONFIG)
    assert result["network"]["flops_per_pixel"] == flops
    products = result["matrix_product_gflops"]
    rows = result["rows"]
    for i, row in enumerate(rows):
        median = statistics.median(row["seconds"])
        assert row["median_seconds"] == median
        assert row["megapixels_per_second"] == pytest.approx(SIZE**2 / median / 1e6)
        assert row["gflops"] == pytest.approx(SIZE**2 * flops / median / 1e9)
        assert row["share"] == pytest.approx(row["gflops"] * 2 / (products[i] + products[i + 1]))
        assert row["times_bare"] == pytest.approx(rows[0]["median_seconds"] / median)
        assert row["times_monai"] == pytest.approx(rows[1]["median_seconds"] / median)


def test_the_table_shows_the_rows_and_what_was_measured(printed_and_written, result):
    text = printed_and_written[0]
    assert text.rstrip("\n") == table(result)
    for row in result["rows"]:
        line = next(line for line in text.splitlines() if line.startswith(row["name"]))
        numbers = line.removeprefix(row["name"]).split()
        assert numbers[0] == str(SIZE)
        assert numbers[1] == f"{row['median_seconds']:.2f}"
        assert numbers[-1] == f"{row['times_monai']:.2f}"
    assert result["network"]["sha256"][:12] in text
    assert "medians of 3 runs" in text
    *_, last = result["rows"]
    assert result["headline"] == last["name"]
    headline = next(line for line in text.splitlines() if line.startswith("headline"))
    assert f"{last['name']}: {last['median_seconds']:.2f} s" in headline
    assert headline.endswith(f"{last['times_bare']:.2f} x bare, {last['times_monai']:.2f} x monai")


def test_neither_table_nor_json_names_host_or_folders(printed_and_written, weights, result):
    for text in printed_and_written:
        assert str(weights.parent) not in text
        assert weights.name in text
    assert platform.node() not in map(str, result["machine"].values())


# -- memory -------------------------------------------------------------------------------


class Meter:
    """Stands in for the system's own: says what a test wants it to, and when it was read."""

    def __init__(self) -> None:
        self.now = 100
        self.read = threading.Event()

    def __call__(self, device: torch.device) -> int:
        self.read.set()
        return self.now

    def rise(self, level: int) -> None:
        """Take memory, wait until that was seen, and give it back."""
        before, self.now = self.now, level
        self.read.clear()
        assert self.read.wait(60)
        self.now = before


@pytest.fixture
def meter(monkeypatch) -> Meter:
    meter = Meter()
    monkeypatch.setattr(measure, "memory_in_use", meter)
    return meter


def test_a_peak_is_seen_though_it_is_over_at_the_end(meter):
    timing = measure.timed(lambda: meter.rise(900), 2, CPU, 100)
    assert timing.peak_bytes == 800
    assert len(timing.seconds) == 2


def test_a_peak_does_not_contain_what_an_earlier_row_took(meter, monkeypatch):
    given_back = []
    monkeypatch.setattr(measure, "give_memory_back", given_back.append)
    assert measure.timed(lambda: meter.rise(900), 1, CPU, 100).peak_bytes == 800
    assert measure.timed(lambda: None, 1, CPU, 100).peak_bytes == 0
    assert given_back == [CPU, CPU]


def test_the_systems_own_meter_sees_what_is_held():
    before = measure.memory_in_use(CPU)
    held = np.ones(2**26)  # half a gigabyte
    assert measure.memory_in_use(CPU) > before
    del held


def test_without_knowledge_of_memory_there_is_no_figure(monkeypatch):
    monkeypatch.setattr(measure, "memory_in_use", lambda device: None)
    assert measure.timed(lambda: None, 1, CPU, None).peak_bytes is None


@pytest.mark.parametrize(
    ("size", "free", "side"),
    [
        (2048, None, 2048),
        (2048, 100e9, 2048),
        (2048, 12e9, 1024),
        (2048, 3e9, 512),
        (1040, 3e9, 512),
        (2048, 1e7, None),
        (128, 1e6, None),
    ],
)
def test_the_bare_network_gets_the_largest_picture_that_fits(size, free, side):
    found, note = peers.whole_side(size, 32 * 76, free)
    assert found == side
    assert (note == "") == (side == size)
    if note:
        assert f"{size} px would take about" in note


def test_rows_that_memory_does_not_allow_are_left_out_and_say_so(
    weights, small_matrices, monkeypatch
):
    monkeypatch.setattr(rows, "free_memory", lambda device: 1_000_000)
    monkeypatch.setattr(rows, "has_monai", lambda: False)
    result = rows.measure_all(rows.expert_recipe(str(weights), "auto", "cpu"), 64, 1)
    bare, monai, keeping, *tiled = result["rows"]
    for row in (bare, keeping):
        assert row["seconds"] is None
        assert row["times_bare"] is None
        assert row["note"].startswith("skipped")
        assert f"{row['name']}: skipped" in table(result)
    assert monai["seconds"] is None
    assert f"{monai['name']}: left out, because MONAI is not installed" in table(result)
    for row in tiled:
        assert row["gflops"] > 0
        assert row["times_bare"] is row["times_monai"] is None


def test_a_process_that_the_system_ends_gives_no_figures():
    assert peers.in_own_process(os._exit, 9) is None
    row = rows.figures("x", 64, None, 1e3, (1.0, 1.0), "ended")
    assert row["seconds"] is None
    assert row["note"] == "ended"


# -- large planes and lazy arrays ---------------------------------------------------------


@pytest.fixture(scope="module")
def full(weights) -> dict:
    recipe = rows.expert_recipe(str(weights), 64, "cpu").replace(halo=64)
    with pytest.MonkeyPatch.context() as patch:  # processes of their own take seconds each
        patch.setattr(large, "in_own_process", lambda function, *given: function(*given))
        return large.measure_full(recipe, 1.0, 2, planes=(0.03e6, 0.06e6), lazy_side=100_000)


def test_planes_of_whole_tiles_are_run_by_the_network_and_by_a_tiny_one(full, weights):
    assert [(row["network"], row["shape"]) for row in full["planes"]] == [
        (weights.name, [192, 192]),
        ("tiny", [192, 192]),
        ("tiny", [256, 256]),
    ]
    for row in full["planes"]:
        assert row["seconds"] > 0
        assert row["peak_bytes"] >= 0
        assert (row["tile"], row["halo"]) == (64, 64)


def test_a_slow_network_gets_a_quarter_of_the_plane(weights, monkeypatch):
    runs = []
    monkeypatch.setattr(
        large, "in_own_process", lambda function, *arguments: runs.append(arguments)
    )
    recipe = rows.expert_recipe(str(weights), 64, "cpu")
    full = large.measure_full(recipe, 1e-4, 1, planes=(0.04e6, 0.04e6))
    assert [row["shape"] for row in full["planes"]] == [[128, 128], [256, 192], [256, 192]]
    assert len(runs) == 4
    # Nothing came back, as when the system ends a process.
    assert {row["seconds"] for row in full["planes"]} == {None}
    assert full["lazy"] is None


def test_a_tile_of_a_lazy_array_reads_itself_and_its_halo(full):
    lazy = full["lazy"]
    assert lazy["tiles"] == 1563**2
    assert lazy["read"] == [192, 192]
    assert lazy["next"]["pixels"] == 192**2
    assert lazy["first"]["pixels"] > 192**2  # places that stand for the plane
    assert len(lazy["next"]["seconds"]) == len(lazy["bare_seconds"]) == 2
    next_one, bare = map(statistics.median, (lazy["next"]["seconds"], lazy["bare_seconds"]))
    assert lazy["times_bare"] == pytest.approx(next_one / bare)


def test_the_table_of_a_full_run_shows_planes_and_the_lazy_array(result, full):
    text = table({**result, "full": json.loads(json.dumps(full))})
    peak = f"{full['planes'][2]['peak_bytes'] / 1e9:.2f} GB"
    assert any(
        line.startswith("0 MP gray, tiny network") and line.endswith(peak)
        for line in text.splitlines()
    )
    assert "lazy result over a zarr array of 100000 x 100000" in text
    assert f"read {192**2} pixels" in text


@pytest.mark.parametrize(("pixels", "shape"), [(1, (64, 64)), (64 * 64 + 1, (128, 64))])
def test_planes_have_no_cut_tiles(pixels, shape):
    assert large.whole_tiles(pixels, 64) == shape


def test_the_full_run_follows_the_rows(weights, small_matrices, monkeypatch, capsys):
    asked = []

    def measure(recipe, speed, repeats, say):
        asked.append((recipe, speed, repeats))
        return {"planes": [], "lazy": None}

    monkeypatch.setattr(large, "measure_full", measure)
    monkeypatch.setattr(rows, "in_own_process", lambda *given: None)
    words = ("--size", "64", "--repeats", "1", "--model", str(weights), "--device", "cpu")
    assert bench.main(parse(*words, "--full")) == 0
    ((recipe, speed, repeats),) = asked
    assert (recipe.routing, recipe.model, repeats) == ("defocus", str(weights), 1)
    assert speed > 0
    assert "lazy array: its process was ended" in capsys.readouterr().out


# -- what is run --------------------------------------------------------------------------


def test_the_bare_row_runs_one_expert_on_the_whole_picture(weights):
    network = build(*read_state_dict(weights))[1]
    picture = peers.photo(64)
    restored, gates = peers.bare_work(network, picture, CPU)()
    assert gates.tolist() == [[1, 0, 0, 0, 0]]
    x = torch.from_numpy(picture / np.float32(255)).permute(2, 0, 1)[None]
    assert torch.allclose(restored, network(x, gates.clone())[0], atol=1e-5)


def test_the_monai_row_gives_what_its_windows_give(weights):
    network = build(*read_state_dict(weights))[1]
    picture = peers.photo(448)
    restored = peers.monai_work(network, picture, CPU)()
    assert restored.shape == (1, 3, 448, 448)
    # A corner belongs to one window of 256 pixels alone, whose neighbours begin 192 further.
    corner, _ = peers.bare_work(network, picture[:256, :256], CPU)()
    assert torch.allclose(restored[:, :, :192, :192], corner[:, :, :192, :192], atol=1e-5)
    whole, _ = peers.bare_work(network, picture, CPU)()
    assert not torch.allclose(restored, whole, atol=1e-4)


@pytest.mark.parametrize("side", [64, 640, 1504])
def test_the_photo_has_any_size_and_no_flat_parts(side):
    picture = peers.photo(side)
    assert picture.shape == (side, side, 3)
    assert picture.dtype == np.uint8
    corners = [picture[:64, :64], picture[-64:, -64:], picture[:64, -64:], picture[-64:, :64]]
    assert min(part.std() for part in corners) > 1


# -- arguments ----------------------------------------------------------------------------


def test_arguments_have_the_documented_defaults():
    assert vars(parse()) == {
        "size": 2048,
        "repeats": 3,
        "model": "default",
        "tile": "auto",
        "device": "auto",
        "full": False,
        "json": None,
    }
    assert parse("--tile", "512").tile == 512


@pytest.mark.parametrize(
    "words",
    [
        ("--size", "100"),
        ("--size", "16"),
        ("--size", "-64"),
        ("--repeats", "0"),
        ("--tile", "65"),
        ("--tile", "big"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(words, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(*words)
    assert stop.value.code == 2
    assert "must be" in capsys.readouterr().err


def test_a_place_for_the_json_is_checked_before_anything_is_measured(tmp_path, capsys):
    with pytest.raises(OutputError, match="no folder"):
        bench.main(parse("--json", str(tmp_path / "absent" / "bench.json")))
    assert capsys.readouterr().err == ""


def test_weights_that_are_not_there_are_named(tmp_path):
    with pytest.raises(WeightsError, match="absent"):
        bench.main(parse("--size", "64", "--model", str(tmp_path / "absent.safetensors")))
