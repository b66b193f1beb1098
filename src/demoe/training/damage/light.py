"""What several kinds of damage share: smooth fields, depth, and whether light or values mix."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from demoe.training.blur.degradations import is_gray, to_display, to_linear
from demoe.training.random import Draw

ON_VALUES = 0.4
"""Share of pictures whose display values are mixed, as in most published test sets, and not their
light."""


def smooth_field(height: int, width: int, draw: Draw, waves: int = 4) -> Tensor:
    """Draw a smooth field (1, 1, height, width) from 0 to 1."""
    coarse = draw.normal(1, 1, waves, waves)
    field = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    low, high = field.amin(), field.amax()
    return (field - low) / (high - low).clamp_min(1e-6)


def depth(height: int, width: int, draw: Draw) -> Tensor:
    """Draw how far a scene is away, (1, 1, height, width) from 0 to 1.

    The farther up, the farther away in most pictures, with hills and things before it; a picture
    may also be a small part of a scene, all of it about as far.
    """
    angle = math.pi / 2 + 0.4 * float(draw.normal(1))
    y = torch.linspace(1, 0, height)[:, None] * math.sin(angle)
    x = torch.linspace(0, 1, width)[None] * math.cos(angle)
    slope = y + x
    slope = (slope - slope.amin()) / (slope.amax() - slope.amin()).clamp_min(1e-6)
    share = draw.uniform(0.2, 0.8)
    field = share * slope[None, None] + (1 - share) * smooth_field(height, width, draw)
    span = draw.uniform(0.1, 1.0)
    return draw.uniform(0, 1 - span) + span * field


def veil(image: Tensor, transmission: Tensor, airlight: Tensor, in_light: bool) -> Tensor:
    """Mix an image with light that comes from the air before it.

    Parameters
    ----------
    image : Tensor
        (1, 3, H, W), display-referred.
    transmission : Tensor
        Share of the scene's light that arrives, from 0 to 1; any shape that fits.
    airlight : Tensor
        Display-referred colour of the air, (1, 3, 1, 1).
    in_light : bool
        Whether light is mixed; else display values.
    """
    if in_light:
        light = to_linear(image) * transmission + to_linear(airlight) * (1 - transmission)
        return to_display(light.clamp(0, 1))
    return (image * transmission + airlight * (1 - transmission)).clamp(0, 1)


def pale(image: Tensor, draw: Draw, low: float, high: float, tint: float) -> Tensor:
    """Draw a pale colour (1, 3, 1, 1), gray where the image is."""
    colour = torch.full((1, 3, 1, 1), draw.uniform(low, high))
    if not is_gray(image):
        colour = colour + tint * draw.normal(1, 3, 1, 1)
    return colour.clamp(0, 1).to(image)
