"""Intensities that are measured: local means, saturated pixels and the range of the camera."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from demoe.engine.deconvolver import PlaneDeconvolver
from demoe.engine.reader import PlaneReader
from demoe.model.level import keep_level
from demoe.plan.tiling import Box, Plane, TilePlan

CELL = 32
"""Side in pixels of the cells of the plane whose means are kept."""

PASSES = 3
"""How often means are kept in turn: the ratio between two cells is interpolated and meets neither,
and what then lies above the camera's range is cut once more."""


class Photometry:
    """Keeps what a microscope measured, the same for a place whatever tile it lies in.

    Parameters
    ----------
    reader : PlaneReader
        The source.
    plan : TilePlan
        How planes are cut.
    """

    def __init__(self, reader: PlaneReader, plan: TilePlan) -> None:
        self._reader, self._plan = reader, plan

    def of_physics(self, plane: Plane, core: Box, deconvolver: PlaneDeconvolver) -> NDArray[Any]:
        """Return a core without its blur, with the local means of the source.

        Deconvolution keeps the light but moves it, and what it gathers above the camera's range is
        cut.

        Parameters
        ----------
        plane, core
            Where.
        deconvolver : PlaneDeconvolver
            Undoes the blur.

        Returns
        -------
        ndarray
            (rows, cols, S), dtype of the image.
        """
        # Whole cells of the plane, and a ring of them for each pass.
        top, left = (n // CELL * CELL for n in (core.top, core.left))
        bottom, right = (-(-n // CELL) * CELL for n in (core.bottom, core.right))
        cells = Box(top, left, bottom, right)
        outer = cells.grown(PASSES * CELL, self._plan.height, self._plan.width)
        source = self._reader.values(plane, outer)
        samples = min(source.shape[2], 3)  # an alpha channel passes by
        done = self.within_range(deconvolver.core(plane, outer), source)
        wanted = self._tensor(source[..., :samples])
        for _ in range(PASSES):
            kept = keep_level(self._tensor(done[..., :samples]), wanted, CELL, alone=True)
            pixels = kept[0].permute(1, 2, 0).numpy()
            done = self._reader.scale.restore(pixels, source.dtype)
            done = np.concatenate([done, source[..., samples:]], axis=2)
            done = self.within_range(done, source)
        return done[core.within(outer)]

    def _tensor(self, pixels: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(self._reader.scale.normalise(pixels)).permute(2, 0, 1)[None]

    def of_network(self, plane: Plane, core: Box, restored: NDArray[Any]) -> NDArray[Any]:
        """Return a core whose means are kept already, within the camera's range.

        Parameters
        ----------
        plane, core
            Where.
        restored : ndarray
            (rows, cols, S), dtype of the image.
        """
        return self.within_range(restored, self._reader.values(plane, core))

    def within_range(self, restored: NDArray[Any], source: NDArray[Any]) -> NDArray[Any]:
        """Keep saturated pixels saturated, and the others below; see `Ceiling`."""
        ceiling = self._reader.ceiling
        return restored if ceiling is None else ceiling.keep(restored, source)
