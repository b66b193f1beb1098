"""Noise: of photons and read-out in light, or normal noise on display values."""

from __future__ import annotations

from torch import Tensor

from demoe.training.blur.degradations import normal, to_display, to_linear
from demoe.training.random import Draw

PLAIN, SENSOR = 0.55, 0.25
"""Shares of images with normal noise of one strength all over, as in most test sets, and with that
of a sensor; the rest has noise that grows with the display values, as finished pictures do."""

SIGMA = (5 / 255, 55 / 255)
ELECTRONS = (60, 3000)
"""Electrons of a white pixel: those of a picture at ISO 25,000 and more, up to a good one."""


def noise(sharp: Tensor, draw: Draw) -> Tensor:
    """Make an image (1, 3, H, W) noisy; gray ones stay gray."""
    kind = draw.uniform()
    if kind < PLAIN:
        return plain(sharp, draw.uniform(*SIGMA), draw)
    if kind < PLAIN + SENSOR:
        return sensor(sharp, draw.log_uniform(*ELECTRONS), draw.log_uniform(1.5, 8), draw)
    level = draw.log_uniform(0.02, 0.15)
    return (sharp + normal(sharp, draw) * level * (0.3 + sharp).sqrt()).clamp(0, 1)


def plain(sharp: Tensor, sigma: float, draw: Draw) -> Tensor:
    """Add normal noise of a standard deviation to display values; cut off at black and white."""
    return (sharp + normal(sharp, draw) * sigma).clamp(0, 1)


def sensor(sharp: Tensor, electrons: float, read: float, draw: Draw) -> Tensor:
    """Count photons, and read them out.

    Parameters
    ----------
    sharp : Tensor
        (1, 3, H, W), display-referred.
    electrons : float
        Of a white pixel. Their number has the square root of itself as standard deviation.
    read : float
        Standard deviation of what reading adds, in electrons.
    draw : Draw
        Source of all randomness.
    """
    light = to_linear(sharp)
    spread = (light / electrons + (read / electrons) ** 2).sqrt()
    return to_display((light + normal(sharp, draw) * spread).clamp(0, 1))
