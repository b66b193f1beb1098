"""TIFF in: OME-TIFF, ImageJ and plain files, classic and BigTIFF; out is in `_tiff_writer`."""

from __future__ import annotations

import logging
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import tifffile

from demoe.errors import ImageError
from demoe.image.lazy_image import BLOCK_SIDE, LazyImage
from demoe.io._series import series_number
from demoe.io._source import file_state, unreadable
from demoe.io._tiff_file import opened_tiff
from demoe.io._tiff_metadata import name_axes, read_metadata
from demoe.io._tiff_pixels import TiffSource, page_dims, segment_count, segment_shape
from demoe.limits import check_block

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DAMAGE = re.compile(
    "invalid page offset|invalid offset to page|corrupted tag list|circular reference|"
    "metadata or corrupted|metadata invalid or corrupted"
)

BLOCK_BYTES = 8 * 2**20
_INTENSITIES = {0, 1, 2, 3, 6, 32803, 34892}  # black or white is zero, RGB, palette, YCbCr, raw


def open_tiff(path: str, axes: str | None, wanted: int | str, name: str) -> LazyImage:
    """Open one series of a TIFF file, full resolution, without reading pixels.

    Parameters
    ----------
    path : str
        An existing file.
    axes : str, optional
        One letter of TCZYXS for each dimension of the series as tifffile shapes it; from the file
        if left out.
    wanted : int or str
        Which image of the file, by number or name.
    name : str
        Name of the image.

    Returns
    -------
    LazyImage
        Blocks are tiles, or rows of a page of at most 8 MiB; one plane a block.

    Raises
    ------
    ImageError
        For a file that is no TIFF, is damaged, or holds no intensities (CMYK, bilevel).
    AxesError
        For axes that do not map to TCZYXS.
    """
    with _damage_is_an_error(path), opened_tiff(path) as file:
        series = series_number(path, wanted, [one.name for one in file.series])
        chosen = file.series[series]
        page = chosen.keyframe
        _check_page(path, chosen)
        shape = tuple(int(length) for length in chosen.shape)
        dtype = np.dtype(chosen.dtype).newbyteorder("=")
        source = TiffSource(path, shape, dtype, series)
        offset = chosen.dataoffset
        if offset is None:  # else pixels are taken from where they lie, and none is decoded
            check_block(
                path, segment_shape(page), dtype.itemsize, "tile" if page.is_tiled else "strip"
            )
        chunks = _chunks(shape, page_dims(chosen), page, anywhere=offset is not None)
        if offset is not None and offset + source_bytes(source) > file_state(path)[2]:
            raise ImageError(f"{path} is cut short: pixels are missing at its end.")
        metadata = read_metadata(file, series)
        letters = list(axes.upper()) if axes is not None else name_axes(path, chosen.axes, shape)
        data = source.lazy(chunks, "tiff")
        data, letters = _colours(data, letters, page, plain=not (file.is_ome or file.is_imagej))
    data, found = _arrange(data, letters, given=axes is not None)
    names = metadata.channel_names
    channels = data.shape[found.index("C")] if "C" in found else 1
    return LazyImage(
        data,
        found,
        metadata.scale,
        metadata.units,
        names if len(names) == channels else (),
        name,
        path,
        (source,),
    )


def tiff_series(path: str) -> list[str]:
    """List the images of a TIFF file by name."""
    with _damage_is_an_error(path), opened_tiff(path) as file:
        return [one.name for one in file.series]


@contextmanager
def _damage_is_an_error(path: str) -> Iterator[None]:
    """Turn damage that tifffile only logs, leaving out planes, into an ImageError."""
    thread = threading.get_ident()
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if record.thread == thread and _DAMAGE.search(text):
                said.append(text.rpartition("> ")[2])

    listener = Listener(logging.ERROR)
    logger = logging.getLogger("tifffile")
    logger.addHandler(listener)
    try:
        yield
    finally:
        logger.removeHandler(listener)
    if said:
        raise unreadable(path, said[0])


def source_bytes(source: TiffSource) -> int:
    """Size of the pixels in memory."""
    return int(np.prod(source.shape, dtype=np.int64)) * source.dtype.itemsize


