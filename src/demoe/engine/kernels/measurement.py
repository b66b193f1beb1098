"""Kernels of measurements: found by what explains the data, and nothing learnt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from demoe.engine.kernels.places import SAMPLE, sample_boxes
from demoe.engine.kernels.solution import Solution, values_of
from demoe.engine.memory import Memory
from demoe.engine.reader import PlaneReader
from demoe.model.kernels.families import SIDE, Kernel, round_kernels
from demoe.plan.tiling import Box, Plane, TilePlan
from demoe.plan.windows import WINDOW

BOLDEST = 0.08
"""How strongly a kernel that was found, not given, is undone at most."""

SMALLER, WHITER = 0.87, 0.8
"""Too large a kernel leaves structure unexplained: one so much smaller is taken instead, and again,
as long as it leaves no more than so much of that, and what is left is more than the noise."""


class MeasurementKernels:
    """Kernels of a measurement: what explains a window and its plane together."""

    def __init__(self, reader: PlaneReader, plan: TilePlan, memory: Memory) -> None:
        self._reader, self._plan, self._memory = reader, plan, memory
        self.side = SIDE

    def look_at(self, plane: Plane) -> None:
        """Find out how well kernels explain places that stand for a plane."""
        self._of_plane(plane)

    def window(self, plane: Plane, window: Box) -> Solution:
        """Return how a window is undone."""
        found: Solution = self._memory.once(
            "kernel", (plane, window), lambda: self._best(plane, window)
        )
        return found

    def values(self, plane: Plane, window: Box) -> NDArray[np.float32]:
        """Return the kernel of a window."""
        return values_of(self.window(plane, window))

    def _best(self, plane: Plane, window: Box) -> Solution:
        from demoe.model.kernels.estimator import careful

        of_plane = self._of_plane(plane)
        size = (self._plan.height, self._plan.width)
        box = window.grown((SAMPLE - WINDOW) // 2, *size)
        scores = of_plane + self._scores(plane, box)
        kernel = careful(round_kernels()[int(scores.argmin())])
        found: Solution = self._memory.once(
            "kernel", (plane, kernel), lambda: self._solution(plane, kernel)
        )
        return found

    def _of_plane(self, plane: Plane) -> NDArray[np.float64]:
        def score() -> NDArray[np.float64]:
            boxes = sample_boxes(self._plan)
            return np.asarray(np.mean([self._scores(plane, box) for box in boxes], axis=0))

        found: NDArray[np.float64] = self._memory.once("kernel", plane, score)
        return found

    def _scores(self, plane: Plane, box: Box) -> NDArray[np.float64]:
        from demoe.model.kernels.estimator import gray_of, round_scores

        return round_scores(gray_of(self._reader.pixels(plane, box)))

    def _solution(self, plane: Plane, kernel: Kernel) -> Solution:
        from demoe.model.kernels.deconvolution import Deconvolver, Left

        samples = [self._reader.pixels(plane, box) for box in sample_boxes(self._plan)]

        def tried(kernel: Kernel) -> tuple[Deconvolver, Left]:
            deconvolver = Deconvolver(kernel.values, photo=False)
            return deconvolver, deconvolver.whitest(samples, False, BOLDEST)

        deconvolver, left = tried(kernel)
        while left.size > 1:
            smaller = replace(kernel, size=SMALLER * kernel.size)
            other, found = tried(smaller)
            if found.colour > WHITER * left.colour:
                break
            kernel, deconvolver, left = smaller, other, found
        return Solution(deconvolver, left.setting, 0.0, kernel)
