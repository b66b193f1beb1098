"""How noisy a picture is, and where: photons make noise where there is light."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

_LEVELS = 8
_FEWEST = 200  # pixels that say something about a level
_FITS = 4
_FAR = 8  # pixels at which noise is compared with itself


@dataclass(frozen=True)
class NoiseModel:
    """Variance of the noise by intensity: ``offset + slope * (intensity - dark)``.

    Attributes
    ----------
    offset, slope, dark : float
        All >= 0 but ``dark``, the least intensity seen.
    """

    offset: float
    slope: float
    dark: float

    def variance(self, x: Tensor) -> Tensor:
        """Return the variance at intensities of any shape."""
        return self.offset + self.slope * (x - self.dark).clamp_min(0)

    def deviation(self, x: Tensor) -> float:
        """Return the root mean square of the noise over a picture."""
        return float(self.variance(x).mean().sqrt())


def mean_model(models: Sequence[NoiseModel]) -> NoiseModel:
    """Return the mean of what was found on samples of one picture."""
    return NoiseModel(
        float(np.mean([model.offset for model in models])),
        float(np.mean([model.slope for model in models])),
        float(np.mean([model.dark for model in models])),
    )


def samples_of(pixels: NDArray[np.float32]) -> Tensor:
    """Return a picture (H, W, S) as samples (S, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def noise_of(x: Tensor) -> Tensor:
    """Return the standard deviation of the noise of samples (S, H, W), from small differences."""
    if min(x.shape[1:]) < 3:
        return torch.zeros(len(x))
    return _rough(x).abs().flatten(1).median(dim=1).values / 0.6745


def colour_of(x: Tensor) -> float:
    """Return how far samples (S, H, W) are from white noise: 0 if no pixel tells of another.

    The squares of their autocorrelation at distances of up to 8 pixels, added up: where a picture
    is restored too carefully, or too boldly, what is left unexplained has structure (Lanza,
    Pragliola and Sgallari, Electron. Trans. Numer. Anal. 53, 2020).
    """
    size = x.shape[1:]
    power = torch.fft.rfft2(x - x.mean(dim=(1, 2), keepdim=True)).abs().square()
    found = torch.fft.irfft2(power, size)
    alike = (found / found[:, :1, :1].clamp_min(1e-20)).square()
    down, right = min(_FAR, size[0] // 2), min(_FAR, (size[1] - 1) // 2)
    near = alike[:, : down + 1]
    both = near[:, :, : right + 1].sum(dim=(1, 2)) + near[:, 1:, -right:].sum(dim=(1, 2))
    return float((both - alike[:, 0, 0]).mean())


def noise_model(x: Tensor) -> NoiseModel:
    """Fit the noise of a picture (H, W): small differences, level by level of the intensity."""
    if min(x.shape) < 5:
        return NoiseModel(float(noise_of(x[None])[0]) ** 2, 0.0, float(x.min()))
    rough = _rough(x[None])[0]
    mean = F.avg_pool2d(x[None, None], 5, 1, 2, count_include_pad=False)[0, 0, 1:-1, 1:-1]
    edges = np.quantile(mean.numpy()[::2, ::2], np.linspace(0, 1, _LEVELS + 1))
    seen = []
    for low, high in itertools.pairwise(edges):
        there = (mean >= low) & (mean <= high)
        if int(there.sum()) >= _FEWEST:
            seen.append(
                (float(mean[there].mean()), float((rough[there].abs().median() / 0.6745) ** 2))
            )
    if len(seen) < 2:
        return NoiseModel(float(noise_of(x[None])[0]) ** 2, 0.0, float(x.min()))
    level, variance = np.array(seen).T
    return _line(level, variance)


def _line(level: np.ndarray, variance: np.ndarray) -> NoiseModel:
    """Fit a line without negative coefficients, each level weighted by what the line says."""
    dark = float(level.min())
    at = level - dark
    weight = 1 / (variance + 1e-8)
    offset, slope = 0.0, 0.0
    for _ in range(_FITS):
        w = weight**2
        total, first, second = w.sum(), (w * at).sum(), (w * at * at).sum()
        value, cross = (w * variance).sum(), (w * at * variance).sum()
        spread = total * second - first**2
        slope = (total * cross - first * value) / spread if spread > 1e-9 * total * second else 0.0
        offset = (value - slope * first) / total
        if slope < 0:
            slope, offset = 0.0, value / total
        elif offset < 0:
            offset, slope = 0.0, cross / max(second, 1e-12)
        weight = 1 / (offset + slope * at + 1e-9)
    return NoiseModel(float(offset), float(slope), dark)


def _rough(x: Tensor) -> Tensor:
    """Return what is left of samples (S, H, W) without planes and slopes, the noise's variance."""
    kernel = torch.tensor([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]]) / 6
    return F.conv2d(x[:, None], kernel[None, None])[:, 0]
