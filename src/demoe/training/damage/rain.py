"""Rain: streaks of drops that fall while the shutter is open, and a slight veil of far ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from demoe.training.blur import kernels
from demoe.training.blur.degradations import KERNEL, to_display, to_linear
from demoe.training.damage.light import ON_VALUES, pale, veil
from demoe.training.random import Draw

DISTANCES = (1.0, 0.6, 0.35)
"""Layers of drops: sizes and lengths of streaks, as shares of those of the nearest."""
LENGTH = (10.0, 36.0)
"""Of the nearest streaks, in pixels."""
LONGEST = KERNEL - 3.0


def rain(sharp: Tensor, draw: Draw) -> Tensor:
    """Let it rain before an image (1, 3, H, W).

    A drop shows the sky, bright and nearly without colour (Garg and Nayar, IJCV 2007), and covers
    a pixel for a part of the exposure; so a streak is a share of that colour, greater for drops
    that are near. Many far ones add up to a veil.
    """
    in_light = not draw.chance(ON_VALUES)
    colour = pale(sharp, draw, 0.7, 1.0, 0.015)
    seen = sharp
    if draw.chance(0.6):
        seen = veil(seen, torch.tensor(draw.uniform(0.82, 1.0)), colour, in_light)
    height, width = sharp.shape[2:]
    cover = streaks(height, width, draw).to(sharp)
    if in_light:
        light = to_linear(seen) * (1 - cover) + to_linear(colour) * cover
        return to_display(light.clamp(0, 1))
    return (seen * (1 - cover) + colour * cover).clamp(0, 1)


def streaks(height: int, width: int, draw: Draw) -> Tensor:
    """Draw the share of each pixel (1, 1, height, width) that drops cover, from 0 to 0.9."""
    heading = math.pi / 2 + 0.3 * float(draw.normal(1))
    length, thick = draw.uniform(*LENGTH), draw.uniform(0.5, 1.1)
    density, strength = draw.log_uniform(0.0008, 0.006), draw.uniform(0.25, 0.8)
    clear = torch.ones(1, 1, height, width)
    for share in DISTANCES:
        angle = heading + 0.04 * float(draw.normal(1))
        path = kernels.line(min(LONGEST, length * share), angle)
        streak = kernels.from_path(KERNEL, path)
        round_ = kernels.gaussian(KERNEL, max(0.35, thick * share))
        # Near ones are few, thick and strong.
        born = (draw.uniform_(1, 1, height, width) < density / share).float()
        born = born * draw.uniform_(1, 1, height, width)
        fallen = kernels.convolve(kernels.convolve(born, streak[None]), round_[None])
        shape = kernels.convolve(streak[None, None], round_[None])
        cover = fallen / shape.amax() * strength * (0.4 + 0.6 * share)
        clear = clear * (1 - cover.clamp(0, 0.9))
    return (1 - clear).clamp(0, 0.9)
