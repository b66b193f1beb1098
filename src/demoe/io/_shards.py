"""A sharded zarr array on the disk: one shard is one file, written whole by one writer.

Axes stand in one order, TCSZYX, whatever the image's own: planes are what is cut, and colour
samples lie where OME-Zarr has its channels.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

Index = tuple[int, ...]
Span = tuple[slice, ...]

CHUNK = 512
"""Side in pixels of what is read at once."""

SHARD = 2048
"""Side in pixels of what is written at once: a file, of 16 chunks."""

_ORDER = "TCSZYX"


class LostTile(Exception):
    """Pixels that were written are not on the disk any more, or not as they were written."""


class Shards:
    """A zarr array, by its shards.

    Parameters
    ----------
    folder : Path
        Of the array.

    Attributes
    ----------
    shape, sides : tuple of int
        Lengths of the array, and those of a shard, which may reach beyond it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getstate__(self) -> dict[str, Any]:
        """Travel as a name."""
        return {"folder": self.folder}

    @cached_property
    def _array(self) -> zarr.Array[Any]:
        # Chunks of zeros are written too, so that a lost one shows.
        with zarr.config.set({"array.write_empty_chunks": True}):
            return zarr.open_array(str(self.folder), mode="r+")

    @property
    def exists(self) -> bool:
        """Whether there is an array, whatever it holds."""
        return (self.folder / "zarr.json").is_file()

    @cached_property
    def shape(self) -> Index:
        """Lengths of the array."""
        return tuple(int(length) for length in self._array.shape)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Type of a value."""
        return np.dtype(self._array.dtype)

    @cached_property
    def sides(self) -> Index:
        """Lengths of a shard."""
        return tuple(int(side) for side in self._array.shards or self._array.chunks)

    @property
    def plane(self) -> Span:
        """All rows and columns."""
        return tuple(slice(0, length) for length in self.shape[-2:])

    @cached_property
    def grid(self) -> Index:
        """Number of shards along each axis."""
        return tuple(-(-n // side) for n, side in zip(self.shape, self.sides, strict=True))

    def __iter__(self) -> Iterator[Index]:
        """Give the indices of all shards."""
        return itertools.product(*map(range, self.grid))

    def box(self, at: Index) -> Span:
        """Return what a shard covers of the array."""
        return tuple(
            slice(n * side, min((n + 1) * side, length))
            for n, side, length in zip(at, self.sides, self.shape, strict=True)
        )

    def touched(self, box: Span) -> Iterator[Index]:
        """Give the shards that a part of the array lies in."""
        spans = zip(box, self.sides, strict=True)
        return itertools.product(*(range(p.start // s, -(-p.stop // s)) for p, s in spans))

    def file(self, at: Index) -> Path:
        """Return the file of a shard."""
        return self.folder.joinpath("c", *map(str, at))

    def has(self, at: Index) -> bool:
        """Whether a shard was written."""
        file = self.file(at)
        with suppress(FileNotFoundError):
            return os.stat(file).st_size > 0
        # A shared disk may remember for a while that it was not there: opening the folder asks.
        with suppress(OSError):
            os.close(os.open(file.parent, os.O_RDONLY))
            return os.stat(file).st_size > 0
        return False

    def write(self, at: Index, values: NDArray[Any]) -> None:
        """Write a shard; its file appears whole or not at all."""
        self._array[self.box(at)] = values

    def read(self, box: Span) -> NDArray[Any]:
        """Read a part of the array: one slice with step 1 for each axis.

        Raises
        ------
        LostTile
            If a shard that it touches is not there, or damaged.
        """
        for at in self.touched(box):
            if not self.has(at):
                raise LostTile(f"{self.file(at)} is not there any more")
        try:
            return np.asarray(self._array[box])
        except (OSError, RuntimeError, ValueError) as error:
            raise LostTile(f"{self.folder} has a damaged shard ({error})") from error

    def check(self, at: Index) -> None:
        """Read a shard, and raise `LostTile` if it is not there or damaged."""
        self.read(self.box(at))


def order_of(axes: str) -> str:
    """Return axes in the order in which they are stored."""
    return "".join(letter for letter in _ORDER if letter in axes)


def create(folder: Path, axes: str, shape: Sequence[int], dtype: np.dtype[Any]) -> Shards:
    """Make an array without pixels.

    Parameters
    ----------
    folder : Path
        Which must not exist.
    axes : str
        As `order_of` gives them.
    shape : sequence of int
        Lengths of the axes.
    dtype : dtype
        Of a value.
    """
    chunks = tuple(
        min(CHUNK, length) if letter in "YX" else 1
        for letter, length in zip(axes, shape, strict=True)
    )
    # A plane, with all colours of its pixels, so that a tile lies in few shards.
    shards = tuple(
        chunk * min(math.ceil(length / chunk), SHARD // CHUNK)
        if letter in "YX"
        else length
        if letter == "S"
        else 1
        for letter, length, chunk in zip(axes, shape, chunks, strict=True)
    )
    zarr.create_array(
        store=str(folder),
        shape=tuple(shape),
        chunks=chunks,
        shards=None if shards == chunks else shards,
        dtype=dtype,
        # With a checksum, or a chunk that is cut short or damaged would read as noise.
        compressors=ZstdCodec(level=3, checksum=True),
        fill_value=0,
        dimension_names=list((axes if "C" in axes else axes.replace("S", "C")).lower()),
    )
    return Shards(folder)
