"""Blur by a known amount, for the bundled samples.

This is textbook image formation in plain numpy, written apart from the generators of the training
data, so that the samples test a network on blur that its own training code did not make.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demoe.errors import ImageError

_FINE = 15  # samples a pixel side for anti-aliased kernels
_SEAM = 24  # pixels over which one zone fades into the next


def disc_kernel(radius: float) -> NDArray[np.float64]:
    """Uniform disc of `radius` pixels, anti-aliased, sum 1: an ideal lens out of focus."""
    half = int(np.ceil(radius))
    y, x = _fine_grid(half)
    return _binned(np.hypot(y, x) <= radius, half)


def line_kernel(length: float, angle: float) -> NDArray[np.float64]:
    """Line of `length` pixels and one pixel width, sum 1: a camera that moves evenly.

    Parameters
    ----------
    length : float
        Length of the path in pixels.
    angle : float
        Degrees, counter-clockwise from the X axis, as seen on the screen (Y points down).

    Returns
    -------
    ndarray of float64
        Square kernel of odd side.
    """
    half = int(np.ceil(length / 2)) + 1
    y, x = _fine_grid(half)
    turn = np.deg2rad(angle)
    along = x * np.cos(turn) - y * np.sin(turn)
    across = x * np.sin(turn) + y * np.cos(turn)
    return _binned((np.abs(along) <= length / 2) & (np.abs(across) <= 0.5), half)


def gaussian_kernel(sigma: float) -> NDArray[np.float64]:
    """Gaussian of standard deviation `sigma` pixels, cut at four sigma, sum 1."""
    half = int(np.ceil(4 * sigma))
    steps = np.arange(-half, half + 1)
    profile = np.exp(-0.5 * (steps / sigma) ** 2)
    kernel = np.outer(profile, profile)
    return np.asarray(kernel / kernel.sum())


def convolve(plane: NDArray[np.float64], kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convolve a plane (Y, X) with a kernel of odd side, mirrored at the borders.

    Parameters
    ----------
    plane : ndarray of float64, shape (Y, X)
        Linear intensities.
    kernel : ndarray of float64, shape (2n + 1, 2n + 1)
        Weights that sum to 1.

    Returns
    -------
    ndarray of float64, shape (Y, X)
    """
    half = kernel.shape[0] // 2
    padded = np.pad(plane, half, mode="reflect")
    shape = (padded.shape[0] + 2 * half, padded.shape[1] + 2 * half)
    spectrum = np.fft.rfft2(padded, shape) * np.fft.rfft2(kernel, shape)
    full = np.fft.irfft2(spectrum, shape)
    return full[2 * half : 2 * half + plane.shape[0], 2 * half : 2 * half + plane.shape[1]]


def kernels_of(recipe: Mapping[str, Any]) -> list[NDArray[np.float64]]:
    """Return the kernels of a recipe's parts, from left to right; see `apply_recipe`."""
    return [_kernel(part) for part in recipe["parts"]]


def apply_recipe(image: NDArray[Any], axes: str, recipe: Mapping[str, Any]) -> NDArray[Any]:
    """Blur an image as a recipe says; the same recipe always gives the same pixels.

    Values are taken to linear light (power `gamma` of the share of the dtype's range), convolved,
    given photon noise (Poisson, `photons` at full range, fixed `seed`) and taken back. Several
    parts lie side by side from left to right in zones of equal width with soft seams.

    Parameters
    ----------
    image : ndarray of uint8 or uint16
        Sharp pixels; the last two axes apart from S are Y and X.
    axes : str
        One letter for each axis; S, if there is one, is last.
    recipe : mapping
        Keys ``gamma``, ``photons``, ``seed`` and ``parts``: a list of kernels, each
        ``{"kernel": "disc", "radius": r}``, ``{"kernel": "line", "length": l, "angle": a}``,
        ``{"kernel": "gaussian", "sigma": s}`` or ``{"kernel": "none"}``.

    Returns
    -------
    ndarray
        Blurred pixels of the same shape and dtype.

    Raises
    ------
    ImageError
        The recipe names a kernel that does not exist.
    """
    kernels = kernels_of(recipe)
    top = float(np.iinfo(image.dtype).max)
    light = (image / top) ** recipe["gamma"]
    planes = np.moveaxis(light, -1, 0) if "S" in axes else light
    flat = planes.reshape(-1, *planes.shape[-2:])
    weights = _zones(flat.shape[-1], len(kernels))
    seen = np.stack([_blurred(plane, kernels, weights) for plane in flat])
    rng = np.random.default_rng(recipe["seed"])
    photons = recipe["photons"]
    seen = rng.poisson(np.clip(seen, 0, 1) * photons) / photons
    seen = seen.reshape(planes.shape)
    if "S" in axes:
        seen = np.moveaxis(seen, 0, -1)
    values = np.clip(seen, 0, 1) ** (1 / recipe["gamma"]) * top
    return np.asarray(np.rint(values), dtype=image.dtype)


def _kernel(part: Mapping[str, Any]) -> NDArray[np.float64]:
    settings = {key: value for key, value in part.items() if key != "kernel"}
    match part["kernel"]:
        case "disc":
            return disc_kernel(**settings)
        case "line":
            return line_kernel(**settings)
        case "gaussian":
            return gaussian_kernel(**settings)
        case "none":
            return np.ones((1, 1))
        case other:
            raise ImageError(f"blur kernel {other!r} is not known; use disc, line, gaussian, none")


def _blurred(
    plane: NDArray[np.float64],
    kernels: Sequence[NDArray[np.float64]],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    return np.asarray(
        sum(
            weight * convolve(plane, kernel)
            for kernel, weight in zip(kernels, weights, strict=True)
        )
    )


def _zones(width: int, count: int) -> NDArray[np.float64]:
    """Weights (count, width) of equal zones that sum to 1 in every column."""
    columns = np.arange(width) + 0.5
    starts = [
        np.clip((columns - width * i / count) / _SEAM + 0.5, 0, 1) if i else np.ones(width)
        for i in range(count)
    ]
    return np.stack([*(a - b for a, b in pairwise(starts)), starts[-1]])


def _fine_grid(half: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    steps = (np.arange((2 * half + 1) * _FINE) + 0.5) / _FINE - half - 0.5
    return np.meshgrid(steps, steps, indexing="ij")


def _binned(inside: NDArray[np.bool_], half: int) -> NDArray[np.float64]:
    side = 2 * half + 1
    kernel = inside.reshape(side, _FINE, side, _FINE).mean(axis=(1, 3))
    return np.asarray(kernel / kernel.sum())
