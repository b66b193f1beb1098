"""Display values and the light that they stand for."""

from __future__ import annotations

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""What red, green and blue count in luma (ITU-R BT.601)."""


def to_light(x: Tensor) -> Tensor:
    """Undo the sRGB curve (IEC 61966-2-1); values below 0 and above 1 follow it on."""
    high = ((x.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(x <= 0.04045, x / 12.92, high)


def to_display(x: Tensor) -> Tensor:
    """Undo `to_light`."""
    high = 1.055 * x.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(x <= 0.0031308, x * 12.92, high)
