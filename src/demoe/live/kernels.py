"""A picture of the kernel of each window, side by side, that fills up with the tiles."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from demoe.engine.kernels.solution import Kernels
from demoe.plan.tiling import Box, Plane, TilePlan
from demoe.plan.windows import OVERLAP, STEP, window_counts

MOST_WINDOWS = 128
"""Planes with more of them a side get no picture: nobody could see a kernel in it."""


def blank(kernels: Kernels, plan: TilePlan, planes: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Return the picture of an image of which no window is known; None for too large planes.

    Parameters
    ----------
    kernels : Kernels
        Those that will be drawn.
    plan : TilePlan
        How planes are cut.
    planes : tuple of int
        Lengths of the plane axes.

    Returns
    -------
    ndarray of uint8
        Plane axes, then rows and columns, ``kernels.side`` of each for a window.
    """
    counts = window_counts(plan)
    if max(counts) > MOST_WINDOWS:
        return None
    return np.zeros((*planes, *(count * kernels.side for count in counts)), np.uint8)


def draw(
    picture: NDArray[np.uint8], kernels: Kernels, plane: Plane, windows: Iterable[Box]
) -> None:
    """Draw the kernels of some windows, each as bright as can be.

    Parameters
    ----------
    picture : ndarray of uint8
        Of one plane; changed in place.
    kernels : Kernels
        Where they are known.
    plane : Plane
        Which plane of the image that is.
    windows : iterable of Box
        Those to draw.
    """
    side = kernels.side
    for window in windows:
        values = kernels.values(plane, window)
        top, left = window.top // STEP * side, window.left // STEP * side
        picture[top : top + side, left : left + side] = np.rint(255 * values / values.max())


def placed(plan: TilePlan, side: int) -> tuple[float, tuple[float, float]]:
    """Say where a picture lies on the image.

    Parameters
    ----------
    plan : TilePlan
        How planes are cut.
    side : int
        Pixels of the picture that a kernel takes a side.

    Returns
    -------
    step : float
        Pixels of the image that one of the picture covers, down and across.
    first : (float, float)
        Pixel of the image, row and column, over whose centre the picture's first one has its own.
        Each kernel then lies over the middle of its window.
    """
    lengths, counts = (plan.height, plan.width), window_counts(plan)
    step = min(STEP, *lengths) / side
    starts = (
        OVERLAP / 2 + (STEP - step * side) / 2 if count > 1 else (length - step * side) / 2
        for length, count in zip(lengths, counts, strict=True)
    )
    top, left = (start + step / 2 - 0.5 for start in starts)
    return step, (top, left)
