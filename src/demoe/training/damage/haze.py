"""Haze: light that is scattered on its way, and light of the air that joins it."""

from __future__ import annotations

import torch
from torch import Tensor

from demoe.training.damage.light import ON_VALUES, depth, pale, veil
from demoe.training.damage.noise import plain
from demoe.training.random import Draw

THICKNESS = (0.5, 2.2)
"""Optical thickness of the air up to what is farthest: it lets 61 to 11 % through."""
NEAR = (0.15, 0.6)
"""How near the nearest is, as a share of the farthest."""


def haze(sharp: Tensor, draw: Draw) -> Tensor:
    """Put an image (1, 3, H, W) behind haze.

    After Koschmieder (1924): exp(-thickness x distance) of the scene's light arrives, and the air
    adds its own for the rest.
    """
    height, width = sharp.shape[2:]
    near = draw.uniform(*NEAR)
    distance = (near + (1 - near) * depth(height, width, draw)).to(sharp)
    transmission = torch.exp(-draw.log_uniform(*THICKNESS) * distance)
    airlight = pale(sharp, draw, 0.65, 0.98, 0.025)
    seen = veil(sharp, transmission, airlight, not draw.chance(ON_VALUES))
    return plain(seen, draw.log_uniform(0.001, 0.008), draw) if draw.chance(0.5) else seen
