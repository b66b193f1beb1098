"""Motions of any shape: blind deconvolution of a picture, from coarse to fine.

At each scale a picture with few edges is sought that explains, by the kernel found so far, the one
that is seen: each edge has its price (Xu, Zheng and Jia, CVPR 2013). Then the kernel is sought that
makes of these edges what is seen, by least squares without negative values. What is found at one
scale is where the next finer one begins (Fergus et al., SIGGRAPH 2006; Cho and Lee, SIGGRAPH Asia
2009). The price falls from step to step: strong edges, which survive a blur, decide first. Where
only parts of a picture are blurred, what is around them counts as unknown, and is filled in step
by step with what the kernel makes of the picture found so far (expectation and maximisation).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from demoe.model.kernels.families import SIDE, Kernel, Track
from demoe.model.kernels.fourier import differences, grown, joined, quick, roughness, transfer
from demoe.model.kernels.light import to_light
from demoe.model.kernels.psf import Psf, centroid
from demoe.wanted import check

LEAST_SIDE = 192
"""Pixels a side below which a picture says too little of a motion of any shape."""

_SCALE = math.sqrt(0.5)  # from one scale to the next coarser one
_LEVELS = 6  # of these, in the coarsest of which the largest kernel has 5 pixels
_STEPS, _LAST_STEPS = 5, 3  # at each scale, and at the finest one
_PRICE, _CHEAPER = 0.02, 1.1  # of an edge at first, and by what it falls after each step
_LAST_CHEAPER = 1.43  # the same at the finest scale
_LOOSE, _TIGHT = 2.0, 100.0  # of the splitting: times the price, and in the end
_TIGHTER, _TIGHTER_IN_PARTS = 2.0, 1.5  # in each step; what is unknown takes more of them
_WHITE = 0.995  # of all values, so many are at most as bright as what counts as 1
_DARKEST = 0.05
_RIDGE = 2.0  # for kernels that spread, against the power of all edges of a picture of 384 pixels
_DESCENTS = 40  # steps of the least squares
_FAINT = 0.1  # of the brightest value of a kernel: what is less is none
_SMALL = 0.1  # of all light: a part of a kernel that has less, apart from others, is none
_BLURRED = 0.9  # how much of a pixel must be blurred to say something of the kernel
_MORE = 4  # pixels beyond the reach of a kernel


@torch.inference_mode()
def track_of(
    gray: NDArray[np.float32], linear: bool, extent: NDArray[np.float32] | None = None
) -> Kernel:
    """Return the motion, of any shape, that seems to have blurred a picture.

    Parameters
    ----------
    gray : ndarray of float32
        (H, W), luma of display values in [0, 1]. The larger, the better: 384 pixels a side say
        much more than 256.
    linear : bool
        Whether light was blurred, not display values.
    extent : ndarray of float32, optional
        (H, W), how much of each pixel is blurred, 0 to 1. By default all of it.
    """
    seen = torch.from_numpy(gray)
    where = torch.ones_like(seen) if extent is None else torch.from_numpy(extent)
    seen = to_light(seen) if linear else seen
    white = float(torch.quantile(seen.flatten()[::7], _WHITE))
    seen = seen / max(white, _DARKEST)
    price, psf = _PRICE, np.zeros(0)
    for level in range(_LEVELS - 1, -1, -1):
        scale = _SCALE**level
        side = round(SIDE * scale) | 1
        psf = _resized(psf, side) if psf.size else _first(side)
        scene = _Scene(_shrunk(seen, scale), _shrunk(where, scale), side)
        for _ in range(_STEPS if level else _LAST_STEPS):
            check()
            psf = _centred(_tidy(scene.kernel(scene.edges(psf, price), psf)))
            price /= _CHEAPER if level else _LAST_CHEAPER
    return Track.of(psf).kernel


class _Scene:
    """A picture at one scale, and where it is blurred, by a kernel of some pixels a side."""

    def __init__(self, seen: Tensor, extent: Tensor, side: int) -> None:
        self._side, self._reach = side, side // 2
        self._seen, inner = grown(seen[None], self._reach + _MORE)
        self._size = self._seen.shape[1:]
        self._inside = torch.zeros_like(self._seen)
        blurred = extent >= _BLURRED
        self._inside[inner] = blurred.float()
        self._in_parts = not bool(blurred.all())
        self._transform = torch.fft.rfft2(self._seen)
        down, right = (torch.empty_like(self._seen) for _ in range(2))
        differences(self._seen, down, right)
        self._differences = [torch.fft.rfft2(one * self._inside) for one in (down, right)]

    def edges(self, psf: Psf, price: float) -> tuple[Tensor, Tensor]:
        """Return the differences, down and right, of a picture with few edges that explains it."""
        blur = transfer(psf, self._size)
        power = blur.real.square() + blur.imag.square()
        rough = roughness((self._size[0], self._size[1]))
        tighter = _TIGHTER_IN_PARTS if self._in_parts else _TIGHTER
        x, transform, penalty = self._seen, self._transform, _LOOSE * price
        data = blur.conj() * transform
        down, right, edges = (torch.empty_like(x) for _ in range(3))
        while penalty < _TIGHT:
            if self._in_parts:
                again = torch.fft.irfft2(blur * transform, self._size)
                whole = torch.lerp(again, self._seen, self._inside)
                data = blur.conj() * torch.fft.rfft2(whole)
            differences(x, down, right)
            kept = torch.addcmul(down.square(), right, right) > price / penalty
            joined(down.mul_(kept), right.mul_(kept), out=edges)
            transform = torch.add(data, torch.fft.rfft2(edges), alpha=penalty)
            transform.mul_(torch.add(power, rough, alpha=penalty).reciprocal_())
            x = torch.fft.irfft2(transform, self._size)
            penalty *= tighter
        differences(x, down, right)
        return down.mul_(self._inside), right.mul_(self._inside)

    def kernel(self, edges: tuple[Tensor, Tensor], before: Psf) -> Psf:
        """Return the kernel that makes of the edges of a picture those that are seen."""
        reach, side = self._reach, self._side
        transforms = [torch.fft.rfft2(one) for one in edges]
        own = self._lags([one.conj() * one for one in transforms], 2 * reach)
        with_seen = self._lags(
            [a.conj() * b for a, b in zip(transforms, self._differences, strict=True)], reach
        )
        room = quick(3 * side)
        apart = torch.fft.rfft2(own, (room, room))
        ridge = _RIDGE * self._seen.numel() / 384**2
        steep = float(apart.abs().max()) + ridge
        k = torch.from_numpy(before).float()
        at, momentum = k, 1.0
        for _ in range(_DESCENTS):  # Beck and Teboulle, SIAM J. Imaging Sci. 2, 2009
            again = torch.fft.irfft2(apart * torch.fft.rfft2(at, (room, room)), (room, room))
            again = again[2 * reach : 2 * reach + side, 2 * reach : 2 * reach + side]
            found = (at - (again + ridge * at - with_seen) / steep).clamp_min(0)
            following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            at, k, momentum = found + (momentum - 1) / following * (found - k), found, following
        total = float(k.sum())
        return k.double().numpy() / total if total > 0 else _first(side)

    def _lags(self, products: list[Tensor], most: int) -> Tensor:
        """Return correlations, added up, at each distance up to some rows and columns."""
        found: Tensor = torch.fft.irfft2(products[0] + products[1], self._size)[0]
        return found.roll((most, most), (0, 1))[: 2 * most + 1, : 2 * most + 1]


def _first(side: int) -> Psf:
    """Return a kernel to begin with: two pixels beside each other."""
    psf = np.zeros((side, side))
    psf[side // 2, side // 2 - 1 : side // 2 + 1] = 0.5
    return psf


def _shrunk(x: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return x
    size = [max(1, round(side * scale)) for side in x.shape]
    return F.interpolate(x[None, None], size, mode="bilinear", antialias=True)[0, 0]


def _resized(psf: Psf, side: int) -> Psf:
    k = torch.from_numpy(psf)[None, None]
    grown_up = F.interpolate(k, (side, side), mode="bicubic")[0, 0].clamp_min(0).numpy()
    return np.asarray(grown_up / grown_up.sum())


def _tidy(psf: Psf) -> Psf:
    """Leave out what is faint, and small parts that lie apart."""
    psf = np.where(psf < _FAINT * psf.max(), 0, psf)
    part, count = ndimage.label(psf > 0, np.ones((3, 3)))
    if count > 1:
        light = np.bincount(part.ravel(), psf.ravel())
        light[0] = 0
        psf = np.where(light[part] >= min(_SMALL * psf.sum(), light.max()), psf, 0)
    return np.asarray(psf / psf.sum())


def _centred(psf: Psf) -> Psf:
    """Move a kernel by whole pixels so that its centroid lies in the middle."""
    down, right = centroid(psf)
    return np.roll(psf, (-round(down), -round(right)), (0, 1))
