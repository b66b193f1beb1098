"""Where a photo is blurred, and where it is sharp."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from demoe.engine.memory import Memory
from demoe.engine.reader import PlaneReader
from demoe.plan.tiling import Box, Plane, TilePlan

if TYPE_CHECKING:
    from demoe.model.kernels.detector import Detector

Extent = NDArray[np.float32]


class Extents:
    """Tells which pixels of a photo are blurred.

    Parameters
    ----------
    reader, plan, memory : PlaneReader, TilePlan, Memory
        Its pixels, how planes are cut, and what was found out so far.
    detector : Detector
        Tells blurred pixels from sharp ones.
    """

    def __init__(
        self, reader: PlaneReader, plan: TilePlan, detector: Detector, memory: Memory
    ) -> None:
        self._reader, self._plan = reader, plan
        self._detector, self._memory = detector, memory

    def of(self, plane: Plane, box: Box) -> Extent:
        """Return how much of each pixel (rows, cols) of a rectangle is blurred, 0 to 1."""
        from demoe.model.kernels.detector import extent_of

        return extent_of(self._likely(plane, box)[0])

    def are_parts(self, plane: Plane, box: Box) -> bool:
        """Tell whether some of a rectangle is clearly blurred, and some clearly not."""
        from demoe.model.kernels.detector import is_in_parts

        return is_in_parts(*self._likely(plane, box))

    def _likely(self, plane: Plane, box: Box) -> tuple[Extent, Extent]:
        """Return how likely each pixel is blurred, and its luma."""
        found: tuple[Extent, Extent] = self._memory.once(
            "extent", (plane, box), lambda: self._find(plane, box)
        )
        return found

    def _find(self, plane: Plane, box: Box) -> tuple[Extent, Extent]:
        from demoe.model.kernels.detector import GRID, REACH
        from demoe.model.kernels.estimator import gray_of

        read = box.grown(REACH, self._plan.height, self._plan.width)
        read = Box(read.top // GRID * GRID, read.left // GRID * GRID, read.bottom, read.right)
        gray, here = gray_of(self._reader.pixels(plane, read)), box.within(read)
        return self._detector.likely(gray)[here], gray[here]
