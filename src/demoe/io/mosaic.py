"""An image on the disk that is put together tile by tile, by many processes at once.

A tile is first kept in a file of its own. When all tiles that a shard of the array touches are
there, one process packs it, and its file appears whole. The file of a tile goes when all of its
shards are there. So wherever a process dies, a tile that was kept can be read: from its own file,
or from its shards.
"""

from __future__ import annotations

import itertools
import os
import uuid
from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator, MutableSet
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from demoe.io._shards import Index, LostTile, Shards, Span, create, order_of
from demoe.io.atomic import flush

__all__ = ["Index", "LostTile", "Mosaic", "Tiles"]

_PACKED = Zstd(level=1, checksum=True)


class Tiles(MutableSet[Index]):
    """A set of tiles of a grid; it takes a byte for each tile there is.

    Parameters
    ----------
    grid : tuple of int
        Number of tiles along each axis.
    """

    def __init__(self, grid: Index) -> None:
        self._inside = np.zeros(grid, np.bool_)
        self._count = 0

    @classmethod
    def _from_iterable(cls, found: Iterable[Any]) -> set[Any]:
        """Make what operators of sets return."""
        return set(found)

    def __contains__(self, index: Any) -> bool:
        """Whether it holds a tile."""
        return bool(self._inside[index])

    def __iter__(self) -> Iterator[Index]:
        """Give the tiles, in the order of the grid."""
        # By the first axis, so that few are listed at once.
        for first in range(len(self._inside)):
            for rest in np.argwhere(self._inside[first]).tolist():
                yield (first, *rest)

    def __len__(self) -> int:
        """Return how many it holds."""
        return self._count

    def add(self, index: Index) -> None:
        """Take a tile in."""
        self._count += not self._inside[index]
        self._inside[index] = True

    def discard(self, index: Index) -> None:
        """Leave a tile out."""
        self._count -= bool(self._inside[index])
        self._inside[index] = False

    def hold_all(self, ranges: Iterable[range]) -> bool:
        """Whether all tiles of a box are held."""
        return bool(self._inside[tuple(slice(r.start, r.stop) for r in ranges)].all())


