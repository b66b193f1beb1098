"""`deblur_layer`, as it is typed into the console of a real window."""

import numpy as np
import pytest

import demoe
from napari_demoe import deblur_layer


@pytest.fixture
def settings(tiny_weights):
    return {"model": str(tiny_weights), "device": "cpu", "tile": 64, "psf": None}


def test_a_layer_is_deblurred_while_the_window_lives(viewer, photo, settings):
    layer = viewer.add_image(photo, name="photo")
    job = deblur_layer(layer, routing="local", **settings)
    assert job.state == "running"
    assert job.wait(60)
    assert (job.state, job.done) == ("idle", job.total)
    expected = demoe.deblur(photo, "YXS", routing="local", **settings)
    np.testing.assert_array_equal(job.layer.data, expected.image.compute())
    np.testing.assert_array_equal(job.experts.data, expected.expert_map.compute())
    assert job.confidence in viewer.layers
    assert job.result.recipe.routing == "local"


def test_a_job_is_stopped_goes_on_and_is_corrected(viewer, settings, qtbot):
    stack = np.random.default_rng(0).integers(0, 255, (4, 300, 300), np.uint8)
    job = deblur_layer(viewer.add_image(stack, name="stack"), viewer, routing="image", **settings)
    qtbot.waitUntil(lambda: job.done >= 1, timeout=60_000)
    job.cancel()
    assert not job.wait(60)
    assert job.state == "paused"
    assert 0 < job.done < job.total
    job.resume()
    assert job.wait(120)
    assert job.done == job.total
    job.experts.data[0, 0, 0] = job.experts.data[0, 0, 0] % 5 + 1
    job.correct()
    assert job.wait(60)
    assert job.confidence.data[0, 0, 0] == 1


def test_only_the_view_is_taken_and_followed(viewer, settings, qtbot):
    stack = np.random.default_rng(0).integers(0, 255, (3, 200, 200), np.uint8)
    layer = viewer.add_image(stack, name="stack")
    viewer.dims.set_current_step(0, 1)
    job = deblur_layer(layer, viewer, scope="view", **settings)
    assert job.wait(60)
    assert job.state == "running"  # for what is looked at next
    assert (job.experts.data[1] > 0).all()
    assert not job.experts.data[2].any()
    viewer.dims.set_current_step(0, 2)
    qtbot.waitUntil(lambda: (job.experts.data[2] > 0).all(), timeout=60_000)
    job.cancel()
    job.wait(60)


def test_what_is_wrong_is_said(viewer, photo, settings):
    layer = viewer.add_image(photo)
    with pytest.raises(demoe.RecipeError, match="all, view, region"):
        deblur_layer(layer, viewer, scope="screen", **settings)
    with pytest.raises(demoe.RecipeError):
        deblur_layer(layer, viewer, tile=7)
    with pytest.raises(demoe.RecipeError, match="no image layer"):
        deblur_layer(viewer.add_labels(np.zeros((8, 8), int)), viewer)
