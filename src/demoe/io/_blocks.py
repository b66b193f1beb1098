"""The blocks of a lazy image, each computed once, into memory or onto the disk."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from dask.base import compute, optimize

from demoe.io._shards import order_of
from demoe.io._spread import over_threads
from demoe.io.mosaic import Index, Mosaic, Tiles

if TYPE_CHECKING:
    import dask.array as da
    from numpy.typing import NDArray

    from demoe.image.lazy_image import LazyImage
    from demoe.io._levels import Progress

IN_MEMORY = 2**27
"""Bytes up to which an image is computed in memory before it is written."""

GRAPH_BLOCKS = 512


def load(image: LazyImage, progress: Progress | None) -> NDArray[Any]:
    """Compute an image in memory; its axes are put in the order in which they are stored."""
    pixels = np.empty(image.shape, image.dtype)
    for index, values in _blocks(image, progress):
        starts = (sum(sides[:n]) for n, sides in zip(index, image.data.chunks, strict=True))
        pixels[tuple(slice(s, s + n) for s, n in zip(starts, values.shape, strict=True))] = values
    return pixels.transpose([image.axes.index(letter) for letter in order_of(image.axes)])


def store(image: LazyImage, mosaic: Mosaic, progress: Progress | None) -> None:
    """Compute an image into a mosaic that has its blocks as tiles."""
    mosaic.create(image.dtype)
    done = Tiles(mosaic.grid)
    for index, values in _blocks(image, progress):
        mosaic.put(index, values)
        done.add(index)
        over_threads(mosaic.pack, ((shard,) for shard in mosaic.ready(index, done)))
    mosaic.tiles.rmdir()


def _blocks(image: LazyImage, progress: Progress | None) -> Iterator[tuple[Index, NDArray[Any]]]:
    """Give all blocks and their indices, as many at a time as there are processors."""
    grid = image.data.numblocks
    total, done = math.prod(grid), 0
    indices = iter(np.ndindex(*grid))
    # A look into the graph takes time by the blocks of the whole image, so many share one.
    while group := list(islice(indices, GRAPH_BLOCKS)):
        small: tuple[da.Array, ...] = optimize(*(image.data.blocks[index] for index in group))
        at_once = os.cpu_count() or 1
        for first in range(0, len(group), at_once):
            part = slice(first, first + at_once)
            yield from zip(group[part], compute(*small[part]), strict=True)
            done += len(group[part])
            if progress is not None:
                progress(done, total, f"Writing {image.name}")