class Mosaic:
    """An image on the disk, by its tiles. It travels to other processes, which see the same files.

    Parameters
    ----------
    tiles : Path
        Folder of tiles that are not in their shards yet.
    root : Path
        Folder of the zarr group; the pixels are its array "0".
    axes : str
        Axes of the image.
    chunks : tuple of tuple of int
        Sides of the tiles along each axis.

    Attributes
    ----------
    shards : Shards
        The array.
    """

    def __init__(
        self, tiles: Path, root: Path, axes: str, chunks: tuple[tuple[int, ...], ...]
    ) -> None:
        self.tiles, self.root, self.axes, self.chunks = tiles, root, axes, chunks
        self.shards = Shards(root / "0")

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what follows from the rest."""
        kept = ("tiles", "root", "axes", "chunks", "shards")
        return {name: value for name, value in vars(self).items() if name in kept}

    def create(self, dtype: np.dtype[Any]) -> None:
        """Make what is missing of the folders, and the array without pixels."""
        self.root.mkdir(exist_ok=True)
        self.tiles.mkdir(exist_ok=True)
        if not self.is_whole:
            order = order_of(self.axes)
            create(self.root / "0", order, [self.shape[self.axes.index(a)] for a in order], dtype)

    @property
    def is_whole(self) -> bool:
        """Whether there are a folder for tiles and an array, whatever they hold."""
        return self.tiles.is_dir() and self.shards.exists

    @property
    def shape(self) -> Index:
        """Lengths of the image."""
        return tuple(ends[-1] for ends in self._ends)

    @property
    def grid(self) -> Index:
        """Number of tiles along each axis."""
        return tuple(map(len, self.chunks))

    def box(self, index: Index) -> Span:
        """Return what a tile covers of the image."""
        parts = zip(index, self._ends, self.chunks, strict=True)
        return tuple(slice(ends[n] - sides[n], ends[n]) for n, ends, sides in parts)

    def tiles_in(self, box: Span) -> tuple[range, ...]:
        """Return the tiles that a part of the image lies in, as a range along each axis."""
        return tuple(
            range(bisect_right(ends, part.start), bisect_right(ends, part.stop - 1) + 1)
            for part, ends in zip(box, self._ends, strict=True)
        )

    def tiles_of(self, shard: Index) -> tuple[range, ...]:
        """Return the tiles that lie in a shard, as a range along each axis."""
        return self.tiles_in(self._as_image(self.shards.box(shard)))

    def shards_of(self, index: Index) -> Iterator[Index]:
        """Give the shards in which a tile lies."""
        return self.shards.touched(self._as_stored(self.box(index)))

    def put(self, index: Index, values: NDArray[Any]) -> None:
        """Keep a tile; its file appears whole or not at all.

        Raises
        ------
        LostTile
            If the folder for it is gone.
        """
        place = self._file(index)
        partial = place.with_name(f"{place.name}-{uuid.uuid4().hex[:12]}")
        try:
            partial.write_bytes(_PACKED.encode(np.ascontiguousarray(values)))
            os.replace(partial, place)
        except FileNotFoundError as error:
            raise LostTile(f"{self.tiles} is not there any more") from error
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise

    def ready(self, index: Index, done: Tiles) -> list[Index]:
        """Return the shards of a tile that can be packed: all of their tiles are done."""
        return [
            shard
            for shard in self.shards_of(index)
            if done.hold_all(self.tiles_of(shard)) and not self.shards.has(shard)
        ]

    def pack(self, shard: Index) -> None:
        """Write a shard from its tiles, wait until the disk has it, and drop tiles not needed more.

        Raises
        ------
        LostTile
            If one of its tiles is lost or damaged.
        """
        tiles = list(itertools.product(*self.tiles_of(shard)))
        if not self.shards.has(shard):
            box = self._as_image(self.shards.box(shard))
            block = np.empty([part.stop - part.start for part in box], self.shards.dtype)
            for index in tiles:
                _copy(self._kept(index), self.box(index), block, box)
            self.shards.write(shard, block.transpose(self._turn))
            flush(self.shards.file(shard))
            flush(self.shards.file(shard).parent)
        for index in tiles:
            if all(map(self.shards.has, self.shards_of(index))):
                self._file(index).unlink(missing_ok=True)

    def read(self, box: Span) -> NDArray[Any]:
        """Read a part of the image: one slice with step 1 for each axis.

        Raises
        ------
        LostTile
            If a tile that it touches is lost or damaged.
        """
        if all(map(self.shards.has, self.shards.touched(self._as_stored(box)))):
            return self._packed(box)
        out = np.empty([part.stop - part.start for part in box], self.shards.dtype)
        for index in itertools.product(*self.tiles_in(box)):
            whole = self.box(index)
            part = tuple(
                slice(max(a.start, b.start), min(a.stop, b.stop))
                for a, b in zip(whole, box, strict=True)
            )
            if self._file(index).is_file():
                with suppress(FileNotFoundError):  # packed and dropped in between
                    _copy(self._kept(index), whole, out, box)
                    continue
            _copy(self._packed(part), part, out, box)
        return out

    def holds(self, index: Index, packed: Container[Index]) -> bool:
        """Whether a tile is there: with sound pixels in its file, or in shards that are packed."""
        try:
            self._kept(index)
            return True
        except FileNotFoundError:
            pass
        except LostTile:
            self._file(index).unlink(missing_ok=True)
        return all(shard in packed for shard in self.shards_of(index))

    def drop_damaged(self) -> None:
        """Read all shards, and remove those that are damaged."""
        for shard in self.shards:
            if self.shards.has(shard):
                try:
                    self.shards.check(shard)
                except LostTile:
                    self.shards.file(shard).unlink(missing_ok=True)

    def _file(self, index: Index) -> Path:
        return self.tiles / "-".join(map(str, index))

    def _kept(self, index: Index) -> NDArray[Any]:
        """Read the file of a tile."""
        try:
            content = _PACKED.decode(self._file(index).read_bytes())
            values = np.frombuffer(content, self.shards.dtype)
            return values.reshape([part.stop - part.start for part in self.box(index)])
        except FileNotFoundError as error:
            raise _Gone(f"{error.filename} is not there any more") from error
        except (OSError, RuntimeError, ValueError) as error:
            raise LostTile(f"{self._file(index)} is damaged ({error})") from error

    def _packed(self, box: Span) -> NDArray[Any]:
        """Read a part of the image from the array."""
        return self.shards.read(self._as_stored(box)).transpose(self._turn_back)

    @cached_property
    def _ends(self) -> list[list[int]]:
        """Where tiles end, along each axis."""
        return [list(itertools.accumulate(sides)) for sides in self.chunks]

    @cached_property
    def _turn(self) -> list[int]:
        return [self.axes.index(letter) for letter in order_of(self.axes)]

    @cached_property
    def _turn_back(self) -> list[int]:
        return [order_of(self.axes).index(letter) for letter in self.axes]

    def _as_stored(self, box: Span) -> Span:
        return tuple(box[n] for n in self._turn)

    def _as_image(self, box: Span) -> Span:
        return tuple(box[n] for n in self._turn_back)


class _Gone(LostTile, FileNotFoundError):
    """The file of a tile is not there."""


def _copy(values: NDArray[Any], at: Span, into: NDArray[Any], box: Span) -> None:
    """Copy what a piece of an image and a box of it have in common."""
    to, of = [], []
    for mine, other in zip(at, box, strict=True):
        low, high = max(mine.start, other.start), min(mine.stop, other.stop)
        to.append(slice(low - other.start, high - other.start))
        of.append(slice(low - mine.start, high - mine.start))
    into[tuple(to)] = values[tuple(of)]
