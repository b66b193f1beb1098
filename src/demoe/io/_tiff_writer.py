"""OME-TIFF out: tiles streamed from stored pixels, a pyramid as SubIFDs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from demoe.errors import OutputError
from demoe.image.axes import plane_axes
from demoe.image.lazy_image import LazyImage
from demoe.io._levels import Reader, level_shapes, take
from demoe.io._spread import in_order
from demoe.io._tiff_metadata import ome_metadata

if TYPE_CHECKING:
    from numpy.typing import NDArray

TILE = 512
PYRAMID_FROM = 2048
BIG_BYTES = int(3.9e9)
_OME_TYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")


def check_tiff(path: Path, image: LazyImage) -> None:
    """Refuse what OME-TIFF cannot hold, before anything is computed."""
    if image.dtype.name not in _OME_TYPES:
        raise OutputError(
            f"{path} cannot hold {image.dtype} values, because OME-TIFF has no such type; use "
            ".ome.zarr."
        )


def tiff_shapes(image: LazyImage) -> list[tuple[int, int]]:
    """Return rows and columns of the levels that an image gets: more than one above 2048 pixels."""
    return level_shapes(*image.plane_shape, largest=PYRAMID_FROM)


def count_tiles(image: LazyImage) -> int:
    """Return how many tiles all levels have together."""
    grids = (math.prod(-(-n // TILE) for n in shape) for shape in tiff_shapes(image))
    return image.n_planes * sum(grids)


def write_tiff(
    target: Path,
    image: LazyImage,
    levels: Sequence[Reader],
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write an OME-TIFF, tile by tile.

    Parameters
    ----------
    target : Path
        A file that does not exist yet.
    image : LazyImage
        What is written; any axes; stored with Y, X and S last.
    levels : sequence of Reader
        Read the pixels, in each of the sizes of `tiff_shapes`.
    tell : callable
        Told how many tiles of how many are written.
    """
    shapes = tiff_shapes(image)
    size = math.prod(image.shape) * image.dtype.itemsize
    big = size * (4 / 3 if len(shapes) > 1 else 1) > BIG_BYTES
    total = count_tiles(image)
    count = itertools.count(1)
    with ExitStack() as stack:
        # Opened here, because tifffile leaves its file open when the first write fails.
        file = stack.enter_context(open(target, "w+b"))
        writer = stack.enter_context(tifffile.TiffWriter(file, ome=True, bigtiff=big))
        for level, (reader, shape) in enumerate(zip(levels, shapes, strict=True)):
            # A tile larger than the plane would only store padding.
            side = tuple(min(TILE, 16 * math.ceil(length / 16)) for length in shape)
            # Closed, because tifffile asks for no more than the last tile.
            with closing(_tiles(image, reader, shape, side)) as tiles:
                told = _telling(tiles, lambda: tell(next(count), total))
                _write_level(writer, image, shape, side, told, level, len(shapes) - 1)


def _write_level(
    writer: tifffile.TiffWriter,
    image: LazyImage,
    shape: tuple[int, int],
    tile: tuple[int, ...],
    tiles: Iterator[NDArray[Any]],
    level: int,
    below: int,
) -> None:
    letters = plane_axes(image.axes)
    stack = [image.shape[image.axes.index(letter)] for letter in letters]
    samples = [image.shape[-1]] if image.is_rgb else []
    stored = f"{letters}YX{'S' if samples else ''}"
    details: dict[str, Any] = {"subfiletype": 1, "metadata": None}
    if level == 0:
        details = {"subifds": below, "metadata": {**ome_metadata(image), "axes": stored}}
    if samples == [4]:
        details["extrasamples"] = ["unassalpha"]
    writer.write(
        tiles,
        shape=(*stack, *shape, *samples),
        dtype=image.dtype,
        tile=tile,
        photometric="rgb" if samples else "minisblack",
        planarconfig="contig" if samples else None,
        compression="zlib",
        # Differences of neighbours shrink integers well; for floats few readers know them.
        predictor=2 if image.dtype.kind in "ui" else None,
        **details,
    )


def _tiles(
    image: LazyImage, reader: Reader, shape: tuple[int, int], side: tuple[int, ...]
) -> Generator[NDArray[Any]]:
    """Read all tiles of a level, in the order in which TIFF has them, a few ahead."""
    planes = np.ndindex(*image.plane_lengths)
    tops, lefts = (range(0, n, length) for n, length in zip(shape, side, strict=True))

    def read(plane: tuple[int, ...], top: int, left: int) -> NDArray[Any]:
        rows, columns = (
            slice(start, min(start + length, n))
            for start, length, n in zip((top, left), side, shape, strict=True)
        )
        pixels = take(reader, image, plane, rows, columns)
        missing = [(0, full - have) for full, have in zip(side, pixels.shape, strict=False)]
        if any(after for _, after in missing):
            pixels = np.pad(pixels, (*missing, (0, 0)))
        return np.ascontiguousarray(pixels if image.is_rgb else pixels[..., 0])

    yield from in_order(read, itertools.product(planes, tops, lefts))


def _telling(tiles: Iterator[NDArray[Any]], tell: Callable[[], None]) -> Iterator[NDArray[Any]]:
    for tile in tiles:
        tell()  # before, because nobody asks for more than the last
        yield tile
