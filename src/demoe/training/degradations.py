"""Synthesise the five kinds of blur from sharp images.

All work on display-referred images (sRGB-encoded, [0, 1]). What happens in front of the sensor is
computed in linear light, what happens to finished frames is not; that is the physical difference
between camera motion and synthetic motion, which averages finished frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from demoe.recipe import TASKS
from demoe.training import kernels
from demoe.training.random import Draw

KERNEL = 41
"""Side of every kernel; ``MARGIN`` pixels a side are lost to it."""
MARGIN = KERNEL // 2 + 2
MICROSCOPE = 0.8
"""Share of gray images whose defocus is a microscope's, which records light as it is."""


def to_linear(x: Tensor) -> Tensor:
    """Undo the sRGB transfer curve (IEC 61966-2-1)."""
    return torch.where(x <= 0.04045, x / 12.92, ((x.clamp_min(0) + 0.055) / 1.055) ** 2.4)


def to_display(x: Tensor) -> Tensor:
    """Apply the sRGB transfer curve (IEC 61966-2-1)."""
    x = x.clamp_min(0)
    return torch.where(x <= 0.0031308, x * 12.92, 1.055 * x.clamp_min(1e-8) ** (1 / 2.4) - 0.055)


@dataclass(frozen=True)
class Blurred:
    """A batch of degraded images with what they should become.

    Attributes
    ----------
    image, target : Tensor
        (N, 3, H, W), [0, 1].
    task : Tensor
        (N,) index into ``TASKS``; -1 for images that are sharp already.
    """

    image: Tensor
    target: Tensor
    task: Tensor


def _optical_kernel(draw: Draw, strength: float) -> Tensor:
    """Draw a defocus PSF; ``strength`` scales its size."""
    kind = draw.uniform()
    radius = draw.log_uniform(1.0, 6.0) * strength
    if kind < 0.4:
        return kernels.disk(KERNEL, radius)
    if kind < 0.6:
        return kernels.polygon(KERNEL, radius, draw.integer(5, 9), draw.uniform(0, math.pi))
    if kind < 0.9:
        return kernels.gaussian(KERNEL, radius * 0.5)
    return kernels.airy(KERNEL, radius)


def _straight_path(draw: Draw, low: float, high: float) -> Tensor:
    """Draw a line or an arc."""
    bend = draw.uniform(-1.5, 1.5) if draw.chance(0.4) else 0.0
    return kernels.line(draw.log_uniform(low, high), draw.uniform(0, math.pi), bend)


def _saturating(linear: Tensor, draw: Draw) -> Tensor:
    """Let highlights carry more light than the display shows, as a real scene does."""
    if draw.chance(0.7):
        return linear
    gain = 1 + draw.uniform(0, 3) * ((linear.amax(dim=1, keepdim=True) - 0.85) / 0.15).clamp(0, 1)
    return linear * gain


def _sensor(display: Tensor, draw: Draw, low: float = 0.0005, high: float = 0.012) -> Tensor:
    """Add shot and read noise of a random level to a display-referred image."""
    level = draw.log_uniform(low, high)
    noise = draw.normal(*display.shape).to(display)
    return display + noise * level * (0.4 + display.clamp(0, 1)).sqrt()


