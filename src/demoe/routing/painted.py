"""What a person painted: expert maps of any resolution, laid over the routing cells of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
from dask.base import compute
from numpy.typing import NDArray

from demoe.errors import AxesError, ImageError
from demoe.image.axes import plane_axes
from demoe.image.lazy_image import LazyImage
from demoe.limits import block_bytes


def paint(source: LazyImage, values: Any, pitch: int, count: int) -> PaintedMap:
    """Lay a person's map over the cells of an image.

    Parameters
    ----------
    source : LazyImage
        The image.
    values : array or LazyImage
        See `PaintedMap`. A map whose pixels have a size, in the image's own units, lies where that
        puts it.
    pitch, count : int
        As for `PaintedMap`.
    """
    along, step = plane_axes(source.axes), None
    if isinstance(values, LazyImage):
        given, values = values, values.data
        if sorted(given.axes) == sorted(along + "YX"):
            values = values.transpose([given.axes.index(letter) for letter in along + "YX"])
        if all(a in given.scale and given.units.get(a) == source.units.get(a) for a in "YX"):
            down, across = (given.scale[a] / source.scale.get(a, 1.0) for a in "YX")
            step = down, across
    return PaintedMap(values, source.plane_lengths, source.plane_shape, pitch, count, step)


class PaintedMap:
    """An expert map made by a person: 0 leaves the choice to the router, others force one.

    Parameters
    ----------
    values : array
        Integers of numpy, dask or zarr; (rows, cols) for all planes, or with the image's plane axes
        before them. The value at a cell's centre counts.
    planes : tuple of int
        Lengths of the image's plane axes, in the image's order.
    size : (int, int)
        Rows and columns of a plane in pixels.
    pitch : int
        Pixels a side of a cell.
    count : int
        Choices of the network: the largest value.
    step : (float, float), optional
        Rows and columns of pixels that a value stands for, from the plane's first corner on; what
        the map does not reach is left to the router. By default the map covers the plane: cell by
        cell if it has as many values as there are cells, as the expert map of a result has, whose
        last cells may be cut short by the border; else evenly.

    Attributes
    ----------
    cells : ndarray of uint8
        One value a routing cell, (rows, cols) or with plane axes before them.
    marked : ndarray of bool
        Whether anything is painted, for each plane.

    Raises
    ------
    ImageError
        If the values are no integers of 0 to ``count``.
    AxesError
        If the dimensions do not fit the image.
    """

    def __init__(
        self,
        values: Any,
        planes: tuple[int, ...],
        size: tuple[int, int],
        pitch: int,
        count: int,
        step: tuple[float, float] | None = None,
    ) -> None:
        # What is on disk is not brought into memory: of each cell, one value is needed.
        try:
            array = da.asarray(values) if hasattr(values, "chunks") else np.asarray(values)
        except ValueError:
            raise ImageError("An expert map must have rows of one length.") from None
        if array.dtype.kind not in "ui":
            raise ImageError(
                f"An expert map holds integers from 0 to {count}, not {array.dtype} values."
            )
        if array.ndim not in (2, 2 + len(planes)) or array.size == 0:
            stack = f", or {2 + len(planes)} axes as the image has" if planes else ""
            raise AxesError(
                f"An expert map has rows and columns{stack}, without colour samples, but this one "
                f"has the shape {array.shape}."
            )
        if array.ndim > 2 and array.shape[:-2] != planes:
            raise AxesError(
                f"The expert map is for {array.shape[:-2]} planes, but the image has {planes}."
            )
        (rows, y), (cols, x) = (
            _at_centres(size[i], pitch, array.shape[i - 2], None if step is None else step[i])
            for i in (0, 1)
        )
        cells = compute(array[..., y, :][..., x])[0]
        # A map that is larger than memory is looked at where it counts alone.
        whole = array if array.nbytes <= block_bytes() else cells
        lowest, highest = compute(whole.min(), whole.max())
        if lowest < 0 or highest > count:
            raise ImageError(
                f"An expert map holds integers from 0 to {count}, but this one goes from "
                f"{lowest} to {highest}."
            )
        reached = rows[:, None] & cols
        self.cells: NDArray[np.uint8] = np.where(reached, cells, 0).astype(np.uint8)
        self.marked: NDArray[np.bool_] = np.asarray(self.cells.any(axis=(-2, -1)))

    def labels(self, plane: Sequence[int], rows: range, cols: range) -> NDArray[np.uint8] | None:
        """Return what is painted on some cells, (len(rows), len(cols)); None on a bare plane."""
        at = tuple(plane)[: self.marked.ndim]
        if not self.marked[at]:
            return None
        cells: NDArray[np.uint8] = self.cells[at][rows.start : rows.stop, cols.start : cols.stop]
        return cells


def _at_centres(
    size: int, pitch: int, length: int, step: float | None
) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Return whether the centre of each cell falls on a map of ``length``, and on which value."""
    start = np.arange(0, size, pitch)
    if step is None and length == len(start):
        return np.ones(length, bool), np.arange(length)
    centre = (start + np.minimum(start + pitch, size)) / 2
    place = centre * length / size if step is None else centre / step
    at = np.minimum(place, length).astype(np.intp)  # a small step puts cells beyond all integers
    return at < length, np.minimum(at, length - 1)
