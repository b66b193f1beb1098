"""Corrections in the viewer: brush, fill and undo, other layers, words, and what they cost."""

import gc
import time

import numpy as np
import pytest

import demoe
from napari_demoe import _worker
from napari_demoe._choices import PAINTED
from napari_demoe._reader import read
from napari_demoe._writer import write_layers


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 255, (200, 330), np.uint8)


@pytest.fixture
def ran(session, viewer, worker, picture):
    """A session after a run of 4 x 6 tiles, each of one routing cell."""
    viewer.add_image(picture, name="photo", scale=(0.5, 0.25), translate=(7, 9))
    session.choices.routing = "image"
    session.start()
    worker.finish()
    assert session.error == ""
    return session


def full_run(session, painted):
    result = session.computed.last.finished.result
    return demoe.deblur(result.source, recipe=result.recipe, expert_map=painted)


def assert_equals_a_full_run(session, painted):
    full = full_run(session, painted)
    np.testing.assert_array_equal(session.result.data, full.image)
    np.testing.assert_array_equal(session.overlay.data, full.expert_map)
    np.testing.assert_array_equal(session.confidence.data, full.confidence)
    left = session.result.metadata["demoe"]
    np.testing.assert_array_equal(left["gates"], full.gates)
    assert left["provenance"] == full.provenance


def test_brush_fill_and_undo_are_applied_where_they_change_something(ran, viewer, worker, computed):
    layers, first = list(viewer.layers), np.array(ran.result.data)
    chosen = int(ran.overlay.data[0, 0])
    one, other = [n for n in range(1, 6) if n != chosen][:2]
    ran.choose_brush(one)
    assert ran.overlay.selected_label == one
    ran.overlay.paint((0, 0), one)
    painted = np.zeros((4, 6), np.uint8)
    painted[0, 0] = one
    computed.clear()
    ran.correct()
    assert ran.busy
    assert list(viewer.layers) == layers
    worker.finish()
    assert ran.error == ""
    assert 0 < len(computed) == ran.total < 24
    assert list(viewer.layers) == layers
    assert_equals_a_full_run(ran, painted)
    assert (first != ran.result.data).any()
    assert ran.confidence.data[0, 0] == 1
    assert ran.shares[one] == pytest.approx(1 / 24)
    assert ran.overlay.features["share"][one] == "4%"
    # Filling takes the rest of the map, which was one decision.
    ran.overlay.fill((3, 5), other)
    painted[painted == 0] = other
    ran.correct()
    worker.finish()
    assert_equals_a_full_run(ran, painted)
    # Undo, over what was applied: the fill, and then the brush.
    ran.overlay.undo()
    painted[painted == other] = chosen  # painted now, because a person wants it back
    ran.correct()
    worker.finish()
    assert_equals_a_full_run(ran, painted)
    ran.overlay.data[...] = 0  # all back to the network
    computed.clear()
    ran.correct()
    worker.finish()
    assert_equals_a_full_run(ran, 0 * painted)
    np.testing.assert_array_equal(ran.result.data, first)
    # Nothing new: nothing runs.
    computed.clear()
    ran.correct()
    assert not ran.busy
    assert "Nothing to apply" in ran.status
    assert computed == []


def test_planes_that_are_not_painted_are_not_computed(session, viewer, worker, picture, computed):
    viewer.add_image(np.stack([picture[:100, :100]] * 3), name="stack")
    session.start()
    worker.finish()
    session.overlay.data[1, 0, 0] = wanted = int(session.overlay.data[1, 0, 0]) % 5 + 1
    computed.clear()
    session.correct()
    worker.finish()
    assert {plane[2] for plane, _, _ in computed} == {1}
    painted = np.zeros((3, 2, 2), np.uint8)
    painted[1, 0, 0] = wanted
    assert_equals_a_full_run(session, painted)


