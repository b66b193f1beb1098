"""What JPEG compression does to pixels, on the device: no bytes are made."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# Quantisation steps at quality 50, row by row (ITU-T T.81, annex K, tables K.1 and K.2).
_LUMA = """
16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101
72 92 95 98 112 100 103 99
"""
_CHROMA = """
17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99
"""
_STEPS = torch.stack(
    [torch.tensor([float(n) for n in table.split()]).reshape(8, 8) for table in (_LUMA, _CHROMA)]
)
_TO_YCC = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)
_N = torch.arange(8.0)
_DCT = torch.cos(math.pi / 8 * (_N + 0.5) * _N[:, None]) * math.sqrt(2 / 8)
_DCT[0] /= math.sqrt(2)


def compress(images: Tensor, quality: int) -> Tensor:
    """Return images as they come out of a JPEG file, colour at half resolution.

    Parameters
    ----------
    images : Tensor
        (N, 3, H, W), [0, 1].
    quality : int
        1 to 100, on the scale of the Independent JPEG Group.
    """
    h, w = images.shape[2:]
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    steps = ((_STEPS * scale + 50) / 100).floor().clamp(1, 255).to(images)
    matrix = _TO_YCC.to(images)
    padded = F.pad(images * 255, (0, -w % 16, 0, -h % 16), mode="replicate")
    planes = torch.einsum("ij,njhw->nihw", matrix, padded)
    luma = _quantised(planes[:, :1] - 128, steps[0]) + 128
    chroma = _quantised(F.avg_pool2d(planes[:, 1:], 2), steps[1])
    planes = torch.cat([luma, F.interpolate(chroma, scale_factor=2.0, mode="bilinear")], dim=1)
    colour = torch.einsum("ij,njhw->nihw", torch.linalg.inv(matrix), planes)
    return (colour[..., :h, :w].round() / 255).clamp(0, 1)


def _quantised(planes: Tensor, steps: Tensor) -> Tensor:
    """Round the cosine transform of every 8 x 8 block to whole steps."""
    n, c, h, w = planes.shape
    dct = _DCT.to(planes)
    blocks = planes.reshape(n, c, h // 8, 8, w // 8, 8)
    waves = torch.einsum("ui,vj,ncyixj->ncyuxv", dct, dct, blocks)
    kept = (waves / steps[:, None]).round() * steps[:, None]
    back = torch.einsum("ui,vj,ncyuxv->ncyixj", dct, dct, kept)
    return back.reshape(n, c, h, w)
