"""Point-spread functions: how one bright point looks after a blur.

Every function returns a float32 tensor (size, size) with an odd side, >= 0, summing to 1, drawn
from the given generator alone. Lengths are in pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from demoe.training.random import Draw

_OVERSAMPLING = 4


def _grid(size: int) -> tuple[Tensor, Tensor]:
    """Return y and x of sub-pixel sample points around the centre, each (4 size, 4 size)."""
    n = size * _OVERSAMPLING
    at = (torch.arange(n, dtype=torch.float32) + 0.5) / _OVERSAMPLING - size / 2
    y, x = torch.meshgrid(at, at, indexing="ij")
    return y, x


def _pool(fine: Tensor) -> Tensor:
    """Average sub-pixel samples into pixels, which anti-aliases edges, and scale to sum 1."""
    k = torch.nn.functional.avg_pool2d(fine[None, None], _OVERSAMPLING)[0, 0]
    return k / k.sum()


def disk(size: int, radius: float) -> Tensor:
    """Return a defocus disk, the geometric PSF of a round aperture."""
    y, x = _grid(size)
    return _pool((y.square() + x.square() <= max(radius, 0.5) ** 2).float())


def polygon(size: int, radius: float, blades: int, angle: float) -> Tensor:
    """Return the defocus PSF of an aperture with straight blades, turned by ``angle`` radians."""
    y, x = _grid(size)
    inside = torch.ones_like(x, dtype=torch.bool)
    apothem = max(radius, 0.5) * math.cos(math.pi / blades)
    for blade in range(blades):
        a = angle + 2 * math.pi * blade / blades
        inside &= x * math.cos(a) + y * math.sin(a) <= apothem
    return _pool(inside.float())


def gaussian(size: int, sigma: float, ratio: float = 1.0, angle: float = 0.0) -> Tensor:
    """Return a Gaussian PSF; across ``angle`` (radians) it is ``ratio`` times as wide as along."""
    y, x = _grid(size)
    along = x * math.cos(angle) + y * math.sin(angle)
    across = (y * math.cos(angle) - x * math.sin(angle)) / ratio
    return _pool(torch.exp(-(along.square() + across.square()) / (2 * max(sigma, 0.1) ** 2)))


def airy(size: int, first_zero: float) -> Tensor:
    """Return the in-focus PSF of a circular pupil; ``first_zero`` is its dark ring's radius."""
    y, x = _grid(size)
    v = (y.square() + x.square()).sqrt().clamp_min(1e-4) * (3.8317 / first_zero)
    return _pool((2 * torch.special.bessel_j1(v) / v).square())


def microscope(size: int, first_zero: float, defocus: float, aberration: float = 0.0) -> Tensor:
    """Return the PSF of a microscope out of focus, by scalar diffraction at a round pupil.

    The phase over the pupil is that of Gibson and Lanni (J. Opt. Soc. Am. A 1992) in its two
    leading terms.

    Parameters
    ----------
    first_zero : float
        Radius in pixels of the first dark ring in focus.
    defocus, aberration : float
        Phase in radians at the rim of the pupil that grows with the square of the distance from
        its centre (out of focus), and with the fourth power (a mounting medium that does not
        match the objective).
    """
    y, x = _grid(size)
    radius = (y.square() + x.square()).sqrt()
    step = 0.25
    table = torch.arange(int(float(radius.max()) / step) + 2) * step * (3.8317 / first_zero)
    rho = (torch.arange(96) + 0.5) / 96
    phase = defocus * rho.square() + aberration * rho.pow(4)
    ring = torch.special.bessel_j0(table[:, None] * rho) * rho
    profile = (ring @ phase.cos()).square() + (ring @ phase.sin()).square()
    at = radius / step
    low = at.long()
    return _pool(torch.lerp(profile[low], profile[low + 1], at - low))


def line(length: float, angle: float, bend: float = 0.0, points: int = 129) -> Tensor:
    """Return a straight or bent path (points, 2) in y, x; ``bend`` is its whole turn in radians."""
    s = torch.linspace(-0.5, 0.5, points)
    heading = angle + bend * s
    step = torch.stack([torch.sin(heading), torch.cos(heading)], dim=1) * (length / points)
    return centred(step.cumsum(0))


