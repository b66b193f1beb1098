"""Noise, haze, rain and darkness of a known amount, for the bundled samples.

Like `demoe.samples.blur`, this is textbook image formation in plain numpy, written apart from the
generators of the training data, so that the samples test a network on damage that its own training
code did not make.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demoe.errors import ImageError
from demoe.samples.blur import convolve, gaussian_kernel, line_kernel

Floats = NDArray[np.float64]

GAMMA = 2.2


def add_noise(values: Floats, rng: np.random.Generator, *, sigma: float) -> Floats:
    """Add normal noise of `sigma` of 255 to display values (Y, X, 3) from 0 to 1."""
    return np.asarray(values + rng.normal(0, sigma / 255, values.shape))


def add_haze(
    values: Floats, rng: np.random.Generator, *, near: float, far: float, air: list[float]
) -> Floats:
    """Put a scene (Y, X, 3) behind haze that gets thicker from its bottom to its top.

    Parameters
    ----------
    values : ndarray
        Display values from 0 to 1.
    rng : Generator
        Not used; all damage is called alike.
    near, far : float
        Optical thickness of the air before the bottom and before the top of the picture.
    air : list of float
        Display values of the light of the air, red, green and blue.
    """
    height = values.shape[0]
    depth = np.linspace(far, near, height)[:, None, None]
    arriving = np.exp(-depth)
    light = values**GAMMA * arriving + np.asarray(air) ** GAMMA * (1 - arriving)
    return np.asarray(light ** (1 / GAMMA))


def add_rain(
    values: Floats,
    rng: np.random.Generator,
    *,
    drops: int,
    length: float,
    angle: float,
    strength: float,
) -> Floats:
    """Let drops fall before a scene (Y, X, 3): lines of light, some fainter and shorter.

    Parameters
    ----------
    values : ndarray
        Display values from 0 to 1.
    rng : Generator
        Says where drops are.
    drops : int
        How many of each of three sizes.
    length, angle : float
        Of the longest streaks: pixels, and degrees as of `line_kernel`.
    strength : float
        Share of light that the brightest drop adds.
    """
    height, width = values.shape[:2]
    cover = np.zeros((height, width))
    for share in (1.0, 0.6, 0.35):
        born = np.zeros((height, width))
        places = rng.integers(0, height, drops), rng.integers(0, width, drops)
        np.add.at(born, places, rng.uniform(0.3, 1.0, drops))
        line = line_kernel(length * share, angle + rng.normal(0, 2))
        round_ = gaussian_kernel(max(0.4, 0.8 * share))
        fallen = convolve(convolve(born, line / line.max()), round_ / round_.max())
        cover = 1 - (1 - cover) * (1 - np.clip(strength * share * fallen, 0, 0.9))
    light = values**GAMMA * (1 - cover[..., None]) + 0.8 * cover[..., None]
    return np.asarray(light ** (1 / GAMMA))


def darken(values: Floats, rng: np.random.Generator, *, exposure: float, photons: float) -> Floats:
    """Expose a scene (Y, X, 3) too shortly.

    Parameters
    ----------
    values : ndarray
        Display values from 0 to 1.
    rng : Generator
        Counts photons.
    exposure : float
        Share of the right exposure.
    photons : float
        Photons of white at the right exposure.
    """
    counted = rng.poisson(values**GAMMA * exposure * photons) / photons
    return np.asarray(counted ** (1 / GAMMA))


KINDS: Mapping[str, Callable[..., Floats]] = {
    "noise": add_noise,
    "haze": add_haze,
    "rain": add_rain,
    "low_light": darken,
}


def apply_damage(image: NDArray[np.uint8], recipe: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Damage an image as a recipe says; the same recipe always gives the same pixels.

    Parameters
    ----------
    image : ndarray of uint8, shape (Y, X, 3)
        Sharp pixels.
    recipe : mapping
        Keys ``kind`` (one of `KINDS`), ``seed``, and what the function of that kind takes.

    Raises
    ------
    ImageError
        The recipe names a kind that does not exist.
    """
    settings = dict(recipe)
    kind, seed = settings.pop("kind"), settings.pop("seed")
    if kind not in KINDS:
        raise ImageError(f"damage {kind!r} is not known; use {', '.join(KINDS)}")
    seen = KINDS[kind](image / 255.0, np.random.default_rng(seed), **settings)
    return np.asarray(np.rint(np.clip(seen, 0, 1) * 255), dtype=np.uint8)
