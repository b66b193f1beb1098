"""Figures of a network: measures, classical peers, tables, the picture sheet and the command."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from figures import made_scores
from PIL import Image
from tiny import tiny_weights

from demoe.choices import TASKS
from demoe.cli import main
from demoe.errors import OutputError
from demoe.model import zoo
from demoe.model.demoe.config import NetworkConfig
from demoe.model.demoe.network import DeMoENet
from demoe.model.hub import HubFile
from demoe.training.blur import degradations, kernels
from demoe.training.blur.degradations import Psf, to_display, to_linear
from demoe.training.data import images as pictures
from demoe.training.data.crops import SharpImages
from demoe.training.data.procedural import procedural_images
from demoe.training.evaluate import metrics
from demoe.training.evaluate.evaluation import evaluate
from demoe.training.evaluate.grid import Panel, check_picture, draw_grid, to_pixels
from demoe.training.evaluate.metrics import find_measures, psnr, ssim
from demoe.training.evaluate.peers import PEERS, richardson_lucy, wiener
from demoe.training.evaluate.scores import compare
from demoe.training.evaluate.sheet import COLUMNS, SIDE, evaluation_sheet

CONFIG = NetworkConfig(4, (1, 1), 1, (1, 1), router_width=32, router_hidden=16)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images() -> SharpImages:
    return SharpImages(procedural_images(10, 80, seed=0))


@pytest.fixture
def network() -> DeMoENet:
    """A network that changes nothing."""
    made = DeMoENet(CONFIG).eval()
    for parameter in made.ending.parameters():
        torch.nn.init.zeros_(parameter)
    return made


def picture(side: int = 96) -> torch.Tensor:
    """Return blocks of colour (1, 3, side, side), neither black nor white."""
    blocks = 0.1 + 0.8 * torch.rand(1, 3, side // 8, side // 8)
    return blocks.repeat_interleave(8, 2).repeat_interleave(8, 3)


# -- measures -------------------------------------------------------------------------------


def test_psnr() -> None:
    target = torch.full((3, 3, 4, 4), 0.5)
    image = target.clone()
    image[0] += 0.1
    image[1] += 9.0  # beyond white is white
    found = psnr(image, target)
    assert found.tolist() == pytest.approx([20.0, 20 * np.log10(2), 100.0], abs=1e-3)


def test_ssim_is_that_of_wang() -> None:
    target = picture()
    noisy = target + 0.1 * torch.randn_like(target)
    flat = torch.full_like(target, 0.5)
    found = ssim(torch.cat([target, noisy, flat]), target.expand(3, -1, -1, -1))
    assert found.shape == (3,)
    assert found[0] == pytest.approx(1)
    assert 0.2 < found[1] < 0.95
    # Of two constants only the comparison of their levels is left.
    a, b, c = 0.5, 0.75, 0.01**2
    levels = ssim(torch.full((1, 3, 16, 16), a), torch.full((1, 3, 16, 16), b))
    assert float(levels) == pytest.approx((2 * a * b + c) / (a * a + b * b + c), abs=1e-4)


def test_what_cannot_be_measured_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    measures, missing = find_measures(CPU)
    assert not measures
    assert len(missing) == 2
    assert "pip install 'napari-demoe[evaluate]'" in missing[0]
    assert "lpips" in missing[1]


def fake_lpips(
    monkeypatch: pytest.MonkeyPatch, hub: Path
) -> Callable[[], tuple[dict[str, metrics.Measure], list[str]]]:
    """Stand in for packages that are not installed here; their network is a mean difference."""

    class Distance(torch.nn.Module):
        def __init__(self, net: str, verbose: bool) -> None:
            super().__init__()
            assert net == "alex"

        def forward(self, a: torch.Tensor, b: torch.Tensor, normalize: bool) -> torch.Tensor:
            assert normalize
            assert a.min() >= 0
            return (a - b).abs().mean(dim=(1, 2, 3), keepdim=True)

    weights = SimpleNamespace(url="https://example.org/alexnet-1234.pth")
    models = ModuleType("torchvision.models")
    models.AlexNet_Weights = SimpleNamespace(IMAGENET1K_V1=weights)  # type: ignore[attr-defined]
    lpips = ModuleType("lpips")
    lpips.LPIPS = Distance  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lpips", lpips)
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    monkeypatch.setattr(metrics, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(hub))
    return lambda: find_measures(CPU)


def test_lpips_is_taken_only_where_its_weights_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    find = fake_lpips(monkeypatch, tmp_path)
    measures, missing = find()
    assert set(measures) == {"ssim"}
    assert missing == ["LPIPS is left out: its weights alexnet-1234.pth are not on this machine."]
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "alexnet-1234.pth").touch()
    measures, missing = find()
    assert set(measures) == {"ssim", "lpips"}
    assert not missing
    image = torch.tensor([-1.0, 0.25, 0.5])[:, None, None, None].expand(3, 3, 32, 32)
    found = measures["lpips"](image, torch.zeros_like(image))
    assert found.tolist() == [0, 0.25, 0.5]


def test_a_torchvision_for_another_torch_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    find = fake_lpips(monkeypatch, tmp_path)

    def broken(name: str) -> ModuleType:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(metrics.importlib, "import_module", broken)
    measures, missing = find()
    assert set(measures) == {"ssim"}
    assert "torchvision does not work here (operator torchvision::nms" in missing[0]


# -- classical methods ----------------------------------------------------------------------


@pytest.mark.parametrize("peer", [wiener, richardson_lucy], ids=lambda peer: peer.__name__)
@pytest.mark.parametrize("in_light", [False, True])
def test_peers_undo_a_known_blur(peer, in_light: bool) -> None:
    sharp = picture()
    psf = Psf(kernels.from_path(41, kernels.line(9, 0.4)), in_light)
    # Blurred as a scene is that goes on beyond the borders.
    values = kernels.convolve(to_linear(sharp) if in_light else sharp, psf.kernel[None])
    blurred = to_display(values.clamp(0, 1)) if in_light else values.clamp(0, 1)
    inner = (..., slice(24, -24), slice(24, -24))
    before = psnr(blurred[inner], sharp[inner])
    own = psnr(peer(blurred, psf)[inner], sharp[inner])
    other = psnr(peer(blurred, Psf(psf.kernel, not in_light))[inner], sharp[inner])
    turned = psnr(peer(blurred, Psf(psf.kernel.T, in_light))[inner], sharp[inner])
    assert own > before + 1
    assert own > other + 0.2  # where the blur happened matters
    assert own > turned + 3


@pytest.mark.parametrize("peer", [wiener, richardson_lucy], ids=lambda peer: peer.__name__)
def test_peers_keep_what_a_blur_leaves_alone(peer) -> None:
    """A border that is taken for an edge would ring."""
    flat = torch.tensor([0.2, 0.5, 0.8])[None, :, None, None].expand(2, -1, 40, 56)
    for in_light in (False, True):
        found = peer(flat, Psf(kernels.disk(41, 5.0), in_light))
        torch.testing.assert_close(found, flat, atol=2e-3, rtol=0)


# -- the figures ----------------------------------------------------------------------------


def test_a_network_that_changes_nothing_gains_nothing(
    network: DeMoENet, images: SharpImages
) -> None:
    scores = evaluate(network, images, per_task=3, crop=32, batch=2, measures={"ssim": ssim})
    assert set(scores.tasks) == set(TASKS)
    for score in scores.tasks.values():
        assert score.gain == 0
        assert score.manual == score.automatic == score.blurred
        assert 5 < score.blurred < 60
        assert score.drift == 0
        assert score.drift_from_truth > 0
        assert score.similarity["ssim"]["automatic"] == score.similarity["ssim"]["blurred"] < 1
        assert score.peers is None
    assert scores.sharp == pytest.approx(100, abs=1e-3)
    assert scores.mean_gain == 0
    assert scores.seconds > 0
    assert [sum(row) for row in scores.confusion] == [3] * 5


def test_figures_follow_from_what_the_network_does(network: DeMoENet, images: SharpImages) -> None:
    with torch.no_grad():
        network.ending.bias.fill_(0.1)
    scores = evaluate(network, images, per_task=3, crop=32)
    again = evaluate(network, images, per_task=3, crop=32)
    other = evaluate(network, images, per_task=3, crop=32, seed=2)
    assert scores == again
    assert scores != other
    # Every value rises by 0.1, except where that is beyond white.
    assert 20 <= scores.sharp < 26
    for score in scores.tasks.values():
        assert score.gain == pytest.approx(score.automatic - score.blurred)
        assert score.gain < 0
        assert score.drift > 0.05


def test_peers_are_asked_where_one_kernel_has_blurred(
    network: DeMoENet, images: SharpImages
) -> None:
    asked: list[tuple[torch.Tensor, Psf]] = []

    def perfect(image: torch.Tensor, psf: Psf) -> torch.Tensor:
        asked.append((image, psf))
        return image + 0.01

    plain = evaluate(network, images, per_task=5, crop=32, batch=5)
    scores = evaluate(
        network, images, per_task=5, crop=32, batch=5, measures={"ssim": ssim}, peers={"p": perfect}
    )
    assert scores.confusion == plain.confusion
    assert scores.sharp == plain.sharp  # nothing is drawn for the peers
    assert scores.tasks["local_motion"].peers is None
    for name in ("defocus", "synth_global_motion", "low_light"):
        score = scores.tasks[name]
        assert score.peers is not None
        assert score.peers.images == 5
        assert set(score.peers.measures) == {"psnr", "ssim"}
        means = score.peers.measures["psnr"]
        assert means["blurred"] == pytest.approx(score.blurred)
        assert means["p"] != means["blurred"]
    rolling = scores.tasks["global_motion"].peers
    assert len(asked) == 15 + (rolling.images if rolling else 0)
    assert all(psf.kernel.shape == (degradations.KERNEL,) * 2 for _, psf in asked)


def test_summaries() -> None:
    scores = made_scores()
    assert scores.mean_gain == pytest.approx((1 + 2 + 3 + 4 + 5) / 5)
    assert scores.accuracy == pytest.approx((8 + 4 + 5 + 8 + 10) / 50)
    assert scores.accuracy_motion_as_one == pytest.approx((8 + 10 + 10 + 9 + 10) / 50)
    table = scores.table().splitlines()
    line = "| local_motion | 22.00 dB | 25.00 dB | +3.00 dB | 26.00 dB | 1.00 % | 2.20 % |"
    assert line in table
    assert "| mean | | | +3.00 dB | | | |" in table
    router = "Router: 70 % of five, 94 % with motion as one. Sharp input kept to 41.2 dB."
    assert table[-1] == router
    details = scores.details()
    assert "| SSIM | blurred | automatic | manual |" in details
    assert "| global_motion | 0.700 | 0.710 | 0.800 |" in details
    assert "| PSNR | images | blurred | automatic | manual | wiener |" in details
    assert "| low_light | 6 | 20.50 | 21.50 | 22.50 | 27.00 |" in details
    assert "| local_motion | 0 | | | | |" in details
    assert "no single kernel" in details
    assert "| synth_global_motion | 1 | 0 | 1 | 8 | 0 |" in details
    for row in (*table, *details.splitlines()):
        assert "  |" not in row
    figures = json.loads(json.dumps(scores.to_dict()))
    assert figures["tasks"]["low_light"]["gain"] == 5.0
    assert figures["tasks"]["low_light"]["peers"]["measures"]["psnr"]["wiener"] == 27.0
    assert figures["tasks"]["local_motion"]["peers"] is None
    assert figures["confusion"] == scores.confusion
    assert figures["seconds_a_megapixel"] == 1.5


def test_networks_side_by_side() -> None:
    table = compare({"default": made_scores(), "demoe": made_scores()}).splitlines()
    assert table[0] == "| gain | default | default, manual | demoe | demoe, manual |"
    assert "| low_light | +5.00 dB | +6.00 dB | +5.00 dB | +6.00 dB |" in table
    assert table[-1] == "| router right | 70 % | | 70 % | |"


# -- the sheet ------------------------------------------------------------------------------


def test_a_grid_shows_its_pictures() -> None:
    red = to_pixels(torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 16, 16))
    blue = np.full((20, 20, 3), (0, 0, 255), np.uint8)
    drawn = np.asarray(
        draw_grid("title", ("a", "b"), [("row\nmore", [Panel(red, "x"), Panel(blue)])], side=32)
    )
    for colour in ((255, 0, 0), (0, 0, 255)):
        assert (drawn == colour).all(axis=2).sum() == 32 * 32
    assert (drawn.sum(axis=2) < 200).any()  # words
    empty = np.asarray(draw_grid("", (), [], side=32))
    assert (empty == 255).all()


def test_the_sheet_shows_each_task_and_a_microscope(network: DeMoENet, images: SharpImages) -> None:
    with torch.no_grad():
        network.ending.bias.copy_(torch.tensor([-9.0, -9.0, 9.0]))  # all that comes out is blue
    sheet = evaluation_sheet(network, images, title="t", crop=64, seed=3)
    pixels = np.asarray(sheet)
    blue = (pixels == (0, 0, 255)).all(axis=2)
    assert blue.sum() == 2 * (len(TASKS) + 1) * SIDE**2
    # The second and the fifth column are outputs.
    panels = np.flatnonzero(np.diff(blue.any(axis=0).astype(int)))
    assert len(panels) == 4
    assert (panels[2] - panels[0]) * len(COLUMNS) == 3 * (SIDE + 10) * len(COLUMNS)
    again = evaluation_sheet(network, images, title="t", crop=64, seed=3)
    other = evaluation_sheet(network, images, title="t", crop=64, seed=4)
    assert np.array_equal(pixels, np.asarray(again))
    assert not np.array_equal(pixels, np.asarray(other))


def test_a_sheet_needs_the_name_of_a_picture(tmp_path: Path) -> None:
    check_picture(tmp_path / "a.JPG")
    with pytest.raises(OutputError, match=r"a\.gif is no name of a picture; end it with"):
        check_picture(tmp_path / "a.gif")
    with pytest.raises(OutputError, match="no folder"):
        check_picture(tmp_path / "absent" / "a.png")


# -- the command ----------------------------------------------------------------------------


def call(*arguments: object) -> int:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A command line for a tiny network on few images."""
    monkeypatch.setattr(pictures, "PROCEDURAL_HELD_OUT", 10)
    weights = tiny_weights(tmp_path / "tiny.safetensors")
    small = ["--device", "cpu", "--per-task", 1, "--crop", 32]
    return ["evaluate", "--model", weights, *small]


