"""Planes whose blur is known or was found: windows at fixed places, each undone by itself, blended.

Windows depend on the plane alone, so that tiles of any size give the same, to the last bit that
blending leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demoe.choices import Choice
from demoe.engine.kernels import Kernels, Solution
from demoe.engine.memory import Memory
from demoe.engine.reader import PlaneReader
from demoe.plan.tiling import Box, Plane, TilePlan
from demoe.plan.windows import blended
from demoe.routing.gates import Gates
from demoe.routing.router import Pixels


class PlaneDeconvolver:
    """Computes tiles of an image by undoing its blur; stands in for `Restorer`.

    Parameters
    ----------
    reader : PlaneReader
        Its pixels.
    plan : TilePlan
        How planes are cut.
    kernels : Kernels
        Say how each window is undone.
    memory : Memory
        Keeps a few windows that neighbouring tiles share.
    """

    def __init__(
        self, reader: PlaneReader, plan: TilePlan, kernels: Kernels, memory: Memory
    ) -> None:
        self._reader, self._plan = reader, plan
        self._kernels, self._memory = kernels, memory

    def tile(self, plane: Plane, row: int, col: int) -> NDArray[Any]:
        """Return the restored core of a tile: (rows, cols, S), dtype of the image."""
        return self.core(plane, self._plan.tile_at(row, col).core)

    def core(self, plane: Plane, core: Box) -> NDArray[Any]:
        """Return a restored rectangle: (rows, cols, S), dtype of the image."""
        kept = self._reader.values(plane, core)
        samples = min(kept.shape[2], 3)  # an alpha channel passes by
        restored = self.undone(plane, core)[0]
        done = self._reader.scale.restore(restored, self._reader.image.dtype)
        return np.concatenate([done, kept[..., samples:]], axis=2)

    def undone(self, plane: Plane, box: Box) -> tuple[Pixels, Pixels, Pixels]:
        """Return a rectangle without its blur.

        Returns
        -------
        restored, again : ndarray of float32
            (rows, cols, S), and that blurred again. Where no kernel was found, the source.
        gain : ndarray of float32
            (rows, cols, 1): what it is expected to gain, in dB.
        """
        samples = 3 if self._reader.image.is_rgb else 1
        totals = [np.zeros((*box.shape, n), np.float32) for n in (samples, samples, 1)]
        weights = np.zeros((*box.shape, 1), np.float32)
        for window, weight in blended(self._plan, box):
            shared = window.common(box)
            part = weight[shared.within(window)][..., None]
            solved = self._solved(plane, window)
            for total, values in zip(totals, solved, strict=True):
                total[shared.within(box)] += part * values[shared.within(window)]
            weights[shared.within(box)] += part
        restored, again, gain = (total / weights for total in totals)
        return restored, again, gain

    def blurred(self, plane: Plane, box: Box, result: Callable[[Box], Pixels]) -> Pixels:
        """Return a rectangle of some result blurred by the kernels that were found there.

        Parameters
        ----------
        plane, box : Plane, Box
            Where.
        result : callable
            Returns rectangles (rows, cols, S) of it.
        """
        total: Any = 0.0
        weights = np.zeros((*box.shape, 1), np.float32)
        for window, weight in blended(self._plan, box):
            shared = window.common(box)
            part = weight[shared.within(window)][..., None]
            solution = self._kernels.window(plane, window)
            reach = solution.deconvolver.margin if solution else 0
            read = shared.grown(reach, self._plan.height, self._plan.width)
            sharp = result(read)
            if solution is not None:
                sharp = solution.deconvolver.blur(sharp, solution.setting.linear)
            if not weights.any():
                total = np.zeros((*box.shape, sharp.shape[2]), np.float32)
            total[shared.within(box)] += part * sharp[shared.within(read)]
            weights[shared.within(box)] += part
        blurred: Pixels = total / weights
        return blurred

    def _solved(self, plane: Plane, window: Box) -> tuple[Pixels, Pixels, Pixels]:
        solution = self._kernels.window(plane, window)
        found: tuple[Pixels, Pixels, Pixels] = self._memory.once(
            "window", (plane, window, solution), lambda: self._solve(plane, window, solution)
        )
        return found

    def _solve(
        self, plane: Plane, window: Box, solution: Solution | None
    ) -> tuple[Pixels, Pixels, Pixels]:
        gain = np.full((*window.shape, 1), solution.gain if solution else 0.0, np.float32)
        if solution is None:
            source = self._reader.pixels(plane, window)
            return source, source, gain
        read = window.grown(solution.deconvolver.margin, self._plan.height, self._plan.width)
        pixels = self._reader.pixels(plane, read)
        restored, again = solution.deconvolver.solve(pixels, solution.setting)
        inner = window.within(read)
        return restored[inner], again[inner], gain


class NoMaps:
    """What becomes of cells where no network works; stands in for `CellMaps`."""

    def __init__(self, choices: tuple[Choice, ...]) -> None:
        self._count = len(choices)

    def gates(self, plane: Plane, rows: range, cols: range) -> Gates:
        """Return no weight for any choice."""
        return np.zeros((self._count, len(rows), len(cols)), np.float32)

    def experts(self, plane: Plane, rows: range, cols: range) -> NDArray[np.uint8]:
        """Return 0: none works."""
        return np.zeros((len(rows), len(cols)), np.uint8)

    def confidence(self, plane: Plane, rows: range, cols: range) -> Gates:
        """Return 0: there is nothing to decide."""
        return np.zeros((len(rows), len(cols)), np.float32)

    def failed(self, plane: Plane, core: Box) -> list[tuple[int, int]]:
        """Return no cell."""
        return []

    def note_failed(self, plane: Plane, cell: tuple[int, int]) -> None:
        """Nothing can fail here."""
