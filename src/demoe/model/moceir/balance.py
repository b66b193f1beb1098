"""How unevenly experts share the work of a batch (arXiv 2411.18466, section 3.3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def imbalance(decided: Tensor, noise: Tensor, complexity: Tensor, top_k: int) -> Tensor:
    """Return the mean over layers of what their experts' importance and load vary.

    Both are squared coefficients of variation over the experts (Shazeer et al. 2017,
    arXiv 1701.06538): of their summed probabilities, those of costly experts counting more, so that
    these get less work; and of the probability that each is chosen with other noise.

    Parameters
    ----------
    decided : Tensor
        (N, layers, E): probabilities with the noise.
    noise : Tensor
        The same shape: what was added to scores, of the standard deviation 1 / E.
    complexity : Tensor
        (layers, E): the cost of each expert as a share of the largest in its layer.
    top_k : int
        Experts that work at once.
    """
    experts = decided.shape[2]
    scores = decided.clamp_min(1e-12).log()  # but for a constant, which changes nothing below
    clean = scores - noise
    importance = (clean.softmax(dim=2) * complexity).sum(dim=0)
    threshold = scores.topk(min(top_k + 1, experts), dim=2).values
    # For the chosen ones the rival is the next, for the others the last that was chosen.
    chosen = scores >= threshold[..., top_k - 1 : top_k]
    rival = torch.where(chosen, threshold[..., -1:], threshold[..., top_k - 1 : top_k])
    chance = 0.5 * (1 + torch.erf((clean - rival) * (experts / math.sqrt(2))))
    load = chance.mean(dim=0)
    return (0.5 * _variation(importance) + 0.5 * _variation(load)).mean()


def _variation(x: Tensor) -> Tensor:
    """Return the squared coefficient of variation along the last axis."""
    return x.var(dim=-1) / (x.mean(dim=-1).square() + 1e-8)
