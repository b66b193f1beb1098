"""Tile plans: integers that must hold for every shape, from one pixel to a million a side."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demoe.plan.tiling import Box, TilePlan

LARGEST = 10**6


@st.composite
def plans(draw: st.DrawFn, largest: int = LARGEST) -> TilePlan:
    """Any plan: tiles and halos from one grid cell to more than the plane."""
    grid = draw(st.integers(1, 64) | st.just(16))
    sizes = st.integers(1, largest)
    sides = st.integers(1, 128) | st.integers(1, 2 * largest // grid + 1)
    return TilePlan(
        height=draw(sizes),
        width=draw(sizes),
        tile=grid * draw(sides),
        halo=grid * draw(st.just(0) | sides),
        grid=grid,
    )


@st.composite
def plans_with_a_place(draw: st.DrawFn) -> tuple[TilePlan, int, int]:
    plan = draw(plans())
    rows, cols = plan.shape
    return plan, draw(st.integers(0, rows - 1)), draw(st.integers(0, cols - 1))


@given(plans(largest=20_000))
def test_cores_partition_each_axis(plan: TilePlan) -> None:
    # Tiles are all pairs of a row and a column, so the axes can be looked at one by one.
    rows, cols = plan.shape
    down = [plan.tile_at(row, 0).core for row in range(rows)]
    across = [plan.tile_at(0, col).core for col in range(cols)]
    assert (down[0].top, down[-1].bottom) == (0, plan.height)
    assert (across[0].left, across[-1].right) == (0, plan.width)
    assert all(above.bottom == below.top for above, below in pairwise(down))
    assert all(one.right == other.left for one, other in pairwise(across))
    assert tuple(core.shape[0] for core in down) == plan.chunks[0]
    assert tuple(core.shape[1] for core in across) == plan.chunks[1]


@given(plans())
def test_chunks_are_regular_and_fill_the_plane(plan: TilePlan) -> None:
    for sides, size, side in zip(
        plan.chunks, (plan.height, plan.width), plan.core_shape, strict=True
    ):
        assert sum(sides) == size
        assert set(sides[:-1]) <= {side}
        assert 0 < sides[-1] <= side <= plan.tile
        assert len(sides) == -(-size // side)
        # No sliver: the fewest tiles that would do, or fewer.
        assert len(sides) <= -(-size // plan.tile)


@given(plans_with_a_place())
def test_any_tile_begins_where_the_chunks_before_it_end(
    place: tuple[TilePlan, int, int],
) -> None:
    plan, row, col = place
    core = plan.tile_at(row, col).core
    down, across = plan.chunks
    assert (core.top, core.left) == (sum(down[:row]), sum(across[:col]))
    assert core.shape == (down[row], across[col])
    # Only the last of a row or column may be smaller than the rest.
    assert core.shape[0] == plan.core_shape[0] or row == plan.shape[0] - 1
    assert core.shape[1] == plan.core_shape[1] or col == plan.shape[1] - 1
    assert core.shape[0] <= plan.core_shape[0]
    assert core.shape[1] <= plan.core_shape[1]


@given(plans(), st.data())
def test_any_pixel_lies_in_one_core(plan: TilePlan, data: st.DataObject) -> None:
    y, x = data.draw(st.integers(0, plan.height - 1)), data.draw(st.integers(0, plan.width - 1))
    row, col = y // plan.core_shape[0], x // plan.core_shape[1]
    near = [
        (r, c)
        for r in range(max(0, row - 1), min(plan.shape[0], row + 2))
        for c in range(max(0, col - 1), min(plan.shape[1], col + 2))
    ]
    holding = [at for at in near if _holds(plan.tile_at(*at).core, y, x)]
    assert holding == [(row, col)]


def _holds(box: Box, y: int, x: int) -> bool:
    return box.top <= y < box.bottom and box.left <= x < box.right


@given(plans_with_a_place())
def test_any_tile_reads_on_the_grid_and_inside_the_plane(
    place: tuple[TilePlan, int, int],
) -> None:
    plan, row, col = place
    tile = plan.tile_at(row, col)
    core, read = tile.core, tile.read
    assert min(core.shape) >= 1
    assert max(core.shape) <= plan.tile
    assert 0 <= read.top <= core.top < core.bottom <= read.bottom <= plan.height
    assert 0 <= read.left <= core.left < core.right <= read.right <= plan.width
    assert all(edge % plan.grid == 0 for edge in (core.top, core.left, read.top, read.left))
    # An edge off the grid can only be the plane's own.
    assert core.bottom % plan.grid == 0 or core.bottom == plan.height
    assert read.right % plan.grid == 0 or read.right == plan.width
    # The halo is whole, or ends where the plane does.
    assert core.top - read.top >= plan.halo or read.top == 0
    assert core.left - read.left >= plan.halo or read.left == 0
    assert read.bottom - core.bottom >= plan.halo or read.bottom == plan.height
    assert read.right - core.right >= plan.halo or read.right == plan.width
    # One size for all, so that a network need not be prepared for more.
    other = plan.tile_at(0, 0).read
    assert [-(-n // plan.grid) for n in read.shape] == [-(-n // plan.grid) for n in other.shape]
    assert all(
        n <= side + 2 * plan.halo + plan.grid - 1
        for n, side in zip(read.shape, plan.core_shape, strict=True)
    )


@given(plans_with_a_place())
def test_the_core_is_found_again_in_what_was_read(place: tuple[TilePlan, int, int]) -> None:
    plan, row, col = place
    tile = plan.tile_at(row, col)
    rows, cols = tile.core.within(tile.read)
    assert rows.start + tile.read.top == tile.core.top
    assert cols.start + tile.read.left == tile.core.left
    assert (rows.stop - rows.start, cols.stop - cols.start) == tile.core.shape
    assert tile.core.slices == (
        slice(tile.core.top, tile.core.bottom),
        slice(tile.core.left, tile.core.right),
    )


@given(plans_with_a_place())
def test_equal_settings_give_equal_tiles(place: tuple[TilePlan, int, int]) -> None:
    plan, row, col = place
    again = TilePlan(plan.height, plan.width, plan.tile, plan.halo, plan.grid)
    assert again == plan
    assert hash(again) == hash(plan)
    assert (again.shape, again.chunks) == (plan.shape, plan.chunks)
    assert again.tile_at(row, col) == plan.tile_at(row, col)


@given(plans_with_a_place(), st.integers(1, 10**6))
def test_the_halo_changes_what_is_read_and_never_what_is_delivered(
    place: tuple[TilePlan, int, int], more: int
) -> None:
    plan, row, col = place
    wider = replace(plan, halo=plan.halo + plan.grid * more)
    tile, other = plan.tile_at(row, col), wider.tile_at(row, col)
    assert other.core == tile.core
    assert other.read.top <= tile.read.top
    assert other.read.left <= tile.read.left
    assert other.read.bottom >= tile.read.bottom
    assert other.read.right >= tile.read.right


@given(plans())
def test_a_plane_within_a_tile_is_one_tile(plan: TilePlan) -> None:
    one = replace(plan, height=min(plan.height, plan.tile), width=min(plan.width, plan.tile))
    whole = Box(0, 0, one.height, one.width)
    assert one.shape == (1, 1)
    assert one.tile_at(0, 0).core == one.tile_at(0, 0).read == whole


@pytest.mark.parametrize(("row", "col"), [(-1, 0), (0, -1), (2, 0), (0, 3)])
def test_there_is_no_tile_outside_the_grid(row: int, col: int) -> None:
    plan = TilePlan(128, 192, 64, 16)
    assert plan.shape == (2, 3)
    with pytest.raises(IndexError, match="2 x 3"):
        plan.tile_at(row, col)


@pytest.mark.parametrize(
    "sizes",
    [
        (0, 5, 64, 0),
        (5, 0, 64, 0),
        (-5, 5, 64, 0),
        (5, 5, 0, 0),
        (5, 5, -64, 0),
        (5, 5, 64, -16),
        (5, 5, 60, 0),
        (5, 5, 64, 8),
        (5, 5, 64, 0, 0),
        (5, 5, 64, 0, -16),
        (5, 5, 64, 0, 48),
    ],
)
def test_impossible_plans_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        TilePlan(*sizes)
