"""Which tile comes next."""

from __future__ import annotations

import itertools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demoe.live.order import Scope, TileOrder, View, rings
from demoe.plan.tiling import Box


def drained(order: TileOrder, done: set) -> list:
    """Take all that is wanted, as a worker does."""
    found = []
    while (at := order.next()) is not None:
        found.append(at)
        done.add(at)
    return found


@given(
    st.integers(0, 5),
    st.integers(1, 8),
    st.integers(0, 5),
    st.integers(1, 8),
    st.tuples(st.floats(-3, 15), st.floats(-3, 15)),
)
def test_rings_give_each_place_once_and_grow(top, height, left, width, middle):
    rows, cols = range(top, top + height), range(left, left + width)
    found = list(rings(rows, cols, middle))
    assert sorted(found) == list(itertools.product(rows, cols))
    row, col = found[0]
    far = [max(abs(r - row), abs(c - col)) for r, c in found]
    assert far == sorted(far)


def test_rings_of_nothing_are_nothing():
    assert list(rings(range(0), range(3), (0, 0))) == []


@given(
    st.lists(st.integers(1, 4), max_size=3),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.data(),
)
def test_everything_is_computed_once_and_the_view_first(planes, grid, data):
    plane = tuple(data.draw(st.integers(0, n - 1)) for n in planes)
    top, left = (data.draw(st.integers(0, 10 * n - 1)) for n in grid)
    view = View(plane, Box(top, left, top + 15, left + 15))
    done: set = set()
    order = TileOrder(planes, grid, (10, 10), Scope("all"), done)
    order.look(view)
    every = set(itertools.product(*map(range, planes), *map(range, grid)))
    seen = {
        (*plane, r, c)
        for r, c in itertools.product(*map(range, grid))
        if top < 10 * r + 10 and 10 * r < top + 15 and left < 10 * c + 10 and 10 * c < left + 15
    }
    assert order.counts() == (0, len(every))
    found = drained(order, done)
    assert len(found) == len(every)
    assert set(found) == every
    assert set(found[: len(seen)]) == seen
    away = [sum(abs(a - b) for a, b in zip(at, plane, strict=False)) for at in found]
    assert away == sorted(away)
    assert order.counts() == (len(every), len(every))


def test_a_view_wants_only_what_is_seen_and_follows_the_eye():
    done: set = set()
    order = TileOrder((3,), (100, 100), (10, 10), Scope("view"), done)
    order.look(View((1,), Box(0, 0, 30, 30)))
    assert order.next() == (1, 1, 1)
    order.look(View((2,), Box(500, 500, 520, 510)))  # what was not begun is dropped
    assert set(drained(order, done)) == {(2, 50, 50), (2, 51, 50)}
    assert order.counts() == (2, 2)
    order.look(View((1,), Box(0, 0, 20, 10)))
    assert order.counts() == (0, 2)
    assert order.next() is not None


def test_a_region_wants_its_boxes_whatever_is_looked_at():
    done: set = set()
    region = (View((0,), Box(0, 0, 10, 25)), View((2,), Box(90, 90, 95, 95)))
    order = TileOrder((3,), (10, 10), (10, 10), Scope("region", region), done)
    order.look(View((1,), Box(0, 0, 100, 100)))
    assert set(drained(order, done)) == {(0, 0, 0), (0, 0, 1), (0, 0, 2), (2, 9, 9)}


def test_only_some_tiles_may_be_computed():
    done: set = set()
    only = {(0, 0), (3, 3)}
    order = TileOrder((), (4, 4), (10, 10), Scope("all"), done, only)
    assert set(drained(order, done)) == only
    assert order.counts() == (2, 2)


def test_a_change_of_view_costs_nothing_on_a_huge_image():
    order = TileOrder((10_000,), (10_000, 10_000), (1000, 1000), Scope("all"), set())
    for at in range(100):
        order.look(View((at,), Box(at * 1000, 0, at * 1000 + 500, 500)))
        assert order.next() == (at, at, 0)


def test_a_view_of_a_huge_image_is_counted_without_listing_it():
    done = {(0, 0), (5, 5), (1, 10**6)}
    order = TileOrder((), (10**6, 10**6), (256, 256), Scope("view"), done)
    assert order.counts() == (2, 10**12)  # the third lies outside
    order.look(View((), Box(0, 0, 6 * 256, 6 * 256)))
    assert order.counts() == (2, 36)
    order.look(View((), Box(5 * 256, 5 * 256, 6 * 256, 6 * 256)))
    assert order.counts() == (1, 1)


def test_looking_elsewhere_waits_for_nobody():
    class Slow(set):
        """Tiles that are done, among which the one to come is looked for."""

        def __contains__(self, at):
            if at == (0, 3):
                asked.set()
                assert looked.wait(60)
            return super().__contains__(at)

    asked, looked, found = threading.Event(), threading.Event(), []
    order = TileOrder((), (1, 100), (10, 10), Scope("view"), Slow({(0, 1), (0, 2)}))
    order.look(View((), Box(0, 10, 10, 60), (5.0, 10.0)))
    worker = threading.Thread(target=lambda: found.append(order.next()))
    worker.start()
    assert asked.wait(60)
    order.look(View((), Box(0, 800, 10, 810)))  # from the thread that draws the window
    looked.set()
    worker.join()
    assert found == [(0, 80)]  # what was found meanwhile is dropped before it begins


def test_whoever_waits_is_woken_by_a_change():
    order = TileOrder((), (2, 2), (10, 10), Scope("view"), set())
    order.scope = Scope("all")
    order.wait(60)  # returns at once, or this test would take a minute
    assert order.scope.kind == "all"


@pytest.mark.parametrize("kind", ["view", "all"])
def test_a_tile_that_was_put_back_comes_again(kind):
    done: set = set()
    order = TileOrder((), (1, 1), (10, 10), Scope(kind), done)
    drained(order, done)
    done.clear()
    assert order.next() is None
    order.again()
    assert order.next() == (0, 0)
