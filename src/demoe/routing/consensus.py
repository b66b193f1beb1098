"""What is known beyond one cell: decisions of its neighbours, in the plane and in planes beside it.

Everybody counts by how sure he is (`demoe.routing.gates.confidence`), so that cells with little to
see take on what their surroundings say, and cells that are sure keep their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from demoe.routing.gates import Gates, confidence

_LEAST = 1e-3
"""Weight of a cell that cannot decide at all."""


def sharpen(gates: Gates, temperature: float) -> Gates:
    """Return gates (E, ...) at another temperature: below 1 more decided, above 1 less.

    The router's scores are divided by it before they become probabilities.
    """
    if temperature == 1:
        return gates
    scores = np.log(np.maximum(gates.astype(np.float64), 1e-30)) / temperature
    powers = np.exp(scores - scores.max(axis=0))
    return np.asarray(powers / powers.sum(axis=0), np.float32)


def agree(planes: Sequence[Gates]) -> Gates:
    """Return the mean of the gates (E, rows, cols) of several planes, by confidence."""
    if len(planes) == 1:
        return planes[0]
    weights = [_weight(gates) for gates in planes]
    total = sum(weight * gates for weight, gates in zip(weights, planes, strict=True))
    return np.asarray(total / sum(weights), np.float32)


def smooth(gates: Gates, radius: int) -> Gates:
    """Return the mean of the gates (E, rows, cols) around each cell, by confidence and nearness.

    Parameters
    ----------
    gates : ndarray
        What lies beyond them does not count.
    radius : int
        Cells to each side; the weight falls off linearly to nothing just beyond them.
    """
    if radius == 0:
        return gates
    weight = _weight(gates)
    total = np.concatenate([gates * weight, weight])
    for axis in (1, 2):
        total = _tent(total, radius, axis)
    return np.asarray(total[:-1] / total[-1:], np.float32)


def _weight(gates: Gates) -> NDArray[np.float64]:
    return np.asarray(confidence(gates)[None] + _LEAST, np.float64)


def _tent(values: NDArray[np.float64], radius: int, axis: int) -> NDArray[np.float64]:
    """Sum neighbours along an axis with weights that fall off linearly."""
    length = values.shape[axis]
    padding = [(radius, radius) if at == axis else (0, 0) for at in range(values.ndim)]
    padded = np.pad(values, padding)
    total = np.zeros_like(values)
    for offset in range(2 * radius + 1):
        part = padded.take(range(offset, offset + length), axis)
        total += (radius + 1 - abs(offset - radius)) * part
    return total
