"""A kernel that is known."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from demoe.engine.kernels.places import is_photo, sample_boxes
from demoe.engine.kernels.solution import Solution
from demoe.engine.memory import Memory
from demoe.engine.reader import PlaneReader
from demoe.plan.tiling import Box, Plane, TilePlan

if TYPE_CHECKING:
    from demoe.model.kernels.deconvolution import Deconvolver


class KnownKernels:
    """The same PSF everywhere."""

    def __init__(
        self, reader: PlaneReader, plan: TilePlan, psf: NDArray[np.float64], memory: Memory
    ) -> None:
        self._reader, self._plan, self._psf, self._memory = reader, plan, psf, memory
        self.side = max(psf.shape)

    def look_at(self, plane: Plane) -> None:
        """Find out what is best for places that stand for a plane."""
        self._of_plane(plane)

    def window(self, plane: Plane, window: Box) -> Solution:
        """Return how a window is undone: as is best for places that stand for its plane."""
        return self._of_plane(plane)

    def _of_plane(self, plane: Plane) -> Solution:
        def choose() -> Solution:
            samples = [self._reader.pixels(plane, box) for box in sample_boxes(self._plan)]
            return Solution(self._deconvolver, self._deconvolver.choose(samples))

        found: Solution = self._memory.once("kernel", plane, choose)
        return found

    def values(self, plane: Plane, window: Box) -> NDArray[np.float32]:
        """Return the PSF, in a square."""
        rows, cols = ((self.side - n) // 2 for n in self._psf.shape)
        return np.pad(self._psf, ((rows, rows), (cols, cols))).astype(np.float32)

    @functools.cached_property
    def _deconvolver(self) -> Deconvolver:
        from demoe.model.kernels.deconvolution import Deconvolver

        return Deconvolver(self._psf, photo=is_photo(self._reader.image), exact=True)
