"""Weights of choices as tensors: which count, and how they change from place to place."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def keep_top(gates: Tensor, k: int) -> Tensor:
    """Keep the k largest of the gates along axis 1 and scale them to sum 1.

    Parameters
    ----------
    gates : Tensor
        (N, E) or (N, E, h, w), >= 0.
    k : int
        From 1 to E.
    """
    values, indices = gates.topk(k, dim=1)
    kept = torch.zeros_like(gates).scatter(1, indices, values)
    return kept / kept.sum(dim=1, keepdim=True).clamp_min(1e-12)


def spread_gates(gates: Tensor, size: tuple[int, int], extent: tuple[float, float]) -> Tensor:
    """Interpolate gates over the pixels of a feature map.

    It is torch's own interpolation, so that back ends and devices have theirs;
    `demoe.routing.gates.spread` does the same between routing cells, where there is no torch.

    Parameters
    ----------
    gates : Tensor
        (N, E, h, w); its cells divide the picture evenly.
    size : (int, int)
        Height and width of the feature map, which begins where the picture begins.
    extent : (float, float)
        Height and width of the picture in pixels of the feature map; what lies beyond
        (padding) takes the nearest cell.
    """
    if gates.shape[2:] == (1, 1):
        return gates
    y, x = (
        (torch.arange(n, device=gates.device, dtype=gates.dtype) + 0.5) * (2 / e) - 1
        for n, e in zip(size, extent, strict=True)
    )
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
    grid = grid.expand(len(gates), *grid.shape)
    return F.grid_sample(gates, grid, padding_mode="border", align_corners=False)


def spatial(weights: Tensor) -> Tensor:
    """Return weights (N, E) as (N, E, 1, 1), and others as they are."""
    return weights[:, :, None, None] if weights.ndim == 2 else weights
