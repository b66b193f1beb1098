"""Tells what a network has restored from what it has blown up.

Networks of this kind can answer unusual input with glaring colours. How much they change what they
were made for is known: it is measured once for each set of weights (`demoe.model.calibration`).
Changes far beyond that are taken for a failure.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from demoe.model.calibration.changes import (
    STATISTICS,
    Bound,
    Bounds,
    Cells,
    Changes,
    measure_changes,
)


def implausible_cells(
    before: NDArray[Any],
    after: NDArray[Any],
    pitch: int,
    bounds: Bounds,
    offset: tuple[int, int] = (0, 0),
) -> NDArray[np.bool_]:
    """Find the routing cells in which a network must have failed.

    Parameters
    ----------
    before, after : ndarray of float
        (H, W, S), in network scale: a tile and what the network made of it.
    pitch : int
        Side of a cell in pixels.
    bounds : Bounds
        What is plausible.
    offset : (int, int)
        Rows and columns of the first cell that lie outside the arrays.

    Returns
    -------
    ndarray of bool
        (rows, cols), one a cell that lies in the arrays, if only in part: True where a value is not
        finite or a change is beyond the bounds.
    """
    found = measure_changes(before, after, pitch, offset)
    beyond = [share > 1 for share in shares(found, bounds).values()]
    return np.asarray(~found.finite | np.any(beyond, axis=0))


def shares(changes: Changes, bounds: Bounds) -> dict[str, Cells]:
    """Return each statistic of each cell as a share of what is plausible: above 1 it is not."""
    found = {}
    for name in STATISTICS:
        bound: Bound = getattr(bounds, name)
        most = bound.floor * changes.amplitude + bound.slope * changes.contrast(name)
        value: Cells = getattr(changes, name)
        found[name] = value / np.maximum(most, np.finfo(np.float32).tiny)
    return found
