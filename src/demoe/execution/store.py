"""Tiles done so far, on disk: what survives a crash.

A store is a folder with

- the pixels (zarr, one chunk a tile),
- a description of what is computed,
- a ledger of what was read of the source for it, see `demoe.execution.ledger`,
- a journal of finished tiles, and
- at the end, which whole files only need their names.

A tile enters the journal after its pixels and what was read for them, so whatever interrupts a run
costs at most the tiles in work. Where the machine itself went down, the disk may hold an entry
without its pixels; so each tile has a checksum, and is read before it is reused. A tile that is
lost or damaged is never taken for zeros: reading it raises `LostTile`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import dask.array as da
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from demoe.engine.reader import Read
from demoe.errors import OutputError
from demoe.execution.ledger import Ledger
from demoe.io._source import split_index
from demoe.io.atomic import Placing, flush, remove

Index = tuple[int, ...]

_PIXELS = "pixels.zarr"
_IDENTITY = "run.json"
_JOURNAL = "done"
_FAILED = "failed"
_READS = "reads"
_WHOLE = "whole.json"


class LostTile(Exception):
    """A tile that was finished is not on the disk any more, or not as it was written."""


class TileStore:
    """The finished blocks of one dask array.

    Parameters
    ----------
    folder : Path
        Where the store is.
    array : dask.array.Array
        What is stored; its blocks are the tiles, and its name says what they depend on.

    Attributes
    ----------
    done : set of tuple of int
        Block indices that are finished.
    failed : set of tuple of int
        Cells of the expert map in which finished blocks hold their source.
    reads : Ledger
        What was read of the source.
    """

    def __init__(self, folder: Path, array: da.Array) -> None:
        self.folder = folder
        self._array = array
        # Tiles of zeros are written too, so that a lost one shows.
        with zarr.config.set({"array.write_empty_chunks": True}):
            self._pixels = zarr.open_array(str(folder / _PIXELS), mode="r+")
        self.done = self._read_journal()
        self.failed = self._read_failed()
        self.reads = Ledger(folder / _READS)
        self._journal = (folder / _JOURNAL).open("ab")

    @classmethod
    def create(
        cls, folder: Path, array: da.Array, described: Mapping[str, Any] | None = None
    ) -> Self:
        """Begin a store; whatever was in the folder is deleted.

        ``described`` says, JSON-able, what is computed; `description` gives it back.
        """
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir()
            zarr.create_array(
                store=str(folder / _PIXELS),
                shape=array.shape,
                chunks=tuple(int(side) for side in array.chunksize),
                dtype=array.dtype,
                fill_value=0,
                compressors=ZstdCodec(level=0, checksum=True),
            )
            (folder / _JOURNAL).touch()
            # Last: a folder without it is no store.
            _describe(folder, array, described or {})
            return cls(folder, array)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    @classmethod
    def resume(
        cls, folder: Path, array: da.Array, described: Mapping[str, Any] | None = None
    ) -> Self:
        """Open the store of an interrupted run, or begin one.

        Raises
        ------
        OutputError
            If its tiles are cut otherwise. Whether they are of the same image, recipe and network,
            the caller tells by `description`.
        """
        found = _identity_in(folder)
        if found is None:
            return cls.create(folder, array, described)  # interrupted before the first tile
        if found["tiles"] != _tiles(array):
            raise OutputError(
                f"The unfinished run in {folder} is of an image of another size or type or has "
                "other tiles, so it cannot be resumed; start over with overwrite, or write "
                "somewhere else."
            )
        store = cls(folder, array)
        store.check()
        return store

    @staticmethod
    def description(folder: Path) -> dict[str, Any] | None:
        """Return how the tiles in a folder were described; None if there is no store."""
        found = _identity_in(folder)
        return None if found is None else dict(found["described"])

    def describe(self, described: Mapping[str, Any]) -> None:
        """Describe what is computed in other words."""
        _describe(self.folder, self._array, described)

    def put(
        self,
        index: Index,
        values: NDArray[Any],
        failed: Sequence[Index] = (),
        reads: Iterable[Read] = (),
    ) -> None:
        """Keep a block, what failed in it and was read for it, and note that it is finished."""
        starts = [sum(sides[:i]) for i, sides in zip(index, self._array.chunks, strict=True)]
        at = tuple(slice(s, s + n) for s, n in zip(starts, values.shape, strict=True))
        self._pixels[at] = values
        if failed:
            with (self.folder / _FAILED).open("a") as file:
                file.write(f"\n{json.dumps(failed)}")
            self.failed.update(map(tuple, failed))
        self.reads.add(reads)
        self._journal.write(np.asarray(index, dtype="<u4").tobytes())
        self._journal.flush()
        os.fsync(self._journal.fileno())
        self.done.add(index)

    def check(self) -> None:
        """Forget the tiles that are lost or damaged, so that they are computed again."""
        self.done = {index for index in self.done if self._holds(index)}

    def as_dask(self) -> da.Array:
        """Return the stored pixels as a dask array, in blocks of a tile.

        Computing a block that is lost or damaged raises `LostTile`.
        """
        stored: da.Array = da.from_array(
            _Stored(self), chunks=self._pixels.chunks, inline_array=True, fancy=False
        )
        return stored

    def read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        """Read a part of the pixels: one slice with step 1 for each axis.

        Raises
        ------
        LostTile
            If a tile that it touches is lost or damaged.
        """
        touched = (
            range(part.start // side, -(-part.stop // side))
            for part, side in zip(box, self._pixels.chunks, strict=True)
        )
        for index in itertools.product(*touched):
            if not self._file_of(index).is_file():
                raise LostTile(f"{self.folder} has lost tile {index}")
        try:
            return np.asarray(self._pixels[box])
        except (OSError, RuntimeError, ValueError) as error:
            raise LostTile(f"{self.folder} has a damaged tile ({error})") from error

    def note_whole(self, placings: list[Placing]) -> None:
        """Note that all is written, and that only these names are to be given."""
        entries = [[p.partial.name, p.final.name, p.inode] for p in placings]
        _write(self.folder / _WHOLE, entries)

    @staticmethod
    def whole(folder: Path) -> list[Placing]:
        """Return what `note_whole` noted in a folder, if all of it can still be done."""
        try:
            entries = json.loads((folder / _WHOLE).read_text())
            placings = [
                Placing(folder.with_name(partial), folder.with_name(final), inode)
                for partial, final, inode in entries
            ]
        except (OSError, ValueError, TypeError):
            return []
        return placings if all(placing.is_possible for placing in placings) else []

    def close(self) -> None:
        """Close the journal and the ledger; the store stays."""
        self._journal.close()
        self.reads.close()

    def delete(self) -> None:
        """Remove the store."""
        self.close()
        delete(self.folder)

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the journal."""
        self.close()

    def _file_of(self, index: Index) -> Path:
        return self.folder.joinpath(_PIXELS, "c", *map(str, index))

    def _holds(self, index: Index) -> bool:
        """Whether a block's pixels are all there, as they were written."""
        starts = [at * side for at, side in zip(index, self._pixels.chunks, strict=True)]
        sides = zip(starts, self._pixels.chunks, self._pixels.shape, strict=True)
        try:
            self.read(tuple(slice(low, min(low + side, most)) for low, side, most in sides))
        except LostTile:
            return False
        return True

    def _read_failed(self) -> set[Index]:
        """Return the noted cells; a line cut off by a crash belongs to no finished block."""
        found: set[Index] = set()
        if (self.folder / _FAILED).exists():
            for line in (self.folder / _FAILED).read_text().splitlines():
                with contextlib.suppress(ValueError):
                    found.update(map(tuple, json.loads(line or "[]")))
        return found

    def _read_journal(self) -> set[Index]:
        """Return the finished blocks; an entry cut off by a crash does not count."""
        size = 4 * self._array.ndim
        try:
            raw = (self.folder / _JOURNAL).read_bytes()
        except FileNotFoundError:
            return set()
        whole = len(raw) // size * size
        if whole < len(raw):
            with (self.folder / _JOURNAL).open("r+b") as file:
                file.truncate(whole)
        entries = np.frombuffer(raw[:whole], dtype="<u4").reshape(-1, self._array.ndim)
        inside = (entries < np.asarray(self._array.numblocks, "<u4")).all(axis=1)
        return {tuple(entry) for entry in entries[inside].tolist()}


