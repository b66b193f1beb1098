"""What a person's corrections of an expert map ask for, and which tiles they change."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from demoe.plan.tiling import TilePlan
from demoe.routing.gates import cells_around
from demoe.routing.painted import PaintedMap

Cells = NDArray[np.integer]


def wishes(shown: Cells, followed: Cells, painted: Cells) -> Cells:
    """Return what a person wants of each cell, who changed an expert map; 0: let the router decide.

    Parameters
    ----------
    shown : ndarray of int
        The map as it is now; 0 is not decided.
    followed : ndarray of int
        The map of the result; where nothing was changed, it is no wish.
    painted : ndarray of int
        What the result followed of a person's wishes so far, which holds there.
    """
    return np.where(shown != followed, shown, painted)


def stale_tiles(
    before: PaintedMap | None,
    after: PaintedMap | None,
    planes: tuple[int, ...],
    plan: TilePlan,
    pitch: int,
    reach: int = 0,
) -> NDArray[np.bool_]:
    """Say which tiles two maps of a person make different.

    Parameters
    ----------
    before, after : PaintedMap, optional
        Maps of the same image; without one, nothing is painted.
    planes : tuple of int
        Lengths of the image's plane axes.
    plan : TilePlan
        How each plane is cut.
    pitch : int
        Pixels a side of a routing cell.
    reach : int
        Pixels around a read in which paint changes a tile, too.

    Returns
    -------
    ndarray of bool
        Plane axes, then rows and columns of tiles.
    """
    cells = -(-plan.height // pitch), -(-plan.width // pitch)
    old, new = (np.uint8(0) if painted is None else painted.cells for painted in (before, after))
    differ = np.zeros(cells, bool) | (old != new)
    down = [plan.tile_at(row, 0).read for row in range(plan.shape[0])]
    across = [plan.tile_at(0, col).read for col in range(plan.shape[1])]
    size = (plan.height, plan.width)
    down, across = ([read.grown(reach, *size) for read in reads] for reads in (down, across))
    rows = [cells_around(read.top, read.bottom, pitch, cells[0]) for read in down]
    cols = [cells_around(read.left, read.right, pitch, cells[1]) for read in across]
    # How many cells differ before each corner; so a difference of sums counts those of a tile.
    sums = np.pad(differ, [(0, 0)] * (differ.ndim - 2) + [(1, 0)] * 2).cumsum(-1).cumsum(-2)
    strips = sums[..., [r.stop for r in rows], :] - sums[..., [r.start for r in rows], :]
    found = strips[..., [c.stop for c in cols]] > strips[..., [c.start for c in cols]]
    return np.broadcast_to(found, (*planes, *plan.shape))
