"""Synthesise the five kinds of blur from sharp images.

All work on display-referred images (sRGB-encoded, [0, 1]). What happens in front of the sensor is
computed in linear light, what happens to finished frames is not; that is the physical difference
between camera motion and synthetic motion, which averages finished frames. Part of every other
kind is computed on display-referred values all the same, as in microscopes, whose values are
light, and in most published test sets, which convolve 8-bit pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from demoe.choices import TASKS
from demoe.training.blur import kernels
from demoe.training.blur.jpeg import compress
from demoe.training.random import Draw

KERNEL = 41
"""Side of every kernel; ``MARGIN`` pixels a side are lost to it."""
MARGIN = KERNEL // 2 + 2
INNER = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
"""What is left of images (..., H, W)."""
MICROSCOPE = 0.8
"""Share of gray images whose values are light, as a microscope records it, without a curve."""
DISPLAY = 0.4
"""Share of coloured defocus, local motion and low light computed on display-referred values."""
FLAT = 0.25
"""Share of the sharp images that are one colour all over."""
NOISE = 0.75
"""Share of blurred images with noise of their own beside what their kind brings along."""
JPEG = 0.15
"""Share of images that are stored as JPEG."""
OWN = 0.5
"""Share of moving objects that are cut from the picture that they move in."""
_ROUNDING = 1e-4  # far less than a level of 8 bits


def to_linear(x: Tensor) -> Tensor:
    """Undo the sRGB transfer curve (IEC 61966-2-1)."""
    return torch.where(x <= 0.04045, x / 12.92, ((x.clamp_min(0) + 0.055) / 1.055) ** 2.4)


def to_display(x: Tensor) -> Tensor:
    """Apply the sRGB transfer curve (IEC 61966-2-1)."""
    x = x.clamp_min(0)
    return torch.where(x <= 0.0031308, x * 12.92, 1.055 * x.clamp_min(1e-8) ** (1 / 2.4) - 0.055)


@dataclass(frozen=True)
class Psf:
    """What blurred a whole image.

    Attributes
    ----------
    kernel : Tensor
        (k, k), summing to 1.
    in_light : bool
        Whether it acted on linear light; else on display values.
    """

    kernel: Tensor
    in_light: bool


Example = tuple[Tensor, Tensor, Psf | None]
"""Image, target, and what blurred it where that is one kernel all over."""


@dataclass(frozen=True)
class Blurred:
    """A batch of degraded images with what they should become.

    Attributes
    ----------
    image, target : Tensor
        (N, 3, H, W), [0, 1].
    task : Tensor
        (N,) index into ``TASKS``; -1 for images that are sharp already.
    psf : tuple of Psf or None
        What blurred each image; None where that is no single kernel.
    extent : Tensor or None
        (N, 1, H, W), how much of each pixel is blurred, 0 to 1.
    """

    image: Tensor
    target: Tensor
    task: Tensor
    psf: tuple[Psf | None, ...] = ()
    extent: Tensor | None = None


def _optical_kernel(draw: Draw, strength: float) -> Tensor:
    """Draw a defocus PSF; ``strength`` scales its size."""
    kind = draw.uniform()
    radius = draw.log_uniform(0.9, 7.0) * strength
    if kind < 0.35:
        return kernels.disk(KERNEL, radius)
    if kind < 0.5:
        return kernels.polygon(KERNEL, radius, draw.integer(5, 9), draw.uniform(0, math.pi))
    if kind < 0.9:
        ratio = draw.uniform(0.6, 1.0) if draw.chance(0.25) else 1.0
        return kernels.gaussian(KERNEL, radius * 0.55, ratio, draw.uniform(0, math.pi))
    return kernels.airy(KERNEL, radius)


def _microscope_kernel(draw: Draw) -> Tensor:
    """Draw the PSF of a microscope."""
    if draw.chance(0.5):
        return _optical_kernel(draw, 1.0)
    defocus = draw.uniform(0, 9)
    return kernels.microscope(
        KERNEL, draw.log_uniform(1.5, 4.5), defocus, defocus * draw.uniform(-0.4, 0.4)
    )


def _camera_path(draw: Draw, low: float, high: float) -> Tensor:
    """Draw the path of a hand-held camera: mostly shaky or trembling, else smooth or straight."""
    kind = draw.uniform()
    if kind < 0.4:
        return kernels.shake(draw.log_uniform(low, high), draw)
    if kind < 0.65:
        return kernels.tremor(draw.log_uniform(low, high), draw)
    if kind < 0.8:
        return kernels.wander(draw.log_uniform(low, high), draw)
    return _straight_path(draw, low, high)


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


def _sensor(display: Tensor, draw: Draw, low: float = 0.0005, high: float = 0.02) -> Tensor:
    """Add shot and read noise of a random level to a display-referred image."""
    level = draw.log_uniform(low, high)
    return display + normal(display, draw) * level * (0.4 + display.clamp(0, 1)).sqrt()


def normal(like: Tensor, draw: Draw) -> Tensor:
    """Return standard normal noise, the same in all channels of a gray image."""
    n, c, h, w = like.shape
    return draw.normal(n, 1 if is_gray(like) else c, h, w).to(like)


def _in_light(sharp: Tensor, kernel: Tensor, draw: Draw) -> Tensor:
    """Convolve a display-referred image with a kernel (k, k) in front of the sensor."""
    linear = _saturating(to_linear(sharp), draw)
    return to_display(kernels.convolve(linear, kernel[None]).clamp(0, 1))


def _on_values(sharp: Tensor, draw: Draw) -> bool:
    """Tell whether to blur an image's values as they are."""
    return draw.chance(MICROSCOPE if is_gray(sharp) else DISPLAY)