def defocus(sharp: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """Blur with an aperture's PSF in linear light."""
    kernel = _optical_kernel(draw, 1.0)[None]
    linear = _saturating(to_linear(sharp), draw)
    return to_display(kernels.convolve(linear, kernel).clamp(0, 1)), sharp


def global_motion(sharp: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """Average what a shaking, slightly rolling camera sees, in linear light."""
    path = kernels.shake(draw.log_uniform(4, 26), draw)
    linear = _saturating(to_linear(sharp), draw)
    roll = draw.uniform(-0.03, 0.03) if draw.chance(0.5) else 0.0
    if roll == 0.0:
        seen = kernels.convolve(linear, kernels.from_path(KERNEL, path)[None])
    else:
        seen = _average_frames(linear, kernels.centred(path[:: max(1, len(path) // 32)]), roll)
    return to_display(seen.clamp(0, 1)), sharp


def _average_frames(linear: Tensor, path: Tensor, roll: float) -> Tensor:
    """Average views along a path (points, 2) while the camera rolls by ``roll`` radians in all."""
    h, w = linear.shape[2:]
    angle = torch.linspace(-roll / 2, roll / 2, len(path))[:, None, None]
    y = torch.arange(h)[:, None] - (h - 1) / 2
    x = torch.arange(w)[None] - (w - 1) / 2
    turned_x = x * angle.cos() - y * angle.sin() + path[:, 1, None, None]
    turned_y = x * angle.sin() + y * angle.cos() + path[:, 0, None, None]
    grid = torch.stack([turned_x * (2 / w), turned_y * (2 / h)], dim=-1).to(linear)
    views = F.grid_sample(
        linear.expand(len(path), -1, -1, -1), grid, padding_mode="reflection", align_corners=False
    )
    return views.mean(dim=0, keepdim=True)


def synth_global_motion(sharp: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """Average finished frames along a line, an arc or a sparse path, without linear light."""
    path = _straight_path(draw, 3, 24)
    if draw.chance(0.3):
        # Few frames: the steps between them show.
        path = kernels.centred(path[:: draw.integer(4, 12)])
    return kernels.convolve(sharp, kernels.from_path(KERNEL, path)[None]).clamp(0, 1), sharp


def _object_mask(h: int, w: int, draw: Draw) -> Tensor:
    """Draw a soft-edged blob (1, 1, h, w) that covers about 10-50 % of the image."""
    coarse = draw.normal(1, 1, 6, 6)
    field = F.interpolate(coarse, (h, w), mode="bicubic", align_corners=False)
    y = torch.linspace(-1, 1, h)[:, None] - draw.uniform(-0.4, 0.4)
    x = torch.linspace(-1, 1, w)[None] - draw.uniform(-0.4, 0.4)
    field = field * 0.5 - (y.square() + x.square()) * draw.uniform(1.5, 4.0)
    level = torch.quantile(field, 1 - draw.uniform(0.12, 0.5))
    return ((field - level) / 0.03).sigmoid()


def local_motion(sharp: Tensor, draw: Draw, other: Tensor) -> tuple[Tensor, Tensor]:
    """Move a masked object, cut from ``other``, over a sharp background in linear light."""
    h, w = sharp.shape[2:]
    path = (
        _straight_path(draw, 5, 26)
        if draw.chance(0.7)
        else kernels.shake(draw.log_uniform(6, 26), draw)
    )
    kernel = kernels.from_path(KERNEL, path)[None]
    alpha = _object_mask(h, w, draw).to(sharp)
    back, front = to_linear(sharp), to_linear(other) * alpha
    seen = kernels.convolve(front, kernel) + (1 - kernels.convolve(alpha, kernel)) * back
    return to_display(seen.clamp(0, 1)), to_display(front + (1 - alpha) * back)


def microscope_defocus(sharp: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """Blur with an aperture's PSF where values are light: recorded without a display curve."""
    kernel = _optical_kernel(draw, 1.0)[None]
    return kernels.convolve(sharp, kernel).clamp(0, 1), sharp


def low_light(sharp: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """Blur at a short exposure with its noise; the target is sharp at the same exposure."""
    exposure = 1 / draw.log_uniform(4, 16)
    if draw.chance(0.7):
        kernel = kernels.from_path(KERNEL, kernels.shake(draw.log_uniform(4, 22), draw))
    else:
        kernel = _optical_kernel(draw, 0.8)
    linear = _saturating(to_linear(sharp), draw)
    light = kernels.convolve(linear, kernel[None]).clamp_min(0) * exposure
    electrons = draw.log_uniform(1500, 12000)
    shot = draw.normal(*light.shape).to(light) * (light / electrons).sqrt()
    read = draw.normal(*light.shape).to(light) * draw.uniform(1, 4) / electrons
    dark = (linear * exposure).clamp(0, 1)  # of the same scene, highlights and all
    return to_display((light + shot + read).clamp(0, 1)), to_display(dark)


def degrade(sharp: Tensor, tasks: list[int], draw: Draw) -> Blurred:
    """Degrade a batch, each image by its own task.

    Parameters
    ----------
    sharp : Tensor
        (N, 3, H, W), [0, 1]; ``MARGIN`` pixels a side are cut off the result.
    tasks : list of int
        An index into ``TASKS`` for each image, or -1 to leave it sharp.
    draw : Draw
        Source of all randomness.
    """
    images, targets = [], []
    for n, task in enumerate(tasks):
        one = sharp[n : n + 1]
        if task < 0:
            image, target = _sharp(one, draw)
        elif TASKS[task] == "local_motion":
            image, target = local_motion(one, draw, sharp[(n + 1) % len(tasks)][None].flip(3))
        elif TASKS[task] == "defocus" and _is_gray(one) and draw.chance(MICROSCOPE):
            image, target = microscope_defocus(one, draw)
        else:
            image, target = _BY_TASK[TASKS[task]](one, draw)
        if task >= 0 and TASKS[task] != "low_light":
            image = _sensor(image, draw)
        images.append(image.clamp(0, 1))
        targets.append(target)
    inner = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    return Blurred(
        _quantised(torch.cat(images)[inner]),
        torch.cat(targets)[inner],
        torch.tensor(tasks, device=sharp.device),
    )


def _quantised(image: Tensor) -> Tensor:
    """Round to the 8-bit steps that most pictures are stored in."""
    return (image * 255).round() / 255


def _is_gray(image: Tensor) -> bool:
    return bool((image == image[:, :1]).all())


def _sharp(sharp: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """Leave an image sharp, or barely blurred; the target is the image as it is."""
    if draw.chance(0.5):
        return sharp, sharp
    barely = kernels.convolve(sharp, kernels.gaussian(KERNEL, draw.uniform(0.2, 0.5))[None])
    return barely, barely


_BY_TASK = {
    "defocus": defocus,
    "global_motion": global_motion,
    "synth_global_motion": synth_global_motion,
    "low_light": low_light,
}
