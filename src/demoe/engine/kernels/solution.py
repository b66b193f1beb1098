"""How a window is undone, and who says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from demoe.model.kernels.families import SIDE, Kernel
from demoe.plan.tiling import Box, Plane

if TYPE_CHECKING:
    from demoe.model.kernels.deconvolution import Deconvolver, Setting


@dataclass(frozen=True)
class Solution:
    """How a window is undone.

    Attributes
    ----------
    deconvolver : Deconvolver
        Holds the kernel.
    setting : Setting
        How strongly, and whether light was blurred.
    gain : float
        What it is expected to gain, in dB.
    kernel : Kernel or None
        The member of a family that was found; None where the PSF was given.
    """

    deconvolver: Deconvolver
    setting: Setting
    gain: float = 0.0
    kernel: Kernel | None = None


@dataclass(frozen=True)
class Blur:
    """What was found of the blur in a window.

    Attributes
    ----------
    window : Box
        Where.
    kernel : Kernel or None
        Its kernel; None where none was found, or the PSF was given.
    """

    window: Box
    kernel: Kernel | None

    @property
    def words(self) -> str:
        """What people call it."""
        return self.kernel.words if self.kernel else "no blur found"


class Kernels(Protocol):
    """What `PlaneDeconvolver` asks; ``side`` is that of `values`."""

    @property
    def side(self) -> int:
        """Rows and columns of a kernel."""

    def look_at(self, plane: Plane) -> None:
        """Find out what it takes to undo any window of a plane."""

    def window(self, plane: Plane, window: Box) -> Solution | None:
        """Return how a window is undone; None where nothing is."""

    def values(self, plane: Plane, window: Box) -> NDArray[np.float32]:
        """Return the kernel (K, K) of a window; a point where nothing is undone."""


def values_of(solution: Solution | None) -> NDArray[np.float32]:
    """Return a window's kernel, a point where nothing is undone."""
    if solution is not None and solution.kernel is not None:
        return solution.kernel.values.astype(np.float32)
    point = np.zeros((SIDE, SIDE), np.float32)
    point[SIDE // 2, SIDE // 2] = 1
    return point
