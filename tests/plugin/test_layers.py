"""Layers to lazy images and back, without a window."""

import subprocess
import sys

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.layers import Image, Labels

from demoe.choices import BLURS, words_of
from demoe.errors import AxesError, ImageError
from demoe.image.lazy_image import LazyImage
from napari_demoe._layers import image_kwargs, result_kwargs, to_lazy
from napari_demoe._maps import cells_to_layer_order, experts_kwargs


def layer_to_lazy(layer):
    return to_lazy(*layer.as_layer_data_tuple()[:2])


def meta_of(layer):
    return layer.as_layer_data_tuple()[1]


@pytest.mark.parametrize(
    ("shape", "kwargs", "axes"),
    [
        ((8, 9), {}, "YX"),
        ((8, 9, 3), {"rgb": True}, "YXS"),
        ((8, 9, 4), {"rgb": True}, "YXS"),
        ((8, 9, 3), {"rgb": False}, "ZYX"),
        ((5, 8, 9), {}, "ZYX"),
        ((5, 8, 9), {"units": ("s", "um", "um")}, "TYX"),
        ((5, 8, 9), {"axis_labels": ("time", "y", "x")}, "TYX"),
        ((5, 8, 9), {"axis_labels": ("C", "Y", "X")}, "CYX"),
        ((5, 8, 9), {"axis_labels": ("y", "x", "z")}, "YXZ"),
        ((5, 8, 9), {"axis_labels": ("q", "y", "x")}, "ZYX"),
        ((2, 5, 8, 9), {}, "TZYX"),
        ((2, 5, 8, 9, 3), {"rgb": True}, "TZYXS"),
        ((2, 2, 5, 8, 9), {}, "TCZYX"),
    ],
)
def test_axes_follow_the_documented_rule(shape, kwargs, axes):
    layer = Image(np.zeros(shape, np.uint8), **kwargs)
    assert layer_to_lazy(layer).axes == axes


def test_six_axes_without_labels_are_refused_with_advice():
    with pytest.raises(AxesError, match="axis_labels"):
        layer_to_lazy(Image(np.zeros((1, 2, 2, 2, 8, 9))))


def test_scale_units_and_name_are_read():
    layer = Image(
        np.zeros((2, 5, 8, 9), np.uint16),
        scale=(10, 0.5, -0.1, 0.1),
        units=("s", "um", "um", "um"),
        name="cells",
    )
    image = layer_to_lazy(layer)
    assert image.name == "cells"
    assert image.scale == {"T": 10, "Z": 0.5, "Y": 0.1, "X": 0.1}
    assert image.units == {"T": "second", "Z": "micrometer", "Y": "micrometer", "X": "micrometer"}


def as_is(array, tmp_path):
    return array


def as_dask(array, tmp_path):
    return da.from_array(array, chunks=4)


def as_zarr(array, tmp_path):
    store = zarr.create_array(
        tmp_path / "a.zarr", shape=array.shape, dtype=array.dtype, chunks=(4, 4)
    )
    store[:] = array
    return store


@pytest.mark.parametrize("kind", [as_is, as_dask, as_zarr])
def test_pixels_of_every_kind_of_array(kind, tmp_path):
    array = np.arange(72, dtype=np.uint16).reshape(8, 9)
    layer = Image(kind(array, tmp_path), contrast_limits=(0, 72))
    np.testing.assert_array_equal(layer_to_lazy(layer).data.compute(), array)


def test_multiscale_gives_the_finest_level():
    fine = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    layer = Image([fine, fine[::2, ::2], fine[::4, ::4]], multiscale=True)
    np.testing.assert_array_equal(layer_to_lazy(layer).data.compute(), fine)


def test_bool_pixels_are_refused():
    with pytest.raises(ImageError, match="bool"):
        layer_to_lazy(Image(np.zeros((8, 9), bool)))


def test_a_file_becomes_a_layer_with_its_sizes_and_back_again():
    image = LazyImage.from_array(
        np.arange(2 * 5 * 8 * 9, dtype=np.uint8).reshape(2, 5, 8, 9),
        "CZYX",
        scale={"Z": 2.0, "Y": 0.25, "X": 0.25},
        units={"Z": "micrometer", "Y": "micrometer", "X": "micrometer"},
        channel_names=("DAPI", "GFP"),
        name="cells",
    )
    layer = Image(image.data, **image_kwargs(image))
    assert tuple(layer.scale) == (1, 2, 0.25, 0.25)
    assert [str(unit) for unit in layer.units] == ["pixel"] + ["micrometer"] * 3
    assert layer.contrast_limits == [0, 255]
    again = layer_to_lazy(layer)
    assert (again.axes, again.scale, again.channel_names) == ("CZYX", image.scale, ("DAPI", "GFP"))
    assert {k: v for k, v in again.units.items() if v != "pixel"} == image.units


