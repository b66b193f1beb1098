"""Windows at fixed places of a plane, that overlap and are blended; places that stand for it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from demoe.plan.tiling import Box, TilePlan

WINDOW, OVERLAP = 256, 32
"""Side in pixels of a window, and how much of it its neighbour covers, too."""

STEP = WINDOW - OVERLAP
"""From one window to the next."""


def window_counts(plan: TilePlan) -> tuple[int, int]:
    """Return how many windows there are down and across a plane."""
    rows, cols = (max(1, -(-(side - OVERLAP) // STEP)) for side in (plan.height, plan.width))
    return rows, cols


def window_at(plan: TilePlan, row: int, col: int) -> Box:
    """Return a window by its row and column."""
    top, left = row * STEP, col * STEP
    return Box(top, left, min(top + WINDOW, plan.height), min(left + WINDOW, plan.width))


def windows_touching(plan: TilePlan, part: Box) -> list[Box]:
    """Return the windows that have pixels in a part of a plane, row by row."""
    spans = ((part.top, part.bottom), (part.left, part.right))
    rows, cols = (
        range(max(0, (start - WINDOW) // STEP + 1), min(count, -(-stop // STEP)))
        for (start, stop), count in zip(spans, window_counts(plan), strict=True)
    )
    return [window_at(plan, row, col) for row in rows for col in cols]


def windows_in(plan: TilePlan, part: Box) -> list[Box]:
    """Return the windows whose middle lies in a part of a plane, row by row."""
    return [
        window
        for window in windows_touching(plan, part)
        if part.top <= (window.top + window.bottom) // 2 < part.bottom
        and part.left <= (window.left + window.right) // 2 < part.right
    ]


def blended(plan: TilePlan, part: Box) -> Iterator[tuple[Box, NDArray[np.float32]]]:
    """Give the windows that have pixels in a part, always in one order, with their weights.

    Weights are above 0 and have the window's shape; a pixel's sum over its windows is not 1.
    """
    for window in windows_touching(plan, part):
        down = _weights(window.top, window.bottom, plan.height)
        across = _weights(window.left, window.right, plan.width)
        yield window, np.outer(down, across)


def spread_starts(
    length: int, side: int, most: int, *, grid: int = 1, ends: bool = False
) -> list[int]:
    """Return where places of a side begin that are spread evenly over a length.

    Parameters
    ----------
    length, side : int
        Of the plane and of a place, in pixels; a shorter length is one place.
    most : int
        Places at most.
    grid : int
        Places begin on multiples of it.
    ends : bool
        The first and the last lie at the ends; else each in the middle of its share.
    """
    room, count = max(0, length - side), min(most, -(-length // side))
    if ends:
        return [round(i * room / max(1, count - 1)) // grid * grid for i in range(count)]
    return [(2 * i + 1) * room // (2 * count) // grid * grid for i in range(count)]


def _weights(start: int, stop: int, length: int) -> NDArray[np.float32]:
    """Return the weights of a window along an axis: ramps where it has neighbours."""
    at = np.arange(start, stop)
    weight = np.ones(stop - start)
    if start:
        weight = np.minimum(weight, (at - start + 0.5) / OVERLAP)
    if stop < length:
        weight = np.minimum(weight, (stop - at - 0.5) / OVERLAP)
    return weight.astype(np.float32)
