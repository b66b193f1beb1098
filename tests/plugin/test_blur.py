"""The blur that was found: drawn, spoken and saved in the viewer."""

import numpy as np
import pytest

import demoe
from demoe.samples.images import load_sample
from napari_demoe._maps import MAGNIFIED
from napari_demoe._reader import read
from napari_demoe._writer import write_layers


@pytest.fixture
def pollen():
    return np.asarray(load_sample("pollen").blurred.data)


@pytest.fixture
def finished(session, viewer, worker, pollen):
    """A session with the bundled network that has deblurred a stack of two planes."""
    session.choices.model, session.choices.tile = "default", 128
    viewer.add_image(np.stack([pollen, pollen]), name="pollen", scale=(2, 0.5, 0.5))
    session.start()
    worker.finish()
    assert session.error == ""
    return session


def test_what_was_found_is_drawn_over_the_image(finished, viewer):
    blur = finished.blur
    assert blur in viewer.layers
    assert not blur.visible
    assert list(blur.features["blur"]) == ["defocus, radius 2.5 px"] * 2
    assert blur not in finished.maps  # nobody painted it
    for z, circle in enumerate(blur.data):
        assert (circle[:, 0] == z).all()
        assert np.ptp(circle[:, 1]) == pytest.approx(2 * 2.5 * MAGNIFIED, rel=0.01)
        assert circle[:-1, 1:].mean(axis=0) == pytest.approx([127.5, 127.5])
    np.testing.assert_allclose(blur.scale, (2, 0.5, 0.5))


def test_the_status_names_the_blur(finished):
    said = finished.describe_cell((0, 20.0, 20.0))
    assert said.endswith("; defocus, radius 2.5 px")


def test_the_consistency_is_a_map_of_the_result(finished, viewer):
    consistency = finished.consistency
    assert consistency in viewer.layers
    assert consistency.data.shape == (2, 4, 4)
    assert np.median(consistency.data) == pytest.approx(1, abs=0.15)
    assert consistency not in finished.sources


def test_a_second_run_and_closed_layers_leave_nothing_behind(finished, viewer, worker):
    first = finished.blur, finished.consistency
    viewer.layers.remove(first[0])
    viewer.layers.remove(first[1])
    assert finished.blur is finished.consistency is None
    finished.start()
    worker.finish()
    assert finished.blur in viewer.layers
    assert finished.consistency in viewer.layers


def test_a_correction_keeps_what_was_found_in_other_planes(finished, viewer, worker):
    finished.overlay.data[0, 0, 0] = 2
    finished.painted = finished.overlay
    finished.correct()
    worker.finish()
    assert finished.error == ""
    assert list(finished.blur.features["blur"]) == ["defocus, radius 2.5 px"] * 2
    assert finished.describe_cell((2.0, 60.0, 60.0)).endswith("; defocus, radius 2.5 px")
    told = []
    finished.changed.connect(lambda: told.append(finished.blur.visible))
    finished.blur.visible = True
    assert told == [True]


def test_what_is_saved_is_shown_again(finished, viewer, tmp_path):
    layers = [finished.result, finished.consistency, finished.confidence, finished.overlay]
    saved = [layer.as_layer_data_tuple() for layer in layers]
    (written,) = write_layers(str(tmp_path / "out.ome.zarr"), saved)
    again = demoe.open_image(f"{written}/demoe/consistency")
    np.testing.assert_allclose(np.asarray(again.data), finished.consistency.data)
    assert demoe.open_image(f"{written}/demoe/kernels").shape == (2, 33, 33)
    names = [meta["name"] for _, meta, _ in read(written)]
    assert any(name.endswith("consistency") for name in names)


def test_words_turn_the_search_off(session, viewer, worker, pollen):
    session.choices.model, session.choices.psf = "default", "none"
    viewer.add_image(pollen, name="pollen")
    session.start()
    worker.finish()
    assert session.error == ""
    assert session.blur is session.consistency is None
    assert session.describe_cell((20.0, 20.0)).count(";") == 0
