"""Intensities that are measured: local means, saturated pixels and the range of the camera."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from demoe.engine.deconvolver import PlaneDeconvolver
from demoe.engine.reader import PlaneReader
from demoe.model.level import REACH, keep_level
from demoe.plan.tiling import Box, Plane, TilePlan

CELL = 16
"""Side in pixels of the cells of the plane whose means are kept; they lie on the tiles' grid."""


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

        Deconvolution keeps the light, but what it gathers above the camera's range is cut.

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
        outer = core.grown(REACH * CELL, self._plan.height, self._plan.width)
        source = self._reader.values(plane, outer)
        samples = min(source.shape[2], 3)  # an alpha channel passes by
        restored = self.within_range(deconvolver.core(plane, outer), source)
        scale = self._reader.scale
        found, wanted = (
            torch.from_numpy(scale.normalise(pixels[..., :samples])).permute(2, 0, 1)[None]
            for pixels in (restored, source)
        )
        kept = keep_level(found, wanted, CELL)[0].permute(1, 2, 0).numpy()
        done = scale.restore(kept, source.dtype)
        done = np.concatenate([done, source[..., samples:]], axis=2)
        return self.within_range(done, source)[core.within(outer)]

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