def test_evaluate_prints_tables_and_writes_figures_and_sheet(
    tmp_path: Path, measure: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    figures, sheet = tmp_path / "figures.json", tmp_path / "sheet.jpg"
    assert call(*measure, "--json", figures, "--sheet", sheet) == 0
    printed = capsys.readouterr().out
    for words in (
        "million parameters, ",
        "| defocus |",
        "Router: ",
        "| SSIM | blurred |",
        "| richardson lucy |",
        "| true \\ chosen |",
        "s a megapixel",
        "LPIPS is left out",
    ):
        assert words in printed
    found = json.loads(figures.read_text())
    assert found["bytes"] == (tmp_path / "tiny.safetensors").stat().st_size
    assert found["parameters"] > 1000
    peers = found["tasks"]["defocus"]["peers"]
    assert set(peers["measures"]["psnr"]) == {"blurred", "automatic", "manual", *PEERS}
    assert all(math.isfinite(value) for value in peers["measures"]["ssim"].values())
    assert "reference" not in found
    with Image.open(sheet) as drawn:
        assert drawn.format == "JPEG"
        assert drawn.width > len(COLUMNS) * SIDE


def test_without_scikit_image_the_rest_is_measured(
    measure: list[object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    assert call(*measure) == 0
    printed = capsys.readouterr().out
    assert "| defocus |" in printed
    assert "napari-demoe[evaluate]" in printed
    assert "wiener" not in printed
    assert "SSIM |" not in printed


def test_the_reference_is_measured_where_it_is(
    tmp_path: Path,
    measure: list[object],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    figures = tmp_path / "figures.json"
    assert call(*measure, "--reference", "--json", figures) == 0
    shown = capsys.readouterr()
    assert "get them with `demoe models download demoe`" in shown.err
    assert shown.err.count("\n") == 1
    assert "reference" not in json.loads(figures.read_text())

    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setenv("DEMOE_CACHE", str(cache))
    released = tiny_weights(cache / "demoe.safetensors", seed=1)
    file = HubFile("someone/space", "x.safetensors", released.stat().st_size, "0")
    monkeypatch.setitem(zoo.RELEASES, "demoe", zoo.Release(file, "", "CC"))
    assert call(*measure, "--reference", "--json", figures) == 0
    shown = capsys.readouterr()
    assert "download" not in shown.err
    assert "| demoe, manual |" in shown.out
    assert "brighten low light" in shown.out
    found = json.loads(figures.read_text())
    assert found["reference"]["model"] == "demoe"
    assert found["reference"]["sha256"] != found["sha256"]
    # Both were shown the same pictures.
    for name in TASKS:
        of_reference = found["reference"]["tasks"][name]
        assert of_reference["blurred"] == found["tasks"][name]["blurred"]
        assert of_reference["automatic"] != found["tasks"][name]["automatic"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--crop", "31"], 2, "--crop must be at least 32 px here, not 31."),
        (["--crop", "5000"], 1, "at most 192 px do"),
        (["--recipe", "r.json"], 2, "--recipe is for --mixed"),
        (["--sheet", "sheet.tif"], 1, "end it with .jpg or .png"),
        (["--sheet", "absent/sheet.png"], 1, "no folder absent"),
        (["--device", "cuda:88"], 1, "cuda:88 is not available"),
        (["--pack", "absent"], 1, "absent"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_are_told_in_one_sentence(
    measure: list[object],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    assert call(*measure, *arguments) == code
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert "|" not in shown.out
