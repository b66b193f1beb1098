"""What is measured on weights: the halo that is wide enough, and where that is kept."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tiny import CONFIG, tiny_network, tiny_weights

import demoe
from demoe.cli import main
from demoe.engine.guard import Bound, Bounds
from demoe.errors import OutputError, WeightsError
from demoe.model.calibration import measuring as calibration
from demoe.model.calibration.measuring import (
    LEAST,
    METADATA_KEY,
    PRECISIONS,
    TILING_MARGIN,
    VERSION,
    Calibration,
    add_calibration,
    calibrate,
    calibration_metadata,
    calibration_of,
)
from demoe.model.calibration.pictures import pictures
from demoe.model.checkpoint import read_state_dict, write_weights
from demoe.model.demoe.config import NetworkConfig
from demoe.model.demoe.receptive_field import exact_halo
from demoe.model.demoe.tenant import plain
from demoe.model.loading import Model, load_model
from demoe.model.zoo import cache_dir
from demoe.samples.images import load_sample

SMALL = NetworkConfig(4, (1, 1), 1, (1, 1), router_width=16, router_hidden=8)


@pytest.fixture(scope="module")
def measured() -> Calibration:
    return calibrate(plain(tiny_network()))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, measured: Calibration) -> Model:
    """A tiny network whose file says what was measured."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    metadata = {METADATA_KEY: measured.to_json()}
    write_weights(path, tiny_network().state_dict(), metadata)
    return load_model(path, "cpu")


def example(exact: int = 16) -> Calibration:
    bound = Bound(0.5, 2.0)
    halos = {"8-bit": 0, "16-bit": 4, "float": exact}
    return Calibration(halos, (0.1, 1e-5), Bounds(bound, bound, bound), 0.5)


# -- pictures --------------------------------------------------------------------------------------


def test_pictures_are_always_the_same_ones() -> None:
    first, again = list(pictures(128)), list(pictures(128))
    assert len({p.name for p in first}) == len(first) >= 7
    assert sum(p.ordinary for p in first) >= 6
    for one, other in zip(first, again, strict=True):
        assert one.values.shape == (128, 128, 3)
        assert one.values.dtype == np.float32
        assert one.values.min() >= 0
        assert one.values.max() <= 1
        np.testing.assert_array_equal(one.values, other.values)


# -- halos -----------------------------------------------------------------------------------------


def test_finer_steps_need_wider_halos(measured: Calibration) -> None:
    eight, sixteen, floats = (measured.halos[name] for name in ("8-bit", "16-bit", "float"))
    assert 0 < eight < sixteen <= floats == exact_halo(CONFIG)
    assert eight % CONFIG.multiple == sixteen % CONFIG.multiple == 0
    assert len(measured.tiling_errors) == exact_halo(CONFIG) // CONFIG.multiple
    assert list(measured.tiling_errors) == sorted(measured.tiling_errors, reverse=True)
    for name, half in PRECISIONS.items():
        step = measured.halos[name] // CONFIG.multiple
        assert TILING_MARGIN * measured.tiling_errors[step] < half
        assert TILING_MARGIN * measured.tiling_errors[step - 1] >= half


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        ("uint8", "8-bit"),
        ("int8", "8-bit"),
        ("uint16", "16-bit"),
        ("int16", "16-bit"),
        ("uint32", "16-bit"),
        ("int64", "16-bit"),
        ("float16", "float"),
        ("float32", "float"),
        ("float64", "float"),
    ],
)
def test_the_halo_follows_from_the_dtype(measured: Calibration, dtype: str, name: str) -> None:
    assert measured.halo_for(np.dtype(dtype)) == measured.halos[name]


def test_a_network_that_looks_near_needs_little() -> None:
    # As deep as the others, but no block looks aside: a cut reaches its own cell of the grid, and
    # by the last convolution one pixel of the next.
    network = tiny_network()
    for name, parameter in network.named_parameters():
        if name.endswith("beta"):
            parameter.zero_()
    found = calibrate(plain(network))
    assert found.halos == {"8-bit": 32, "16-bit": 32, "float": exact_halo(CONFIG)}


def test_a_network_that_does_nothing_needs_nothing() -> None:
    network = tiny_network(config=SMALL)
    for parameter in network.ending.parameters():
        parameter.zero_()
    found = calibrate(plain(network))
    assert found.halos == {"8-bit": 0, "16-bit": 0, "float": exact_halo(SMALL)}
    assert found.guard == Bounds(LEAST, LEAST, LEAST)


