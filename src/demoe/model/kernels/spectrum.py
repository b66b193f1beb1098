"""How well kernels explain the power spectrum of a blurred window: a Whittle likelihood.

The spectrum of a sharp scene falls with a power of the frequency; a kernel multiplies it by its
own, and noise adds a constant: ``A |K(f)|^2 (|f| + 0.005)^-a + n``. The score of a kernel is the
mean over frequencies of ``log M + P / M`` of that model M and the spectrum P seen (Whittle 1953).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demoe.model.kernels.families import Kernel, straight_kernels
from demoe.model.kernels.psf import Psf
from demoe.wanted import check

SIDE = 192
"""Side in pixels of a window whose spectrum is looked at."""

STEP = 96
"""From one window to the next."""

CLIP = 0.05
"""A window counts this much against a kernel, at most: one odd window overrules no others."""

_FALLS = (2.0, 2.6)  # how steeply spectra of scenes fall
_BAND = (0.02, 0.48)  # cycles a pixel
_NOISY = 0.42  # above this there is little but noise
_BLOCK = 2  # frequencies to a side that are taken together
_SPARSE = 5  # for a rough score, one of so many blocks counts
_REFINEMENTS = 3
_AT_ONCE = 26_000  # values whose arithmetic stays in the cache, and in one thread

Scores = NDArray[np.float64]


def window_scores(gray: NDArray[np.float32], kernels: Sequence[Kernel]) -> Scores:
    """Score kernels on each window of a picture; in a window, the smallest explains it best.

    Parameters
    ----------
    gray : ndarray of float32
        (H, W); a side below `SIDE` is mirrored on.
    kernels : sequence of Kernel
        What is compared. What scenes look like behind the last few hundred is kept.

    Returns
    -------
    ndarray of float64
        (windows, kernels).
    """
    models = _models_of(kernels)
    return np.stack([_score(power, noise, models) for power, noise in _powers(gray)])


def rough_scores(gray: NDArray[np.float32]) -> Scores:
    """Score `straight_kernels` as `window_scores` does, but by few of the frequencies."""
    models = _sparse_models()
    return np.stack([_score(power[::_SPARSE], noise, models) for power, noise in _powers(gray)])


def _powers(gray: NDArray[np.float32]) -> Iterator[tuple[Tensor, Tensor]]:
    """Give the power spectrum of each window, and its noise."""
    for window in _windows(gray):
        check()
        yield _power(window)


def pooled(scores: Scores, odd: float = CLIP) -> NDArray[np.float64]:
    """Return one score a kernel: how far above the best of each window it is, in the mean.

    Parameters
    ----------
    scores : ndarray of float64
        (windows, kernels).
    odd : float
        A window counts this much against a kernel, at most.
    """
    above = scores - scores.min(axis=1, keepdims=True)
    return np.asarray(np.minimum(above, odd).mean(axis=0))


def _windows(gray: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    short = [(0, max(0, SIDE - side)) for side in gray.shape]
    gray = np.pad(gray, short, mode="symmetric")
    tops, lefts = (range(0, side - SIDE + 1, STEP) for side in gray.shape)
    return [gray[t : t + SIDE, n : n + SIDE] for t in tops for n in lefts]


@torch.inference_mode()
def _score(seen: Tensor, noise: Tensor, models: Sequence[Tensor]) -> NDArray[np.float64]:
    """Score models (kernels, blocks) on the power spectrum (blocks,) of a window."""
    above = seen - noise
    total = above.clamp_min(0).sum()
    count = _AT_ONCE // len(seen)
    scores = [
        torch.cat([_of_some(some, seen, above, total, noise) for some in model.split(count)])
        for model in models
    ]
    found: NDArray[np.float64] = torch.stack(scores).amin(dim=0).double().numpy()
    return found


def _power(window: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """Return the power spectrum of a window at the frequencies used, and that of its noise."""
    centred = torch.from_numpy(np.ascontiguousarray(window - window.mean())) * _taper()
    seen = _binned(torch.fft.rfft2(centred).abs().square() / SIDE**2)[_used()]
    return seen, seen[_high()].median().clamp_min(1e-10) * 0.9


def _of_some(model: Tensor, seen: Tensor, above: Tensor, total: Tensor, noise: Tensor) -> Tensor:
    """Score kernels (kernels, blocks), few enough to stay in the processor's cache."""
    scale = (total / model.sum(dim=1)).clamp_min(1e-20)[:, None]
    expected, share, weight = (torch.empty_like(model) for _ in range(3))
    for _ in range(_REFINEMENTS):  # least squares, weighted by what the model expects
        torch.mul(model, scale, out=expected).add_(noise)
        torch.div(model, expected, out=share)
        fitted = torch.div(share, expected, out=weight) @ above / share.square_().sum(dim=1)
        scale = torch.maximum(fitted[:, None], 1e-12 * scale)
    torch.mul(model, scale, out=expected).add_(noise)
    fit = torch.reciprocal(expected, out=weight) @ seen / len(seen)
    # numpy's logarithm: torch's wakes threads for it, which costs more than it does.
    return torch.from_numpy(np.log(expected.numpy())).mean(dim=1) + fit


def _models_of(kernels: Sequence[Kernel]) -> list[Tensor]:
    """Return what scenes of each steepness look like behind each kernel: (kernels, blocks)."""
    return [torch.stack(models) for models in zip(*map(_models, kernels), strict=True)]


@functools.cache
def _sparse_models() -> list[Tensor]:
    return [model[:, ::_SPARSE].contiguous() for model in _models_of(straight_kernels())]


@functools.lru_cache(maxsize=512)
def _models(kernel: Kernel) -> list[Tensor]:
    """Return what scenes of each steepness look like behind a kernel: (blocks,)."""
    check()
    shape = _transfer_power(kernel.values)
    return [_binned(shape * scene)[_used()] for scene in _scenes()]


@functools.cache
def _scenes() -> list[Tensor]:
    return [(_frequency() + 0.005) ** -fall for fall in _FALLS]


def _transfer_power(psf: Psf) -> Tensor:
    plane = np.zeros((SIDE, SIDE), np.float32)
    plane[: psf.shape[0], : psf.shape[1]] = psf
    power: Tensor = torch.fft.rfft2(torch.from_numpy(plane)).abs().square()
    return power


def _binned(spectrum: Tensor) -> Tensor:
    """Average blocks of a half spectrum (..., SIDE, SIDE // 2 + 1), the last column left out."""
    half = SIDE // 2
    centred = torch.fft.fftshift(spectrum, dim=-2)[..., :half]
    blocks = centred.reshape(*centred.shape[:-2], SIDE // _BLOCK, _BLOCK, half // _BLOCK, _BLOCK)
    means: Tensor = blocks.mean(dim=(-3, -1))
    return means


@functools.cache
def _frequency() -> Tensor:
    down, right = torch.fft.fftfreq(SIDE)[:, None], torch.fft.rfftfreq(SIDE)[None]
    distance: Tensor = torch.hypot(down, right)
    return distance


@functools.cache
def _used() -> Tensor:
    frequency = _binned(_frequency())
    return (frequency > _BAND[0]) & (frequency < _BAND[1])


@functools.cache
def _high() -> Tensor:
    """Return which of the used frequencies hold little but noise."""
    return _binned(_frequency())[_used()] > _NOISY


@functools.cache
def _taper() -> Tensor:
    """Return a Hann window that keeps the power."""
    line = torch.hann_window(SIDE, periodic=False)
    window: Tensor = line[:, None] * line
    return window.div(window.square().mean().sqrt())
