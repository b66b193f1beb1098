"""Pictures with several blurs, how routing fares on them, and what shows it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_network, tiny_weights

import demoe
from demoe.choices import BLURS, TASKS
from demoe.cli import main
from demoe.model.loading import Model
from demoe.recipe import Recipe
from demoe.training.blur import composites
from demoe.training.blur.composites import LOCAL, Composite, composite
from demoe.training.blur.degradations import MARGIN, Blurred
from demoe.training.data import images as pictures
from demoe.training.data.crops import SharpImages
from demoe.training.data.procedural import procedural_images
from demoe.training.evaluate import mixed
from demoe.training.evaluate.mixed import MixedScores, Restored, measure_mixed, restore
from demoe.training.evaluate.mixed_sheet import COLUMNS, SIDE, mixed_sheet
from demoe.training.random import Draw

SMALL = 160
"""Side of a picture in pixels: three cells, the last cut short."""


@pytest.fixture(scope="module")
def images() -> SharpImages:
    return SharpImages(procedural_images(10, 80, seed=0))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return demoe.load_model(tiny_weights(tmp_path_factory.mktemp("mixed") / "w.safetensors"), "cpu")


def left_sharp(sharp: torch.Tensor, tasks: list[int], draw: Draw) -> Blurred:
    """Stand in for the degradations: an image of each task, blurred by none."""
    inner = sharp[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
    return Blurred(inner, inner, torch.tensor(tasks))


# -- the pictures ---------------------------------------------------------------------------


@pytest.mark.parametrize("tasks", [(0, 1, 3), (1, 2, 4), (0, 2, 3)], ids=str)
def test_a_composite_holds_its_blurs_in_known_places(
    images: SharpImages, tasks: tuple[int, ...]
) -> None:
    made = composite(images, tasks, SMALL, Draw(1))
    assert made.blurred.shape == made.target.shape == (SMALL, SMALL, 3)
    assert made.blurred.dtype == made.target.dtype == np.uint8
    assert made.shares.shape == (len(TASKS), SMALL, SMALL)
    np.testing.assert_allclose(made.shares.sum(axis=0), 1, atol=1e-5)
    assert made.shares.min() >= -1e-6
    for task, share in enumerate(made.shares):
        assert (share.mean() > 0.03) == (task in tasks)
    # Places mostly belong to one blur; borders are soft.
    sure = made.shares.max(axis=0)
    assert (sure > 0.9).mean() > 0.5
    assert (sure < 0.7).any()
    again = composite(images, tasks, SMALL, Draw(1))
    assert np.array_equal(made.blurred, again.blurred)
    assert not np.array_equal(made.blurred, composite(images, tasks, SMALL, Draw(2)).blurred)


def test_a_place_is_blurred_as_its_task_says(
    images: SharpImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def marked(sharp: torch.Tensor, tasks: list[int], draw: Draw) -> Blurred:
        data = left_sharp(sharp, tasks, draw)
        return replace(data, image=torch.full_like(data.image, 0.1 + tasks[0] / 10))

    monkeypatch.setattr(composites, "degrade", marked)
    made = composite(images, (0, 1, 4), SMALL, Draw(3))
    wanted = (made.shares * np.array([0.1, 0.2, 0.3, 0.4, 0.5])[:, None, None]).sum(axis=0)
    np.testing.assert_allclose(made.blurred[..., 0] / 255, wanted, atol=0.003)


def test_an_object_moves_in_front_of_what_is_behind(
    images: SharpImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composites, "degrade", left_sharp)
    still = composite(images, (0, 1, 4), SMALL, Draw(5))
    difference = np.abs(still.blurred.astype(int) - still.target)
    assert difference.max() <= 1
    moving = composite(images, (0, LOCAL, 4), SMALL, Draw(5))
    change = np.abs(moving.blurred.astype(float) - moving.target).mean(axis=2)
    inside, outside = moving.shares[LOCAL] > 0.5, moving.shares[LOCAL] < 1e-4
    assert change[inside].mean() > 3
    assert outside.mean() > 0.2
    assert change[outside].max() <= 1


def test_all_tasks_occur_equally_often(
    images: SharpImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr(composites, "composite", lambda _, tasks, *rest: seen.append(tasks))
    composites.composites(images, 20, SMALL, seed=0)
    assert len(seen) == 20
    assert [sum(task in tasks for tasks in seen) for task in range(5)] == [12] * 5


def test_cells_of_a_composite() -> None:
    shares = np.zeros((5, 160, 160), np.float32)
    shares[1, :, :96] = 1
    shares[3, :, 96:] = 1
    target = np.zeros((160, 160, 3), np.uint8)
    blurred = target.copy()
    blurred[:64, 128:] = 51
    made = Composite(blurred, target, shares)
    assert made.expert_map(64).tolist() == [[2, 2, 4]] * 3
    assert made.cells(64)[:, 0, 1].tolist() == [0, 0.5, 0, 0.5, 0]
    change = made.change(64)
    assert change.shape == (3, 3)
    assert change[0, 2] == pytest.approx(0.2, abs=1e-5)  # of a cell cut short
    assert change.sum() == pytest.approx(0.2, abs=1e-5)


def test_a_scene_has_no_edges_but_its_own(images: SharpImages) -> None:
    scene = composites._scene(images, 300, Draw(2))
    assert scene.shape == (1, 3, 300, 300)
    rows = (scene[..., 1:, :] - scene[..., :-1, :]).abs().amax(dim=(0, 1, 3))
    own = max(
        float((image[1:].float() - image[:-1].float()).abs().max() / 255) for image in images.images
    )
    assert float(rows.max()) <= own + 1e-6
    # A mirror shows the same row twice.
    assert int((rows == 0).sum()) >= 300 // 80


# -- the figures ----------------------------------------------------------------------------


def one_blur(task: int) -> Composite:
    rng = np.random.default_rng(task)
    target = rng.integers(0, 256, (SMALL, SMALL, 3), dtype=np.uint8)
    blurred = (0.5 * target + 60).astype(np.uint8)
    shares = np.zeros((len(TASKS), SMALL, SMALL), np.float32)
    shares[task] = 1
    return Composite(blurred, target, shares)


def test_ways_to_restore(model: Model) -> None:
    picture = one_blur(3)
    result = restore(model, picture, Recipe())
    assert list(result.pictures) == [mixed.IMAGE, mixed.LOCAL, mixed.PAINTED, mixed.MEAN]
    manual = demoe.deblur(picture.blurred, "YXS", model=model, routing=TASKS[3]).image.compute()
    np.testing.assert_allclose(result.pictures[mixed.PAINTED], manual, atol=1)
    network = tiny_network()
    network.top_k = len(TASKS)
    x = torch.from_numpy(picture.blurred).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        wanted = network(x, torch.full((1, 5), 0.2))[0][0].permute(1, 2, 0).clamp(0, 1) * 255
    np.testing.assert_allclose(result.pictures[mixed.MEAN], wanted, atol=0.51)
    one = result.maps[mixed.IMAGE]
    assert one.shape == result.maps[mixed.LOCAL].shape == (3, 3)
    assert (one == one[0, 0]).all()


def test_cells_are_counted_where_there_is_something_to_tell(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = one_blur(0)
    picture.shares[:, :, 64:128] = 0
    picture.shares[4, :, 64:96] = 1  # half of a column of cells
    picture.shares[0, :, 96:128] = 1
    picture.blurred[:64, :64] = picture.target[:64, :64]  # nothing was done
    found = np.array([[5, 5, 1], [1, 1, 1], [2, 3, 4]], np.uint8)

    def restored(model: Model, picture: Composite, recipe: Recipe) -> Restored:
        maps = {mixed.IMAGE: np.full((3, 3), 2, np.uint8), mixed.LOCAL: found}
        ways = (mixed.IMAGE, mixed.LOCAL, mixed.PAINTED, mixed.MEAN)
        return Restored(dict.fromkeys(ways, picture.target), maps)

    monkeypatch.setattr(mixed, "restore", restored)
    scores, results = measure_mixed(model, [picture, picture], Recipe())
    assert len(results) == 2
    assert scores.cells == 18
    assert scores.confusion[mixed.LOCAL] == [[6, 2, 0, 2, 0], *[[0] * 5] * 4]
    assert scores.confusion[mixed.IMAGE] == [[0, 10, 0, 0, 0], *[[0] * 5] * 4]
    assert scores.psnr[mixed.PAINTED] == [np.inf] * 2
    assert len(scores.psnr[mixed.BLURRED]) == 2


def made_mixed() -> MixedScores:
    confusion = [[0] * 5 for _ in TASKS]
    confusion[0][0], confusion[1][2], confusion[4][0] = 5, 3, 2
    image = [[0] * 5 for _ in TASKS]
    image[0][0], image[1][0], image[4][0] = 5, 3, 2
    psnr = {
        mixed.BLURRED: [20.0, 22.0],
        mixed.IMAGE: [21.0, 23.0],
        mixed.LOCAL: [21.5, 22.9],
        mixed.PAINTED: [22.0, 24.0],
        mixed.MEAN: [20.5, 22.5],
    }
    return MixedScores(psnr, {mixed.IMAGE: image, mixed.LOCAL: confusion}, cells=16)


def test_summaries() -> None:
    table = made_mixed().table()
    assert "| blurred | 21.00 dB | | | | |" in table
    assert "| one decision | 22.00 dB | +1.00 dB | | | 50 % |" in table
    assert "| +1.20 dB | +0.20 ± 0.30 dB | 1 of 2 pictures | 50 % |" in table
    assert "| +2.00 dB | +1.00 ± 0.00 dB | 2 of 2 pictures | |" in table
    assert "10 of 16 cells hold one blur to tell" in table
    assert "right in 50 % of five, 80 % with motion as one." in table
    figures = json.loads(json.dumps(made_mixed().to_dict()))
    assert figures["mean_psnr"]["mean of experts"] == 21.5
    assert figures["accuracy_motion_as_one"] == {"one decision": 0.5, "local routing": 0.8}


# -- what shows them ------------------------------------------------------------------------


def test_the_sheet_shows_both_maps() -> None:
    picture = one_blur(1)
    picture.blurred[:] = 0
    found = np.full((3, 3), 5, np.uint8)
    ways = (mixed.IMAGE, mixed.LOCAL, mixed.PAINTED, mixed.MEAN)
    result = Restored(dict.fromkeys(ways, picture.target), {mixed.LOCAL: found})
    drawn = np.asarray(mixed_sheet([picture] * 6, [result] * 6, title="t", pitch=64))
    assert drawn.shape[1] > len(COLUMNS) * SIDE
    assert drawn.shape[0] < 5.5 * SIDE  # four of six
    for value in (2, 5):
        tint = np.round(0.6 * np.array(BLURS[value - 1].colour))
        assert (np.abs(drawn - tint) <= 1).all(axis=2).sum() >= 4 * SIDE**2


def test_the_command(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pictures, "PROCEDURAL_HELD_OUT", 10)
    weights = tiny_weights(tmp_path / "tiny.safetensors")
    figures, sheet = tmp_path / "figures.json", tmp_path / "sheet.png"
    line = ["evaluate", "--mixed", "--model", str(weights), "--device", "cpu", "--crop", "160"]
    line += ["--pictures", "1"]
    assert main([*line, "--json", str(figures), "--sheet", str(sheet)]) == 0
    printed = capsys.readouterr().out
    assert "1 pictures of 160 px" in printed
    for name in (mixed.BLURRED, mixed.IMAGE, mixed.LOCAL, mixed.PAINTED, mixed.MEAN):
        assert f"| {name} |" in printed
    found = json.loads(figures.read_text())
    assert found["cells"] == 9
    assert set(found["accuracy"]) == {mixed.IMAGE, mixed.LOCAL}
    assert found["model"] == str(weights)
    with Image.open(sheet) as drawn:
        assert drawn.format == "PNG"

    recipe = tmp_path / "recipe.json"
    recipe.write_text(Recipe(pitch=32, window=64, routing="defocus").to_json())
    assert main([*line, "--recipe", str(recipe), "--json", str(figures)]) == 0
    fine = json.loads(figures.read_text())
    assert fine["cells"] == 25
    assert fine["psnr"][mixed.IMAGE] == found["psnr"][mixed.IMAGE]
    capsys.readouterr()
    recipe.write_text("{")
    assert main([*line, "--recipe", str(recipe)]) == 2
    assert "is not valid JSON" in capsys.readouterr().err

    assert main([*line, "--crop", "100"]) == 2
    assert "--crop must be at least 128 px here, not 100." in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main([*line, "--reference"])
    assert end.value.code == 2
    assert "not allowed with argument --mixed" in capsys.readouterr().err
