"""One image and one recipe: which expert works where, for any routing cell of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from demoe.engine.flat import flat_cells, flat_read
from demoe.engine.reader import Plane, PlaneReader
from demoe.engine.runner import Pixels
from demoe.plan.tiling import Box
from demoe.recipe import TASKS
from demoe.routing.consensus import agree, sharpen, smooth
from demoe.routing.gates import (
    Gates,
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

ROUTING_BLOCK = 1024
"""Side in pixels of the blocks in which windows are decided on; independent of compute tiles."""

SURVEYED_WHOLE = 1024**2
"""Pixels of the largest plane that is surveyed as a whole; larger ones by samples."""

SAMPLES, SAMPLE = 3, 256
"""Samples along each axis that stand for a larger plane, and their side in pixels."""

FLAT_NOISE = 0.5 / 255
"""Noise of flat background, as a share of the intensity range, up to which it is passed by: more of
it, the network would take away."""


class PlaneRouter(PlaneReader):
    """Decides on the cells of one image; parameters as for `PlaneReader`."""

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

    def cell_gates(self, plane: Plane, rows: range, cols: range) -> Gates:
        """Return the gates of some cells of a plane, (5, len(rows), len(cols)) float32."""
        gates = self._router_gates(plane, rows, cols)
        painted = self._labels(plane, rows, cols)
        return gates if painted is None else override(gates, painted)

    def cell_experts(self, plane: Plane, rows: range, cols: range) -> NDArray[np.uint8]:
        """Return the strongest expert of some cells, 1 to 5, or 0 where none works.

        None works on flat background that is passed by, and where what came out was not plausible;
        the latter is known of tiles that were computed in this process.
        """
        experts = expert_map(self.cell_gates(plane, rows, cols))
        if self.recipe.skip_flat:
            experts[self._flat(plane, rows, cols)] = 0
        for row, col in list(self._failed(plane)):
            if row in rows and col in cols:
                experts[row - rows.start, col - cols.start] = 0
        return experts

    def cell_confidence(self, plane: Plane, rows: range, cols: range) -> Gates:
        """Return by how much the strongest expert leads on some cells, (len(rows), len(cols)).

        1 where a person chose, 0 on flat background, where there is nothing to decide.
        """
        found = confidence(self.cell_gates(plane, rows, cols))
        if self.recipe.skip_flat or self.routing not in TASKS:
            found[self._flat(plane, rows, cols)] = 0
        return found

    def _labels(self, plane: Plane, rows: range, cols: range) -> NDArray[np.uint8] | None:
        """Return what a person painted on some cells; None where the plane is bare."""
        if self.painted is None:
            return None
        index = dict(zip("TCZ", plane, strict=True))
        named = tuple(index[letter] for letter in self.image.axes if letter in index)
        return self.painted.labels(named, rows, cols)

    def _is_painted(self, plane: Plane) -> bool:
        return self._labels(plane, range(1), range(1)) is not None

    def _flat(self, plane: Plane, rows: range, cols: range) -> NDArray[np.bool_]:
        """Say which cells are flat background, unless a person painted them."""
        size = (self.plan.height, self.plan.width)
        read = flat_read(rows, cols, self.recipe.pitch, size)
        flat = flat_cells(
            self._network_pixels(plane, read),
            read,
            rows,
            cols,
            pitch=self.recipe.pitch,
            size=size,
            step=self.scale.step(self.image.dtype),
            noise_limit=FLAT_NOISE,
        )
        painted = self._labels(plane, rows, cols)
        return flat if painted is None else flat & (painted == 0)

    def _router_gates(self, plane: Plane, rows: range, cols: range) -> Gates:
        """Return the same as if nothing were painted."""
        if self.routing != "local":
            return fill(self._whole(plane), len(rows), len(cols))
        radius = self.recipe.smoothing
        r, c = (
            range(max(0, part.start - radius), min(count, part.stop + radius))
            for part, count in zip((rows, cols), self.cells, strict=True)
        )
        gates = agree([self._own_gates(beside, r, c) for beside in self._beside(plane)])
        return smooth(gates, radius)[:, _part(rows, r), _part(cols, c)]

    def _own_gates(self, plane: Plane, rows: range, cols: range) -> Gates:
        """Return the gates of cells from the windows of this plane alone."""
        recipe, plan = self.recipe, self.plan
        down, rows_at = windows_near(rows, plan.height, recipe.pitch, recipe.window)
        across, cols_at = windows_near(cols, plan.width, recipe.pitch, recipe.window)
        decisions = sharpen(self._decisions(plane, down, across), recipe.temperature)
        return spread(decisions, rows_at, cols_at)

    def _decisions(self, plane: Plane, rows: range, cols: range) -> Gates:
        """Return what the router decides on some windows, (5, len(rows), len(cols))."""
        gates = np.empty((len(TASKS), len(rows), len(cols)), np.float32)
        side = max(1, ROUTING_BLOCK // self.recipe.window)
        for block_row in range(rows.start // side, (rows.stop - 1) // side + 1):
            for block_col in range(cols.start // side, (cols.stop - 1) // side + 1):
                block, r, c = self._block(plane, block_row, block_col, side)
                r_both = range(max(r.start, rows.start), min(r.stop, rows.stop))
                c_both = range(max(c.start, cols.start), min(c.stop, cols.stop))
                gates[:, _part(r_both, rows), _part(c_both, cols)] = block[
                    :, _part(r_both, r), _part(c_both, c)
                ]
        return gates

    def _block(self, plane: Plane, row: int, col: int, side: int) -> tuple[Gates, range, range]:
        """Return the decisions on a block of windows, and which they are."""
        recipe, plan = self.recipe, self.plan
        height, tops = windows(plan.height, recipe.window)
        width, lefts = windows(plan.width, recipe.window)
        rows = range(row * side, min((row + 1) * side, len(tops)))
        cols = range(col * side, min((col + 1) * side, len(lefts)))

        def decide() -> Gates:
            y, x = tops[rows.start : rows.stop], lefts[cols.start : cols.stop]
            read = Box(y[0], x[0], y[-1] + height, x[-1] + width)
            pixels = self._network_pixels(plane, read)

            def ask(which: NDArray[np.bool_]) -> Gates:
                corners = [(y[i] - read.top, x[j] - read.left) for i, j in np.argwhere(which)]
                return self.runner.route_windows(pixels, (height, width), corners)

            return decide_where_needed(ask, len(rows), len(cols))

        gates: Gates = self._once("block", (plane, row, col), decide)
        return gates, rows, cols

    def _beside(self, plane: Plane) -> list[Plane]:
        """Return the planes that decide together: of the same stack, or else of the same series."""
        length = dict(zip(self.image.axes, self.image.shape, strict=True))
        letter = "Z" if length.get("Z", 1) > 1 else "T"
        at, reach = dict(zip("TCZ", plane, strict=True)), self.recipe.agreement
        near = range(max(0, at[letter] - reach), min(length.get(letter, 1), at[letter] + reach + 1))
        return [(moved["T"], moved["C"], moved["Z"]) for moved in (at | {letter: n} for n in near)]

    def _whole(self, plane: Plane) -> Gates:
        """Return the one decision (5,) for a plane."""
        if self.routing in TASKS:
            return one_hot(self.routing)
        decisions = [
            sharpen(self._survey(beside), self.recipe.temperature)[:, None, None]
            for beside in self._beside(plane)
        ]
        return agree(decisions)[:, 0, 0]

    def _survey(self, plane: Plane) -> Gates:
        """Return the router's one decision (5,)."""
        found: Gates = self._once("survey", plane, lambda: self.runner.survey(self._sampled(plane)))
        return found

    def _sampled(self, plane: Plane) -> list[Pixels]:
        return [self._network_pixels(plane, box) for box in self._samples()]

    def _samples(self) -> list[Box]:
        """Return the places that stand for a plane: all of it, or a few windows of one size."""
        height, width = self.plan.height, self.plan.width
        if height * width <= SURVEYED_WHOLE:
            return [Box(0, 0, height, width)]
        side = SAMPLE
        return [
            Box(top, left, min(top + side, height), min(left + side, width))
            for top in _spread_starts(height, side, self.plan.grid)
            for left in _spread_starts(width, side, self.plan.grid)
        ]


def _part(inner: range, outer: range) -> slice:
    return slice(inner.start - outer.start, inner.stop - outer.start)


def _spread_starts(size: int, side: int, grid: int) -> list[int]:
    """Return where a few windows begin that are spread evenly over a length."""
    count = min(SAMPLES, -(-size // side))
    room = max(0, size - side)
    return [round(i * room / max(1, count - 1)) // grid * grid for i in range(count)]
