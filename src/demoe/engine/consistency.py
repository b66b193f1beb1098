"""Results checked against the data: blurred again, they must give what was seen, but for noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from demoe.engine.deconvolver import PlaneDeconvolver
from demoe.engine.noise import PlaneNoise
from demoe.engine.reader import PlaneReader
from demoe.plan.tiling import Box, Plane, TilePlan
from demoe.routing.router import Pixels

_NEAR_BORDER = 1e-6  # what a pixel counts there: something, for cells that have no others

Look = Callable[[Box], Pixels]
"""Returns a rectangle of the result, scaled as `PlaneReader.pixels` scales the source."""


class Consistency:
    """Compares results of one image with it.

    Parameters
    ----------
    reader, plan, deconvolver, noise : PlaneReader, TilePlan, PlaneDeconvolver, PlaneNoise
        Its pixels, how planes are cut, what knows each window's blur, and how noisy it is.
    pitch : int
        Pixels a side of a cell.
    """

    def __init__(
        self,
        reader: PlaneReader,
        plan: TilePlan,
        deconvolver: PlaneDeconvolver,
        noise: PlaneNoise,
        pitch: int,
    ) -> None:
        self._reader, self._plan, self._deconvolver = reader, plan, deconvolver
        self._noise, self._pitch = noise, pitch

    def cells(self, plane: Plane, rows: range, cols: range, result: Look) -> NDArray[np.float32]:
        """Return the root mean square of what is left unexplained, in units of the noise.

        About 1 where the result is what the data say; more where it is not supported. What lies so
        near a border of the plane that it was blurred with what nobody saw hardly counts.

        Returns
        -------
        ndarray of float32
            (len(rows), len(cols)).
        """
        pitch, size = self._pitch, (self._plan.height, self._plan.width)
        box = Box(rows.start * pitch, cols.start * pitch, rows.stop * pitch, cols.stop * pitch)
        box = box.common(Box(0, 0, *size))
        seen = self._reader.pixels(plane, box)
        left = self._deconvolver.blurred(plane, box, result) - seen
        square = (left**2 / self._noise.variance(plane, seen)).mean(axis=2)
        reach = self._deconvolver.reach(plane, box)
        weight = np.outer(
            _weights(box.top, box.bottom, size[0], reach),
            _weights(box.left, box.right, size[1], reach),
        )
        tops, lefts = (np.arange(0, side, pitch) for side in square.shape)

        def by_cell(values: Pixels) -> Pixels:
            return np.add.reduceat(np.add.reduceat(values, tops, axis=0), lefts, axis=1)

        found: NDArray[np.float32] = np.sqrt(by_cell(weight * square) / by_cell(weight))
        return found


def _weights(start: int, stop: int, side: int, reach: int) -> Pixels:
    """Return what rows or columns of a plane count: nearly nothing within reach of its borders."""
    at = np.arange(start, stop)
    return np.where((at >= reach) & (at < side - reach), 1, _NEAR_BORDER).astype(np.float32)
