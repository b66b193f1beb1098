"""Pixels of one TIFF series: only the strips or tiles that a box touches are read and decoded."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from demoe.errors import ImageError
from demoe.io._pillow import check_picture_in
from demoe.io._source import FileSource, FileState, decoded, file_state
from demoe.io._tiff_file import opened_tiff
from demoe.limits import check_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

# JPEG, JPEG 2000, PNG and WebP: each tile says itself how large it is, whatever the tags say.
_PICTURES = {6, 7, 33003, 33004, 33005, 33007, 34712, 34892, 34927, 34933, 50001}


@dataclass(frozen=True)
class TiffSource(FileSource):
    """One series of a TIFF file at full resolution, axes as tifffile names them."""

    series: int

    def files(self) -> list[str]:
        """List the file, and others that an OME-TIFF names for its planes."""
        series = _parsed(file_state(self.path), self.series).series
        if not series.is_multifile:
            return [self.path]
        others = {page.parent.filehandle.path for page in series if page is not None}
        return [self.path, *sorted(others - {self.path})]

    def read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        """Read a box of the series."""
        parsed = _parsed(file_state(self.path), self.series)
        series = parsed.series
        if series.shape != self.shape or series.dtype.newbyteorder("=") != self.dtype:
            raise ImageError(f"{self.path} has changed since it was opened; open it again.")
        if series.dataoffset is not None:
            return _read_contiguous(self, parsed, box)
        return _read_pages(self, parsed, box)


@dataclass(frozen=True)
class ParsedSeries:
    """A parsed file, closed; its lock guards the file handles and the lazily parsed pages."""

    series: tifffile.TiffPageSeries
    lock: threading.Lock
    state: FileState


def page_dims(series: tifffile.TiffPageSeries) -> int:
    """How many of the last axes of a series lie within one page."""
    size = 1
    for count, length in enumerate(reversed(series.shape), start=1):
        size *= length
        if size == series.keyframe.size and _is_page(series.shape[-count:], series.keyframe):
            return count
    raise ImageError("The pages of the series do not add up to its shape.")


def _is_page(shape: tuple[int, ...], page: tifffile.TiffPage) -> bool:
    # Leading axes of length 1 may belong to either side; both readings are right.
    return [n for n in shape if n > 1] == [n for n in page.shape if n > 1]


@lru_cache(maxsize=8)
def _parsed(state: FileState, index: int) -> ParsedSeries:
    with opened_tiff(state[0]) as file:
        series = file.series[index]
        series.keyframe.decode  # noqa: B018 - builds the decoder while the file is open
        return ParsedSeries(series, threading.Lock(), state)


def _read_contiguous(
    source: TiffSource, parsed: ParsedSeries, box: tuple[slice, ...]
) -> NDArray[Any]:
    series = parsed.series
    offset = series.dataoffset
    dtype = series.dtype.newbyteorder(series.keyframe.parent.byteorder)
    if offset is None or offset + math.prod(series.shape) * dtype.itemsize > parsed.state[2]:
        raise ImageError(f"{source.path} is cut short: pixels are missing at its end.")
    mapped = np.memmap(source.path, dtype, "r", offset, series.shape)
    return np.array(mapped[box])


def _read_pages(source: TiffSource, parsed: ParsedSeries, box: tuple[slice, ...]) -> NDArray[Any]:
    series = parsed.series
    split = series.ndim - page_dims(series)
    out = np.empty([part.stop - part.start for part in box], source.dtype)
    stack_shape = series.shape[:split]
    ranges = [range(part.start, part.stop) for part in box[:split]]
    for indices in product(*ranges):
        number = int(np.ravel_multi_index(indices, stack_shape)) if indices else 0
        local = tuple(i - part.start for i, part in zip(indices, box, strict=False))
        _read_page(source, parsed, number, box[split:], out[local])
    return out


def _read_page(
    source: TiffSource,
    parsed: ParsedSeries,
    number: int,
    box: tuple[slice, ...],
    out: NDArray[Any],
) -> None:
    """Fill `out` with the box of page `number`."""
    with parsed.lock:
        handle = parsed.series.keyframe.parent.filehandle
        opened = handle.closed
        if opened:
            handle.open()
        try:
            page = parsed.series[number]
        finally:
            if opened:
                handle.close()
    if page is None:
        raise ImageError(f"{source.path} is incomplete: its plane {number} is missing.")
    keyframe = page.keyframe or parsed.series.keyframe
    full = _full_box(box, parsed.series.shape[-len(box) :] if box else (), keyframe.shaped)
    target = out.reshape([part.stop - part.start for part in full])
    for segment in _touched(keyframe, full):
        pixels, corner = _segment(source, parsed, page, number, segment)
        overlap = [
            (max(part.start, low), min(part.stop, low + length))
            for part, low, length in zip(full[:4], corner, pixels.shape[:4], strict=True)
        ]
        if any(low >= high for low, high in overlap):
            continue
        into = tuple(
            slice(low - part.start, high - part.start)
            for (low, high), part in zip(overlap, full, strict=False)
        )
        of = tuple(
            slice(low - at, high - at) for (low, high), at in zip(overlap, corner, strict=True)
        )
        target[into] = pixels[(*of, full[4])]


def _full_box(
    box: tuple[slice, ...], shape: tuple[int, ...], shaped: tuple[int, ...]
) -> tuple[slice, ...]:
    """Express a box in tifffile's five page axes: separate samples, depth, rows, columns, samples.

    Axes of length 1 take no part, so the remaining ones match one by one.
    """
    parts = iter([part for part, length in zip(box, shape, strict=True) if length > 1])
    return tuple(next(parts) if length > 1 else slice(0, 1) for length in shaped)


def _touched(keyframe: tifffile.TiffPage, box: tuple[slice, ...]) -> Iterator[int]:
    """Numbers of the strips or tiles that a box of the page touches."""
    counts, sides = _segments(keyframe)
    ranges = [
        range(part.start // side, math.ceil(part.stop / side))
        for part, side in zip(box, sides, strict=False)
    ]
    for place in product(*ranges):
        yield int(np.ravel_multi_index(place, counts))


def segment_count(page: tifffile.TiffPage) -> int:
    """How many strips or tiles a page of this size needs."""
    return math.prod(_segments(page)[0])


def segment_shape(page: tifffile.TiffPage) -> tuple[int, ...]:
    """Depth, rows, columns and samples of a strip or tile of a page when it is decoded."""
    return (*_segments(page)[1][1:], page.shaped[-1])


def _segments(page: tifffile.TiffPage) -> tuple[list[int], tuple[int, ...]]:
    """Count and size of strips or tiles along separate samples, depth, rows and columns."""
    separate, depth, rows, columns, _ = page.shaped
    if page.is_tiled:
        sides = (1, page.tiledepth, page.tilelength, page.tilewidth)
    else:
        sides = (1, 1, min(page.rowsperstrip or rows, rows), columns)
    lengths = (separate, depth, rows, columns)
    return [math.ceil(length / side) for length, side in zip(lengths, sides, strict=True)], sides


def _segment(
    source: TiffSource,
    parsed: ParsedSeries,
    page: tifffile.TiffPage | tifffile.TiffFrame,
    number: int,
    segment: int,
) -> tuple[NDArray[Any], tuple[int, ...]]:
    """Pixels of one strip or tile, (depth of samples, depth, rows, columns, samples), and place."""
    keyframe = page.keyframe or parsed.series.keyframe
    _, corner, _ = keyframe.decode(None, segment)

    def make() -> NDArray[Any]:
        return _decode(source, parsed, page, number, segment)

    if keyframe.compression == 1:  # as quick to read again as to keep
        return make(), corner[:4]
    state = parsed.state
    if parsed.series.is_multifile:
        state = file_state(page.parent.filehandle.path)
    return decoded.get((state, source.series, number, segment), make), corner[:4]


def _decode(
    source: TiffSource,
    parsed: ParsedSeries,
    page: tifffile.TiffPage | tifffile.TiffFrame,
    number: int,
    segment: int,
) -> NDArray[Any]:
    keyframe = page.keyframe or parsed.series.keyframe
    try:
        offset, count = page.dataoffsets[segment], page.databytecounts[segment]
    except IndexError:
        offset = count = 0
    if count == 0:  # a sparse file leaves out what is empty
        shape = keyframe.decode(None, segment)[2]
        return np.full((1, *shape), keyframe.nodata, keyframe.dtype)
    check_bytes(source.path, min(count, parsed.state[2]), "strip or tile")
    with parsed.lock:
        handle = page.parent.filehandle
        opened = handle.closed
        if opened:
            handle.open()
        try:
            handle.seek(offset)
            data = handle.read(count)
        finally:
            if opened:
                handle.close()
    if len(data) < count:
        raise ImageError(f"{source.path} is cut short: pixels of its plane {number} are missing.")
    if keyframe.compression in _PICTURES:
        check_picture_in(source.path, data)
    extra: dict[str, Any] = {}
    if page.jpegtables is not None:
        extra["jpegtables"] = page.jpegtables
    if keyframe.jpegheader is not None:
        extra["jpegheader"] = keyframe.jpegheader
    pixels, _, shape = keyframe.decode(data, segment, **extra)
    if pixels is None:
        return np.full((1, *shape), keyframe.nodata, keyframe.dtype)
    result: NDArray[Any] = np.array(pixels).reshape(1, *pixels.shape)
    return result