def shake(length: float, draw: Draw, points: int = 129) -> Tensor:
    """Return the smooth random path (points, 2) of a hand-held camera, ``length`` px long.

    Velocity follows a damped random walk with now and then a jerk, as in the camera-shake model
    of Boracchi and Foi (IEEE TIP 2012).
    """
    kicks = draw.normal(points, 2) * 0.25
    kicks = kicks + (draw.uniform_(points) < 0.015).float()[:, None] * draw.normal(points, 2) * 2
    kicks[0] = draw.normal(2)
    age = torch.arange(points)[:, None] - torch.arange(points)
    velocity = torch.where(age >= 0, 0.97 ** age.clamp_min(0).float(), 0.0) @ kicks
    travelled = velocity.norm(dim=1).sum().clamp_min(1e-6)
    return centred((velocity * (length / travelled)).cumsum(0))


def wander(length: float, draw: Draw, points: int = 129) -> Tensor:
    """Return a smooth random path (points, 2), ``length`` px long: a few slow oscillations."""
    time = torch.linspace(0, 1, points)[:, None, None]
    waves = draw.uniform_(1, 4, 2) * draw.uniform(0.5, 2.5)
    height = draw.normal(1, 4, 2) / (0.5 + waves)
    path = (height * torch.sin(2 * math.pi * (waves * time + draw.uniform_(1, 4, 2)))).sum(1)
    travelled = path.diff(dim=0).norm(dim=1).sum().clamp_min(1e-6)
    return centred(path * (length / travelled))


def tremor(extent: float, draw: Draw, points: int = 401) -> Tensor:
    """Return a rough random path (points, 2), ``extent`` px wide: that of a hand that trembles.

    It goes on with some inertia, is pulled back to where it began, and turns round now and then.
    """
    kicks = (draw.normal(points, 2) * 0.25).tolist()
    inertia, jerks = draw.uniform(0.7, 0.95), draw.uniform(0, 0.02)
    turns = (draw.uniform_(points) < jerks).tolist()
    brisk = (draw.uniform_(points) < 0.5).tolist()
    heading = draw.uniform(0, 2 * math.pi)
    at, speed = 0j, complex(math.cos(heading), math.sin(heading))
    path = []
    for (down, right), turn, even in zip(kicks, turns, brisk, strict=True):
        if turn:
            speed *= -2
        speed = inertia * speed + complex(down, right) - 0.02 * at
        if even:
            speed /= max(abs(speed), 1e-6)
        at += speed
        path.append((at.real, at.imag))
    found = torch.tensor(path)
    width = (found.amax(dim=0) - found.amin(dim=0)).amax().clamp_min(1e-6)
    return centred(found * (extent / width))


def centred(path: Tensor) -> Tensor:
    """Shift a path so that its mean is the origin: blur then displaces nothing on average."""
    return path - path.mean(dim=0)


def from_path(size: int, path: Tensor) -> Tensor:
    """Return the PSF of a point that spends equal time at each position of a path (points, 2)."""
    limit = size // 2 - 1
    at = path.clamp(-limit, limit) + size // 2
    low = at.floor().long()
    part = at - low
    kernel = torch.zeros(size * size)
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (part[:, 0] if dy else 1 - part[:, 0]) * (part[:, 1] if dx else 1 - part[:, 1])
            kernel.index_add_(0, (low[:, 0] + dy) * size + low[:, 1] + dx, weight)
    return (kernel / kernel.sum()).reshape(size, size)


def convolve(images: Tensor, kernels: Tensor) -> Tensor:
    """Convolve each image (N, C, H, W) with its kernel (N, k, k), cyclically at the borders."""
    h, w = images.shape[2:]
    k = kernels.shape[-1]
    padded = torch.nn.functional.pad(kernels.to(images), (0, w - k, 0, h - k))
    padded = padded.roll((-(k // 2), -(k // 2)), dims=(1, 2))
    spectrum = torch.fft.rfft2(images) * torch.fft.rfft2(padded)[:, None]
    blurred: Tensor = torch.fft.irfft2(spectrum, s=(h, w))
    return blurred
