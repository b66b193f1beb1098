"""OME-TIFF out: tiles streamed from the image, a pyramid as SubIFDs from what was computed once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import tifffile

from demoe.errors import OutputError
from demoe.image.axes import plane_axes
from demoe.image.lazy_image import LazyImage
from demoe.io._bands import Band, Progress, coarsen, iter_bands, level_shapes
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


def write_tiff(target: Path, image: LazyImage, progress: Progress | None) -> None:
    """Write an OME-TIFF, block by block.

    Parameters
    ----------
    target : Path
        A file that does not exist yet.
    image : LazyImage
        Any axes; stored with Y, X and S last. Planes with a side above 2048 pixels get a pyramid.
    progress : callable, optional
        Told about each block that was computed.
    """
    shapes = level_shapes(*image.plane_shape, largest=PYRAMID_FROM)
    size = math.prod(image.shape) * image.dtype.itemsize
    with ExitStack() as stack:
        # Each level but the last leaves the next one, still to be tiled, in an unnamed file.
        spools = [stack.enter_context(TemporaryFile(dir=target.parent)) for _ in shapes[1:]]
        big = size * (4 / 3 if spools else 1) > BIG_BYTES
        # Opened here, because tifffile leaves its file open when the first write fails.
        file = stack.enter_context(open(target, "w+b"))
        writer = stack.enter_context(tifffile.TiffWriter(file, ome=True, bigtiff=big))
        for level, shape in enumerate(shapes):
            if level == 0:
                bands = iter_bands(image, TILE, progress)
            else:
                bands = _spooled(spools[level - 1], image, shape)
            spool = spools[level] if level < len(spools) else None
            _write_level(writer, image, shape, _spooling(bands, spool), level, len(spools))


def _write_level(
    writer: tifffile.TiffWriter,
    image: LazyImage,
    shape: tuple[int, int],
    bands: Iterable[Band],
    level: int,
    below: int,
) -> None:
    letters = plane_axes(image.axes)
    stack = [image.shape[image.axes.index(letter)] for letter in letters]
    samples = [image.shape[-1]] if image.is_rgb else []
    # A tile larger than the plane would only store padding.
    tile = tuple(min(TILE, 16 * math.ceil(length / 16)) for length in shape)
    stored = f"{letters}YX{'S' if samples else ''}"
    details: dict[str, Any] = {"subfiletype": 1, "metadata": None}
    if level == 0:
        details = {"subifds": below, "metadata": {**ome_metadata(image), "axes": stored}}
    if samples == [4]:
        details["extrasamples"] = ["unassalpha"]
    writer.write(
        _tiles(bands, tile, gray=not samples),
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


def _tiles(bands: Iterable[Band], tile: tuple[int, ...], *, gray: bool) -> Iterator[NDArray[Any]]:
    height, width = tile
    for band in bands:
        for top in range(0, band.pixels.shape[0], height):
            for left in range(0, band.pixels.shape[1], width):
                pixels = band.pixels[top : top + height, left : left + width]
                missing = [(0, full - have) for full, have in zip(tile, pixels.shape, strict=False)]
                if any(after for _, after in missing):
                    pixels = np.pad(pixels, (*missing, (0, 0)))
                yield np.ascontiguousarray(pixels[..., 0] if gray else pixels)


def _spooling(bands: Iterable[Band], spool: IO[bytes] | None) -> Iterator[Band]:
    """Pass bands on and append each, halved, to the next level's file."""
    for band in bands:
        if spool is not None:
            spool.write(coarsen(band.pixels).tobytes())
        yield band


def _spooled(spool: IO[bytes], image: LazyImage, shape: tuple[int, int]) -> Iterator[Band]:
    """Read a level back, in bands."""
    spool.seek(0)
    rows, columns = shape
    samples = image.shape[-1] if image.is_rgb else 1
    for _ in range(image.n_planes):
        for top in range(0, rows, TILE):
            height = min(TILE, rows - top)
            data = spool.read(height * columns * samples * image.dtype.itemsize)
            yield Band((), top, np.frombuffer(data, image.dtype).reshape(height, columns, samples))
