"""What a run would take, said before it begins, and where its tiles would lie."""

import shutil
from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest

from demoe.live.order import View
from demoe.plan.tiling import Box, TilePlan
from napari_demoe import _outlook
from napari_demoe._outlook import tiles_in
from napari_demoe._session import Session

GB = 10**9


class Background:
    """Stands in for the thread pool: calls what was asked when the test says so."""

    def __init__(self):
        self.asked = []

    def __call__(self, function, answered):
        self.asked.append((function, answered))

    def work(self):
        asked, self.asked = self.asked, []
        for function, answered in asked:
            answered(function())


@pytest.fixture
def background():
    return Background()


@pytest.fixture
def session(viewer, worker, background, root, tmp_path, monkeypatch):
    monkeypatch.setenv("DEMOE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("demoe.execution.estimate._matrix_rate", lambda device: 1e11)
    monkeypatch.setattr(_outlook, "PATIENCE", 0.0)
    monkeypatch.setattr("napari_demoe._wanted.LOOK_SECONDS", 0.0)
    session = Session(viewer, worker, ask=background)
    weights = str(root / "tests" / "data" / "demoe_w4.safetensors")
    session.choose(model=weights, device="cpu", tile=64, halo=16, psf="none")
    yield session
    session.close()


@pytest.fixture
def settle(session, background):
    def settle():
        session.tick()
        background.work()
        session.tick()

    return settle


def large(reads, *shape):
    """An image that notes who looks at it, of chunks that fit into memory."""

    def noted(block):
        reads.append(block.shape)
        return block

    blank = da.zeros(shape, dtype=np.uint16, chunks=(1,) * (len(shape) - 2) + (64, 64))
    return da.map_blocks(noted, blank, dtype=np.uint16, meta=blank._meta)


def test_it_is_said_before_a_run_without_a_look_at_the_pixels(session, viewer, settle):
    assert session.prospect == ""
    reads = []
    viewer.add_image(large(reads, 5, 640, 6400), name="huge", contrast_limits=(0, 9), visible=False)
    reads.clear()
    settle()
    assert reads == []
    assert session.prospect.startswith("Roughly ")
    assert "5000 tiles" in session.prospect
    assert "MB of memory" in session.prospect


def test_after_a_run_it_is_what_was_measured(session, viewer, worker, settle):
    viewer.add_image(np.random.default_rng(0).integers(0, 255, (100, 150), np.uint8), name="a")
    settle()
    assert session.prospect.startswith("Roughly ")
    session.start()
    assert session.prospect == ""  # the status says what is left
    worker.finish()
    settle()
    assert session.prospect.startswith("About ")
    assert "6 tiles" in session.prospect


def test_an_answer_to_an_earlier_question_is_not_shown(session, viewer, background):
    viewer.add_image(np.zeros((100, 150), np.uint8), name="a", contrast_limits=(0, 9))
    session.tick()
    session.choose(tile=128)
    background.work()
    assert session.prospect == ""
    session.tick()
    background.work()
    assert "2 tiles" in session.prospect


def test_what_cannot_be_run_is_not_foretold(session, viewer, settle):
    viewer.add_image(np.zeros((100, 150), np.uint8), name="a", contrast_limits=(0, 9))
    settle()
    assert session.prospect
    session.choose(psf="radius=two")
    settle()
    assert session.prospect == ""
    session.choose(psf="", top_k=99)
    settle()
    assert session.prospect == ""


def test_view_and_shapes_are_counted_by_themselves(session, viewer, settle):
    layer = viewer.add_image(np.zeros((640, 640), np.uint8), name="a", contrast_limits=(0, 9))
    viewer.add_shapes([np.array([[0, 0], [0, 60], [60, 60], [60, 0]])], name="frame")
    session.source = layer
    layer.corner_pixels = np.array([[0, 0], [127, 63]])
    settle()
    assert " for the view, " in session.prospect
    assert session.prospect.count("for everything: 100 tiles") == 1
    session.choose(scope="region")
    settle()
    assert " for what the shapes frame, " in session.prospect


def test_too_small_a_folder_is_told_and_another_is_taken(
    session, viewer, worker, settle, monkeypatch, tmp_path
):
    here = tmp_path / "large"
    here.mkdir()

    def usage(path):
        return SimpleNamespace(free=GB if str(path) != str(here) else 100 * GB)

    shown = {"contrast_limits": (0, 9), "visible": False}
    viewer.add_image(large([], 20, 64, 64), name="small", **shown)
    settle()
    assert session.shortage == ""
    monkeypatch.setattr(shutil, "disk_usage", usage)
    viewer.add_image(large([], 20, 6400, 6400), name="huge", **shown)
    settle()
    assert "has 1.0 GB free, but tiles may take up to 1.6 GB" in session.shortage
    session.choose(scope="view")  # nobody looks at everything
    assert session.shortage == ""
    session.choose(scope="all", folder=str(here))
    settle()
    assert session.shortage == ""
    session.choose(folder="", output=str(here / "out.ome.zarr"))
    settle()
    assert session.shortage == ""


def test_tiles_lie_in_the_folder_that_was_chosen(session, viewer, worker, tmp_path):
    viewer.add_image(np.random.default_rng(0).integers(0, 255, (100, 150), np.uint8), name="a")
    here = tmp_path / "tiles"
    here.mkdir()
    session.choose(folder=str(here))
    session.start()
    while session.done < 1:
        worker.step()
    assert len(list(here.iterdir())) == 1
    worker.finish()
    viewer.layers.clear()
    assert not list(here.iterdir())
    session.choose(folder=str(here / "missing"))
    viewer.add_image(np.random.default_rng(0).integers(0, 255, (100, 150), np.uint8), name="b")
    session.start()
    worker.finish()
    assert "cannot be kept in" in session.error


def test_devices_and_the_reason_for_the_processor_come_with_it(
    session, viewer, settle, monkeypatch
):
    monkeypatch.setattr("demoe.execution.estimate.why_processor", lambda: "There is no card.")
    viewer.add_image(np.zeros((100, 150), np.uint8), name="a", contrast_limits=(0, 9))
    settle()
    assert session.outlook.forecast.why == ""  # it was asked for
    session.choose(device="auto")
    settle()
    assert session.outlook.forecast.why == "There is no card."
    assert session.outlook.forecast.devices[-1][0] == "cpu"


def test_tiles_of_views_are_counted_by_arithmetic():
    plan = TilePlan(200_000, 200_000, 1024, 64)
    side = plan.core_shape[0]
    assert tiles_in(plan, [View((), Box(0, 0, side, side))]) == 1
    assert tiles_in(plan, [View((), Box(side - 1, 0, side + 1, 1))]) == 2
    assert tiles_in(plan, [View((), Box(-50, -50, 10**6, 10**6))]) == plan.shape[0] * plan.shape[1]
    assert tiles_in(plan, [View((), Box(10**6, 0, 10**6 + 5, 5))]) == 0
    assert tiles_in(plan, [View((), Box(0, 0, 5, 5)), View((), Box(9000, 0, 9001, 5))]) == 2