def defocus(sharp: Tensor, draw: Draw) -> Example:
    """Blur with an aperture's PSF, mostly in linear light."""
    kernel = _optical_kernel(draw, 1.0)
    if _on_values(sharp, draw):
        return kernels.convolve(sharp, kernel[None]).clamp(0, 1), sharp, Psf(kernel, False)
    return _in_light(sharp, kernel, draw), sharp, Psf(kernel, True)


def global_motion(sharp: Tensor, draw: Draw) -> Example:
    """Average what a shaking, slightly rolling camera sees, in linear light.

    Most gray values are light already, and a stage that drifts does not roll.
    """
    path = _camera_path(draw, 3, 28)
    if is_gray(sharp) and draw.chance(MICROSCOPE):
        kernel = kernels.from_path(KERNEL, path)
        return kernels.convolve(sharp, kernel[None]).clamp(0, 1), sharp, Psf(kernel, False)
    roll = draw.uniform(-0.03, 0.03) if draw.chance(0.4) else 0.0
    if roll == 0.0:
        kernel = kernels.from_path(KERNEL, path)
        return _in_light(sharp, kernel, draw), sharp, Psf(kernel, True)
    linear = _saturating(to_linear(sharp), draw)
    seen = _average_frames(linear, kernels.centred(path[:: max(1, len(path) // 24)]), roll)
    return to_display(seen.clamp(0, 1)), sharp, None


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


def synth_global_motion(sharp: Tensor, draw: Draw) -> Example:
    """Average finished frames along a path, which may be sparse, without linear light."""
    path = _straight_path(draw, 2.5, 26) if draw.chance(0.55) else _camera_path(draw, 3, 28)
    if draw.chance(0.25):
        # Few frames: the steps between them show.
        path = kernels.centred(path[:: draw.integer(4, 12)])
    kernel = kernels.from_path(KERNEL, path)
    return kernels.convolve(sharp, kernel[None]).clamp(0, 1), sharp, Psf(kernel, False)


def _object_mask(h: int, w: int, draw: Draw) -> Tensor:
    """Draw blobs (1, 1, h, w), their edges sharp or soft, that cover about 10-50 % of the image."""
    if draw.chance(0.5):  # anywhere, and several
        field = F.interpolate(draw.normal(1, 1, 5, 5), (h, w), mode="bicubic", align_corners=False)
        level = torch.quantile(field, 1 - draw.uniform(0.15, 0.5))
        return ((field - level) / draw.log_uniform(0.01, 0.2)).sigmoid()
    coarse = draw.normal(1, 1, 6, 6)
    field = F.interpolate(coarse, (h, w), mode="bicubic", align_corners=False)
    y = torch.linspace(-1, 1, h)[:, None] - draw.uniform(-0.4, 0.4)
    x = torch.linspace(-1, 1, w)[None] - draw.uniform(-0.4, 0.4)
    field = field * 0.5 - (y.square() + x.square()) * draw.uniform(1.5, 4.0)
    level = torch.quantile(field, 1 - draw.uniform(0.12, 0.5))
    return ((field - level) / draw.log_uniform(0.003, 0.03)).sigmoid()


def local_motion(sharp: Tensor, draw: Draw, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Move a masked object, cut from ``other``, over a sharp background, mostly in linear light.

    Returns
    -------
    image, target, extent : Tensor
        The latter (1, 1, H, W), how much of each pixel the object covers.
    """
    h, w = sharp.shape[2:]
    path = _straight_path(draw, 4, 28) if draw.chance(0.7) else _camera_path(draw, 5, 28)
    kernel = kernels.from_path(KERNEL, path)[None]
    alpha = _object_mask(h, w, draw).to(sharp)
    display = _on_values(sharp, draw)
    back, front = (sharp, other) if display else (to_linear(sharp), to_linear(other))
    front = front * alpha
    cover = kernels.convolve(alpha, kernel)
    seen = kernels.convolve(front, kernel) + (1 - cover) * back
    seen, still = seen.clamp(0, 1), front + (1 - alpha) * back
    return (seen, still, cover) if display else (to_display(seen), to_display(still), cover)


def microscope_defocus(sharp: Tensor, draw: Draw) -> Example:
    """Blur where values are light, recorded without a display curve, and count photons."""
    kernel = _microscope_kernel(draw)
    light = kernels.convolve(sharp, kernel[None]).clamp(0, 1)
    if draw.chance(0.7):
        photons = draw.log_uniform(100, 20000)
        offset = draw.uniform(0, 0.03)
        light = light + normal(light, draw) * ((light + offset) / photons).sqrt()
    return light, sharp, Psf(kernel, False)


def low_light(sharp: Tensor, draw: Draw) -> Example:
    """Blur at a short exposure with its noise; the target is sharp at the same exposure."""
    exposure = 1 / draw.log_uniform(4, 16)
    if draw.chance(0.7):
        kernel = kernels.from_path(KERNEL, _camera_path(draw, 3, 24))
    else:
        kernel = _optical_kernel(draw, 0.8)
    electrons = draw.log_uniform(1200, 12000)
    read = draw.uniform(1, 4) / electrons
    display = _on_values(sharp, draw)
    if display:
        # Finished frames that were darkened afterwards: blur before the curve, noise behind it.
        dark = to_display(to_linear(sharp) * exposure)
        seen = to_linear(kernels.convolve(dark, kernel[None]).clamp(0, 1))
    else:
        linear = _saturating(to_linear(sharp), draw) * exposure
        dark = to_display(linear.clamp(0, 1))  # of the same scene, highlights and all
        seen = kernels.convolve(linear, kernel[None]).clamp_min(0)
    shot = normal(seen, draw) * (seen / electrons).sqrt()
    image = to_display((seen + shot + normal(seen, draw) * read).clamp(0, 1))
    return image, dark, Psf(kernel, not display)


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
    images, targets, psfs, extents = [], [], [], []
    for n, task in enumerate(tasks):
        one = sharp[n : n + 1]
        extent = torch.full_like(one[:, :1], task >= 0)
        if task < 0:
            image, target, psf = _sharp(one, draw)
        elif TASKS[task] == "local_motion":
            other = one if draw.chance(OWN) else sharp[(n + 1) % len(tasks)][None].flip(3)
            image, target, extent = local_motion(one, draw, other)
            psf = None
        elif TASKS[task] == "defocus" and is_gray(one) and draw.chance(MICROSCOPE):
            image, target, psf = microscope_defocus(one, draw)
        else:
            image, target, psf = _BY_TASK[TASKS[task]](one, draw)
        if task >= 0:
            if TASKS[task] != "low_light" and draw.chance(NOISE):
                image = _sensor(image, draw)
            if draw.chance(JPEG):
                image = compress(image.clamp(0, 1), draw.integer(60, 99))
        images.append(image.clamp(0, 1))
        targets.append(target)
        psfs.append(psf)
        extents.append(extent)
    return Blurred(
        _quantised(torch.cat(images)[INNER]),
        torch.cat(targets)[INNER],
        torch.tensor(tasks, device=sharp.device),
        tuple(psfs),
        torch.cat(extents)[INNER],
    )


def _quantised(image: Tensor) -> Tensor:
    """Round to the 8-bit steps that most pictures are stored in."""
    return (image * 255).round() / 255


def is_gray(image: Tensor) -> bool:
    """Tell whether all channels of images (N, 3, H, W) are the same, but for rounding."""
    return bool(((image - image[:, :1]).abs() < _ROUNDING).all())


def _sharp(sharp: Tensor, draw: Draw) -> Example:
    """Leave an image sharp, or barely blurred, or flat; the target is the image as it is."""
    if draw.chance(FLAT):
        return (flat := sharp.mean(dim=(2, 3), keepdim=True).expand_as(sharp)), flat, None
    if draw.chance(0.5):
        kernel = kernels.gaussian(KERNEL, draw.uniform(0.2, 0.55))
        sharp = kernels.convolve(sharp, kernel[None]).clamp(0, 1)
    if draw.chance(JPEG):
        sharp = compress(sharp, draw.integer(80, 99))
    return sharp, sharp, None


_BY_TASK = {
    "defocus": defocus,
    "global_motion": global_motion,
    "synth_global_motion": synth_global_motion,
    "low_light": low_light,
}