def test_other_layers_are_applied_as_they_are(ran, viewer, worker, computed):
    mine = viewer.add_labels(
        np.array([[0, 3], [0, 0]], np.uint8), name="mine", scale=(50, 41.25), translate=(32, 29.625)
    )
    ran.painted = mine  # each label covers a quarter of the photo
    computed.clear()
    ran.correct()
    worker.finish()
    assert ran.error == ""
    assert 0 < len(computed) < 24
    painted = np.zeros((4, 6), np.uint8)
    painted[:2, 3:] = 3
    assert_equals_a_full_run(ran, painted)
    # Painting on the map itself goes on from there, and wins.
    ran.overlay.paint((3, 0), 5)
    ran.overlay.paint((1, 4), 5)
    assert ran.painted is ran.overlay
    ran.correct()
    worker.finish()
    painted[3, 0] = painted[1, 4] = 5
    assert_equals_a_full_run(ran, painted)
    # The layer as it is now, under what was painted by hand, old and new.
    mine.data = np.array([[0, 0], [0, 2]], np.uint8)
    ran.overlay.paint((0, 0), 4)
    ran.painted = mine
    ran.correct()
    worker.finish()
    painted[:2, 3:], painted[2:, 3:] = 0, 2
    painted[1, 4], painted[0, 0] = 5, 4
    assert_equals_a_full_run(ran, painted)
    # Erased on the map: back to the network, whoever painted it.
    ran.painted = ran.overlay
    ran.overlay.data[:, 3:] = 0
    ran.correct()
    worker.finish()
    painted[:, 3:] = 0
    assert_equals_a_full_run(ran, painted)


def test_regions_are_applied_with_their_tasks(ran, viewer, worker):
    ran.choose_brush(4)
    regions = viewer.add_shapes(name="regions", ndim=2)
    assert ran.painted is regions
    corners = np.array([[7, 9], [7, 30], [40, 30], [40, 9]], float)
    regions.add_rectangles(corners)
    ran.choose_brush(2)
    regions.add_ellipses(corners + np.array([66, 60]))
    ran.correct()
    worker.finish()
    assert ran.error == ""
    painted = np.zeros((4, 6), np.uint8)
    painted[0, 0] = 4
    painted[2, 4] = 2
    cells = np.asarray(ran.overlay.data)
    assert cells[0, 0] == 4
    assert (cells == 2).sum() >= 1
    wanted = np.where(ran.confidence.data == 1, cells, 0)
    assert_equals_a_full_run(ran, wanted)


def test_what_is_on_disk_goes_with_its_result(
    session, viewer, worker, picture, monkeypatch, tmp_path
):
    monkeypatch.setattr(_worker, "MEMORY_BYTES", 0)
    viewer.add_image(picture, name="photo")
    session.folder = str(tmp_path)
    session.start()
    worker.finish()
    assert len(list(tmp_path.iterdir())) == 1
    session.overlay.data[0, 0] = int(session.overlay.data[0, 0]) % 5 + 1
    session.correct()
    worker.finish()
    assert len(list(tmp_path.iterdir())) == 2
    worker.job = worker.reports = None  # a thread of its own would have ended
    gc.collect()
    viewer.layers.remove(session.result)
    gc.collect()
    given_up = time.monotonic() + 60  # for who may be reading a tile on a busy machine
    while any(tmp_path.iterdir()) and time.monotonic() < given_up:
        time.sleep(0.01)
    assert not list(tmp_path.iterdir())


def test_a_run_follows_shapes(session, viewer, worker, picture):
    viewer.add_image(picture, name="photo")
    viewer.add_shapes(np.array([[-9, -9], [-9, 400], [400, 400], [400, -9]]), name="all")
    session.choices.routing, session.brush = "painted", 5
    session.start()
    worker.finish()
    assert np.unique(session.overlay.data).tolist() == [5]


def test_cancel_and_deletion_leave_the_result_as_it_was(ran, viewer, worker):
    pixels = np.array(ran.result.data)
    ran.overlay.data[:] = int(ran.overlay.data[0, 0]) % 5 + 1
    ran.correct()
    while ran.done < 2:
        worker.step()
    ran.cancel()
    worker.finish()
    assert ran.status == "Cancelled; the result is as it was."
    np.testing.assert_array_equal(ran.result.data, pixels)
    ran.correct()
    worker.step()
    viewer.layers.remove(ran.overlay)
    assert ran.state == "cancelling"
    worker.finish()
    assert not ran.correctable
    ran.correct()
    assert not ran.busy
    np.testing.assert_array_equal(viewer.layers["photo deblurred"].data, pixels)


SMALL = np.array([[7, 9], [8, 9], [8, 10]], float)
BAD_MAPS = {
    "holds integers from 0 to 5, but this one goes from 7 to 7": (np.full((900, 900), 7), {}),
    "'mine' has 3 axes": (np.ones((3, 9, 9), int), {}),
    "holds no centre of a cell": (np.ones((9, 9), int), {"translate": (999, 0)}),
    "larger than a cell": (SMALL, {"shape_type": "polygon"}),
    "has the task 'x'": (SMALL, {"shape_type": "polygon", "features": {"task": ["x"]}}),
}


