"""Pixel values to the network's [0, 1] and back, by one scale for the whole image.

The scale is decided once an image, never once a tile, so that tiles fit together. Nothing is
clipped on the way in: values beyond the scale leave [0, 1] and come back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from dask.base import compute
from dask.local import get_sync

from demoe.errors import RecipeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demoe.image.lazy_image import LazyImage

SAMPLE_BLOCKS = 16
SAMPLE_SIDE = 256
PERCENTILES = (0.1, 99.9)

# Fractions of the plastic number's powers spread points evenly over a box of any shape
# (Roberts, "The Unreasonable Effectiveness of Quasirandom Sequences", 2018).
_SPREAD = (0.8191725134, 0.6710436067, 0.5497004779)


@dataclass(frozen=True)
class IntensityScale:
    """The straight line that takes `low` to 0 and `high` to 1.

    Attributes
    ----------
    low, high : float
        Pixel values, low below high.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuse a scale without a span."""
        span = self.high - self.low
        if not (math.isfinite(span) and span > 0):
            raise RecipeError(
                f"The intensity limits ({self.low}, {self.high}) must be two finite numbers, the "
                "lower first."
            )

    def step(self, dtype: np.dtype[Any]) -> float:
        """Return one grey level of an integer type in the scaled values; 0 for floats."""
        return 0.0 if dtype.kind == "f" else 1 / (self.high - self.low)

    def normalise(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Scale pixel values for the network.

        Parameters
        ----------
        values : ndarray
            Integers or floats of any shape.

        Returns
        -------
        ndarray of float32
            Same shape; [low, high] became [0, 1], and values beyond are not clipped.
        """
        wide = values.astype(np.float64)
        wide -= self.low
        wide /= self.high - self.low
        return wide.astype(np.float32)

    def restore(self, values: NDArray[Any], dtype: np.dtype[Any] | type[Any]) -> NDArray[Any]:
        """Undo `normalise`.

        Parameters
        ----------
        values : ndarray of float
            Scaled values of any shape.
        dtype : dtype
            The image's own type.

        Returns
        -------
        ndarray of `dtype`
            Same shape; integers are rounded and clipped to the type's range, never wrapped, and
            NaN becomes `low`.
        """
        dtype = np.dtype(dtype)
        wide = values.astype(np.float64)
        wide *= self.high - self.low
        wide += self.low
        if dtype.kind == "f":
            with np.errstate(over="ignore"):
                return wide.astype(dtype)
        info = np.iinfo(dtype)
        top = float(info.max)
        if top > info.max:  # 64-bit limits have no float of their own
            top = float(np.nextafter(top, 0))
        wide = np.nan_to_num(wide, nan=self.low, posinf=top, neginf=float(info.min))
        return np.clip(np.rint(wide), float(info.min), top).astype(dtype)


def needs_sample(image: LazyImage, rule: str | tuple[float, float]) -> bool:
    """Say whether `resolve_intensity` would read pixels.

    Parameters
    ----------
    image : LazyImage
        The image.
    rule : str or (float, float)
        As in `resolve_intensity`.

    Returns
    -------
    bool
        True for "percentile", and for "auto" unless the image is uint8.
    """
    return rule == "percentile" or (rule == "auto" and image.dtype != np.uint8)


def resolve_intensity(image: LazyImage, rule: str | tuple[float, float]) -> IntensityScale:
    """Decide the intensity scale of an image.

    Parameters
    ----------
    image : LazyImage
        The image.
    rule : {"auto", "full", "percentile"} or (float, float)
        "full": the range of an integer type, 0..1 for floats. "percentile": percentiles 0.1 and
        99.9 of a sample. Two numbers: those. "auto": uint8 is 0..255; other unsigned integers take
        the full range if the sample's percentile 99.9 is above half of it; floats take 0..1 if the
        sample lies in it and its percentile 99.9 is above 0.25; all else takes percentiles.

    Returns
    -------
    IntensityScale
        One scale for all planes.

    Raises
    ------
    RecipeError
        For an unknown rule or limits in the wrong order.

    Notes
    -----
    The sample is at most 16 blocks of 256 x 256 pixels whose places depend on the shape alone; an
    alpha channel and values that are not finite are left out. Where both percentiles coincide the
    sample's extremes are used, and a constant image gets a scale that keeps its value.
    """
    if not isinstance(rule, str):
        low, high = rule
        return IntensityScale(float(low), float(high))
    if rule not in ("auto", "full", "percentile"):
        raise RecipeError(
            f"The intensity rule '{rule}' is unknown; use 'auto', 'full', 'percentile' or two "
            "numbers."
        )
    dtype = image.dtype
    full = _full_range(dtype)
    if not needs_sample(image, rule):
        return full
    values = sample(image)
    if not values.size:
        return full
    low, high = (float(value) for value in np.percentile(values, PERCENTILES))
    if rule == "auto" and dtype.kind == "u" and high > full.high / 2:
        return full
    if rule == "auto" and dtype.kind == "f" and high > 0.25 and _within_unit(values):
        return full
    if low == high:
        low, high = float(values.min()), float(values.max())
    if low == high:
        return _constant(low, full, dtype)
    return IntensityScale(low, high)


def _full_range(dtype: np.dtype[Any]) -> IntensityScale:
    if dtype.kind == "f":
        return IntensityScale(0.0, 1.0)
    info = np.iinfo(dtype)
    return IntensityScale(float(info.min), float(info.max))


def _within_unit(values: NDArray[np.float64]) -> bool:
    return bool(values.min() >= 0 and values.max() <= 1)


def _constant(value: float, full: IntensityScale, dtype: np.dtype[Any]) -> IntensityScale:
    # Floats: the value itself becomes an end of the scale, which returns without rounding.
    if dtype.kind != "f":
        return full
    return IntensityScale(min(value, 0.0), max(value, 0.0)) if value else full


def sample(image: LazyImage) -> NDArray[np.float64]:
    """Read the pixels that stand for an image, see `resolve_intensity`: one row of them."""
    planes = image.canonical
    counts = planes.shape[:3]
    blocks = []
    for plane, top, left in _sample_places(image.n_planes, image.plane_shape):
        t, c, z = (int(index) for index in np.unravel_index(plane, counts))
        block = planes[t, c, z, top : top + SAMPLE_SIDE, left : left + SAMPLE_SIDE, :3]
        blocks.append(block.ravel())
    # In this thread: on a cluster this is part of a task, which must not wait for other tasks.
    values = np.concatenate(compute(*blocks, scheduler=get_sync)).astype(np.float64)
    return values[np.isfinite(values)]


def _sample_places(n_planes: int, size: tuple[int, int]) -> list[tuple[int, int, int]]:
    """Plane index, first row and first column of each block to sample."""
    rows, columns = (math.ceil(length / SAMPLE_SIDE) for length in size)
    if n_planes * rows * columns <= SAMPLE_BLOCKS:
        return [
            (plane, row * SAMPLE_SIDE, column * SAMPLE_SIDE)
            for plane in range(n_planes)
            for row in range(rows)
            for column in range(columns)
        ]
    extent = (n_planes, *(max(1, length - SAMPLE_SIDE + 1) for length in size))
    places = {
        tuple(
            int((0.5 + number * step) % 1 * length)
            for step, length in zip(_SPREAD, extent, strict=True)
        )
        for number in range(SAMPLE_BLOCKS)
    }
    return sorted((plane, top, left) for plane, top, left in places)
