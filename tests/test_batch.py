"""Many images into one folder: names, and what one bad image does to the others."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import demoe
from demoe.execution.batch import run_each
from demoe.io.batch import check_distinct, folder_jobs, output_name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "B.PNG", "c.bmp"):
        Image.fromarray(rng.integers(0, 256, (40, 50), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.mark.parametrize(
    ("name", "suffix", "expected"),
    [
        ("a.png", None, "a.png"),
        ("a.ome.tif", None, "a.ome.tif"),
        ("a.webp", None, "a.png"),
        ("a.lsm", None, "a.ome.tif"),
        ("series", None, "series.ome.tif"),
        ("a.ome.tif", ".ome.zarr", "a.ome.zarr"),
        ("cell 3.2", ".png", "cell 3.2.png"),
    ],
)
def test_an_output_keeps_its_name_or_takes_the_format_that_is_asked_for(name, suffix, expected):
    assert output_name(name, suffix) == expected


def test_a_pattern_chooses_among_the_images_of_a_folder(folder, tmp_path):
    out = tmp_path / "out"
    jobs = folder_jobs(folder, out, pattern="*.png", suffix=".ome.zarr")
    assert [(a.name, b.name) for a, b in jobs] == [("B.PNG", "B.ome.zarr"), ("a.png", "a.ome.zarr")]
    assert out.is_dir()
    with pytest.raises(demoe.ImageError, match=r"no image whose name is like '\*\.czi'"):
        folder_jobs(folder, out, pattern="*.czi")


def test_outputs_whose_maps_would_have_one_name_are_refused(tmp_path):
    check_distinct([("a", tmp_path / "a.png"), ("b", tmp_path / "b.png")])
    with pytest.raises(demoe.OutputError, match=r"one and TWO would both be written as A in"):
        check_distinct([("one", tmp_path / "a.png"), ("TWO", tmp_path / "A.tif")])


def test_what_is_wrong_with_one_image_waits_for_the_others(folder, tmp_path, shallow):
    (folder / "B.PNG").write_bytes(b"no picture")
    begun = []

    @contextmanager
    def watched(source, output):
        begun.append((source.name, output.name))
        yield lambda done, total, message: None

    jobs = folder_jobs(folder, tmp_path / "out")
    recipe = demoe.Recipe(model=str(shallow), device="cpu", psf=None)
    bad, first, last = run_each(jobs, recipe, watched=watched)
    assert isinstance(bad.error, demoe.ImageError)
    assert bad.report is None
    assert not bad.was_there
    assert first.report.output == tmp_path / "out" / "a.png"
    assert begun == [("B.PNG", "B.PNG"), ("a.png", "a.png"), ("c.bmp", "c.png")]

    begun.clear()
    again = list(run_each(jobs, recipe, watched=watched, keep_finished=True))
    assert [each.was_there for each in again] == [False, True, True]
    assert begun == [("B.PNG", "B.PNG")]
    with pytest.raises(demoe.WeightsError):  # nothing that another image could mend
        list(run_each(jobs, demoe.Recipe(model=str(tmp_path / "no.safetensors")), watched=watched))
    assert last.report.tiles == 1