@pytest.mark.parametrize("said", BAD_MAPS)
def test_a_map_that_cannot_be_used_is_told_and_nothing_is_lost(ran, viewer, worker, said):
    data, kwargs = BAD_MAPS[said]
    add = viewer.add_shapes if data is SMALL else viewer.add_labels
    pixels, cells = np.array(ran.result.data), np.array(ran.overlay.data)
    ran.painted = add(data, name="mine", **kwargs)
    ran.correct()
    worker.finish()
    assert ran.state == "failed"
    assert said in ran.error
    assert ran.error.count(". ") == 0
    np.testing.assert_array_equal(ran.result.data, pixels)
    np.testing.assert_array_equal(ran.overlay.data, cells)
    assert "photo deblurred" in viewer.layers
    # Corrections work again.
    ran.painted = ran.overlay
    ran.overlay.data[0, 0] = cells[0, 0] % 5 + 1
    ran.correct()
    worker.finish()
    assert ran.error == ""


def test_a_map_painted_with_an_unknown_label_is_told(ran, worker):
    ran.overlay.paint((1, 1), 9)
    assert ran.describe_cell((70.0, 40.0)) == ""
    ran.correct()
    worker.finish()
    assert "from 0 to 5, but this one goes from 0 to 9" in ran.error
    ran.overlay.undo()
    ran.correct()
    assert "Nothing to apply" in ran.status


def test_words_name_a_task_or_change_nothing(session):
    assert session.understand("my sample moved during exposure") == "local_motion"
    assert session.said.startswith("Understood: local motion (")
    assert session.said.endswith("% sure).")
    assert session.understand("it is blurry") is None
    assert session.said.startswith("Unclear (")
    assert "nothing was changed" in session.said
    for sentence, said in (("  ", "empty"), ("das Bild ist verwackelt", "not in English")):
        assert session.understand(sentence) is None
        assert said in session.said
    assert session.state == "idle"


def open_again(viewer, path):
    """Add the layers of a saved result; return its map."""
    return [viewer._add_layer_from_data(*layer) for layer in read(str(path))][-1][0]


@pytest.fixture
def saved(ran, tmp_path):
    """A file of the last result, and the map that it follows."""
    layers = [layer.as_layer_data_tuple() for layer in (ran.result, ran.overlay)]
    write_layers(str(tmp_path / "out.ome.tif"), layers)
    return tmp_path / "out.ome.tif", np.array(ran.overlay.data)


@pytest.fixture
def later(saved, session, viewer, worker, picture):
    """The viewer on another day: the photo, and the result opened from its file."""
    viewer.layers.clear()
    viewer.add_image(picture, name="photo", scale=(0.5, 0.25))
    session.painted = open_again(viewer, saved[0])
    session.choices.routing = PAINTED
    session.source = viewer.layers["photo"]
    return session


def test_a_result_that_is_opened_again_is_corrected(later, saved, viewer, worker, computed):
    cells = later.painted.data
    one = int(cells[0, 0]) % 5 + 1
    cells[0, 0] = one
    computed.clear()
    later.start()
    worker.finish()
    assert later.error == ""
    assert 0 < later.total < 24
    assert len(computed) == later.total + 1  # one to be sure that the file is of this image
    wished = np.zeros((4, 6), np.uint8)
    wished[0, 0] = one
    assert later.computed.last.finished.result.recipe.routing == "image"
    assert_equals_a_full_run(later, wished)
    # The map says nothing new now, but can go on to.
    later.correct()
    assert "Nothing to apply" in later.status
    cells[3, 5] = wished[3, 5] = int(cells[3, 5]) % 5 + 1
    computed.clear()
    later.correct()
    worker.finish()
    assert 0 < len(computed) == later.total < 24
    assert_equals_a_full_run(later, wished)


@pytest.mark.parametrize("what", ["nothing is painted", "another image", "other settings"])
def test_else_all_of_an_opened_map_is_followed(later, saved, viewer, worker, picture, what):
    if what == "another image":
        viewer.layers["photo"].data = picture[::-1].copy()
    elif what == "other settings":
        later.choices.top_k = 2
    if what != "nothing is painted":
        later.painted.data[0, 0] = later.painted.data[0, 0] % 5 + 1
    later.start()
    worker.finish()
    assert later.error == ""
    assert later.total == 24
    assert_equals_a_full_run(later, np.array(later.painted.data))
