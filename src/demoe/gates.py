"""Gate fields: which expert works where, as arrays over routing cells.

Cells divide a plane on a regular grid, ``pitch`` pixels a side, the first at the origin. Gates are
float32 arrays (5, rows, cols), >= 0, summing to 1 over the experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demoe.errors import AxesError, ImageError
from demoe.recipe import TASKS

Gates = NDArray[np.float32]


def one_hot(task: str) -> Gates:
    """Return the gates (5,) of a manual task."""
    gates: Gates = np.eye(len(TASKS), dtype=np.float32)[TASKS.index(task)]
    return gates


def fill(gates: Gates, rows: int, cols: int) -> Gates:
    """Spread one decision (5,) over cells: (5, rows, cols)."""
    return np.ascontiguousarray(np.broadcast_to(gates[:, None, None], (len(gates), rows, cols)))


def expert_map(gates: Gates) -> NDArray[np.uint8]:
    """Return the strongest expert of each cell, 1 to 5, for gates (..., 5, rows, cols)."""
    return np.asarray(gates.argmax(axis=-3) + 1, np.uint8)


def window_starts(
    cells: range, size: int, pitch: int, window: int, grid: int
) -> tuple[int, list[int]]:
    """Place the windows that cells along one axis are decided on.

    A window is centred on its cell, but shifted to lie inside the plane, so that every decision
    rests on a full window where the plane has room for one.

    Parameters
    ----------
    cells : range
        Indices of cells.
    size : int
        Length of the plane in pixels.
    pitch, window, grid : int
        Side of a cell, of a window, and of the network's own grid.

    Returns
    -------
    window : int
        Side of the windows, a multiple of ``grid``; at most the padded plane's.
    starts : list of int
        First pixel of each cell's window, multiples of ``grid``.
    """
    padded = -(-size // grid) * grid
    side = min(window, padded)
    before = (side - pitch) // 2 // grid * grid
    return side, [min(max(cell * pitch - before, 0), padded - side) for cell in cells]


def spread(gates: Gates, rows_at: NDArray[np.floating], cols_at: NDArray[np.floating]) -> Gates:
    """Interpolate gates linearly between the centres of cells.

    Parameters
    ----------
    gates : ndarray
        (5, rows, cols).
    rows_at, cols_at : ndarray
        Places along each axis, in cells, where 0.5 is the centre of the first one; beyond the
        outermost centres the outermost value holds.

    Returns
    -------
    ndarray
        (5, len(rows_at), len(cols_at)); sums over experts are kept.
    """
    down = _hat(rows_at, gates.shape[1])
    across = _hat(cols_at, gates.shape[2])
    return np.asarray(down @ gates @ across.T, dtype=np.float32)


def _hat(at: NDArray[np.floating], cells: int) -> Gates:
    """Return the matrix (len(at), cells) of linear interpolation."""
    place = np.clip(at - 0.5, 0, cells - 1)
    distance = np.abs(place[:, None] - np.arange(cells))
    return np.asarray(np.maximum(0, 1 - distance), np.float32)


class PaintedMap:
    """An expert map made by a person: 0 leaves the choice to the router, 1 to 5 forces an expert.

    Parameters
    ----------
    values : array
        Integers; (rows, cols) for all planes, or with the image's plane axes before them. One value
        a routing cell, as in the expert map of a result, or any other resolution: then it covers
        the plane evenly, and the value at a cell's centre counts.
    planes : tuple of int
        Lengths of the image's plane axes, in the image's order.

    Raises
    ------
    ImageError
        If the values are no integers of 0 to 5.
    AxesError
        If the dimensions do not fit the image.
    """

    def __init__(self, values: Any, planes: tuple[int, ...]) -> None:
        array = np.asarray(values)
        if array.dtype.kind not in "ui":
            raise ImageError(
                f"An expert map holds integers from 0 to {len(TASKS)}, not {array.dtype} values."
            )
        if array.ndim not in (2, 2 + len(planes)) or array.size == 0:
            raise AxesError(
                f"An expert map has rows and columns, or {2 + len(planes)} axes as the image has "
                f"without colour samples, but this one has the shape {array.shape}."
            )
        if array.ndim > 2 and array.shape[:-2] != planes:
            raise AxesError(
                f"The expert map is for {array.shape[:-2]} planes, but the image has {planes}."
            )
        if array.min() < 0 or array.max() > len(TASKS):
            raise ImageError(
                f"An expert map holds integers from 0 to {len(TASKS)}, but this one goes from "
                f"{array.min()} to {array.max()}."
            )
        self.values: NDArray[np.uint8] = array.astype(np.uint8)

    def labels(
        self,
        plane: Sequence[int],
        rows: range,
        cols: range,
        pitch: int,
        size: tuple[int, int],
    ) -> NDArray[np.uint8]:
        """Return what is painted on some cells of a plane, (len(rows), len(cols)), 0 to 5."""
        painted = self.values if self.values.ndim == 2 else self.values[tuple(plane)]
        return np.asarray(
            painted[
                np.ix_(
                    _centres(rows, pitch, size[0], painted.shape[0]),
                    _centres(cols, pitch, size[1], painted.shape[1]),
                )
            ]
        )


def override(gates: Gates, labels: NDArray[np.uint8]) -> Gates:
    """Return the gates (5, rows, cols) of cells, forced where ``labels`` (rows, cols) are not 0."""
    forced = np.eye(len(TASKS) + 1, dtype=np.float32)[labels][..., 1:].transpose(2, 0, 1)
    return np.where(labels > 0, forced, gates)


def _centres(cells: range, pitch: int, size: int, length: int) -> NDArray[np.intp]:
    """Return the index in a map of ``length`` that each cell's centre falls on.

    A map of just the cells is taken cell by cell: spread evenly it would shift against them where
    the last cell is cut short by the border.
    """
    if length == -(-size // pitch):
        return np.asarray(cells)
    start = np.asarray(cells) * pitch
    centre = (start + np.minimum(start + pitch, size)) / 2
    return np.minimum(np.asarray(centre * length / size, np.intp), length - 1)
