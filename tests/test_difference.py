"""Differences and parts of arrays that are read where they are looked at; sharpness."""

import math

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from demoe.image.difference import Difference, Part, full_index
from demoe.image.sharpness import sharpness

PLANES = np.random.default_rng(0).integers(0, 2**16, (3, 20, 31), np.uint16)


def slices(length: int) -> st.SearchStrategy:
    ends = st.none() | st.integers(-length - 2, length + 2)
    return st.builds(slice, ends, ends, st.none() | st.integers(1, 4))


@given(data=st.data())
def test_a_part_is_what_numpy_takes(data):
    start, step, shape = [], [], []
    for whole in PLANES.shape:
        first = data.draw(st.integers(0, whole - 1))
        stride = data.draw(st.integers(1, 5))
        start.append(first)
        step.append(stride)
        shape.append(data.draw(st.integers(1, (whole - 1 - first) // stride + 1)))
    part = Part(PLANES, start, step, shape)
    ends = [f + s * (n - 1) + 1 for f, s, n in zip(start, step, shape, strict=True)]
    expected = PLANES[tuple(map(slice, start, ends, step))]
    index = tuple(
        data.draw(st.integers(-length, length - 1) | slices(length)) for length in expected.shape
    )
    assert (part.shape, part.ndim, part.dtype) == (expected.shape, 3, np.uint16)
    np.testing.assert_array_equal(part[index], expected[index])
    np.testing.assert_array_equal(np.asarray(part), expected)


def test_a_part_that_does_not_lie_in_the_array_is_refused():
    with pytest.raises(IndexError, match="does not lie in an array"):
        Part(PLANES, (0, 0, 1), (1, 2, 2), (3, 10, 16))


@given(index=st.tuples(st.integers(-3, 2) | slices(3), slices(20), slices(31)))
def test_a_difference_is_signed_and_has_no_wrap(index):
    found = Difference(PLANES[::-1], PLANES)[index]
    expected = PLANES[::-1].astype(int)[index] - PLANES.astype(int)[index]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("wrap", [np.asarray, da.from_array, zarr.array])
def test_a_difference_reads_any_kind_of_array(wrap):
    found = Difference(wrap(PLANES), Part(wrap(PLANES), (0, 0, 0), (1, 1, 1), PLANES.shape))
    assert (found.shape, found.ndim, found.size) == (PLANES.shape, 3, PLANES.size)
    assert len(found) == 3
    assert not np.asarray(found).any()
    assert found[1, ..., 4:6].shape == (20, 2)
    assert found[2].shape == (20, 31)


def test_only_what_is_looked_at_is_read():
    class Watched:
        shape, dtype = (10**6, 10**6), np.dtype(np.uint8)
        asked = ()

        def __getitem__(self, index):
            self.asked = index
            return np.ones([len(range(*part.indices(10**6))) for part in index], np.uint8)

    array = Watched()
    assert Difference(array, array)[5:9, 7:10].shape == (4, 3)
    assert array.asked == (slice(5, 9), slice(7, 10))


def test_of_colours_the_mean_is_compared():
    photo = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    found = Difference(photo, photo // 2, colour=True)
    assert found.shape == (4, 5)
    expected = photo.mean(-1) - (photo // 2).mean(-1)
    np.testing.assert_allclose(found[...], expected, rtol=1e-6)
    assert found[1, 2].shape == ()


def test_numbers_that_float32_cannot_hold_are_subtracted_first():
    large = np.full((2, 2), 2**40, np.int64)
    np.testing.assert_array_equal(Difference(large + 3, large)[...], 3)


def test_images_of_two_shapes_and_strange_indices_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        Difference(PLANES, PLANES[:2])
    for index in ((1, 2, 3, 4), "name", slice(None, None, -1), [1, 2]):
        with pytest.raises(IndexError):
            full_index(index, (3, 4, 5))


def test_sharpness_falls_with_blur_and_not_with_brightness():
    rows, columns = np.mgrid[:60, :80]
    fine = 100 + 50 * np.sin(rows / 2) * np.cos(columns / 3)
    soft = (fine + np.roll(fine, 1, 0) + np.roll(fine, 1, 1) + np.roll(fine, (1, 1), (0, 1))) / 4
    assert sharpness(soft) < 0.95 * sharpness(fine)
    assert sharpness(3 * fine) == pytest.approx(sharpness(fine))
    assert sharpness(np.full((5, 5), 7)) == 0


def test_sharpness_of_a_ramp_is_its_slope_over_its_mean():
    ramp = np.tile(np.arange(11, dtype=np.uint8), (4, 1))
    assert sharpness(ramp) == pytest.approx(1 / 25)


@pytest.mark.parametrize("nothing", [np.ones((1, 9)), np.zeros((9, 9)), -np.ones((9, 9))])
def test_what_has_no_sharpness_is_said(nothing):
    assert math.isnan(sharpness(nothing))
