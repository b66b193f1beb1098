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


class Blend:
    """What is one vector for each choice, blended at each place by the weights of the choices.

    Parameters
    ----------
    weights : Tensor
        (N, E, 1, 1), or (N, E, rows, cols) whose cells divide the picture evenly.

    Attributes
    ----------
    choices : list of int
        Positions of the choices that have weight anywhere; no others are blended.
    """

    def __init__(self, weights: Tensor) -> None:
        used = weights.amax(dim=(0, 2, 3)) > 0
        self.choices: list[int] = used.nonzero()[:, 0].tolist()
        self._weights = weights[:, used]
        self._spread: dict[tuple[int, int], Tensor] = {}

    def __call__(self, vectors: Tensor, like: Tensor) -> Tensor:
        """Blend vectors (E, C) of the used choices over a feature map (N, C, h, w) of the picture.

        Returns (N, C, 1, 1) where weights are the same everywhere, else (N, C, h, w).
        """
        height, width = like.shape[2:]
        if (height, width) not in self._spread:
            # Maps of all levels begin where the picture begins, and end where it ends.
            self._spread[height, width] = spread_gates(
                self._weights, (height, width), (float(height), float(width))
            )
        weights = self._spread[height, width]
        return torch.einsum("nehw,ec->nchw", weights, vectors.to(weights))
