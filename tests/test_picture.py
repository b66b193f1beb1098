"""The demo picture: what it shows, where, and how it fails."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demoe.choices import BLURS
from demoe.errors import ImageError, OutputError
from demoe.samples.picture import SheetRow, contact_sheet, draw_sheet, most_changed, psnr


def row(height: int = 256, width: int = 256, **changes: object) -> SheetRow:
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    blurred = (sharp // 2 + 64).astype(np.uint8)
    restored = (sharp // 4 * 3 + 32).astype(np.uint8)
    fields = {
        "title": "Noise",
        "blurred": blurred,
        "restored": restored,
        "expert_map": np.ones((4, 4), np.uint8),
        "sharp": sharp,
    }
    return SheetRow(**{**fields, **changes})  # type: ignore[arg-type]


def near(sheet: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.abs(sheet.astype(int) - colour).max(axis=2) <= 2


def test_every_task_has_a_colour_of_its_own() -> None:
    colours = np.array([blur.colour for blur in BLURS])
    gaps = np.abs(colours[:, None] - colours[None]).sum(axis=2)
    assert gaps[~np.eye(len(colours), dtype=bool)].min() > 80
    # Told apart without any colour, too: no two have the same luminance.
    luminance = np.sort(colours @ [0.299, 0.587, 0.114])
    assert np.diff(luminance).min() > 5


def test_picture_is_written_and_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "out" / "sheet.png"
    path.parent.mkdir()
    path.write_bytes(b"older")
    assert contact_sheet([row(), row(sharp=None)], path, footer="a footer") == path
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
        assert picture.width == 2 * 40 + 4 * 500 + 3 * 20
    assert [file.name for file in path.parent.iterdir()] == ["sheet.png"]


def test_input_output_and_truth_are_shown_side_by_side() -> None:
    flat = {
        name: np.full((100, 100, 3), colour, np.uint8)
        for name, colour in (
            ("blurred", (10, 20, 200)),
            ("restored", (10, 200, 20)),
            ("sharp", (200, 20, 10)),
        )
    }
    sheet = np.asarray(draw_sheet([row(**flat)], title="t"))
    lefts = []
    for picture in flat.values():
        found = near(sheet, tuple(picture[0, 0]))
        assert found.sum() > 0.75 * 500 * 500
        lefts.append(np.flatnonzero(found.any(axis=0))[0])
    assert lefts[0] < lefts[1] < lefts[2]
    assert lefts[0] >= 40


def test_expert_map_is_tinted_cell_by_cell() -> None:
    experts = np.array([[1, 2], [0, 5]], np.uint8)
    black = np.zeros((200, 200), np.uint8)
    sample = row(blurred=black, restored=black, sharp=None, expert_map=experts, pitch=(128, 128))
    sheet = np.asarray(draw_sheet([sample], title="t"))
    shares = {}
    for value in (1, 2, 5):
        expected = tuple(round(60 * 0.45 + c * 0.55) for c in BLURS[value - 1].colour)
        shares[value] = near(sheet, expected).sum() / 500**2
    # Cells of 128 px on a plane of 200 px: the second row and column are cut short.
    assert shares[1] == pytest.approx(0.64**2, abs=0.01)
    assert shares[2] == pytest.approx(0.64 * 0.36, abs=0.01)
    assert shares[5] == pytest.approx(0.36**2, abs=0.01)


def test_missing_truth_changes_the_last_panel_only() -> None:
    known, unknown = (
        np.asarray(draw_sheet([sample], title="t")) for sample in (row(), row(sharp=None))
    )
    panels = slice(220, 600)
    np.testing.assert_array_equal(known[panels, : 40 + 3 * 520], unknown[panels, : 40 + 3 * 520])
    assert (known[panels, 40 + 3 * 520 :] != unknown[panels, 40 + 3 * 520 :]).mean() > 0.5


def test_most_changed_place_is_found() -> None:
    before = np.random.default_rng(1).random((120, 90))
    after = before.copy()
    after[70:90, 30:50] += 5
    assert most_changed(before, after, 20) == (70, 30)
    assert most_changed(before[..., None].repeat(3, 2), after[..., None].repeat(3, 2), 20) == (
        70,
        30,
    )


def test_long_words_stay_on_the_sheet() -> None:
    plain = draw_sheet([row()], title="t")
    wordy = draw_sheet(
        [row(title="T " * 300, note="n " * 300)], title="word " * 300, footer="foot " * 300
    )
    assert wordy.width == plain.width
    right_margin = np.asarray(wordy)[:, -40:]
    assert (right_margin == 255).all()


@pytest.mark.parametrize("shape", [(5, 7), (30, 2000), (2000, 30), (600, 800)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_any_size_and_type_can_be_shown(shape: tuple[int, int], dtype: type) -> None:
    values = np.random.default_rng(2).integers(0, 200, shape).astype(dtype)
    sheet = draw_sheet(
        [row(blurred=values, restored=values, sharp=values, expert_map=np.zeros((1, 1), int))],
        title="t",
    )
    assert sheet.width >= 4 * 260


def test_psnr_is_that_of_the_definition() -> None:
    truth = np.zeros((10, 10), np.uint8)
    assert psnr(truth, truth) == math.inf
    assert psnr(truth + 1, truth) == pytest.approx(20 * math.log10(255))
    wide = np.linspace(0, 4000, 100).astype(np.uint16).reshape(10, 10)
    assert psnr(wide + np.uint16(40), wide) == pytest.approx(40)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blurred": np.zeros((2, 3, 4, 5))}, "give one plane"),
        ({"restored": np.zeros((8, 8, 3))}, r"restored has shape \(8, 8, 3\)"),
        ({"sharp": np.zeros((8, 8, 3))}, r"sharp has shape \(8, 8, 3\)"),
        ({"expert_map": np.full((2, 2), 6)}, "values 0 to 5"),
        ({"expert_map": np.zeros(4, int)}, "two axes"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        row(**changes)


def test_bad_targets_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="at least one row"):
        contact_sheet([], tmp_path / "a.png")
    with pytest.raises(OutputError, match=r"a\.txt is no picture file name"):
        contact_sheet([row()], tmp_path / "a.txt")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"a\.png cannot be written"):
        contact_sheet([row()], tmp_path / "file" / "a.png")
    (tmp_path / "b.png").mkdir()
    with pytest.raises(OutputError, match=r"b\.png cannot be written"):
        contact_sheet([row()], tmp_path / "b.png")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["b.png", "file"]


def test_drawing_loads_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, demoe.samples.picture, demoe.choices;"
        "print([name for name in ('torch', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
