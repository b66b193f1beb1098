"""Images as bands of rows, in order: each block is computed once, and memory stays bounded."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, product
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask.base import optimize

from demoe.image.axes import plane_axes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demoe.image.lazy_image import LazyImage

Progress = Callable[[int, int, str], None]
PYRAMID_TOP = 512
GRAPH_BLOCKS = 512


@dataclass(frozen=True)
class Band:
    """Some whole rows of one plane.

    Attributes
    ----------
    plane : tuple of int
        Index along the plane axes, in the image's own order.
    top : int
        First row.
    pixels : ndarray
        Rows, columns, samples (1 for gray).
    """

    plane: tuple[int, ...]
    top: int
    pixels: NDArray[Any]


def iter_bands(image: LazyImage, height: int, progress: Progress | None) -> Iterator[Band]:
    """Compute an image plane by plane and band by band.

    Parameters
    ----------
    image : LazyImage
        Any axes and chunks; a block that holds one plane is computed once.
    height : int
        Rows of a band; the last band of a plane may have fewer.
    progress : callable, optional
        Told the number of blocks done, of all blocks, and what is being done.

    Yields
    ------
    Band
        All planes in the order of `plane_axes(image.axes)`, each from top to bottom.
    """
    letters = plane_axes(image.axes)
    planes = list(np.ndindex(*(image.shape[image.axes.index(letter)] for letter in letters)))
    rows, columns = (len(image.data.chunks[image.axes.index(letter)]) for letter in "YX")
    total = len(planes) * rows * columns
    done = 0

    def report(blocks: int) -> None:
        nonlocal done
        done += blocks
        if progress is not None:
            progress(done, total, f"Writing {image.name}")

    block_rows = _block_rows(image, planes, rows, columns)
    for plane in planes:
        mine = (_compute_row(lazy, report) for lazy in islice(block_rows, rows))
        for top, pixels in _regroup(mine, height):
            yield Band(plane, top, pixels)


def coarsen(pixels: NDArray[Any]) -> NDArray[Any]:
    """Halve rows and columns of (rows, columns, samples) by means of 2 x 2; edges count double."""
    odd = [(0, length % 2) for length in pixels.shape[:2]]
    if any(after for _, after in odd):
        pixels = np.pad(pixels, (*odd, (0, 0)), mode="edge")
    dtype = pixels.dtype
    if dtype.kind == "f":
        pixels = pixels.astype(np.result_type(dtype, np.float32), copy=False)
    a, b, c, d = (pixels[row::2, column::2] for row in (0, 1) for column in (0, 1))
    means: NDArray[Any]
    if dtype.kind == "f":
        means = ((a + b + c + d) / 4).astype(dtype)
        return means
    # Quarters and their remainders apart, so that no sum leaves the type's range.
    means = (a >> 2) + (b >> 2) + (c >> 2) + (d >> 2)
    means += ((a & 3) + (b & 3) + (c & 3) + (d & 3) + 2) >> 2
    return means


def level_shapes(rows: int, columns: int, *, largest: int) -> list[tuple[int, int]]:
    """Sizes of a pyramid's levels, full size first, if a side is above `largest`; else only that.

    Each level is half the one before, rounded up, until both sides are at most 512.
    """
    shapes = [(rows, columns)]
    if max(rows, columns) > largest:
        while max(shapes[-1]) > PYRAMID_TOP:
            shapes.append((math.ceil(shapes[-1][0] / 2), math.ceil(shapes[-1][1] / 2)))
    return shapes


def _block_rows(
    image: LazyImage, planes: list[tuple[int, ...]], rows: int, columns: int
) -> Iterator[da.Array]:
    """Rows of blocks, (Y, X, S), of all planes in order, each with a small graph of its own."""
    units = iter(product(planes, range(rows)))
    # A look into the graph takes time by the blocks of the whole image, so many rows share one.
    while group := list(islice(units, max(1, GRAPH_BLOCKS // columns))):
        together: da.Array = da.concatenate(
            [_take_plane(image, plane).blocks[row] for plane, row in group]
        )
        small = optimize(together)[0]
        yield from (small.blocks[number] for number in range(len(group)))


def _take_plane(image: LazyImage, plane: tuple[int, ...]) -> da.Array:
    """One plane as (Y, X, S)."""
    index = dict(zip(plane_axes(image.axes), plane, strict=True))
    lazy = image.data[tuple(index.get(letter, slice(None)) for letter in image.axes)]
    if image.axes.index("Y") > image.axes.index("X"):
        lazy = lazy.swapaxes(0, 1)
    if not image.is_rgb:
        lazy = lazy[..., None]
    taken: da.Array = lazy.rechunk({2: -1})
    return taken


def _compute_row(lazy: da.Array, report: Callable[[int], None]) -> NDArray[Any]:
    """Compute one row of blocks, as many at a time as there are processors."""
    pixels = np.empty(lazy.shape, lazy.dtype)
    at_once = os.cpu_count() or 1
    left = 0
    for first in range(0, lazy.numblocks[1], at_once):
        part = lazy.blocks[:, first : first + at_once]
        pixels[:, left : left + part.shape[1]] = part.compute()
        left += part.shape[1]
        report(part.numblocks[1])
    return pixels


def _regroup(parts: Iterable[NDArray[Any]], height: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """Cut rows that come in parts of any height into bands, each with its first row."""
    top = 0
    waiting: list[NDArray[Any]] = []
    for part in parts:
        waiting.append(part)
        if sum(len(rows) for rows in waiting) < height:
            continue
        pixels = waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
        full = len(pixels) // height * height
        for start in range(0, full, height):
            yield top, pixels[start : start + height]
            top += height
        waiting = [pixels[full:].copy()] if full < len(pixels) else []
    if waiting:
        yield top, np.concatenate(waiting)