def test_a_colour_file_becomes_a_colour_layer():
    image = LazyImage.from_array(np.zeros((8, 9, 3), np.uint8), "YXS", name="photo")
    layer = Image(image.data, **image_kwargs(image))
    assert layer.rgb
    assert layer.ndim == 2


GEOMETRY = {
    "plain": {},
    "scaled": {"scale": (0.5, 0.2), "translate": (100, -3), "units": ("um", "um")},
    "turned": {"scale": (0.5, 0.2), "rotate": 30, "translate": (1, 2)},
    "sheared": {"scale": (0.5, 0.2), "shear": (0.3,), "rotate": -10},
    "affine": {"affine": [[0.9, 0.2, 5], [-0.1, 1.1, 7], [0, 0, 1]], "scale": (2, 3)},
}


@pytest.mark.parametrize("kind", GEOMETRY)
def test_a_result_lies_exactly_on_its_source(kind):
    source = Image(np.zeros((100, 130), np.uint8), contrast_limits=(3, 99), **GEOMETRY[kind])
    result = Image(source.data, **result_kwargs(meta_of(source), ()))
    for corner in ((0, 0), (99, 129)):
        np.testing.assert_allclose(result.data_to_world(corner), source.data_to_world(corner))
    assert result.units == source.units
    assert result.axis_labels == source.axis_labels
    assert result.contrast_limits == [3, 99]


@pytest.mark.parametrize("kind", GEOMETRY)
def test_cells_cover_exactly_the_pixels_they_decide_on(kind):
    source = Image(np.zeros((100, 130), np.uint8), **GEOMETRY[kind])
    cells = np.zeros((2, 3), np.uint8)
    overlay = Labels(cells, **experts_kwargs(meta_of(source), "YX", (64, 48), [0] * 6, BLURS))
    for row, column in ((0, 0), (1, 2)):
        # Pixel borders lie half a pixel outside the centres, cell borders half a cell.
        corner = source.data_to_world((row * 64 - 0.5, column * 48 - 0.5))
        np.testing.assert_allclose(overlay.data_to_world((row - 0.5, column - 0.5)), corner)
        corner = source.data_to_world((row * 64 + 63.5, column * 48 + 47.5))
        np.testing.assert_allclose(overlay.data_to_world((row + 0.5, column + 0.5)), corner)


def test_cells_of_a_stack_keep_its_other_axes():
    source = Image(np.zeros((4, 100, 130), np.uint8), scale=(2, 0.5, 0.5))
    overlay = Labels(
        np.zeros((4, 2, 3), np.uint8),
        **experts_kwargs(meta_of(source), "ZYX", (64, 64), [0] * 6, BLURS),
    )
    assert tuple(overlay.scale) == (2, 32, 32)
    np.testing.assert_allclose(overlay.translate, (0, 15.75, 15.75))


def test_cells_follow_the_order_of_the_layers_axes():
    cells = np.arange(4 * 2 * 3).reshape(4, 2, 3)  # planes first, as the core gives them
    assert cells_to_layer_order(cells, "ZYX").shape == (4, 2, 3)
    assert cells_to_layer_order(cells, "ZYXS").shape == (4, 2, 3)
    turned = cells_to_layer_order(cells, "YXZ")
    assert turned.shape == (2, 3, 4)
    assert turned[1, 2, 3] == cells[3, 1, 2]


def test_the_map_speaks_and_shows_five_colours():
    source = Image(np.zeros((64, 64), np.uint8))
    shares = [0, 0.5, 0.25, 0.25, 0, 0]
    overlay = Labels(
        np.array([[1, 2], [3, 5]], np.uint8),
        **experts_kwargs(meta_of(source), "YX", (32, 32), shares, BLURS),
    )
    assert overlay.get_status((1, 1), world=True)["coordinates"].endswith(
        "1; blur: defocus, share: 50%"
    )
    colours = {tuple(overlay.get_color(value)) for value in range(1, 6)}
    assert len(colours) == 5
    assert overlay.get_color(0) is None or overlay.get_color(0)[3] == 0
    assert len(words_of(BLURS)) == 6


def test_opening_the_plugin_loads_no_torch(root):
    code = (
        "import sys\n"
        "import napari_demoe, napari_demoe._session, napari_demoe._layers, napari_demoe._reader\n"
        "import napari_demoe._worker, napari_demoe._settings, napari_demoe._sample_data\n"
        "print(sorted(m for m in ('torch', 'qtpy', 'PySide6', 'magicgui') if m in sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{root / 'src'}:{root}", "HOME": "/nonexistent"},
        check=True,
    )
    assert done.stdout.strip() == "[]"
