"""What the choices of a network cost, where they cost differently."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from demoe.model.protocol import Arithmetic


def mean_complexity(layers: NDArray[np.uint8], arithmetic: Arithmetic) -> NDArray[np.float32]:
    """Return how much the choices at work compute, as a share of the costliest.

    Parameters
    ----------
    layers : ndarray
        (..., layers, rows, cols): the choice in each layer, from 1; 0 where none works.
    arithmetic : Arithmetic
        Of the network.

    Returns
    -------
    ndarray
        (..., rows, cols): the mean over layers; 0 where none works.
    """
    looked_up = _looked_up(layers, arithmetic.complexity)
    return np.asarray(np.mean(looked_up, axis=0), np.float32)


def saved_share(layers: NDArray[np.uint8], arithmetic: Arithmetic, *, held: bool) -> float:
    """Return which part of the arithmetic of restoring cells was not needed.

    That is: less than the bare network with the costliest choice in all layers and all cells.

    Parameters
    ----------
    layers, arithmetic
        As in `mean_complexity`.
    held : bool
        Whether statistics were held, so that choices did not run.
    """
    most = arithmetic.rest + sum(map(max, arithmetic.choices))
    works = layers[..., 0, :, :] > 0
    if held:
        used = works * arithmetic.held
    else:
        used = works * arithmetic.rest + np.sum(_looked_up(layers, arithmetic.choices), axis=0)
    return float(1 - used.mean() / most)


def shares_of(layers: NDArray[np.uint8], count: int) -> NDArray[np.float64]:
    """Return which part of all decisions each choice got, (count,), without cells that none got."""
    counts: Any = np.bincount(layers.ravel(), minlength=count + 1)[1:]
    return np.asarray(counts / max(1, counts.sum()), np.float64)


def _looked_up(layers: NDArray[np.uint8], table: tuple[tuple[float, ...], ...]) -> Any:
    """Return what the choice of each layer has in a table (layers, E), 0 where none works."""
    return [np.array((0.0, *row))[layers[..., n, :, :]] for n, row in enumerate(table)]
