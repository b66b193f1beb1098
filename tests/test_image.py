"""LazyImage: what it takes, what it refuses, what it keeps."""

import pickle

import dask.array as da
import numpy as np
import pytest
import zarr
from dask.base import tokenize

from demoe.errors import AxesError, ImageError
from demoe.image.lazy_image import LazyImage, unit_name


def test_numpy_dask_and_zarr_hold_the_same_pixels(tmp_path) -> None:
    pixels = np.arange(2 * 8 * 9, dtype=np.uint16).reshape(2, 8, 9)
    stored = zarr.create_array(tmp_path / "a.zarr", shape=(2, 8, 9), chunks=(1, 4, 4), dtype="u2")
    stored[:] = pixels
    lazy = da.from_array(pixels, chunks=(1, 8, 3))
    for array in (pixels, lazy, stored, pixels.tolist()):
        image = LazyImage.from_array(array)
        assert image.axes == "ZYX"
        np.testing.assert_array_equal(image.data.compute(), pixels)
    assert LazyImage.from_array(lazy).data is lazy
    assert LazyImage.from_array(stored).data.chunksize == (1, 4, 4)


def test_equal_arrays_have_equal_tokens() -> None:
    one = LazyImage.from_array(np.ones((4, 4)))
    two = LazyImage.from_array(np.ones((4, 4)))
    assert tokenize(one.data) == tokenize(two.data)


def test_shape_words() -> None:
    image = LazyImage.from_array(np.zeros((2, 3, 5, 6, 7, 3), "uint8"), "TCZYXS")
    assert image.plane_shape == (6, 7)
    assert image.n_planes == 30
    assert image.is_rgb
    assert image.ndim == 6
    turned = LazyImage.from_array(np.zeros((6, 5, 7), "uint8"), "yzx")
    assert turned.axes == "YZX"
    assert turned.plane_shape == (6, 7)
    assert turned.n_planes == 5
    assert not turned.is_rgb
    assert turned.canonical.shape == (1, 1, 5, 6, 7, 1)


def test_metadata_is_cleaned_and_kept() -> None:
    image = LazyImage.from_array(
        np.zeros((2, 4, 4), "float32"),
        "CYX",
        scale={"Y": 0.5, "X": 0.5, "Z": 2},
        units={"Y": "\u00b5m", "X": "um", "T": "sec"},
        channel_names=["a", "b"],
        name="cells",
    )
    assert dict(image.scale) == {"Y": 0.5, "X": 0.5}
    assert dict(image.units) == {"Y": "micrometer", "X": "micrometer"}
    doubled = image.with_data(image.data * 2, name="doubled")
    assert doubled.name == "doubled"
    assert doubled.channel_names == ("a", "b")
    assert doubled.scale == image.scale
    copy = pickle.loads(pickle.dumps(image))
    assert copy.axes == "CYX" and copy.units == image.units


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        *[(text, "micrometer") for text in ("um", "\u00b5m", "\u03bcm", "micron", " Microns ")],
        *[("\\u00B5m", "micrometer"), ("micrometre", "micrometer")],
        *[("nm", "nanometer"), ("mm", "millimeter"), ("sec", "second"), ("ms", "millisecond")],
        *[("", "pixel"), ("furlong", "furlong")],
    ],
)
def test_units_are_spelled_in_full(spelling: str, name: str) -> None:
    assert unit_name(spelling) == name


def test_swapped_bytes_become_native() -> None:
    image = LazyImage.from_array(np.array([[1, 256]], dtype=">u2"))
    assert image.dtype == np.uint16 and image.dtype.isnative
    np.testing.assert_array_equal(image.data.compute(), [[1, 256]])


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), bool),
        np.zeros((4, 4), complex),
        np.zeros((4, 4), object),
        np.full((4, 4), "a"),
        np.zeros((0, 4)),
        np.zeros((4, 4, 0)),
        np.float32(3),
        np.zeros(9),
        [[1, 2], [3]],
        da.zeros((4, 4), dtype=bool),
        da.ones((6, 6))[da.ones(6) > 0],
    ],
)
def test_what_is_no_image(array) -> None:
    with pytest.raises(ImageError):
        LazyImage.from_array(array)


def test_five_dimensions_want_axes() -> None:
    stack = np.zeros((1, 2, 3, 8, 8), "uint8")
    with pytest.raises(AxesError, match="axes="):
        LazyImage.from_array(stack)
    assert LazyImage.from_array(stack, "TCZYX").n_planes == 6


@pytest.mark.parametrize("size", [0, -1, float("nan"), float("inf")])
def test_a_scale_is_positive(size: float) -> None:
    with pytest.raises(ImageError, match="along X"):
        LazyImage.from_array(np.zeros((4, 4)), scale={"X": size})


def test_a_scale_has_known_axes() -> None:
    with pytest.raises(AxesError, match="'C'"):
        LazyImage.from_array(np.zeros((2, 4, 4)), "CYX", scale={"C": 1.0})


def test_channel_names_match_channels() -> None:
    with pytest.raises(ImageError, match="2 channels but 1"):
        LazyImage.from_array(np.zeros((2, 4, 4)), "CYX", channel_names=["only"])


def test_other_pixels_are_checked_too() -> None:
    image = LazyImage.from_array(np.zeros((4, 4)))
    with pytest.raises(AxesError):
        image.with_data(da.zeros((2, 4, 4)))
