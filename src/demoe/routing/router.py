"""Which choice of a network works where, for any routing cell of an image, if nobody paints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from demoe.plan.tiling import Box, Plane, TilePlan
from demoe.plan.windows import spread_starts
from demoe.recipe import Recipe
from demoe.routing.consensus import agree, sharpen, smooth
from demoe.routing.gates import (
    Gates,
    by_layer,
    cells_around,
    decide_where_needed,
    fill,
    in_each_layer,
    one_hot,
    spread,
    windows,
    windows_near,
)

ROUTING_BLOCK = 1024
"""Side in pixels of the blocks in which windows are decided on; independent of compute tiles."""

SURVEYED_WHOLE = 1024**2
"""Pixels of the largest plane that is surveyed as a whole; larger ones by samples."""

SAMPLES, SAMPLE = 3, 256
"""Samples along each axis that stand for a larger plane, and their side in pixels."""

Pixels = NDArray[np.float32]
Look = Callable[[Plane, Box], Pixels]
"""Returns a rectangle of a plane as networks want it."""

Once = Callable[[str, Any, Callable[[], Any]], Any]
"""Returns what was made under a kind and a key, making it at the first call."""


class Decider(Protocol):
    """What the router asks of a network."""

    def decide(self, samples: Sequence[Pixels]) -> Gates:
        """Return one decision on a plane, from samples (H, W, S) of one size: (layers * E,)."""

    def route_windows(
        self, pixels: Pixels, window: tuple[int, int], corners: Sequence[tuple[int, int]]
    ) -> Gates:
        """Return decisions on windows of some pixels, each by itself: (layers * E, corners)."""


class PlaneRouter:
    """Decides on the cells of one image.

    Parameters
    ----------
    axes, shape : str, tuple of int
        Of the image.
    recipe : Recipe
        How.
    plan : TilePlan
        How planes are cut.
    routing : str
        "image" or "local"; else ``choice`` works everywhere.
    choice, count, layers : int
        Number of that choice, 0 where the network decides; how many choices it has, and in how
        many layers it decides.
    look : callable
        Reads pixels.
    decider : callable
        Returns the network.
    once : callable
        Remembers decisions.
    """

    def __init__(
        self,
        axes: str,
        shape: tuple[int, ...],
        recipe: Recipe,
        plan: TilePlan,
        routing: str,
        choice: int,
        count: int,
        layers: int,
        look: Look,
        decider: Callable[[], Decider],
        once: Once,
    ) -> None:
        self._axes, self._shape = axes, shape
        self.recipe, self.plan = recipe, plan
        self.is_local = routing == "local"
        self.layers = layers
        self._choice, self._count = choice, count
        self._look, self._decider, self._once = look, decider, once

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of routing cells in a plane."""
        return self.plan.cells(self.recipe.pitch)

    @property
    def block_cells(self) -> int:
        """Side, in cells, of a routing block."""
        return max(1, ROUTING_BLOCK // self.recipe.pitch)

    def block_ranges(self, row: int, col: int) -> tuple[range, range]:
        """Rows and columns of the cells that a routing block covers."""
        side, (rows, cols) = self.block_cells, self.cells
        return (
            range(row * side, min((row + 1) * side, rows)),
            range(col * side, min((col + 1) * side, cols)),
        )

    def gates(self, plane: Plane, rows: range, cols: range) -> Gates:
        """Return the decisions on some cells, (layers * E, len(rows), len(cols)) float32."""
        if not self.is_local:
            return fill(self.whole(plane), len(rows), len(cols))
        radius = self.recipe.smoothing
        r, c = self._smoothed_from(rows, cols)
        found = self._agree([self._own_gates(beside, r, c) for beside in self._beside(plane)])
        smoothed = in_each_layer(lambda gates: smooth(gates, radius), found, self.layers)
        return smoothed[:, _part(rows, r), _part(cols, c)]

    def blocks_for(self, plane: Plane, read: Box) -> list[tuple[Plane, int, int]]:
        """Return blocks of windows that weights in a read depend on: planes, rows and columns."""
        if not self.is_local:
            return []
        plan, pitch, window = self.plan, self.recipe.pitch, self.recipe.window
        around = (
            cells_around(start, stop, pitch, count)
            for start, stop, count in zip(
                (read.top, read.left), (read.bottom, read.right), self.cells, strict=True
            )
        )
        cells = self._smoothed_from(*around)
        down, across = (
            self._blocks(windows_near(part, size, pitch, window)[0])
            for part, size in zip(cells, (plan.height, plan.width), strict=True)
        )
        return [
            (beside, row, col) for beside in self._beside(plane) for row in down for col in across
        ]

    def look_at(self, plane: Plane, row: int, col: int) -> None:
        """Decide on a block of windows."""
        self._block(plane, row, col)

    def whole(self, plane: Plane) -> Gates:
        """Return the one decision (layers * E,) for a plane."""
        if self._choice:
            return np.tile(one_hot(self._choice, self._count), self.layers)
        decisions = [
            self._sharpen(self._decision(beside))[:, None, None] for beside in self._beside(plane)
        ]
        return self._agree(decisions)[:, 0, 0]

    def sampled(self, plane: Plane) -> list[Pixels]:
        """Read the places that stand for a plane."""
        return [self._look(plane, box) for box in self.samples()]

    def samples(self) -> list[Box]:
        """Return the places that stand for a plane: all of it, or a few windows of one size."""
        height, width = self.plan.height, self.plan.width
        if height * width <= SURVEYED_WHOLE:
            return [Box(0, 0, height, width)]
        tops, lefts = (
            spread_starts(length, SAMPLE, SAMPLES, grid=self.plan.grid, ends=True)
            for length in (height, width)
        )
        return [
            Box(top, left, min(top + SAMPLE, height), min(left + SAMPLE, width))
            for top in tops
            for left in lefts
        ]

    def _decision(self, plane: Plane) -> Gates:
        """Return the network's one decision (layers * E,)."""
        found: Gates = self._once(
            "decision", plane, lambda: self._decider().decide(self.sampled(plane))
        )
        return found

    def _own_gates(self, plane: Plane, rows: range, cols: range) -> Gates:
        """Return the gates of cells from the windows of this plane alone."""
        recipe, plan = self.recipe, self.plan
        down, rows_at = windows_near(rows, plan.height, recipe.pitch, recipe.window)
        across, cols_at = windows_near(cols, plan.width, recipe.pitch, recipe.window)
        return spread(self._sharpen(self._decisions(plane, down, across)), rows_at, cols_at)

    def _sharpen(self, gates: Gates) -> Gates:
        """Return decisions at the recipe's temperature."""
        temperature = self.recipe.temperature
        return in_each_layer(lambda part: sharpen(part, temperature), gates, self.layers)

    def _agree(self, planes: Sequence[Gates]) -> Gates:
        """Return what planes decide together, layer by layer."""
        parts = zip(*(by_layer(gates, self.layers) for gates in planes), strict=True)
        return np.concatenate([agree(part) for part in parts])

    def _decisions(self, plane: Plane, rows: range, cols: range) -> Gates:
        """Return what the router decides on some windows, (layers * E, len(rows), len(cols))."""
        gates = np.empty((self.layers * self._count, len(rows), len(cols)), np.float32)
        for block_row in self._blocks(rows):
            for block_col in self._blocks(cols):
                block, r, c = self._block(plane, block_row, block_col)
                r_both = range(max(r.start, rows.start), min(r.stop, rows.stop))
                c_both = range(max(c.start, cols.start), min(c.stop, cols.stop))
                gates[:, _part(r_both, rows), _part(c_both, cols)] = block[
                    :, _part(r_both, r), _part(c_both, c)
                ]
        return gates

    @property
    def _block_side(self) -> int:
        """Side, in windows, of a block."""
        return max(1, ROUTING_BLOCK // self.recipe.window)

    def _blocks(self, windows: range) -> range:
        """Return the blocks along an axis that some windows lie in."""
        side = self._block_side
        return range(windows.start // side, (windows.stop - 1) // side + 1)

    def _smoothed_from(self, rows: range, cols: range) -> tuple[range, range]:
        """Return the cells that smoothed gates of some cells are taken from."""
        radius = self.recipe.smoothing
        r, c = (
            range(max(0, part.start - radius), min(count, part.stop + radius))
            for part, count in zip((rows, cols), self.cells, strict=True)
        )
        return r, c

    def _block(self, plane: Plane, row: int, col: int) -> tuple[Gates, range, range]:
        """Return the decisions on a block of windows, and which they are."""
        recipe, plan, side = self.recipe, self.plan, self._block_side
        height, tops = windows(plan.height, recipe.window)
        width, lefts = windows(plan.width, recipe.window)
        rows = range(row * side, min((row + 1) * side, len(tops)))
        cols = range(col * side, min((col + 1) * side, len(lefts)))

        def decide() -> Gates:
            y, x = tops[rows.start : rows.stop], lefts[cols.start : cols.stop]
            read = Box(y[0], x[0], y[-1] + height, x[-1] + width)
            pixels = self._look(plane, read)

            def ask(which: NDArray[np.bool_]) -> Gates:
                corners = [(y[i] - read.top, x[j] - read.left) for i, j in np.argwhere(which)]
                return self._decider().route_windows(pixels, (height, width), corners)

            return decide_where_needed(ask, len(rows), len(cols), self.layers)

        gates: Gates = self._once("block", (plane, row, col), decide)
        return gates, rows, cols

    def _beside(self, plane: Plane) -> list[Plane]:
        """Return the planes that decide together: of the same stack, or else of the same series."""
        length = dict(zip(self._axes, self._shape, strict=True))
        letter = "Z" if length.get("Z", 1) > 1 else "T"
        at, reach = dict(zip("TCZ", plane, strict=True)), self.recipe.agreement
        near = range(max(0, at[letter] - reach), min(length.get(letter, 1), at[letter] + reach + 1))
        return [(moved["T"], moved["C"], moved["Z"]) for moved in (at | {letter: n} for n in near)]


def _part(inner: range, outer: range) -> slice:
    return slice(inner.start - outer.start, inner.stop - outer.start)
