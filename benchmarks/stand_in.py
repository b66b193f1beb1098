"""What takes the place of a network and of a large image, where all else is to be measured."""

from __future__ import annotations

import resource
import sys
from typing import Any

import dask.array as da
import numpy as np

import demoe
from demoe.engine.runner import TileRunner

FIELDS: dict[str, Any] = {"routing": "defocus", "psf": None, "pooling": "tile", "device": "cpu"}
"""Settings with which nothing but tiles is asked of the network."""


class Slope:
    """An image of any size that takes no memory: noise of a few levels on a slope."""

    ndim = 2

    def __init__(self, rows: int, columns: int, dtype: str) -> None:
        self.shape, self.dtype = (rows, columns), np.dtype(dtype)

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        y, x = (
            np.arange(n, dtype=np.uint32)[part] for n, part in zip(self.shape, key, strict=True)
        )
        noise = (y[:, None] * np.uint32(2654435761) ^ x[None] * np.uint32(2246822519)) >> 13 & 15
        return ((y[:, None] + x[None]) // 16 + noise).astype(self.dtype)


def slope(rows: int, columns: int, dtype: str, block: int) -> demoe.LazyImage:
    """Return an image of grays that is made up where it is read."""
    name = f"slope-{rows}-{columns}-{dtype}"
    made = Slope(rows, columns, dtype)
    meta = np.empty((0, 0), dtype)
    array = da.from_array(made, chunks=block, name=name, inline_array=True, meta=meta)
    return demoe.LazyImage.from_array(array, "YX")


def take_the_place_of_the_network() -> None:
    """From now on, each tile is given back as it came."""
    TileRunner.restore = lambda self, pixels, *rest, **options: pixels  # type: ignore[method-assign]


def peak_megabytes() -> int:
    """Return the most memory that this process had so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)