def _check_page(path: str, series: tifffile.TiffPageSeries) -> None:
    page = series.keyframe
    if series.dtype is None or not series.shape or 0 in series.shape:
        raise ImageError(f"{path} holds a page without pixels or of an unknown type.")
    missing = segment_count(page) - len(page.dataoffsets)
    # Some scanners leave out a last row of empty tiles.
    if missing > (math.ceil(page.imagewidth / page.tilewidth) if page.is_tiled else 0):
        raise unreadable(path, f"{missing} strips or tiles are missing from its index")
    if page.bitspersample == 1:
        raise ImageError(
            f"{path} is a bilevel (1 bit) TIFF, but an image needs intensities of 8 bits or more."
        )
    if int(page.photometric) not in _INTENSITIES:
        colours = tifffile.PHOTOMETRIC(page.photometric).name
        raise ImageError(f"{path} holds {colours} colours, so convert it to RGB or gray first.")
    if series.transform is not None:
        raise ImageError(f"{path} stores its pages in a form that cannot be read block by block.")


def _chunks(
    shape: tuple[int, ...], in_page: int, page: tifffile.TiffPage, *, anywhere: bool
) -> tuple[int, ...]:
    """Whole tiles of about 512 pixels, or whole strips of at most 8 MiB; 1 along the stack.

    Where pixels lie one after another (`anywhere`), a block need not be whole tiles or strips.
    """
    chunks = [1] * (len(shape) - in_page) + list(shape[len(shape) - in_page :])
    letters = page.axes[-in_page:] if len(page.axes) >= in_page else page.axes
    for at, letter in zip(range(len(shape) - len(letters), len(shape)), letters, strict=True):
        if anywhere and letter in "YX":
            chunks[at] = 2 * BLOCK_SIDE
        elif page.is_tiled and letter in "YX":
            side = page.tilelength if letter == "Y" else page.tilewidth
            chunks[at] = side * max(1, BLOCK_SIDE // side)
        elif letter == "Y":
            row = page.imagewidth * page.samplesperpixel * np.dtype(page.dtype).itemsize
            strip = min(page.rowsperstrip or shape[at], shape[at])
            chunks[at] = strip * max(1, BLOCK_BYTES // (row * strip))
        elif letter in "ZI" or (letter == "S" and page.planarconfig == 2):
            chunks[at] = 1
    return tuple(min(chunk, length) for chunk, length in zip(chunks, shape, strict=True))


def _colours(
    data: da.Array, letters: list[str], page: tifffile.TiffPage, *, plain: bool
) -> tuple[da.Array, list[str]]:
    """Expand palettes and turn white-is-zero round, so that more is brighter."""
    if int(page.photometric) == 0 and data.dtype.kind == "u":
        return ~data, letters
    # In ImageJ and OME files the values are intensities and the palette is only how to show them.
    if int(page.photometric) == 3 and plain and page.colormap is not None:
        table = np.ascontiguousarray(page.colormap.T)
        if data.dtype == np.uint8 or table.max() < 256:
            table = (table >> (8 if table.max() > 255 else 0)).astype(np.uint8)
        colours: da.Array = da.map_blocks(
            _look_up,
            data,
            table=table,
            dtype=table.dtype,
            new_axis=[data.ndim],
            chunks=(*data.chunks, (3,)),
        )
        return colours, [*letters, "S"]
    return data, letters


def _look_up(block: NDArray[Any], table: NDArray[Any]) -> NDArray[Any]:
    colours: NDArray[Any] = table[block]
    return colours


def _arrange(data: da.Array, letters: list[str], *, given: bool) -> tuple[da.Array, str]:
    """Drop unnamed axes of length 1 and move separate colour samples to the end."""
    keep = tuple(slice(None) if letter else 0 for letter in letters)
    if not given and "" in letters:
        data = data[keep]
    found = "".join(letters)
    if not given and "S" in found and not found.endswith("S"):
        data = da.moveaxis(data, found.index("S"), -1)
        data = data.rechunk({data.ndim - 1: -1})
        found = found.replace("S", "") + "S"
    return data, found
