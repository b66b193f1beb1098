"""The pictures that weights are calibrated on: made from nothing, always the same ones.

Most show what networks for deblurring are made for: structures of many kinds, blurred or not, with
noise. The rest are hard to cut into tiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

_SEED = 2508_06228
_NOISE = 0.008


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture.

    Attributes
    ----------
    name : str
        What it shows.
    values : ndarray of float32
        (size, size, 3) in [0, 1].
    ordinary : bool
        Whether networks for deblurring are made for such pictures.
    """

    name: str
    values: NDArray[np.float32]
    ordinary: bool = True


def pictures(size: int) -> Iterator[Picture]:
    """Yield the pictures, ``size`` pixels a side."""
    rng = np.random.default_rng(_SEED)

    def blurred(values: Values, kernel: Values, light: float = 1.0) -> Values:
        return _blur(values.clip(0, 1), kernel) * light + rng.normal(0, _NOISE, values.shape)

    made: dict[str, Values] = {
        "texture": _texture(rng, size, 0.2),
        "texture, out of focus": blurred(_texture(rng, size, 0.4), _disk(3)),
        "an object that moves": _moving_object(rng, size, _line(21, 0.5)),
        "text, moved": blurred(_text(rng, size), _line(11, 0.0)),
        "beads, out of focus": blurred(_beads(rng, size), _disk(3)),
        "shapes, moved in little light": blurred(_shapes(rng, size), _line(9, 1.2), 0.1),
        "plain areas": _steps(size),
    }
    for name, values in made.items():
        yield Picture(name, values.clip(0, 1).astype(np.float32))
    yield Picture("noise", rng.random((size, size, 3), np.float32), ordinary=False)


def _texture(rng: np.random.Generator, size: int, deviation: float) -> Values:
    """Return noise whose spectrum falls as that of natural scenes (Field 1987)."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size))
    frequency[0, 0] = np.inf
    white = np.fft.fft2(rng.normal(size=(size, size, 3)), axes=(0, 1))
    plane = np.fft.ifft2(white * frequency[..., None] ** -1.2, axes=(0, 1)).real
    return np.asarray(0.5 + plane * (deviation / plane.std()))


def _shapes(rng: np.random.Generator, size: int) -> Values:
    """Return discs that hide each other (Lee et al. 2001)."""
    y, x = np.mgrid[:size, :size]
    plane = np.full((size, size, 3), 0.5)
    for _ in range(70):
        top, left = rng.random(2) * size
        radius = 4 / (1 - 0.9 * rng.random())
        plane[np.hypot(y - top, x - left) < radius] = rng.random(3)
    return plane


def _moving_object(rng: np.random.Generator, size: int, kernel: Values) -> Values:
    """Return half a picture of shapes that moves over the other half, which does not."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    alpha = (np.hypot(y, x) < 0.38).astype(np.float64)[..., None]
    covered = _blur(alpha, kernel)
    moving = _blur(_shapes(rng, size) * alpha, kernel)
    return np.asarray(moving + (1 - covered) * _shapes(rng, size))


def _text(rng: np.random.Generator, size: int) -> Values:
    """Return lines of signs of 3 x 5 strokes, black on white."""
    stroke = 3
    rows, columns = size // (8 * stroke) + 1, size // (4 * stroke) + 1
    signs = rng.random((rows, columns, 5, 3)) < 0.6
    page = np.zeros((rows, columns, 8, 4), bool)
    page[:, :, 1:6, :3] = signs
    ink = page.transpose(0, 2, 1, 3).reshape(rows * 8, columns * 4)
    ink = ink.repeat(stroke, axis=0).repeat(stroke, axis=1)[:size, :size]
    return np.broadcast_to(1.0 - ink[..., None], (size, size, 3))


def _beads(rng: np.random.Generator, size: int) -> Values:
    """Return small bright spots on black."""
    plane = np.zeros((size, size, 1))
    for top, left in rng.integers(0, size - 4, (40, 2)):
        plane[top : top + 4, left : left + 4] = rng.uniform(0.3, 1)
    return np.broadcast_to(plane, (size, size, 3))


def _steps(size: int) -> Values:
    """Return plain areas, white along the borders: that differs most from the zeros beyond."""
    levels = np.ones((5, 5))
    levels[1:4, 1:4] = [[0.98, 0.3, 0.6], [0.0, 0.02, 0.5], [0.61, 0.0, 1.0]]
    index = np.arange(size) * 5 // size
    plane: Values = np.repeat(levels[np.ix_(index, index)][..., None], 3, axis=2)
    return plane


def _disk(radius: int) -> Values:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(np.hypot(y, x) <= radius + 0.3, np.float64)


def _line(length: int, angle: float) -> Values:
    kernel = np.zeros((length, length))
    middle = (length - 1) / 2
    for step in np.linspace(-middle, middle, 4 * length):
        kernel[round(middle + step * math.sin(angle)), round(middle + step * math.cos(angle))] += 1
    return kernel


def _blur(values: Values, kernel: Values) -> Values:
    """Convolve, as if the picture went on over its borders from the other side."""
    shape = values.shape[:2]
    spectrum = np.fft.rfft2(values, axes=(0, 1))
    transfer = np.fft.rfft2(kernel / kernel.sum(), shape)[..., None]
    return np.fft.irfft2(spectrum * transfer, shape, axes=(0, 1))
