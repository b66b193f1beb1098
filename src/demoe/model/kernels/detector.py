"""Which pixels of a photo are blurred and which are sharp: blur detection by a small network.

Where an object moved before a scene that stands still, a kernel is found, and undone, on what moved
alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from demoe.model.checkpoint import fill

GRID = 8
"""Pixels a side of a place that is told as one."""

REACH = 96
"""Pixels around a place that it is told by, no more."""

BLURRED, SHARP = 0.7, 0.3
"""How likely a pixel is blurred, from which on all of it is, and up to which nothing is."""

PART = 0.1
"""Of what can be told, at least so much must be blurred, and so much sharp, to be told apart."""

TEXTURE = 0.01
"""Standard deviation of a place of the grid above which it can be told."""

Gray = NDArray[np.float32]

WIDTHS = (24, 48, 64)
"""Channels at the three scales; a weights file says by its tensors what its detector has."""

_SPREAD = (1, 2, 4, 1)  # dilations at the coarsest scale
_CONTRAST = 4.0


class Detector(nn.Module):
    """Tells how likely each place of a picture is blurred.

    Parameters
    ----------
    widths : sequence of int
        Channels at the three scales, from fine to coarse.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.entries = nn.ModuleList(
            [
                nn.Conv2d(1, fine, 5, stride=2, padding=2),
                nn.Conv2d(fine, middle, 3, stride=2, padding=1),
                nn.Conv2d(middle, coarse, 3, stride=2, padding=1),
            ]
        )
        self.blocks = nn.ModuleList(
            [nn.Conv2d(fine, fine, 3, padding=1), nn.Conv2d(middle, middle, 3, padding=1)]
        )
        self.wide = nn.ModuleList(
            [nn.Conv2d(coarse, coarse, 3, padding=d, dilation=d) for d in _SPREAD]
        )
        self.last = nn.Conv2d(coarse, 1, 1)

    def forward(self, gray: Tensor) -> Tensor:
        """Return logits (N, 1, H / `GRID`, W / `GRID`), rounded up, of luma (N, 1, H, W)."""
        x = _CONTRAST * (gray - 0.5)
        for entry, block in zip(self.entries, self.blocks, strict=False):
            x = F.gelu(entry(x))
            x = x + F.gelu(block(x))
        x = F.gelu(self.entries[-1](x))
        for one in self.wide:
            x = x + F.gelu(one(x))
        logits: Tensor = self.last(x)
        return logits

    @torch.inference_mode()
    def likely(self, gray: Gray) -> Gray:
        """Return how likely each pixel (H, W) of luma in [0, 1] is blurred."""
        likely = self(torch.from_numpy(gray)[None, None]).sigmoid()
        height, width = gray.shape
        # Places lie on the grid, so what it is spread over may be larger than the picture.
        size = (likely.shape[2] * GRID, likely.shape[3] * GRID)
        spread = F.interpolate(likely, size, mode="bilinear", align_corners=False)
        return np.ascontiguousarray(spread[0, 0, :height, :width].numpy())


def extent_of(likely: Gray) -> Gray:
    """Return how much of each pixel (H, W) is blurred, 0 to 1, of `Detector.likely`."""
    extent: Gray = np.clip((likely - SHARP) / np.float32(BLURRED - SHARP), 0, 1)
    return extent


def is_in_parts(likely: Gray, gray: Gray) -> bool:
    """Tell whether some of a picture is clearly blurred, and some clearly not.

    Parameters
    ----------
    likely, gray : ndarray of float32
        (H, W), of `Detector.likely`, and the luma that it is of.
    """
    cells = _cells(likely).mean(axis=(1, 3))
    told = _cells(gray).std(axis=(1, 3)) >= TEXTURE
    least = PART * max(1, int(told.sum()))
    fewer = min((told & (cells >= BLURRED)).sum(), (told & (cells <= SHARP)).sum())
    return bool(fewer >= least)


def _cells(values: Gray) -> Gray:
    """Return values as places of the grid: (rows, `GRID`, columns, `GRID`)."""
    rows, cols = (side // GRID for side in values.shape)
    return values[: rows * GRID, : cols * GRID].reshape(rows, GRID, cols, GRID)


def detector_of(tensors: Mapping[str, Tensor], name: str) -> Detector:
    """Make a detector of its tensors; raises WeightsError if they are not such."""
    biases = [tensors.get(f"entries.{scale}.bias") for scale in range(len(WIDTHS))]
    widths = [
        usual if bias is None else max(1, bias.numel())
        for bias, usual in zip(biases, WIDTHS, strict=True)
    ]
    return fill(partial(Detector, widths), tensors, name, "a detector of blur")
