"""Axis strings: validation, guesses, and round trips through the canonical order."""

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demoe.errors import AxesError
from demoe.image.axes import (
    CANONICAL,
    check_axes,
    from_canonical,
    guess_axes,
    plane_axes,
    to_canonical,
)


@st.composite
def named_arrays(draw: st.DrawFn) -> tuple[np.ndarray, str]:
    extra = draw(st.lists(st.sampled_from("TCZ"), unique=True))
    letters = draw(st.permutations(["Y", "X", *extra]))
    shape = [draw(st.integers(1, 4)) for _ in letters]
    if draw(st.booleans()):
        letters, shape = [*letters, "S"], [*shape, draw(st.sampled_from([3, 4]))]
    values = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    return values, "".join(letters)


@given(named_arrays())
def test_canonical_round_trip(named: tuple[np.ndarray, str]) -> None:
    array, axes = named
    canonical = to_canonical(array, axes)
    assert canonical.ndim == 6
    for letter, length in zip(CANONICAL, canonical.shape, strict=True):
        assert length == (array.shape[axes.index(letter)] if letter in axes else 1)
    assert np.shares_memory(canonical, array)
    np.testing.assert_array_equal(from_canonical(canonical, axes), array)


@given(named_arrays())
def test_an_index_means_the_same_voxel_in_both_orders(named: tuple[np.ndarray, str]) -> None:
    array, axes = named
    last = tuple(length - 1 for length in array.shape)
    where = tuple(last[axes.index(letter)] if letter in axes else 0 for letter in CANONICAL)
    assert to_canonical(array, axes)[where] == array[last]
    first_row = np.take(array, 0, axis=axes.index("Y"))
    moved = to_canonical(array, axes)[:, :, :, 0]
    assert sorted(moved.ravel()) == sorted(first_row.ravel())


def test_dask_arrays_stay_lazy_and_their_graphs_small() -> None:
    lazy = da.zeros((5, 10**6, 10**6), chunks=(1, 512, 512), dtype="uint8")  # 19 million blocks
    canonical = to_canonical(lazy, "CYX")
    assert isinstance(canonical, da.Array)
    assert canonical.shape == (1, 5, 1, 10**6, 10**6, 1)
    back = from_canonical(canonical, "XYC")
    assert back.shape == (10**6, 10**6, 5)
    assert back.chunksize == (512, 512, 1)
    assert to_canonical(lazy, "CYX").name == canonical.name


@settings(max_examples=40)
@given(named_arrays())
def test_dask_arrays_go_the_same_way(named: tuple[np.ndarray, str]) -> None:
    array, axes = named
    lazy = to_canonical(da.from_array(array, chunks=2), axes)
    np.testing.assert_array_equal(lazy.compute(), to_canonical(array, axes))
    back = from_canonical(lazy, axes)
    np.testing.assert_array_equal(back.compute(), array)
    assert back.dtype == array.dtype


@given(named_arrays())
def test_check_accepts_any_order_and_case(named: tuple[np.ndarray, str]) -> None:
    array, axes = named
    assert check_axes(axes.lower(), array.shape) == axes


@pytest.mark.parametrize(
    ("axes", "shape", "said"),
    [
        ("YXQ", (4, 4, 4), "'Q'"),
        ("Y1", (4, 4), "'1'"),
        ("YYX", (4, 4, 4), "repeat"),
        ("ZYX", (4, 4), "2"),
        ("", (4, 4), "0 dimensions"),
        ("ZY", (4, 4), "X"),
        ("ZC", (4, 4), "Y"),
        ("SYX", (3, 4, 4), "end in S"),
        ("YXS", (4, 4, 2), "2 long"),
    ],
)
def test_check_says_what_is_wrong(axes: str, shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(AxesError, match=said):
        check_axes(axes, shape)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((64, 64), "YX"),
        ((64, 64, 3), "YXS"),
        ((64, 64, 4), "YXS"),
        ((64, 64, 2), "ZYX"),
        ((3, 64, 64), "ZYX"),
        ((64, 3, 3), "ZYX"),
        ((9, 4, 3), "YXS"),
        ((5, 64, 64, 3), "ZYXS"),
        ((3, 64, 64, 3), "ZYXS"),
        ((5, 7, 64, 64), "TZYX"),
        ((5, 64, 4, 4), "TZYX"),
    ],
)
def test_guess(shape: tuple[int, ...], axes: str) -> None:
    assert guess_axes(shape) == axes
    assert check_axes(axes, shape) == axes


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4, 64, 64), (1, 2, 3, 4, 5, 6)])
def test_guess_gives_up(shape: tuple[int, ...]) -> None:
    with pytest.raises(AxesError, match="axes="):
        guess_axes(shape)


def test_a_long_axis_is_never_dropped() -> None:
    with pytest.raises(AxesError, match="Axis Z is 3 long"):
        from_canonical(np.zeros((1, 1, 3, 4, 4, 1)), "YX")


def test_plane_axes_keep_their_order() -> None:
    assert plane_axes("ZTYCXS") == "ZTC"
    assert plane_axes("YX") == ""
