"""A batch without a window: what is done, what is collected, and how it stops."""

import numpy as np
import pytest
from PIL import Image

import demoe
from demoe.execution.store import TileStore
from napari_demoe._batch import Batch, file_name, jobs_of_folder, jobs_of_layers


@pytest.fixture
def recipe(root):
    weights = root / "tests" / "data" / "demoe_w4.safetensors"
    return demoe.Recipe(model=str(weights), device="cpu", tile=64, psf=None)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(rng.integers(0, 256, (90, 70), dtype=np.uint8)).save(folder / name)
    return folder


def test_errors_wait_until_the_end_and_a_second_batch_does_the_rest(folder, tmp_path, recipe):
    good = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    batch = Batch(jobs_of_folder(folder, out, "", None), recipe)
    assert (batch.state.number, batch.state.count) == (0, 3)
    *_, last = batch.steps()
    assert (last.number, last.written, last.there, last.stopped) == (3, 2, 0, "")
    ((name, wrong),) = last.failures
    assert name == "a.png"
    assert "a.png" in wrong
    assert last.words == "2 of 3 images written, 1 failed."
    assert demoe.open_image(out / "b.png").shape == (90, 70)

    (folder / "a.png").write_bytes(good)
    *_, last = Batch(jobs_of_folder(folder, out, "*", None), recipe).steps()
    assert last.words == "1 of 3 images written, 2 were there already."


def test_cancel_stops_after_the_tile_in_work_and_the_next_batch_goes_on(
    folder, tmp_path, recipe, computed, monkeypatch
):
    out = tmp_path / "out"
    jobs = jobs_of_folder(folder, out, "*", None)
    batch, note = Batch(jobs, recipe), TileStore.note

    def note_and_cancel(store, kept):  # in mid-image, however seldom a batch reports
        ready = note(store, kept)
        batch.cancel()
        return ready

    with monkeypatch.context() as patch:
        patch.setattr(TileStore, "note", note_and_cancel)
        *_, state = batch.steps()
    assert state.stopped == "Cancelled; start again to go on."
    assert state.number < 3
    before = len(computed)
    *_, last = Batch(jobs, recipe).steps()
    assert not last.stopped
    assert last.written + last.there == 3
    assert before + len(computed[before:]) <= 12 + 2  # what was under way may be done again
    assert sorted(p.name for p in out.iterdir() if p.name.startswith(".")) == []


def test_a_batch_that_nobody_waits_for_ends(folder, tmp_path, recipe):
    steps = Batch(jobs_of_folder(folder, tmp_path / "out", "*", None), recipe).steps()
    next(steps)
    steps.close()  # the fixture that looks for threads would complain


def test_what_is_wrong_with_all_images_ends_a_batch(folder, tmp_path):
    recipe = demoe.Recipe(model=str(tmp_path / "no.safetensors"))
    *_, last = Batch(jobs_of_folder(folder, tmp_path / "out", "*", None), recipe).steps()
    assert "no.safetensors" in last.stopped
    assert (last.written, last.failures) == (0, ())
    assert last.words.startswith("0 of 3 images written. ")


def test_a_folder_is_never_filled_with_its_own_results(folder, tmp_path):
    with pytest.raises(demoe.OutputError, match="another folder"):
        jobs_of_folder(folder, tmp_path / "x" / ".." / "in", "*", None)
    with pytest.raises(demoe.ImageError, match="no folder"):
        jobs_of_folder(folder / "a.png", tmp_path / "out", "*", None)


def test_layers_are_written_by_their_names(viewer, tmp_path, recipe):
    rng = np.random.default_rng(0)
    first = viewer.add_image(rng.integers(0, 256, (40, 50), np.uint8), name="a/b: c")
    stack = viewer.add_image(rng.random((2, 40, 50)), name="stack", scale=(3, 0.5, 0.5))
    many = viewer.add_image(np.zeros((1, 1, 1, 1, 8, 8)), name="many axes")
    out = tmp_path / "out"
    jobs, failures = jobs_of_layers([first, stack, many], out, ".ome.zarr")
    assert [(n, "axis_labels" in why) for n, why in failures] == [("many axes", True)]
    batch = Batch(jobs, recipe, failures)
    assert (batch.state.number, batch.state.count) == (1, 3)
    *_, last = batch.steps()
    assert last.words == "2 of 3 images written, 1 failed."
    image = demoe.open_image(out / "stack.ome.zarr")
    assert (image.shape, image.scale["Z"]) == ((2, 40, 50), 3)
    assert demoe.open_image(out / "a_b_ c.ome.zarr").shape == (40, 50)
    with pytest.raises(demoe.ImageError, match="No image layer is selected"):
        jobs_of_layers([], out, ".ome.zarr")


@pytest.mark.parametrize(
    ("name", "expected"), [("cells", "cells"), ("../x", "_x"), ("a [1]", "a [1]"), (" . ", "image")]
)
def test_file_names(name, expected):
    assert file_name(name) == expected
