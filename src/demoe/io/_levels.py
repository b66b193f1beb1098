"""An image in several sizes, each half the one before, and how they are made and read."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from demoe.image.axes import plane_axes
from demoe.io._shards import CHUNK, SHARD, Index, Shards, Span, create, order_of
from demoe.io._spread import Spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demoe.image.lazy_image import LazyImage

Progress = Callable[[int, int, str], None]
Reader = Callable[[Span], "NDArray[Any]"]
"""Reads a part of a level, with the axes in the order in which they are stored."""

PYRAMID_TOP = 512


def coarsen(pixels: NDArray[Any]) -> NDArray[Any]:
    """Halve rows and columns, the last two axes, by means of 2 x 2; edges count double."""
    odd = [(0, length % 2) for length in pixels.shape[-2:]]
    if any(after for _, after in odd):
        pixels = np.pad(pixels, [(0, 0)] * (pixels.ndim - 2) + odd, mode="edge")
    dtype = pixels.dtype
    if dtype.kind == "f":
        pixels = pixels.astype(np.result_type(dtype, np.float32), copy=False)
    a, b, c, d = (pixels[..., row::2, column::2] for row in (0, 1) for column in (0, 1))
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


def count_shards(image: LazyImage, shapes: Sequence[tuple[int, int]]) -> int:
    """Return how many shards `make_levels` makes, or reads where there is a single level."""
    grids = (math.prod(-(-n // SHARD) for n in shape) for shape in shapes[1:] or shapes)
    return image.n_planes * sum(grids)


def make_levels(
    root: Path,
    image: LazyImage,
    shapes: Sequence[tuple[int, int]],
    spread: Spread,
    tell: Callable[[int, int], None],
) -> list[Shards]:
    """Make the coarser levels of an image beside the first, from what is stored.

    Each stored pixel is read once on the way, so that what is damaged shows; of a single level too.

    Parameters
    ----------
    root : Path
        Folder of the levels; "0" is complete.
    image : LazyImage
        What it is of.
    shapes : sequence of (int, int)
        Rows and columns of all levels.
    spread : Spread
        Does what is to be done for each shard.
    tell : callable
        Told how many shards of how many are done.

    Returns
    -------
    list of Shards
        All levels.

    Raises
    ------
    LostTile
        If pixels are lost or damaged.
    """
    levels = [Shards(root / "0")]
    for number, shape in enumerate(shapes[1:], start=1):
        lengths = (*levels[0].shape[:-2], *shape)
        levels.append(create(root / str(number), order_of(image.axes), lengths, levels[0].dtype))
    total, count = count_shards(image, shapes), itertools.count(1)

    def after() -> None:
        tell(next(count), total)

    if len(levels) == 1:
        spread(Shards.check, ((levels[0], at) for at in levels[0]), after)
    for finer, coarser in itertools.pairwise(levels):
        spread(_halve, ((finer, coarser, at) for at in coarser), after)
    return levels


def in_memory(pixels: NDArray[Any], shapes: Sequence[tuple[int, int]]) -> list[Reader]:
    """Return the levels of an image in memory; its axes stand in the order of what is stored."""
    levels = [pixels]
    for _ in shapes[1:]:
        levels.append(coarsen(levels[-1]))
    return [level.__getitem__ for level in levels]


def take(
    reader: Reader, image: LazyImage, plane: tuple[int, ...], rows: slice, columns: slice
) -> NDArray[Any]:
    """Read a rectangle of a level: (rows, columns, samples), samples being 1 for gray.

    ``plane`` is an index along ``plane_axes(image.axes)``.
    """
    spans = {a: slice(n, n + 1) for a, n in zip(plane_axes(image.axes), plane, strict=True)}
    spans |= {"Y": rows, "X": columns, "S": slice(0, image.shape[-1])}
    order = order_of(image.axes)
    values = reader(tuple(spans[letter] for letter in order))
    samples = values.reshape(-1, *values.shape[-2:])  # all other axes have length 1
    return np.moveaxis(samples, 0, -1)


def _halve(finer: Shards, coarser: Shards, at: Index) -> None:
    """Make a shard of a level from the one above."""
    box = coarser.box(at)
    block = np.empty([part.stop - part.start for part in box], coarser.dtype)
    *lead, rows, columns = box
    across = slice(2 * columns.start, min(2 * columns.stop, finer.shape[-1]))
    for plane in itertools.product(*(range(part.start, part.stop) for part in lead)):
        for top in range(rows.start, rows.stop, CHUNK):
            bottom = min(top + CHUNK, rows.stop)
            down = slice(2 * top, min(2 * bottom, finer.shape[-2]))
            here = tuple(
                slice(n - part.start, n - part.start + 1)
                for n, part in zip(plane, lead, strict=True)
            )
            above = tuple(slice(n, n + 1) for n in plane)
            to = (*here, slice(top - rows.start, bottom - rows.start))
            block[to] = coarsen(finer.read((*above, down, across))[(0,) * len(lead)])
    coarser.write(at, block)
