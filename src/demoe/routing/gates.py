"""Gate fields: which choice works where, as arrays over routing cells.

Cells divide a plane on a regular grid, ``pitch`` pixels a side, the first at the origin. Gates are
float32 arrays (E, rows, cols), >= 0, summing to 1 over the E choices of a network. Where a network
decides in several layers, the *decisions* of all follow each other, (layers * E, rows, cols), and
its gates are their mean over layers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Gates = NDArray[np.float32]


def one_hot(number: int, count: int) -> Gates:
    """Return the gates (count,) of one choice alone, 1 for the first."""
    gates: Gates = np.eye(count, dtype=np.float32)[number - 1]
    return gates


def by_layer(gates: Gates, layers: int) -> Gates:
    """Return decisions (layers * E, ...) as (layers, E, ...)."""
    return gates.reshape(layers, -1, *gates.shape[1:])


def in_each_layer(function: Callable[[Gates], Gates], gates: Gates, layers: int) -> Gates:
    """Return decisions (layers * E, ...) of which each layer's (E, ...) went through a function."""
    return np.concatenate([function(part) for part in by_layer(gates, layers)])


def fill(gates: Gates, rows: int, cols: int) -> Gates:
    """Spread one decision (E,) over cells: (E, rows, cols)."""
    return np.ascontiguousarray(np.broadcast_to(gates[:, None, None], (len(gates), rows, cols)))


def expert_map(gates: Gates) -> NDArray[np.uint8]:
    """Return the strongest expert of each cell, 1 to E, for gates (..., E, rows, cols)."""
    return np.asarray(gates.argmax(axis=-3) + 1, np.uint8)


def confidence(gates: Gates) -> Gates:
    """Return by how much the strongest expert leads, 0 to 1, for gates (..., E, rows, cols).

    The lead over the second, not the entropy: the map shows the strongest alone, and where two are
    equal the choice is a toss-up (0), which the entropy of five would still call 57 % sure.
    """
    second, first = np.moveaxis(np.partition(gates, -2, axis=-3)[..., -2:, :, :], -3, 0)
    return np.asarray(np.clip(first - second, 0, 1), np.float32)


def windows(size: int, side: int) -> tuple[int, list[int]]:
    """Place the windows that are decided on along an axis of a plane: side by side.

    Parameters
    ----------
    size : int
        Length of the plane in pixels.
    side : int
        Length of a window; a shorter plane is one window.

    Returns
    -------
    side : int
        Length of the windows.
    starts : list of int
        First pixel of each; the last one is shifted to lie inside the plane.
    """
    side = min(side, size)
    return side, [min(start, size - side) for start in range(0, size, side)]


def windows_near(
    cells: range, size: int, pitch: int, side: int
) -> tuple[range, NDArray[np.float64]]:
    """Find the windows that cells take their gates from.

    Parameters
    ----------
    cells : range
        Indices of cells along an axis.
    size, pitch, side : int
        Length in pixels of the plane, of a cell, and of a window.

    Returns
    -------
    near : range
        Indices of windows.
    at : ndarray
        Where the centres of the cells lie among those, for `spread`.
    """
    side, starts = windows(size, side)
    last = min(len(starts), (cells.stop * pitch) // side + 2)
    near = range(min(max(0, cells.start * pitch // side - 1), last - 1), last)
    centres = np.array(starts[near.start : near.stop]) + side / 2
    first = np.arange(cells.start, cells.stop) * pitch
    middle = (first + np.minimum(first + pitch, size)) / 2
    return near, np.interp(middle, centres, np.arange(len(near)) + 0.5)


def decide_where_needed(
    ask: Callable[[NDArray[np.bool_]], Gates], rows: int, cols: int, layers: int = 1
) -> Gates:
    """Decide on every second window, and between them where those around are not of one mind.

    Elsewhere gates are interpolated, so that a picture with one kind of blur takes a quarter of the
    decisions.

    Parameters
    ----------
    ask : callable
        Given which windows, (rows, cols), returns their gates (E, n) in the order of rows.
    rows, cols : int
        Windows along each axis.
    layers : int
        In how many layers is decided; those around have to be of one mind in all of them.

    Returns
    -------
    ndarray
        (E, rows, cols).
    """
    first = np.zeros((rows, cols), bool)
    first[::2, ::2] = True
    coarse = ask(first).reshape(-1, (rows + 1) // 2, (cols + 1) // 2)
    gates = spread(coarse, np.arange(rows) / 2 + 0.5, np.arange(cols) / 2 + 0.5)
    gates[:, ::2, ::2] = coarse
    experts = expert_map(by_layer(coarse, layers))
    above, below = _around(rows)
    left, right = _around(cols)
    around = [experts[:, r][:, :, c] for r in (above, below) for c in (left, right)]
    split = (np.ptp(around, axis=0) > 0).any(axis=0)
    split &= ~first
    if split.any():
        gates[:, split] = ask(split)
    return gates


def _around(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return, for each of some windows, the nearest of every second one before and after it."""
    here = np.arange(count)
    return here // 2, np.minimum((here + 1) // 2, (count - 1) // 2)


def spread(gates: Gates, rows_at: NDArray[np.floating], cols_at: NDArray[np.floating]) -> Gates:
    """Interpolate gates linearly between the centres of cells.

    Parameters
    ----------
    gates : ndarray
        (E, rows, cols).
    rows_at, cols_at : ndarray
        Places along each axis, in cells, where 0.5 is the centre of the first one; beyond the
        outermost centres the outermost value holds.

    Returns
    -------
    ndarray
        (E, len(rows_at), len(cols_at)); sums over experts are kept.
    """
    return _between(_between(gates, rows_at, 1), cols_at, 2)


def _between(gates: Gates, at: NDArray[np.floating], axis: int) -> Gates:
    """Interpolate along an axis."""
    last = gates.shape[axis] - 1
    place = np.clip(at - 0.5, 0, last)
    low = place.astype(np.intp)
    shape = [-1 if number == axis else 1 for number in range(gates.ndim)]
    part = (place - low).astype(np.float32).reshape(shape)
    below, above = gates.take(low, axis), gates.take(np.minimum(low + 1, last), axis)
    return np.asarray(below * (1 - part) + above * part, np.float32)


def cells_around(start: int, stop: int, pitch: int, count: int) -> range:
    """Return the cells that count for pixels: one more on each side, for interpolation."""
    return range(max(0, start // pitch - 1), min(count, -(-stop // pitch) + 1))


def override(gates: Gates, labels: NDArray[np.uint8], layers: int = 1) -> Gates:
    """Return the decisions (layers * E, rows, cols) of cells, forced in all layers by labels.

    ``labels`` are (rows, cols), 0 where nothing is forced.
    """
    count = len(gates) // layers
    forced = np.eye(count + 1, dtype=np.float32)[labels][..., 1:].transpose(2, 0, 1)
    return np.where(labels > 0, np.tile(forced, (layers, 1, 1)), gates)
