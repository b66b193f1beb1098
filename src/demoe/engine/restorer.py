"""One image and one recipe: what it takes to compute any tile of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demoe.engine.flat import active_parts
from demoe.engine.guard import implausible_cells
from demoe.engine.reader import Plane
from demoe.engine.runner import Pixels, TileRunner, TooLarge
from demoe.model.demoe.eager import Attention
from demoe.plan.tiling import Box, TilePlan
from demoe.routing.gates import (
    Gates,
    PaintedMap,
    cells_around,
    spread,
)
from demoe.routing.router import PlaneRouter

SMALLEST = 32
"""Side in pixels below which a tile is not cut any more when memory is short."""

_LOG = logging.getLogger("demoe")


class PlaneWork(PlaneRouter):
    """Computes tiles and gates of one image; parameters as for `PlaneReader`."""

    def repainted(self, painted: PaintedMap, stale: NDArray[np.bool_]) -> PlaneWork:
        """Return the same work with another map, knowing already what paint does not change.

        Parameters
        ----------
        painted : PaintedMap
            A person's choices, all of them.
        stale : ndarray of bool
            The tiles that change: plane axes of the image, then rows and columns of tiles.
        """
        other = PlaneWork(self.image, self.recipe, self.plan, self.routing, painted, self.piece)
        mine, theirs = self._memory, other._memory
        with mine.lock:
            theirs.scale, theirs.too_large, theirs.device = mine.scale, mine.too_large, mine.device
            theirs.kept = {kind: kept.copy() for kind, kept in mine.kept.items()}
            for plane, cells in mine.failed.items():
                index = dict(zip("TCZ", plane, strict=True))
                tiles = stale[tuple(index[a] for a in self.image.axes if a in index)]
                theirs.failed[plane] = {
                    cell for cell in cells if not tiles[self._tiles_of(*cell)].any()
                }
        return other

    def _tiles_of(self, row: int, col: int) -> tuple[slice, slice]:
        """Return the tiles whose cores a cell touches."""
        pitch, (height, width) = self.recipe.pitch, self.plan.core_shape
        return (
            slice(row * pitch // height, ((row + 1) * pitch - 1) // height + 1),
            slice(col * pitch // width, ((col + 1) * pitch - 1) // width + 1),
        )

    def restore_tile(self, plane: Plane, row: int, col: int) -> NDArray[Any]:
        """Return the restored core of a tile: (rows, cols, S), dtype of the image."""
        tile = self.plan.tile_at(row, col)
        if not self.recipe.skip_flat:
            return self._restore(plane, tile.core, tile.read, recurring=True)
        out = self._values(plane, tile.core)
        for box in self._active(plane, tile.core):
            out[box.within(tile.core)] = self._restore_window(plane, box)
        return out

    def failed_cells(self, plane: Plane, row: int, col: int) -> list[tuple[int, int]]:
        """Return cells (row, column) in a computed tile whose restoration was not plausible."""
        core, pitch = self.plan.tile_at(row, col).core, self.recipe.pitch
        rows, cols = touched(core, pitch)
        return sorted(cell for cell in self._failed(plane) if cell[0] in rows and cell[1] in cols)

    def note_failed(self, plane: Plane, cell: tuple[int, int]) -> None:
        """Remember that the restoration of a cell was not plausible."""
        self._failed(plane).add(cell)

    def _active(self, plane: Plane, core: Box) -> list[Box]:
        """Return the boxes of a core in which there is something to restore, of a tile at most."""
        pitch = self.recipe.pitch
        rows, cols = touched(core, pitch)
        parts = active_parts(self._flat(plane, rows, cols), rows, cols, pitch, core, self.plan.halo)
        return [box for part in parts for box in _pieces(part, self.piece, self.plan.grid)]

    def _restore_window(self, plane: Plane, box: Box) -> NDArray[Any]:
        return self._restore(plane, box, self.plan.window(box, box.shape), recurring=False)

    def _restore(self, plane: Plane, core: Box, read: Box, *, recurring: bool) -> NDArray[Any]:
        """Restore a rectangle, half by half where the device has too little memory."""
        memory, area = self._memory, math.prod(read.shape)
        halves = _halves(core, self.plan.grid)
        if area < memory.too_large or not halves:
            try:
                return self._restore_at_once(plane, core, read, recurring=recurring)
            except TooLarge as error:
                if halves and self._attention(plane) is not None:
                    memory.too_large = area
                    _LOG.warning("%s Going on with half of it at a time.", error)
                elif self.runner.model.device.type != "cpu":
                    memory.device, memory.too_large = "cpu", math.inf
                    _LOG.warning("%s Going on with the CPU.", error)
                    return self._restore(plane, core, read, recurring=recurring)
                else:
                    raise
        parts = [self._restore_window(plane, half) for half in halves]
        return np.concatenate(parts, axis=0 if halves[0].left == halves[1].left else 1)

    def _restore_at_once(
        self, plane: Plane, core: Box, read: Box, *, recurring: bool
    ) -> NDArray[Any]:
        values = self._values(plane, read)
        samples = min(values.shape[2], 3)  # an alpha channel passes by
        pixels = self.scale.normalise(values[..., :samples])
        runner = self.runner
        weights = self._weights(plane, read, runner, self.cell_gates)
        attention = self._attention(plane)
        restored = runner.restore(pixels, weights, attention, recurring=recurring)
        inner = core.within(read)
        kept = values[inner]
        done = self.scale.restore(restored[inner], self.image.dtype)
        for cell, part in self._implausible(plane, core, read, pixels, restored):
            self.note_failed(plane, cell)
            done[part] = kept[part][..., :samples]
        return np.concatenate([done, kept[..., samples:]], axis=2)

    def _implausible(
        self, plane: Plane, core: Box, read: Box, pixels: Pixels, restored: Pixels
    ) -> Iterator[tuple[tuple[int, int], tuple[slice, slice]]]:
        """Give the cells of a core in which the network failed, with their pixels in the core."""
        pitch = self.recipe.pitch
        rows, cols = touched(core, pitch)
        # Whole cells as far as they were read, so that tiles that share one agree on it.
        whole = Box(rows.start * pitch, cols.start * pitch, rows.stop * pitch, cols.stop * pitch)
        seen = whole.common(read)
        bad = implausible_cells(
            pixels[seen.within(read)],
            restored[seen.within(read)],
            pitch,
            self.runner.model.calibration.guard,
            (seen.top - whole.top, seen.left - whole.left),
        )
        for row, col in np.argwhere(bad):
            cell = (rows[row], cols[col])
            top, left = cell[0] * pitch, cell[1] * pitch
            part = Box(top, left, top + pitch, left + pitch).common(core)
            yield cell, part.within(core)

    def _weights(
        self,
        plane: Plane,
        read: Box,
        runner: TileRunner,
        gates_of: Callable[[Plane, range, range], Gates],
    ) -> Gates:
        """Return mixing weights for a read: (5,), or (5, rows, cols) on the network's grid."""
        pitch, grid = self.recipe.pitch, self.plan.grid
        if self.routing != "local" and not self._is_painted(plane):
            return runner.mixing(self._whole(plane))
        # One cell more on every side, so that interpolation sees what neighbouring tiles see.
        rows = cells_around(read.top, read.bottom, pitch, self.cells[0])
        cols = cells_around(read.left, read.right, pitch, self.cells[1])
        weights = runner.mixing(gates_of(plane, rows, cols))
        if (weights == weights[:, :1, :1]).all():
            return np.ascontiguousarray(weights[:, 0, 0])
        at = [
            (np.arange(start, stop, grid) + grid / 2) / pitch - cells.start
            for start, stop, cells in (
                (read.top, read.bottom, rows),
                (read.left, read.right, cols),
            )
        ]
        return spread(weights, at[0], at[1])

    def _attention(self, plane: Plane) -> Attention | None:
        """Return the attention that all tiles share; None where a tile pools by itself.

        What is painted does not count, so that painting changes nothing where it is not.
        """
        whole = self.plan.shape == (1, 1) and not self.recipe.skip_flat
        painted = self._is_painted(plane)
        if (whole and not painted) or self.recipe.pooling == "tile":
            return None
        every = self.routing == "local" or painted
        found: Attention = self._once(
            "attention", (plane, every), lambda: self._attend(plane, every)
        )
        return found

    def _attend(self, plane: Plane, every: bool) -> Attention:
        runner, samples, local = self.runner, self._sampled(plane), self.routing == "local"
        weights = None
        if local and len(samples) == 1:
            box = self._samples()[0]
            weights = self._weights(plane, box, runner, self._router_gates)
        elif not local:
            weights = runner.mixing(self._whole(plane))
        # Of several samples, each decides for itself, much as routing windows do.
        return runner.attend(samples, weights, each=local, every=every)


def _pieces(box: Box, side: int, grid: int) -> list[Box]:
    """Cut a box into pieces of a side at most."""
    cuts = TilePlan(*box.shape, side, 0, grid)
    cores = [cuts.tile_at(row, col).core for row, col in np.ndindex(*cuts.shape)]
    return [core.moved(box.top, box.left) for core in cores]


def _halves(box: Box, grid: int) -> list[Box]:
    """Halve the longer side of a box on the grid; nothing if it is short already."""
    height, width = box.shape
    if max(height, width) < 2 * SMALLEST:
        return []
    if height >= width:
        middle = box.top + height // 2 // grid * grid
        return [replace(box, bottom=middle), replace(box, top=middle)]
    middle = box.left + width // 2 // grid * grid
    return [replace(box, right=middle), replace(box, left=middle)]


def touched(box: Box, pitch: int) -> tuple[range, range]:
    """Return rows and columns of the cells that a box touches."""
    return (
        range(box.top // pitch, -(-box.bottom // pitch)),
        range(box.left // pitch, -(-box.right // pitch)),
    )
