"""Source, network and deconvolution made one picture: a small network weighs them at each pixel.

The weights sum to 1, so that nothing appears that none of the three shows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from demoe.model.checkpoint import fill

REACH = 16
"""Pixels around a place that its weights depend on."""

GRID = 2
"""Weights are found on a grid of so many pixels; pictures begin on it."""

WIDTH = 24

_INPUTS = 12
_CONTRAST = 8.0  # differences of pictures are small beside their values

Pixels = NDArray[np.float32]


class Fusion(nn.Module):
    """Weighs source, network and deconvolution; begins with equal parts of the first two."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(_INPUTS, WIDTH, 3, padding=1)
        self.second = nn.Conv2d(WIDTH, WIDTH, 3, padding=2, dilation=2)
        self.third = nn.Conv2d(WIDTH, WIDTH, 3, padding=4, dilation=4)
        self.last = nn.Conv2d(WIDTH, 3, 1)

    def forward(
        self,
        source: Tensor,
        network: Tensor,
        candidate: Tensor,
        again: Tensor,
        gain: Tensor,
        noise: Tensor,
    ) -> Tensor:
        """Return the picture (N, 3, H, W).

        Parameters
        ----------
        source, network, candidate, again : Tensor
            (N, 3, H, W): what came in, what the network and the deconvolution made of it, and the
            latter blurred again.
        gain : Tensor
            (N, 1, H, W): what the deconvolution is expected to gain, in dB.
        noise : Tensor
            (N,): standard deviation of the noise of the whole plane.
        """
        left = (again - source).abs_().mean(dim=1, keepdim=True)
        near, made, undone, left, gain = (
            _pooled(one) for one in (source, network, candidate, left, gain)
        )
        inputs = torch.cat(
            [
                near - 0.5,
                _CONTRAST * (made - near),
                _CONTRAST * (undone - near),
                _CONTRAST * left,
                gain / 4,
                (20 * noise)[:, None, None, None].expand_as(gain),
            ],
            dim=1,
        )
        weights = self._weights(inputs, source.shape[2:])
        # Added up one by one: a stack of the three would be as large as all that there is.
        fused = weights[:, :1] * source
        fused = fused.addcmul(weights[:, 1:2], network)
        return fused.addcmul(weights[:, 2:], candidate)

    def _weights(self, inputs: Tensor, size: torch.Size) -> Tensor:
        """Return the weights (N, 3, *size) of source, network and candidate, from the grid."""
        # Channels last: convolutions with wide steps take three times as long otherwise.
        x = F.gelu(self.first(inputs.contiguous(memory_format=torch.channels_last)))
        x = F.gelu(self.second(x)) + x
        x = F.gelu(self.third(x)) + x
        logits = F.interpolate(
            self.last(x).contiguous(), scale_factor=GRID, mode="bilinear", align_corners=False
        )
        return logits[:, :, : size[0], : size[1]].softmax(dim=1)


def _pooled(x: Tensor) -> Tensor:
    """Average a picture (N, C, H, W) over the cells of the grid."""
    height, width = x.shape[2:]
    padded = F.pad(x, (0, width % GRID, 0, height % GRID), mode="replicate")
    return F.avg_pool2d(padded, GRID)


def fusion_of(tensors: Mapping[str, Tensor], name: str) -> Fusion:
    """Make a fusion of its tensors; raises WeightsError if they are not such."""
    return fill(Fusion, tensors, name, "a fusion of pictures")
