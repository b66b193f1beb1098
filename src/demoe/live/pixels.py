"""The pixels of a result as they are now: tiles where they are done, elsewhere what lies under.

Levels are strided: pixel i of level n is pixel ``i * 2**n``, so that the levels of finished tiles
cost nothing, and no level has to be made beforehand.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
from dask.local import get_sync
from numpy.typing import NDArray

from demoe.image.axes import plane_axes
from demoe.io._source import split_index
from demoe.live.order import Where
from demoe.plan.tiling import Box

LEAST_SIDE = 512
"""Levels are added until none of the sides of a plane is longer than this in the last one."""

MUCH = 2**29
"""Pixels of the source above which a coarse level may be shown from a sparse sample of it."""

_READ = 2**30  # pixels in the blocks of the source that are then read, at most, more or less, and
_READ_AT_ONCE = 2**28  # where somebody waits for them
_LEAST_BLOCK = 2**19  # pixels that a smaller block counts as: it takes a time to find it
_SMALL = 32  # finished tiles are remembered at every so many pixels
_REMEMBERED = 65_536  # finished tiles, of a few kB each

Tile = Callable[[Where], NDArray[Any] | None]
"""Returns the pixels of a finished tile, with the axes of the image; None where it was lost."""


@dataclass(frozen=True)
class Touched:
    """A rectangle of tiles of a plane; there may be millions, so that nobody lists them."""

    plane: tuple[int, ...]
    rows: range
    cols: range

    def __contains__(self, where: Where) -> bool:
        """Whether a tile is one of them."""
        *plane, row, col = where
        return tuple(plane) == self.plane and row in self.rows and col in self.cols

    def among(self, done: Collection[Where]) -> list[Where]:
        """Return those of them that are in a collection, which may grow meanwhile."""
        if len(self.rows) * len(self.cols) > len(done):
            return sorted(where for where in tuple(done) if where in self)
        every = itertools.product(self.rows, self.cols)
        return [where for row, col in every if (where := (*self.plane, row, col)) in done]


class LivePixels:
    """The pixels of a result that is being made.

    Parameters
    ----------
    under : dask.array.Array
        What is shown where no tile is done, in full size: the source, or an earlier result.
    axes : str
        Its axes.
    side : (int, int)
        Rows and columns of a tile.
    tile : callable
        Reads a finished tile.
    done : collection of Where
        Those that are finished; it grows.
    pyramid : sequence of dask.array.Array
        Coarser levels of ``under`` that exist already.
    read : int
        Pixels of ``under`` that are read at once, at most, more or less: of what has more, and more
        than `MUCH`, a coarse level shows a sparse sample.
    """

    def __init__(
        self,
        under: da.Array,
        axes: str,
        side: tuple[int, int],
        tile: Tile,
        done: Collection[Where],
        pyramid: Sequence[da.Array] = (),
        read: int = _READ,
    ) -> None:
        self.axes, self.dtype = axes, under.dtype
        self.done = done
        self._under, self._pyramid = under, tuple(pyramid)
        self._side, self._tile, self._read = side, tile, read
        self._small: OrderedDict[Where, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()
        longest = max(under.shape[axes.index(a)] for a in "YX")
        self.levels = 1 + max(0, math.ceil(math.log2(longest / LEAST_SIDE)))

    def shape(self, level: int = 0) -> tuple[int, ...]:
        """Return the lengths of the axes in a level."""
        step = 2**level
        return tuple(
            -(-length // step) if letter in "YX" else length
            for letter, length in zip(self.axes, self._under.shape, strict=True)
        )

    def read(self, level: int, plane: tuple[int, ...], box: Box) -> NDArray[Any]:
        """Read a rectangle of a plane, as it is now.

        Parameters
        ----------
        level : int
            0 is full size.
        plane : tuple of int
            Index along the plane axes.
        box : Box
            In pixels of the level.

        Returns
        -------
        ndarray
            With the axes of the image, those of planes of length 1.
        """
        values = self._beneath(level, plane, box)
        for where in self.touched(level, plane, box).among(self.done):
            if (tile := self._at(level, where)) is not None:
                self.put(values, level, box, where, tile)
        return values

    def touched(self, level: int, plane: tuple[int, ...], box: Box) -> Touched:
        """Return the tiles that a rectangle of a level shows."""
        step = 2**level
        spans = ((box.top, box.bottom), (box.left, box.right))
        rows, cols = (
            range(start * step // side, ((stop - 1) * step) // side + 1)
            for (start, stop), side in zip(spans, self._side, strict=True)
        )
        return Touched(plane, rows, cols)

    def put(
        self, values: NDArray[Any], level: int, box: Box, where: Where, tile: NDArray[Any]
    ) -> None:
        """Put what a level shows of a tile into what was read of a rectangle.

        ``tile`` holds the pixels of the tile that lie on the level.
        """
        step = 2**level
        to, of = [], []
        sides = dict(zip("YX", self._side, strict=True))
        starts = dict(zip("YX", (box.top, box.left), strict=True))
        stops = dict(zip("YX", (box.bottom, box.right), strict=True))
        place = dict(zip("YX", where[-2:], strict=True))
        for axis, letter in enumerate(self.axes):
            if letter not in "YX":
                to.append(slice(None))
                of.append(slice(None))
                continue
            first = -(-place[letter] * sides[letter] // step)  # the tile's first pixel of the level
            low = max(starts[letter], first)
            high = min(stops[letter], first + tile.shape[axis])
            if high <= low:
                return
            to.append(slice(low - starts[letter], high - starts[letter]))
            of.append(slice(low - first, high - first))
        values[tuple(to)] = tile[tuple(of)]

    def on_level(self, level: int, where: Where, tile: NDArray[Any]) -> NDArray[Any]:
        """Return the pixels of a tile that lie on a level."""
        step = 2**level
        first = dict(
            zip("YX", (n * s for n, s in zip(where[-2:], self._side, strict=True)), strict=True)
        )
        return tile[
            tuple(
                slice(-first[letter] % step, None, step) if letter in "YX" else slice(None)
                for letter in self.axes
            )
        ]

    def remember(self, where: Where, tile: NDArray[Any]) -> None:
        """Keep a few pixels of a finished tile, for coarse levels."""
        with self._lock:
            self._small[where] = self.on_level(_SMALL.bit_length() - 1, where, tile).copy()
            if len(self._small) > _REMEMBERED:
                self._small.popitem(last=False)

    def _at(self, level: int, where: Where) -> NDArray[Any] | None:
        """Return what a level shows of a finished tile; None where it was lost."""
        step = 2**level
        with self._lock:
            small = self._small.get(where) if step >= _SMALL else None
        if small is None:
            tile = self._tile(where)
            if tile is None:
                return None
            if step >= _SMALL:
                self.remember(where, tile)
            return self.on_level(level, where, tile)
        first = [-(-n * side // _SMALL) for n, side in zip(where[-2:], self._side, strict=True)]
        starts = dict(zip("YX", (-n % (step // _SMALL) for n in first), strict=True))
        return small[
            tuple(
                slice(starts[letter], None, step // _SMALL) if letter in "YX" else slice(None)
                for letter in self.axes
            )
        ]

    def _beneath(self, level: int, plane: tuple[int, ...], box: Box) -> NDArray[Any]:
        step = 2**level
        source, own = self._level_below(level)
        step //= own
        area = (box.bottom - box.top) * (box.right - box.left) * 4**level
        sparse = self._sparse(source, step, box) if area > min(MUCH, self._read) else 1
        index = dict(zip(plane_axes(self.axes), plane, strict=True))
        lengths = dict(zip(self.axes, source.shape, strict=True))

        def part(letter: str) -> slice:
            if letter == "S":
                return slice(None)
            if letter in index:
                return slice(index[letter], index[letter] + 1)
            low, high = (box.top, box.bottom) if letter == "Y" else (box.left, box.right)
            return slice(low * step, min((high - 1) * step + 1, lengths[letter]), step * sparse)

        lazy = source[tuple(part(letter) for letter in self.axes)]
        values = np.asarray(lazy.compute(scheduler=get_sync))
        for letter, length in (("Y", box.bottom - box.top), ("X", box.right - box.left)):
            axis = self.axes.index(letter)
            if values.shape[axis] != length:  # sampled, or a pyramid that is a pixel short
                at = np.minimum(np.arange(length) // sparse, values.shape[axis] - 1)
                values = values.take(at, axis=axis)
        return values if values.flags.writeable and values.flags.owndata else values.copy()

    def _sparse(self, source: da.Array, step: int, box: Box) -> int:
        """Say of how many pixels a side, at a step of an array, one shall do for a rectangle."""
        block = math.prod(int(source.chunksize[self.axes.index(letter)]) for letter in "YX")
        reach = math.isqrt(self._read // max(block, _LEAST_BLOCK))  # blocks a side that may be read
        found = 1
        for letter, start, stop in (("Y", box.top, box.bottom), ("X", box.left, box.right)):
            side = source.chunksize[self.axes.index(letter)]
            if (stop - start) * step > reach * side:  # a sample a block, of so many
                found = max(found, -(-(stop - start) // reach))
        return found

    def _level_below(self, level: int) -> tuple[da.Array, int]:
        """Return the coarsest array that a level can be taken from, and its own step."""
        axis = self.axes.index("X")
        found, own = self._under, 1
        for coarser in self._pyramid:
            step = round(self._under.shape[axis] / coarser.shape[axis])
            if step > own and 2**level % step == 0:
                found, own = coarser, step
        return found, own


class Exact:
    """A level as an array that waits until all that is asked for is read.

    For writers, notebooks and servers; `demoe.live.glance.Glance` is for eyes.
    """

    def __init__(self, pixels: LivePixels, level: int = 0) -> None:
        self._pixels, self._level = pixels, level
        self.shape, self.dtype = pixels.shape(level), pixels.dtype
        self.ndim, self.size = len(self.shape), math.prod(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read by integers and slices."""
        box, rest = split_index(key, self.shape)
        return gather(
            self._pixels, box, lambda plane, at: self._pixels.read(self._level, plane, at)
        )[rest]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read all of it."""
        return np.asarray(self[...], dtype=dtype)


def coarser(array: da.Array, axes: str) -> list[da.Array]:
    """Return levels of an array that has no pyramid, each half as large as the one before.

    What nobody looks at is not read, and of very large parts a sparse sample is (`LivePixels`).

    Parameters
    ----------
    array : dask.array.Array
        In full size.
    axes : str
        Its axes.

    Returns
    -------
    list of dask.array.Array
        From fine to coarse, the last one up to `LEAST_SIDE` pixels a side.
    """
    pixels = LivePixels(array, axes, (1, 1), lambda _: None, (), read=_READ_AT_ONCE)
    return [
        da.from_array(
            exact,
            chunks=tuple(
                {"Y": LEAST_SIDE, "X": LEAST_SIDE, "S": -1}.get(letter, 1) for letter in axes
            ),
            name=False,
            meta=np.empty((0,) * exact.ndim, exact.dtype),
        )
        for exact in (Exact(pixels, level) for level in range(1, pixels.levels))
    ]


def gather(
    pixels: LivePixels,
    box: tuple[slice, ...],
    read: Callable[[tuple[int, ...], Box], NDArray[Any]],
) -> NDArray[Any]:
    """Put together what is read of each plane of a box."""
    parts = dict(zip(pixels.axes, box, strict=True))
    along = [range(parts[letter].start, parts[letter].stop) for letter in plane_axes(pixels.axes)]
    rows, cols = parts["Y"], parts["X"]
    found = np.empty([part.stop - part.start for part in box], pixels.dtype)
    if not found.size:
        return found
    at = Box(rows.start, cols.start, rows.stop, cols.stop)
    samples = parts.get("S", slice(None))
    for plane in itertools.product(*along):
        index = dict(zip(plane_axes(pixels.axes), plane, strict=True))
        place = tuple(
            slice(index[a] - parts[a].start, index[a] - parts[a].start + 1)
            if a in index
            else slice(None)
            for a in pixels.axes
        )
        values = read(plane, at)
        found[place] = values[..., samples] if "S" in parts else values
    return found
