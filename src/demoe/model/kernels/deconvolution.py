"""A known blur undone: deconvolution with total variation, by half-quadratic splitting.

The restored picture x minimises ``lambda / 2 |k * x - y|^2 + |grad x|``, no darker than black
(Rudin, Osher and Fatemi 1992; Wang, Yang, Yin and Zhang, SIAM J. Imaging Sci. 1, 2008): edges may
be sharp, and noise makes no texture. ``lambda`` is the strength over the variance of the noise. How
strongly, and whether light or display values were blurred, is chosen by what explains the picture
best.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from demoe.model.kernels.noise import noise_model, noise_of
from demoe.model.kernels.psf import Psf, centroid

STRENGTHS = (0.001, 0.003, 0.01, 0.02, 0.04)
"""What is tried, from careful to bold."""

EXPLAINED = {True: 0.85, False: 1.0}
"""Times the noise: what is explained better than this is explained too well; of photos, and of
measurements, which shall show nothing that the data do not ask for."""

LIGHT = 1.1
"""How much worse light may explain a photo than display values do, and still be believed: cameras
blur light."""

LEAST_NOISE = {True: 1 / 255, False: 1 / 1000}
"""What there is at least, of photos and of measurements."""

PROGRESS = 0.97
"""By how much a bolder solution has to explain the picture better than the one before."""

_PENALTIES = (4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)  # the splitting's, from loose to tight
_FLAT = 1e-18  # square of a gradient that is none
_TINY = 1e-8  # variance that no picture of 8 bits goes below
_BORDER = 24  # pixels beyond the PSF's reach after which what lies further makes no difference

Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class Setting:
    """How a picture is deconvolved.

    Attributes
    ----------
    linear : bool
        Whether light was blurred, not the display values.
    strength : float
        Weight of the data against the smoothness.
    """

    linear: bool
    strength: float


class Deconvolver:
    """Undoes the blur of one PSF.

    Parameters
    ----------
    psf : ndarray
        (rows, cols), odd, summing to 1.
    photo : bool
        Whether pictures have display values, so that light may have been blurred.

    Attributes
    ----------
    margin : int
        Pixels around a place that its solution looks at.
    """

    def __init__(self, psf: Psf, photo: bool) -> None:
        self.photo = photo
        self.margin = int(max(psf.shape)) // 2 + _BORDER
        self._psf = np.ascontiguousarray(psf, dtype=np.float64)

    @torch.inference_mode()
    def restore(self, pixels: Pixels, setting: Setting) -> Pixels:
        """Return a picture (H, W, S) without the blur; beyond its borders it is mirrored."""
        return self.solve(pixels, setting)[0]

    @torch.inference_mode()
    def solve(self, pixels: Pixels, setting: Setting) -> tuple[Pixels, Pixels]:
        """Return a picture (H, W, S) without the blur, and that blurred again."""
        restored, again = self._solve(pixels, setting)
        return _pixels(restored), _pixels(again)

    @torch.inference_mode()
    def blur(self, pixels: Pixels, linear: bool) -> Pixels:
        """Return a picture (H, W, S) blurred, mirrored beyond its borders."""
        x = _tensor(pixels)
        x = _to_light(x) if linear else x
        pad = min(self.margin, *(side - 1 for side in x.shape[1:]))
        x = F.pad(x[None], (pad,) * 4, mode="reflect")[0]
        size = x.shape[1:]
        x = torch.fft.irfft2(self._transfer(size) * torch.fft.rfft2(x), size)
        x = x[:, pad : size[0] - pad, pad : size[1] - pad]
        return _pixels(_to_display(x) if linear else x)

    @torch.inference_mode()
    def choose(self, samples: Sequence[Pixels], linear: bool | None = None) -> Setting:
        """Choose the boldest setting that still explains samples of a plane better, but for noise.

        Parameters
        ----------
        samples : sequence of ndarray
            (H, W, S) in [0, 1].
        linear : bool, optional
            Whether light was blurred; by default what explains a photo better.
        """
        middle = STRENGTHS[len(STRENGTHS) // 2]
        if linear is None:
            linear = self.photo and (
                self._error(samples, Setting(True, middle))
                < LIGHT * self._error(samples, Setting(False, middle))
            )
        best = Setting(linear, STRENGTHS[0])
        error = self._error(samples, best)
        for strength in STRENGTHS[1:]:
            bolder = Setting(linear, strength)
            found = self._error(samples, bolder)
            if found < EXPLAINED[self.photo]:
                break
            # Where much noise makes all but the boldest flat, the first steps explain no more.
            if found <= PROGRESS * error:
                best, error = bolder, found
        return best

    def _error(self, samples: Sequence[Pixels], setting: Setting) -> float:
        """Return what solutions, blurred again, leave unexplained: root mean square over noise."""
        squares = []
        for pixels in samples:
            again, seen = self._solve(pixels, setting)[1], _tensor(pixels)
            squares.append(float(((again - seen).square() / self._variance(seen)).mean()))
        return float(np.sqrt(np.mean(squares)))

    def _variance(self, seen: Tensor) -> Tensor:
        """Return the variance of the noise, that broadcasts to samples (S, H, W)."""
        if self.photo:
            return noise_of(seen).mean().square().clamp_min(_TINY)
        variance = torch.stack([noise_model(one).variance(one) for one in seen])
        return variance.clamp_min(LEAST_NOISE[False] ** 2)

    def _solve(self, pixels: Pixels, setting: Setting) -> tuple[Tensor, Tensor]:
        """Return the solution and what it gives when it is blurred again, both (S, H, W)."""
        y = _tensor(pixels)
        y = _to_light(y) if setting.linear else y
        pad = min(self.margin, *(side - 1 for side in y.shape[1:]))
        weight = setting.strength / self._power(y)[:, None, None]
        y = F.pad(y[None], (pad,) * 4, mode="reflect")[0]
        size = y.shape[1:]
        blur = self._transfer(size)
        data = weight * blur.conj() * torch.fft.rfft2(y)
        power = weight * (blur.real.square() + blur.imag.square()) + 1e-9
        rough = _roughness(size)
        x, floor = y, min(0.0, float(y.min()))  # no darker than black, or than what was seen
        for penalty in _PENALTIES:
            down, right = x.roll(-1, 1).sub_(x), x.roll(-1, 2).sub_(x)
            kept = (down * down).addcmul_(right, right).clamp_min_(_FLAT).rsqrt_()
            kept = kept.mul_(-1 / penalty).add_(1).clamp_min_(0)  # of each gradient, what is long
            down, right = down.mul_(kept), right.mul_(kept)
            edges = down.roll(1, 1).sub_(down).add_(right.roll(1, 2)).sub_(right)
            total = torch.fft.rfft2(edges).mul_(penalty).add_(data)
            # Times the inverse: dividing complex numbers takes seven times as long.
            x = torch.fft.irfft2(total.mul_((power + penalty * rough).reciprocal_()), size)
            x = x.clamp_min_(floor)
        again = torch.fft.irfft2(blur * torch.fft.rfft2(x), size)
        x, again = (t[:, pad : size[0] - pad, pad : size[1] - pad] for t in (x, again))
        return (_to_display(x), _to_display(again)) if setting.linear else (x, again)

    def _power(self, y: Tensor) -> Tensor:
        """Return the mean variance of the noise of each of samples (S, H, W)."""
        least = LEAST_NOISE[self.photo] ** 2
        if self.photo:
            return noise_of(y).square().clamp_min(least)
        return torch.stack([noise_model(one).variance(one).mean() for one in y]).clamp_min(least)

    def _transfer(self, size: tuple[int, ...]) -> Tensor:
        return _transfer(self._psf.tobytes(), self._psf.shape, size)


@functools.lru_cache(maxsize=32)
def _transfer(psf: bytes, shape: tuple[int, int], size: tuple[int, ...]) -> Tensor:
    """Return a PSF's Fourier transform, its centre of mass at the origin."""
    values = np.frombuffer(psf).reshape(shape)
    rows, cols = shape
    plane = np.zeros(size)
    # A picture smaller than the PSF wraps around, as its own mirror images do.
    at = np.ix_((np.arange(rows) - rows // 2) % size[0], (np.arange(cols) - cols // 2) % size[1])
    np.add.at(plane, at, values)
    down, right = centroid(values)
    turn = np.fft.fftfreq(size[0])[:, None] * down + np.fft.rfftfreq(size[1]) * right
    transfer = np.fft.rfft2(plane) * np.exp(2j * np.pi * turn)
    return torch.from_numpy(transfer.astype(np.complex64))


@functools.lru_cache(maxsize=8)
def _roughness(size: tuple[int, int]) -> Tensor:
    """Return the squared transforms of the differences to the next row and column, summed."""
    down = np.abs(np.exp(2j * np.pi * np.fft.fftfreq(size[0])) - 1) ** 2
    right = np.abs(np.exp(2j * np.pi * np.fft.rfftfreq(size[1])) - 1) ** 2
    return torch.from_numpy((down[:, None] + right).astype(np.float32))


def _tensor(pixels: Pixels) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _pixels(x: Tensor) -> Pixels:
    return np.ascontiguousarray(x.numpy().transpose(1, 2, 0))


def _to_light(x: Tensor) -> Tensor:
    """Undo the sRGB curve (IEC 61966-2-1); values below 0 and above 1 follow it on."""
    high = ((x.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(x <= 0.04045, x / 12.92, high)


def _to_display(x: Tensor) -> Tensor:
    high = 1.055 * x.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(x <= 0.0031308, x * 12.92, high)
