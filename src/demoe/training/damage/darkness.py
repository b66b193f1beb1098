"""Low light: too short an exposure, with its noise and what a camera makes of it."""

from __future__ import annotations

from torch import Tensor

from demoe.training.blur.degradations import is_gray, normal, to_display, to_linear
from demoe.training.random import Draw

SHORTER = (3.0, 20.0)
"""How many times too short the exposure is."""
ELECTRONS = (3000, 40000)
"""Electrons of a white pixel at the right exposure."""


def low_light(sharp: Tensor, draw: Draw) -> Tensor:
    """Expose an image (1, 3, H, W) too shortly; unlike the blurs', the truth is as bright as it."""
    light = to_linear(sharp) / draw.log_uniform(*SHORTER)
    if not is_gray(sharp):
        # A camera's balance of white fails in the dark.
        light = light * (1 + 0.05 * draw.normal(1, 3, 1, 1)).clamp(0.8, 1.2).to(light)
    electrons, read = draw.log_uniform(*ELECTRONS), draw.uniform(1, 4)
    spread = (light.clamp_min(0) / electrons + (read / electrons) ** 2).sqrt()
    seen = to_display((light + normal(sharp, draw) * spread).clamp(0, 1))
    if draw.chance(0.4):
        seen = seen ** draw.uniform(0.85, 1.2)  # a tone curve on top
    return seen.clamp(0, 1)
