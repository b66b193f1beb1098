"""The blur that was found: drawn, spoken and saved in the viewer."""

import copy

import numpy as np
import pytest

import demoe
from demoe.engine.kernels.solution import Blur
from demoe.model.kernels.families import Kernel
from demoe.plan.tiling import Box
from demoe.samples.images import load_sample
from napari_demoe._blurs import MAGNIFIED, blur_sizes
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
    assert set(blur.features["blur"]) == {"defocus, radius 2.5 px"}
    assert blur not in finished.maps  # nobody painted it
    starts, strokes = blur.data[:, 0], blur.data[:, 1]
    for z in range(2):
        at = starts[:, 0] == z
        circle = starts[at]
        assert not strokes[at][:, 0].any()  # they stay in their plane
        np.testing.assert_allclose(circle[1:], (circle + strokes[at])[:-1])  # and go on
        assert np.ptp(circle[:, 1]) == pytest.approx(2 * 2.5 * MAGNIFIED, rel=0.01)
        assert circle[:, 1:].mean(axis=0) == pytest.approx([127.5, 127.5])
    np.testing.assert_allclose(blur.scale, (2, 0.5, 0.5))


def test_the_kernels_are_a_picture_over_the_image(finished, viewer, tmp_path):
    kernels = finished.kernels
    assert kernels in viewer.layers
    assert kernels not in finished.sources
    assert (kernels.visible, kernels.data.shape, kernels.data.dtype) == (False, (2, 33, 33), "u1")
    for picture in kernels.data:
        rows, columns = np.nonzero(picture > 127)  # a disc in the middle, radius 2.5 pixels
        assert (rows.mean(), columns.mean()) == pytest.approx((16, 16))
        assert len(rows) == pytest.approx(np.pi * 2.5**2, rel=0.2)
    middle = kernels.data_to_world((0, 16, 16))
    np.testing.assert_allclose(middle, finished.result.data_to_world((0, 127.5, 127.5)))
    expected = finished.result.metadata["demoe"]["kernels"]()  # as it is saved
    np.testing.assert_allclose(kernels.data / 255, expected.data.compute(), atol=0.5 / 255)


def test_a_result_can_be_duplicated(finished):
    again = copy.deepcopy(finished.result.as_layer_data_tuple())  # as the viewer does
    np.testing.assert_array_equal(
        again[1]["metadata"]["demoe"]["expert_map"], finished.overlay.data
    )


def test_the_legend_tells_sizes(finished):
    assert finished.sizes == ["", "radius 2.5 px", *[""] * 4]


@pytest.mark.parametrize(
    ("kernels", "said"),
    [
        ([Kernel("disc", 2.0), Kernel("disc", 3.25), Kernel("motion", 9)], "radius 2.0 to 3.2 px"),
        ([Kernel("gaussian", 1.5)], "sigma 1.5 px"),
        ([Kernel("motion", 11, 178.0), Kernel("motion", 11.4, 362.0)], "11 px at 0°"),
        (
            [Kernel("motion", 9, 30.0), Kernel("motion", 14, 120.0)],
            "9 to 14 px in several directions",
        ),
        ([None], ""),
    ],
)
def test_blurs_are_told_for_the_expert_that_works_there(kernels, said):
    blurs = {(1,): [Blur(Box(0, 0, 64, 64 * n + 64), kernel) for n, kernel in enumerate(kernels)]}
    cells = np.zeros((2, 1, 3), np.uint8)
    cells[1] = 2
    assert blur_sizes(blurs, cells, (64, 64), 3) == ["", "", said, ""]


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
    assert set(finished.blur.features["blur"]) == {"defocus, radius 2.5 px"}
    assert {0, 1} == set(finished.blur.data[:, 0, 0])
    assert finished.kernels.data[0].any() and finished.kernels.data[1].any()
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
    assert session.blur is session.kernels is session.consistency is None
    assert session.describe_cell((20.0, 20.0)).count(";") == 0
