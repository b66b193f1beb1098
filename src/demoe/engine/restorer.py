"""What it takes to compute any tile of an image."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from demoe.engine.cells import CellMaps
from demoe.engine.flat import active_parts
from demoe.engine.fuser import Fuser
from demoe.engine.guard import implausible_cells
from demoe.engine.memory import Memory
from demoe.engine.reader import PlaneReader
from demoe.engine.runner import TileRunner, TooLarge
from demoe.model.protocol import Nested
from demoe.plan.tiling import Box, Plane, TilePlan, touched
from demoe.recipe import Recipe
from demoe.routing.gates import Gates, cells_around, one_hot, spread
from demoe.routing.router import Pixels, PlaneRouter

if TYPE_CHECKING:
    from demoe.model.protocol import Statistics

SMALLEST = 32
"""Side in pixels below which a tile is not cut any more when memory is short."""

_LOG = logging.getLogger("demoe")


class Restorer:
    """Computes tiles of one image.

    Parameters
    ----------
    reader, router, maps : PlaneReader, PlaneRouter, CellMaps
        Its pixels, what the network decides, and what becomes of each cell.
    runner : callable
        Returns the engine on this process's device.
    piece : int
        Largest side in pixels of what is computed at once where a tile is passed by in parts.
    memory : Memory
        What was found out so far.
    fuser : Fuser, optional
        Makes one picture of the network's and of what undoing the blur makes.
    """

    def __init__(
        self,
        reader: PlaneReader,
        router: PlaneRouter,
        maps: CellMaps,
        runner: Callable[[], TileRunner],
        piece: int,
        memory: Memory,
        fuser: Fuser | None = None,
    ) -> None:
        self._reader, self._router, self._maps, self._runner = reader, router, maps, runner
        self._piece, self._memory, self._fuser = piece, memory, fuser
        self._recipe, self._plan = router.recipe, router.plan

    def tile(self, plane: Plane, row: int, col: int) -> NDArray[Any]:
        """Return the restored core of a tile: (rows, cols, S), dtype of the image."""
        tile = self._plan.tile_at(row, col)
        if not self._recipe.skip_flat:
            return self._restore(plane, tile.core, tile.read, recurring=True)
        out = self._reader.values(plane, tile.core)
        for box in self._active(plane, tile.core):
            out[box.within(tile.core)] = self._restore_window(plane, box)
        return out

    def _active(self, plane: Plane, core: Box) -> list[Box]:
        """Return the boxes of a core in which there is something to restore, of a tile at most."""
        pitch = self._recipe.pitch
        rows, cols = touched(core, pitch)
        parts = active_parts(
            self._maps.flat(plane, rows, cols), rows, cols, pitch, core, self._plan.halo
        )
        return [box for part in parts for box in _pieces(part, self._piece, self._plan.grid)]

    def _restore_window(self, plane: Plane, box: Box) -> NDArray[Any]:
        return self._restore(plane, box, self._plan.window(box, box.shape), recurring=False)

    def _restore(self, plane: Plane, core: Box, read: Box, *, recurring: bool) -> NDArray[Any]:
        """Restore a rectangle, half by half where the device has too little memory."""
        if self._fuser is not None and not self._fuser.asks_network(plane, core):
            return self._fuser.alone(plane, core)
        memory, area = self._memory, math.prod(read.shape)
        halves = _halves(core, self._plan.grid)
        if area < memory.too_large or not halves:
            try:
                return self._restore_at_once(plane, core, read, recurring=recurring)
            except TooLarge as error:
                if halves and self._pools_plane(plane):
                    memory.too_large = area
                    _LOG.warning("%s Going on with half of it at a time.", error)
                elif self._runner().model.device.type != "cpu":
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
        values = self._reader.values(plane, read)
        samples = min(values.shape[2], 3)  # an alpha channel passes by
        pixels = self._reader.scale.normalise(values[..., :samples])
        runner = self._runner()
        weights = self._weights(plane, read, runner, self._maps.decisions)
        statistics = self._statistics(plane, weights)
        restored = runner.restore(pixels, weights, statistics, recurring=recurring)
        inner = core.within(read)
        kept = values[inner]
        final = restored[inner]
        if self._fuser is not None:
            final = self._fuser.fuse(plane, core, read, pixels, restored)
        done = self._reader.scale.restore(final, self._reader.image.dtype)
        for cell, part in self._implausible(plane, core, read, pixels, restored):
            self._maps.note_failed(plane, cell)
            done[part] = kept[part][..., :samples]
        return np.concatenate([done, kept[..., samples:]], axis=2)

    def _implausible(
        self, plane: Plane, core: Box, read: Box, pixels: Pixels, restored: Pixels
    ) -> Iterator[tuple[tuple[int, int], tuple[slice, slice]]]:
        """Give the cells of a core in which the network failed, with their pixels in the core."""
        pitch = self._recipe.pitch
        rows, cols = touched(core, pitch)
        # Whole cells as far as they were read, so that tiles that share one agree on it.
        whole = Box(rows.start * pitch, cols.start * pitch, rows.stop * pitch, cols.stop * pitch)
        seen = whole.common(read)
        bad = implausible_cells(
            pixels[seen.within(read)],
            restored[seen.within(read)],
            pitch,
            self._runner().model.calibration.guard,
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
        """Return mixing weights for a read: one vector, or one a cell of the network's grid."""
        pitch, grid = self._recipe.pitch, self._plan.grid
        if not self._router.is_local and not self._maps.is_painted(plane):
            return runner.mixing(self._router.whole(plane))
        # One cell more on every side, so that interpolation sees what neighbouring tiles see.
        rows = cells_around(read.top, read.bottom, pitch, self._router.cells[0])
        cols = cells_around(read.left, read.right, pitch, self._router.cells[1])
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

    def _pools_plane(self, plane: Plane) -> bool:
        """Say whether tiles share what is pooled over the plane, or each pools by itself."""
        alone = not is_cut(self._plan, self._recipe) and not self._maps.is_painted(plane)
        return not alone and self._recipe.pooling != "tile"

    def _statistics(self, plane: Plane, weights: Gates) -> Statistics | None:
        """Return the statistics that all tiles share; None where a tile pools by itself.

        What is painted does not count, so that painting changes nothing where it is not.
        """
        if not self._pools_plane(plane):
            return None
        if not self._runner().model.tenant.decides:
            return self._statistics_of_choices(plane, weights)
        return self._surveyed(plane)

    def _surveyed(self, plane: Plane) -> Statistics:
        """Return what is pooled over a plane where the network decides."""
        every = self._router.is_local or self._maps.is_painted(plane)
        found: Statistics = self._memory.once(
            "statistics", (plane, every), lambda: self._survey(plane, every)
        )
        return found

    def sub_gates(self, plane: Plane) -> Gates | None:
        """Return what works within each choice on a plane: (layers, E, K).

        None for networks without a second level, and where each tile pools by itself.
        """
        runner = self._runner()
        if not isinstance(runner.model.tenant, Nested) or self._recipe.pooling == "tile":
            return None
        return runner.sub_gates(self._surveyed(plane))

    def _statistics_of_choices(self, plane: Plane, weights: Gates) -> Statistics:
        """Return those of the choices that have weight in a tile, each found by itself."""
        found: dict[str, Any] = {}
        for position in np.flatnonzero(weights.reshape(len(weights), -1).any(axis=1)).tolist():
            survey = partial(self._survey_alone, plane, one_hot(position + 1, len(weights)))
            found |= self._memory.once("statistics", (plane, position), survey)
        return found

    def look_at(self, plane: Plane) -> None:
        """Find out what all tiles of a plane need of it, but for decisions on its parts."""
        weights = np.zeros(0, np.float32)  # of decisions place by place, none counts everywhere
        if not self._router.is_local:
            weights = self._runner().mixing(self._router.whole(plane))
        self._statistics(plane, weights)

    def _survey_alone(self, plane: Plane, weights: Gates) -> Statistics:
        return self._runner().survey(self._router.sampled(plane), weights)

    def _survey(self, plane: Plane, every: bool) -> Statistics:
        runner, router = self._runner(), self._router
        samples = router.sampled(plane)
        weights = None  # of several samples, each decides for itself, much as routing windows do
        if not router.is_local:
            weights = runner.mixing(router.whole(plane))
        elif len(samples) == 1:
            weights = self._weights(plane, router.samples()[0], runner, router.gates)
        return runner.survey(samples, weights, every=every)


def is_cut(plan: TilePlan, recipe: Recipe) -> bool:
    """Say whether planes are restored in parts, which then share their statistics."""
    return plan.shape != (1, 1) or recipe.skip_flat


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