def test_a_broken_network_gets_the_exact_halo() -> None:
    network = tiny_network(config=SMALL)
    network.ending.bias[0] = torch.nan
    found = calibrate(plain(network))
    assert set(found.halos.values()) == {exact_halo(SMALL)}
    assert Calibration.from_json(found.to_json(), plain(network)) is None  # never kept


def test_measuring_leaves_the_network_alone_and_gives_the_same_again() -> None:
    network = tiny_network(config=SMALL).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert calibrate(plain(network)) == calibrate(plain(network))
    assert network.training
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


PICTURES = {"uint8": "page", "uint16": "pollen"}


@pytest.mark.parametrize("task", ["defocus", "low_light"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_the_halo_is_wide_enough_on_other_pictures(model: Model, dtype: str, task: str) -> None:
    name = PICTURES[dtype]
    pixels = np.asarray(load_sample(name).blurred.data)[:256, :256]
    assert pixels.dtype == dtype
    full = np.iinfo(dtype).max
    picture = pixels.astype(np.float32) / full  # floats, so that rounding hides nothing

    def result(**fields) -> np.ndarray:
        fields = {"model": model, "routing": task, "tile": 64, "intensity": (0, 1)} | fields
        return demoe.deblur(picture, **fields).image.compute()

    exact = result()
    name = f"{8 * pixels.itemsize}-bit"
    found = result(halo=model.calibration.halos[name])
    assert np.abs(found - exact).max() < PRECISIONS[name]
    assert np.abs(result(halo=0) - exact).max() > PRECISIONS[name]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_auto_takes_the_halo_of_the_dtype(model: Model, dtype: str) -> None:
    pixels = np.zeros((200, 130), dtype)

    def halo(**fields) -> int:
        result = demoe.deblur(pixels, model=model, tile=64, **fields)
        assert result.provenance["tiles"]["halo"] == result.plan.halo
        return result.plan.halo

    wanted = model.calibration.halo_for(pixels.dtype)
    assert halo() == wanted
    assert halo(photometry="preserve") == wanted + 32
    assert halo(pooling="tile") == model.halo
    assert halo(halo=16) == 16


def test_integers_are_the_same_but_for_ties(model: Model) -> None:
    pixels = np.asarray(load_sample("page").blurred.data)[:256, :256]
    fields = {"model": model, "routing": "defocus", "tile": 64}
    found = demoe.deblur(pixels, **fields)
    exact = demoe.deblur(pixels, halo=model.halo, **fields)
    assert found.plan.halo < exact.plan.halo
    apart = np.abs(found.image.compute().astype(int) - exact.image.compute())
    assert apart.max() <= 1


# -- where it is kept ------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch) -> list[int]:
    """Replace measuring by counting."""
    calls: list[int] = []

    def count(network) -> Calibration:
        calls.append(1)
        return example()

    monkeypatch.setattr(calibration, "calibrate", count)
    return calls


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("DEMOE_CACHE", str(tmp_path / "cache"))
    return cache_dir() / "calibration"


def test_json_is_read_back_equal(measured: Calibration) -> None:
    assert Calibration.from_json(measured.to_json(), plain(tiny_network())) == measured


def changed(**changes) -> str:
    return json.dumps(json.loads(example().to_json()) | changes)


DAMAGED = [
    "",
    "no JSON",
    "[1, 2]",
    "null",
    "{}",
    "[" * 100_000,
    example().to_json()[:-20],
    changed(version=VERSION + 1),
    changed(halos={"8-bit": 0, "16-bit": 4}),
    changed(halos={"8-bit": 0, "16-bit": 4, "float": 4096}),
    changed(halos={"8-bit": 2, "16-bit": 4, "float": 16}),
    changed(halos={"8-bit": -4, "16-bit": 4, "float": 16}),
    changed(halos={"8-bit": None, "16-bit": 4, "float": 16}),
    changed(guard={"peak": {"floor": 1, "slope": 1}}),
    changed(guard={name: {"floor": float("nan"), "slope": 1} for name in ("peak", "rms", "shift")}),
    changed(tiling_errors="many"),
    changed(tiling_errors=[float("inf")]),
]


@pytest.mark.parametrize("text", DAMAGED)
def test_what_is_damaged_is_not_believed(text: str) -> None:
    tenant = plain(tiny_network(config=SMALL))
    assert Calibration.from_json(example().to_json(), tenant) == example()
    assert Calibration.from_json(text, tenant) is None


@pytest.mark.parametrize("text", [None, *DAMAGED, '{"sha256": "b", "calibration": "{}"}'])
def test_it_is_measured_once_and_again_when_the_cache_is_damaged(counted, cache, text) -> None:
    network = tiny_network(config=SMALL)
    for _ in range(2):
        assert calibration_of(plain(network), lambda: plain(network), "a", {}) == example()
    assert len(counted) == 1
    assert [file.name for file in cache.iterdir()] == ["a.json"]
    if text is not None:
        (cache / "a.json").write_text(text)
        assert calibration_of(plain(network), lambda: plain(network), "a", {}) == example()
        assert len(counted) == 2
        assert calibration_of(plain(network), lambda: plain(network), "a", {}) == example()
        assert len(counted) == 2


def test_what_was_measured_on_other_weights_is_not_taken(counted, cache) -> None:
    network = tiny_network(config=SMALL)
    calibration_of(plain(network), lambda: plain(network), "a", {})
    (cache / "b.json").write_bytes((cache / "a.json").read_bytes())
    calibration_of(plain(network), lambda: plain(network), "b", {})
    assert len(counted) == 2


def test_bytes_that_are_no_text_are_measured_again(counted, cache) -> None:
    cache.mkdir(parents=True)
    (cache / "a.json").write_bytes(b"\xff\xfe\x00")
    assert calibration_of(plain(tiny_network(config=SMALL)), lambda: None, "a", {}) == example()
    assert len(counted) == 1


@pytest.mark.parametrize("place", ["no folder", "full"])
def test_a_cache_that_cannot_be_written_is_no_error(
    counted, monkeypatch, tmp_path, place: str
) -> None:
    monkeypatch.setenv("DEMOE_CACHE", str(tmp_path / "cache"))
    if place == "no folder":
        (tmp_path / "cache").write_text("a file")
    else:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
    for _ in range(2):
        assert calibration_of(plain(tiny_network(config=SMALL)), lambda: None, "a", {}) == example()
    assert len(counted) == 2
    assert not list(tmp_path.rglob("*.partial"))


def test_metadata_saves_measuring(counted, cache) -> None:
    network = tiny_network(config=SMALL)
    known = {METADATA_KEY: example().to_json()}
    assert calibration_of(plain(network), lambda: plain(network), "a", known) == example()
    assert not counted
    assert not cache.exists()
    assert calibration_metadata(plain(network)) == known


def test_a_loaded_model_is_measured_when_asked_and_once(counted, cache, tmp_path) -> None:
    model = load_model(tiny_weights(tmp_path / "a.safetensors", config=SMALL, seed=3), "cpu")
    assert not counted
    assert model.calibration is model.calibration
    assert len(counted) == 1
    assert (cache / f"{model.sha256}.json").is_file()


def test_it_can_be_added_to_a_file(counted, tmp_path) -> None:
    path = tmp_path / "a.safetensors"
    written = {"config": "{}", "card": "mine"}
    write_weights(path, tiny_network(config=SMALL).state_dict(), written, half=True)
    before = read_state_dict(path)[0]
    assert add_calibration(path) == example()
    after, metadata = read_state_dict(path)
    assert metadata == written | {METADATA_KEY: example().to_json()}
    assert load_model(path, "cpu").calibration == example()
    assert len(counted) == 1
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=0)
    with safe_open(path, framework="pt") as file:
        assert file.get_slice("intro.weight").get_dtype() == "F16"


def test_a_published_file_has_no_place_for_it(counted, tmp_path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"params": tiny_network(config=SMALL).state_dict()}, path)
    content = path.read_bytes()
    with pytest.raises(WeightsError, match="is no safetensors file, so nothing can be added"):
        add_calibration(path)
    assert path.read_bytes() == content
    assert load_model(path, "cpu").calibration == example()


def test_a_file_stays_as_it_was_where_nothing_can_be_written(counted, tmp_path, monkeypatch):
    path = tiny_weights(tmp_path / "a.safetensors", config=SMALL)
    content = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        add_calibration(path)
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_command_line_shows_and_stores_it(counted, cache, tmp_path, capsys) -> None:
    path = tiny_weights(tmp_path / "a.safetensors", config=SMALL)
    assert main(["models", "calibrate", str(path)]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(example().to_json())
    assert METADATA_KEY not in read_state_dict(path)[1]
    assert main(["models", "calibrate", str(path), "--store"]) == 0
    assert METADATA_KEY in read_state_dict(path)[1]
    assert main(["models", "calibrate", str(tmp_path / "none.safetensors")]) == 1


def test_the_bundled_weights_say_what_was_measured(counted) -> None:
    model = load_model("default", "cpu")
    assert model.calibration.version == VERSION
    assert model.calibration.halos["8-bit"] < model.calibration.halos["16-bit"] < model.halo
    assert not counted
