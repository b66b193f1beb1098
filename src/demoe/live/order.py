"""Which tile comes next: those that are looked at, from the middle outwards, then the rest.

Nothing lists the tiles of an image: rings around the middle are made as they are needed, so that a
change of view costs the same on any image.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from demoe.plan.tiling import Box

Where = tuple[int, ...]
"""Index along the plane axes of an image, in its order, then row and column of a tile."""


@dataclass(frozen=True)
class View:
    """What is looked at.

    Attributes
    ----------
    plane : tuple of int
        Index along the plane axes.
    box : Box
        The pixels of that plane.
    centre : (float, float), optional
        The pixel that counts most; by default the middle of the box.
    """

    plane: tuple[int, ...]
    box: Box
    centre: tuple[float, float] | None = None


@dataclass(frozen=True)
class Scope:
    """Which tiles are wanted.

    Attributes
    ----------
    kind : str
        "view": what is looked at; "region": what lies in some boxes; "all": everything, what is
        looked at first.
    region : tuple of View
        The boxes of "region".
    """

    kind: str = "all"
    region: tuple[View, ...] = ()


class TileOrder:
    """Says which tile is to be computed next; views may change at any time, from any thread.

    Parameters
    ----------
    planes : sequence of int
        Lengths of the plane axes.
    grid : (int, int)
        Rows and columns of tiles of a plane.
    side : (int, int)
        Rows and columns of pixels of a tile.
    scope : Scope
        What is wanted.
    done : set of Where
        Tiles that nobody has to compute any more; it may grow meanwhile.
    only : collection of Where, optional
        The tiles that may be computed at all; by default every one.
    """

    def __init__(
        self,
        planes: Sequence[int],
        grid: tuple[int, int],
        side: tuple[int, int],
        scope: Scope,
        done: set[Where],
        only: Collection[Where] | None = None,
    ) -> None:
        self._planes, self._grid, self._side = tuple(planes), grid, side
        self._scope, self._done, self._only = scope, done, only
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._view = View((0,) * len(self._planes), Box(0, 0, grid[0] * side[0], grid[1] * side[1]))
        self._left = self._wanted()
        self._moved = False  # since then, so that it has to be made anew

    @property
    def scope(self) -> Scope:
        """What is wanted."""
        return self._scope

    @scope.setter
    def scope(self, scope: Scope) -> None:
        self._scope = scope
        self.again()
        self._changed.set()

    def look(self, view: View) -> None:
        """Say what is looked at now; never waits, for a window is drawn by who calls it."""
        if view != self._view:
            self._view = view
            self.again()
            self._changed.set()

    def next(self) -> Where | None:
        """Return the tile to compute now; None where nothing is wanted that is not done."""
        with self._lock:
            at: Where | None = None
            while at is None or self._moved:
                if self._moved:
                    self._moved = False  # before it is made: what changes meanwhile counts
                    self._left = self._wanted()
                at = next(self._left, None)
                if at is None and not self._moved:
                    return None
                if at in self._done:
                    at = None
            return at

    def again(self) -> None:
        """Begin anew with the tile that matters most, because one was put back."""
        self._moved = True

    def wait(self, seconds: float) -> None:
        """Wait until view or scope change, but not for longer than that."""
        self._changed.wait(seconds)
        self._changed.clear()

    def counts(self) -> tuple[int, int]:
        """Return how many of the tiles that are wanted are done, and how many they are."""
        scope = self._scope
        if scope.kind == "all" or self._only is not None:
            return self.whole
        parts = [self._view] if scope.kind == "view" else scope.region
        if len(parts) == 1:
            return self._count(parts[0])
        wanted = {at for part in parts for at in self._of(part)}
        return len(wanted & self._done), len(wanted)

    def _count(self, view: View) -> tuple[int, int]:
        """Count a view's tiles without listing more of them than are done."""
        rows, cols = self._touched(view.box)
        total = len(rows) * len(cols)
        if total <= len(self._done):
            return sum(at in self._done for at in self._of(view)), total
        done = self._done.copy()  # in one go: it grows meanwhile
        inside = (at[:-2] == view.plane and at[-2] in rows and at[-1] in cols for at in done)
        return sum(inside), total

    @property
    def whole(self) -> tuple[int, int]:
        """How many tiles are done of all that may be computed, and how many those are."""
        if self._only is not None:
            return sum(at in self._done for at in self._only), len(self._only)
        return len(self._done), math.prod(self._planes) * math.prod(self._grid)

    def _wanted(self) -> Iterator[Where]:
        """Give the tiles that are wanted, each at least once, the first ones first."""
        every: Iterator[Where]
        if self._scope.kind == "region":
            every = itertools.chain.from_iterable(map(self._of, self._scope.region))
        elif self._scope.kind == "view":
            every = self._of(self._view)
        else:
            every = self._everything()
        return every if self._only is None else (at for at in every if at in self._only)

    def _of(self, view: View) -> Iterator[Where]:
        """Give the tiles of a view, from its middle outwards."""
        rows, cols = self._touched(view.box)
        for row, col in rings(rows, cols, self._middle(view)):
            yield (*view.plane, row, col)

    def _everything(self) -> Iterator[Where]:
        view, middle = self._view, self._middle(self._view)
        yield from self._of(view)
        for plane in _nearest(self._planes, view.plane):
            for row, col in rings(range(self._grid[0]), range(self._grid[1]), middle):
                yield (*plane, row, col)

    def _touched(self, box: Box) -> tuple[range, range]:
        spans = ((box.top, box.bottom), (box.left, box.right))
        rows, cols = (
            range(max(0, start // side), min(count, -(-stop // side)))
            for (start, stop), side, count in zip(spans, self._side, self._grid, strict=True)
        )
        return rows, cols

    def _middle(self, view: View) -> tuple[float, float]:
        box, (down, across) = view.box, self._side
        row, col = view.centre or ((box.top + box.bottom) / 2, (box.left + box.right) / 2)
        return row / down - 0.5, col / across - 0.5


def rings(rows: range, cols: range, middle: tuple[float, float]) -> Iterator[tuple[int, int]]:
    """Give the places of a grid in rings around its place that is nearest to the middle.

    Each once; within a ring, the nearest first.
    """
    if not rows or not cols:
        return
    row, col = (
        min(max(round(at), part.start), part.stop - 1)
        for at, part in zip(middle, (rows, cols), strict=True)
    )
    reach = max(row - rows.start, rows.stop - 1 - row, col - cols.start, cols.stop - 1 - col)
    for n in range(reach + 1):
        top, bottom = max(row - n, rows.start), min(row + n, rows.stop - 1)
        left, right = max(col - n, cols.start), min(col + n, cols.stop - 1)
        ring = [(r, c) for r in {row - n, row + n} if r in rows for c in range(left, right + 1)]
        ring += [
            (r, c)
            for c in {col - n, col + n}
            if c in cols
            for r in range(top, bottom + 1)
            if abs(r - row) < n
        ]
        yield from sorted(
            ring, key=lambda at: ((at[0] - middle[0]) ** 2 + (at[1] - middle[1]) ** 2, at)
        )


def _nearest(lengths: Sequence[int], here: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Give the indices of a grid of planes, in growing distance from one, each once."""
    if not lengths:
        yield ()
        return
    for distance in range(sum(length - 1 for length in lengths) + 1):
        yield from _at_distance(lengths, here, distance)


def _at_distance(
    lengths: Sequence[int], here: Sequence[int], distance: int
) -> Iterator[tuple[int, ...]]:
    """Give the indices so many steps away, the last axis counting most."""
    if not lengths:
        if distance == 0:
            yield ()
        return
    for step in range(distance + 1):
        for first in sorted({here[0] - step, here[0] + step}):
            if 0 <= first < lengths[0]:
                for rest in _at_distance(lengths[1:], here[1:], distance - step):
                    yield (first, *rest)
