"""Keep the brightness of a picture: a restored picture with the local mean of what came in.

Blur moves light about and loses none, so a place is as bright after deblurring as before; a network
learns that only roughly, and least where intensities are measured.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

REACH = 2
"""Cells around a core whose cells lie on the grid that `keep_level` looks at."""

_DARK = 0.01
"""Added to both means, so that where there is hardly any light nothing is divided by nothing."""


def keep_level(restored: Tensor, picture: Tensor, cell: int, *, alone: bool = False) -> Tensor:
    """Scale a restored picture so that its local mean is the picture's.

    Parameters
    ----------
    restored, picture : Tensor
        (N, 3, H, W) in [0, 1].
    cell : int
        Side in pixels of the cells that are averaged; means are of 3 x 3 cells, and the ratio of
        two means is interpolated in between.
    alone : bool
        Take the means of each cell by itself.
    """
    wanted, found = _means(picture, cell, alone), _means(restored, cell, alone)
    ratio = (wanted.clamp_min(0) + _DARK) / (found.clamp_min(0) + _DARK)  # 1 below black
    factor = F.interpolate(ratio, scale_factor=float(cell), mode="bilinear", align_corners=False)
    factor = factor[:, :, : restored.shape[2], : restored.shape[3]]
    return torch.addcmul(_DARK * (factor - 1), restored, factor)


def _means(x: Tensor, cell: int, alone: bool) -> Tensor:
    """Return the mean of each cell or of 3 x 3 around it; borders average what there is."""
    cells = F.avg_pool2d(x, cell, ceil_mode=True, count_include_pad=False)
    if alone:
        return cells
    return F.avg_pool2d(cells, 3, 1, 1, count_include_pad=False)