def run_folder(target: Path) -> Path:
    """Return where the tiles of a run are kept."""
    return target.with_name(f".{target.name}.demoe-run")


def delete(folder: Path) -> None:
    """Remove a store: last, what says that its output is whole."""
    remove(folder / _PIXELS)
    for name in (_JOURNAL, _FAILED, _READS, _IDENTITY):
        remove(folder / name)
    remove(folder)


class _Stored:
    """Stored pixels as dask slices them."""

    def __init__(self, store: TileStore) -> None:
        self._store = store
        self.shape = store._pixels.shape
        self.dtype = store._pixels.dtype
        self.ndim = len(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read by integers and slices, as dask asks for it."""
        box, rest = split_index(key, self.shape)
        return self._store.read(box)[rest]


def _tiles(array: da.Array) -> dict[str, Any]:
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "tile": [int(side) for side in array.chunksize],
    }


def _describe(folder: Path, array: da.Array, described: Mapping[str, Any]) -> None:
    _write(folder / _IDENTITY, {"tiles": _tiles(array), "described": described})


def _identity_in(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / _IDENTITY).read_text())
        return found if {"tiles", "described"} <= set(found) else None
    except (OSError, ValueError, TypeError):
        return None


def _write(place: Path, content: Any) -> None:
    """Write JSON whole or not at all, and wait for the disk."""
    partial = place.with_name(f"{place.name}.partial")
    partial.write_text(json.dumps(content))
    flush(partial)
    partial.replace(place)
    flush(place.parent)
