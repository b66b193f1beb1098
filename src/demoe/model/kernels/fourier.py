"""Pictures as Fourier transforms see them: borders, differences, transfer functions."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from demoe.model.kernels.psf import Psf, centroid

_JOIN = 8  # pixels at least in which the last row turns into the first one, and so the columns
_FACTORS = (2, 3, 5, 7)  # of sides whose Fourier transforms are quick


def differences(x: Tensor, down: Tensor, right: Tensor) -> None:
    """Write the differences of samples (S, H, W) to the next row and column, around the borders."""
    torch.sub(x[:, 1:], x[:, :-1], out=down[:, :-1])
    torch.sub(x[:, :1], x[:, -1:], out=down[:, -1:])
    torch.sub(x[:, :, 1:], x[:, :, :-1], out=right[:, :, :-1])
    torch.sub(x[:, :, :1], x[:, :, -1:], out=right[:, :, -1:])


def joined(down: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """Return the transpose of `differences`."""
    torch.add(down, right, out=out).neg_()
    out[:, 1:] += down[:, :-1]
    out[:, :1] += down[:, -1:]
    out[:, :, 1:] += right[:, :, :-1]
    out[:, :, :1] += right[:, :, -1:]
    return out


def grown(x: Tensor, by: int) -> tuple[Tensor, tuple[slice, slice, slice]]:
    """Mirror samples (S, H, W) on, and let them turn into their beginning, as transforms see them.

    Parameters
    ----------
    x : Tensor
        (S, H, W).
    by : int
        Pixels to mirror on each side, as far as there are so many.

    Returns
    -------
    Tensor
        (S, rows, cols), of sides whose transforms are quick.
    tuple of slice
        Where the samples lie in it.
    """
    height, width = x.shape[1:]
    down, across = min(by, height - 1), min(by, width - 1)
    x = F.pad(x[None], (across, across, down, down), mode="reflect")[0]
    inner = slice(None), slice(down, down + height), slice(across, across + width)
    return _closed(_closed(x, 1), 2), inner


def _closed(x: Tensor, along: int) -> Tensor:
    """Add pixels along an axis in which its end, mirrored, turns into its beginning, mirrored."""
    side = x.shape[along]
    more = quick(side + _JOIN) - side
    if more >= side:  # smaller than the way is long
        return x
    end, start = x.narrow(along, side - 1 - more, more), x.narrow(along, 1, more)
    share = torch.arange(1, more + 1) / (more + 1)
    share = share.reshape(-1, *(1,) * (2 - along))
    return torch.cat([x, torch.lerp(end.flip(along), start.flip(along), share)], dim=along)


@functools.cache
def quick(least: int) -> int:
    """Return the smallest even side from some pixels on whose transform is quick."""
    return next(side for side in itertools.count(least + least % 2, 2) if _has_few_factors(side))


def _has_few_factors(side: int) -> bool:
    for factor in _FACTORS:
        while side % factor == 0:
            side //= factor
    return side == 1


def transfer(psf: Psf, size: tuple[int, ...]) -> Tensor:
    """Return the Fourier transform of a PSF for pictures of a size, its centroid at the origin."""
    rows, cols = psf.shape
    plane = np.zeros(size)
    # A picture smaller than the PSF wraps around, as its own mirror images do.
    at = np.ix_((np.arange(rows) - rows // 2) % size[0], (np.arange(cols) - cols // 2) % size[1])
    np.add.at(plane, at, psf)
    down, right = centroid(psf)
    turned = (
        np.exp(2j * np.pi * np.fft.fftfreq(size[0])[:, None] * down),
        np.exp(2j * np.pi * np.fft.rfftfreq(size[1]) * right),
    )
    found = torch.fft.rfft2(torch.from_numpy(plane)).numpy() * turned[0] * turned[1]
    return torch.from_numpy(found.astype(np.complex64))


@functools.lru_cache(maxsize=8)
def roughness(size: tuple[int, int]) -> Tensor:
    """Return the squared transforms of the differences to the next row and column, summed."""
    down = np.abs(np.exp(2j * np.pi * np.fft.fftfreq(size[0])) - 1) ** 2
    right = np.abs(np.exp(2j * np.pi * np.fft.rfftfreq(size[1])) - 1) ** 2
    return torch.from_numpy((down[:, None] + right).astype(np.float32))
