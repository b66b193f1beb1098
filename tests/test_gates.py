"""Gate fields: where decisions are made, how they spread, and what a person paints over them."""

from __future__ import annotations

from itertools import pairwise

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from demoe.choices import TASKS
from demoe.errors import AxesError, ImageError
from demoe.routing.gates import (
    by_layer,
    confidence,
    decide_where_needed,
    expert_map,
    fill,
    one_hot,
    override,
    spread,
    windows,
    windows_near,
)
from demoe.routing.painted import PaintedMap


def some_gates(rows: int, cols: int, seed: int = 0) -> np.ndarray:
    raw = np.random.default_rng(seed).random((5, rows, cols), np.float32)
    return raw / raw.sum(axis=0)


def test_a_task_is_one_expert_everywhere() -> None:
    for number, task in enumerate(TASKS):
        gates = fill(one_hot(TASKS.index(task) + 1, len(TASKS)), 3, 4)
        assert gates.shape == (5, 3, 4)
        assert gates.dtype == np.float32
        assert gates.sum() == 12
        assert (expert_map(gates) == number + 1).all()
    assert expert_map(np.zeros((2, 3, 5, 4, 6), np.float32)).shape == (2, 3, 4, 6)


# -- windows ---------------------------------------------------------------------------------------


@given(st.integers(1, 10**6), st.integers(16, 4096))
def test_windows_cover_the_plane_side_by_side(size: int, window: int) -> None:
    side, starts = windows(size, window)
    assert side == min(size, window)
    assert starts[0] == 0
    assert starts[-1] + side == size
    assert all(0 < after - before <= side for before, after in pairwise(starts))
    assert len(starts) == -(-size // window)


@st.composite
def cells_of_planes(draw: st.DrawFn) -> tuple[range, int, int, int]:
    pitch = 16 * draw(st.integers(1, 8))
    window = pitch * draw(st.integers(1, 6))
    size = draw(st.integers(1, 10**5))
    count = -(-size // pitch)
    first = draw(st.integers(0, count - 1))
    return range(first, min(count, first + 20)), size, pitch, window


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 10_000))
def test_every_second_window_decides_where_they_agree(rows: int, cols: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Few changes, so that some neighbours agree and some do not.
    winner = np.repeat(np.repeat(rng.integers(0, 2, (3, 3)), 3, 0), 3, 1)[:rows, :cols]
    every = np.full((5, rows, cols), 0.1, np.float32)
    np.put_along_axis(every, winner[None], 0.6, axis=0)
    asked = np.zeros((rows, cols), int)

    def ask(which: np.ndarray) -> np.ndarray:
        asked[which] += 1
        return every[:, which]

    found = decide_where_needed(ask, rows, cols)
    assert asked.max() == 1
    assert asked[::2, ::2].all()
    np.testing.assert_array_equal(found[:, asked > 0], every[:, asked > 0])
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)
    for row, col in np.argwhere(asked == 0):
        around = every[:, row // 2 * 2 : row + 2 : 2, col // 2 * 2 : col + 2 : 2]
        assert len(np.unique(around.argmax(axis=0))) == 1
        np.testing.assert_allclose(found[:, row, col], around[:, 0, 0], atol=1e-6)
    if len(np.unique(winner[::2, ::2])) == 1:
        assert asked.sum() == -(-rows // 2) * -(-cols // 2)


@given(cells_of_planes())
def test_cells_take_their_gates_from_the_windows_around(
    place: tuple[range, int, int, int],
) -> None:
    cells, size, pitch, window = place
    side, starts = windows(size, window)
    near, at = windows_near(*place)
    assert 0 <= near.start < near.stop <= len(starts)
    centres = np.array(starts) + side / 2
    for cell, place_among in zip(cells, at, strict=True):
        middle = (cell * pitch + min(size, (cell + 1) * pitch)) / 2
        wanted = np.interp(middle, centres, np.arange(len(starts)) + 0.5)
        assert abs(place_among + near.start - wanted) < 1e-6


# -- spread ----------------------------------------------------------------------------------------


@given(
    hnp.arrays(np.float32, (5, 3, 4), elements=st.floats(0, 1, width=32)).filter(
        lambda raw: raw.sum(axis=0).min() > 0.01
    ),
    st.lists(st.floats(-2, 6), min_size=1, max_size=5),
)
def test_sums_are_kept_and_nothing_is_below_zero(raw: np.ndarray, at: list[float]) -> None:
    gates = raw / raw.sum(axis=0)
    out = spread(gates, np.array(at), np.array(at))
    assert out.shape == (5, len(at), len(at))
    assert out.dtype == np.float32
    assert out.min() >= 0
    np.testing.assert_allclose(out.sum(axis=0), 1, atol=1e-5)


def test_a_constant_stays_itself() -> None:
    gates = fill(some_gates(1, 1)[:, 0, 0], 4, 7)
    out = spread(gates, np.linspace(-1, 5, 9), np.linspace(0, 7, 11))
    np.testing.assert_allclose(out, fill(gates[:, 0, 0], 9, 11), atol=1e-6)


def test_cells_keep_their_value_at_their_centre() -> None:
    gates = some_gates(4, 6)
    out = spread(gates, np.arange(4) + 0.5, np.arange(6) + 0.5)
    np.testing.assert_allclose(out, gates, atol=1e-6)


def test_it_is_linear_between_centres_and_holds_beyond_them() -> None:
    gates = some_gates(2, 3)
    out = spread(gates, np.array([0.75]), np.array([1.5]))
    np.testing.assert_allclose(
        out[:, 0, 0], 0.75 * gates[:, 0, 1] + 0.25 * gates[:, 1, 1], atol=1e-6
    )
    steps = spread(gates, np.array([0.5]), np.linspace(0.5, 1.5, 9))[:, 0]
    np.testing.assert_allclose(np.diff(steps, axis=1, n=2), 0, atol=1e-6)
    outside = spread(gates, np.array([-3.0, 0.2]), np.array([0.0, 9.0]))
    np.testing.assert_allclose(outside[:, :, 0], gates[:, [0, 0], 0], atol=1e-6)
    np.testing.assert_allclose(outside[:, :, 1], gates[:, [0, 0], 2], atol=1e-6)


# -- painted maps ----------------------------------------------------------------------------------


def labels(
    values: np.ndarray, size: tuple[int, int], pitch: int, plane: tuple[int, ...] = ()
) -> np.ndarray:
    """Expert map of a whole plane with the painted values, 0 where the router's gates are left."""
    painted = PaintedMap(values, values.shape[:-2], size, pitch, 5)
    rows, cols = (-(-n // pitch) for n in size)
    gates = some_gates(rows, cols)
    found = painted.labels(plane, range(rows), range(cols))
    if found is None:
        return np.zeros((rows, cols))
    out = override(gates, found)
    assert out.shape == gates.shape
    assert out.dtype == np.float32
    left = (out == gates).all(axis=0)
    forced = ((out == 0).sum(axis=0) == 4) & (out.max(axis=0) == 1)
    assert (left ^ forced).all()
    return np.where(left, 0, expert_map(out))


def test_a_map_of_pixels_forces_the_cells_whose_centre_is_painted() -> None:
    values = np.zeros((100, 130), np.int64)
    values[:, 64:] = 4
    values[40:, :20] = 2
    values[:5, :5] = 1  # away from any centre
    assert labels(values, (100, 130), 32).tolist() == [
        [0, 0, 4, 4, 4],
        [2, 0, 4, 4, 4],
        [2, 0, 4, 4, 4],
        [2, 0, 4, 4, 4],
    ]


@pytest.mark.parametrize("size", [(130, 65), (129, 64), (200, 1), (192, 127)])
def test_a_map_of_cells_is_taken_cell_by_cell(size: tuple[int, int]) -> None:
    # As the expert map of a result, whose last cells may be cut off by the plane's end.
    shape = tuple(-(-n // 64) for n in size)
    values = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8) % 6
    np.testing.assert_array_equal(labels(values, size, 64), values)


@pytest.mark.parametrize("shape", [(1, 1), (2, 4), (16, 32), (200, 400), (3, 5)])
def test_maps_of_any_resolution_cover_the_plane(shape: tuple[int, int]) -> None:
    values = np.full(shape, 3, np.uint16)
    assert (labels(values, (100, 200), 16) == 3).all()
    # The right half of the map is the right half of the plane.
    values[:, : shape[1] // 2] = 0
    cols = labels(values, (100, 200), 16)[0]
    edge = shape[1] // 2 / shape[1] * 200
    centres = np.minimum(np.arange(13) * 16 + 8, (np.arange(13) * 16 + 200) / 2)
    np.testing.assert_array_equal(cols, np.where(centres < edge, 0, 3))


def test_each_plane_has_its_own_map_or_all_share_one() -> None:
    values = np.zeros((2, 3, 4, 4), np.int8)
    values[1, 2] = 5
    assert (labels(values, (64, 64), 16, (1, 2)) == 5).all()
    assert (labels(values, (64, 64), 16, (0, 2)) == 0).all()
    shared = PaintedMap(np.full((4, 4), 2), (2, 3), (64, 64), 16, 5)
    for plane in ((0, 0), (1, 2)):
        assert (shared.labels(plane, range(4), range(4)) == 2).all()


def test_parts_of_a_plane_are_parts_of_the_whole() -> None:
    painted = PaintedMap(np.random.default_rng(1).integers(0, 6, (37, 41)), (), (128, 140), 16, 5)
    whole = painted.labels((), range(8), range(9))
    part = painted.labels((), range(3, 5), range(2, 9))
    np.testing.assert_array_equal(part, whole[3:5, 2:9])


def test_a_map_with_a_pixel_size_lies_where_that_puts_it() -> None:
    values = np.zeros((3, 3), np.int16)
    values[1, 2] = 4
    # Rows of 40 pixels, columns of 20: the map ends at column 60 of 100.
    cells = PaintedMap(values, (), (100, 100), 16, 5, step=(40.0, 20.0)).cells
    expected = np.zeros((7, 7), int)
    expected[2:5, 2:4] = 4  # centres from 40 up to 80 down, from 40 up to 60 across
    np.testing.assert_array_equal(cells, expected)


def test_maps_on_disk_are_read_at_the_centres_of_cells(tmp_path) -> None:
    values = np.random.default_rng(2).integers(0, 6, (2, 90, 130), np.uint8)
    stored = zarr.create_array(tmp_path / "map.zarr", data=values, chunks=(1, 32, 32))
    plain = PaintedMap(values, (2,), (90, 130), 16, 5).cells
    assert plain.shape == (2, 6, 9)
    for lazy in (stored, da.from_array(values, chunks=(2, 40, 50))):
        np.testing.assert_array_equal(PaintedMap(lazy, (2,), (90, 130), 16, 5).cells, plain)
    stored[0, 1, 1] = 9  # off every centre, and wrong all the same
    with pytest.raises(ImageError, match="from 0 to 9"):
        PaintedMap(stored, (2,), (90, 130), 16, 5)


# -- confidence ------------------------------------------------------------------------------------


def test_confidence_is_the_lead_of_the_strongest_expert() -> None:
    gates = np.zeros((5, 1, 4), np.float32)
    gates[:, 0] = np.transpose(
        [(0, 1, 0, 0, 0), (0.5, 0.5, 0, 0, 0), (0.2,) * 5, (0.1, 0.15, 0.6, 0.1, 0.05)]
    )
    found = confidence(gates)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[1, 0, 0, 0.45]], atol=1e-6)
    stack = np.stack([gates, gates[::-1]])
    np.testing.assert_array_equal(confidence(stack), [found, found])  # whatever the order of tasks


@pytest.mark.parametrize(
    ("values", "planes", "error", "words"),
    [
        (np.zeros((4, 4)), (), ImageError, "float64"),
        (np.zeros((4, 4), bool), (), ImageError, "bool"),
        (np.full((4, 4), 6), (), ImageError, "from 6 to 6"),
        (np.array([[0, -1]]), (), ImageError, "from -1 to 0"),
        ([[0, 1], [2]], (), ImageError, "rows of one length"),
        (np.zeros(4, int), (), AxesError, r"\(4,\)"),
        (np.zeros((0, 4), int), (), AxesError, r"\(0, 4\)"),
        (np.zeros((2, 4, 4), int), (), AxesError, r"\(2, 4, 4\)"),
        (np.zeros((2, 4, 4), int), (3,), AxesError, r"\(2,\) planes, but the image has \(3,\)"),
        (np.zeros((3, 4, 4), int), (2, 3), AxesError, "4 axes"),
    ],
)
def test_maps_that_do_not_fit_are_refused(values, planes, error, words) -> None:
    with pytest.raises(error, match=words) as caught:
        PaintedMap(values, planes, (64, 64), 16, 5)
    assert str(caught.value).endswith(".")


# -- several layers --------------------------------------------------------------------------------


def test_paint_forces_all_layers() -> None:
    decided = np.stack([*some_gates(2, 3), *some_gates(2, 3, seed=1)])
    labels = np.array([[0, 2, 0], [1, 0, 5]], np.uint8)
    out = by_layer(override(decided, labels, layers=2), 2)
    for before, after in zip(by_layer(decided, 2), out, strict=True):
        np.testing.assert_array_equal(after, override(before, labels))


def test_windows_between_are_asked_where_any_layer_differs() -> None:
    first, second = (np.eye(2, dtype=np.float32)[n][:, None, None] for n in (0, 1))
    same, other = (np.repeat(one, 5, axis=2) for one in (first, second))
    mixed = np.concatenate([same[:, :, :3], other[:, :, 3:]], axis=2)
    asked: list[np.ndarray] = []

    def ask(which: np.ndarray) -> np.ndarray:
        asked.append(which)
        return np.concatenate([same, mixed])[:, which]

    found = decide_where_needed(ask, 1, 5, layers=2)
    assert [which[0].tolist() for which in asked] == [
        [True, False, True, False, True],
        [False, False, False, True, False],
    ]
    np.testing.assert_array_equal(found, np.concatenate([same, mixed]))
