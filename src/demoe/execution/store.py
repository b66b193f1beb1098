"""Tiles done so far, on disk: what survives a crash.

A store is a folder with the pixels (zarr, one chunk a tile), a description of what is computed, and
a journal of finished tiles. A tile enters the journal after its pixels are written, so whatever
interrupts a run costs at most the tiles in work. Where the machine itself went down, the disk may
hold an entry without its pixels; so each tile has a checksum, and is read once before it is reused.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import dask.array as da
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from demoe.errors import OutputError

Index = tuple[int, ...]

_PIXELS = "pixels.zarr"
_IDENTITY = "run.json"
_JOURNAL = "done"
_FAILED = "failed"


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
    """

    def __init__(self, folder: Path, array: da.Array) -> None:
        self.folder = folder
        self._array = array
        # Tiles of zeros are written too, so that a lost one shows.
        with zarr.config.set({"array.write_empty_chunks": True}):
            self._pixels = zarr.open_array(str(folder / _PIXELS), mode="r+")
        self.done = self._read_journal()
        self.failed = self._read_failed()
        self._journal = (folder / _JOURNAL).open("ab")

    @classmethod
    def create(cls, folder: Path, array: da.Array) -> Self:
        """Begin a store; whatever was in the folder is deleted."""
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
            (folder / _IDENTITY).write_text(json.dumps(_identity(array)))
            return cls(folder, array)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    @classmethod
    def resume(cls, folder: Path, array: da.Array) -> Self:
        """Open the store of an interrupted run.

        Raises
        ------
        OutputError
            If it belongs to another image, recipe or network.
        """
        try:
            found = json.loads((folder / _IDENTITY).read_text())
        except (OSError, ValueError):
            return cls.create(folder, array)  # interrupted before the first tile
        if found != _identity(array):
            raise OutputError(
                f"The unfinished run in {folder} is of another image, recipe or network, so it "
                "cannot be resumed; start over with overwrite, or write somewhere else."
            )
        store = cls(folder, array)
        store.done = {index for index in store.done if store._holds(index)}
        return store

    def put(self, index: Index, values: NDArray[Any], failed: Sequence[Index] = ()) -> None:
        """Keep a block and what failed in it, and then note that it is finished."""
        starts = [sum(sides[:i]) for i, sides in zip(index, self._array.chunks, strict=True)]
        at = tuple(slice(s, s + n) for s, n in zip(starts, values.shape, strict=True))
        self._pixels[at] = values
        if failed:
            with (self.folder / _FAILED).open("a") as file:
                file.write(f"\n{json.dumps(failed)}")
            self.failed.update(map(tuple, failed))
        self._journal.write(np.asarray(index, dtype="<u4").tobytes())
        self._journal.flush()
        self.done.add(index)

    def as_dask(self) -> da.Array:
        """Return the stored pixels as a dask array, in blocks of a tile."""
        stored: da.Array = da.from_zarr(self._pixels, inline_array=True)
        return stored

    def close(self) -> None:
        """Close the journal; the store stays."""
        self._journal.close()

    def delete(self) -> None:
        """Remove the store."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

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

    def _holds(self, index: Index) -> bool:
        """Whether a block's pixels are all there, as they were written."""
        if not self.folder.joinpath(_PIXELS, "c", *map(str, index)).is_file():
            return False
        try:
            self._pixels.blocks[index]
        except (OSError, RuntimeError, ValueError):
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
        raw = (self.folder / _JOURNAL).read_bytes()
        whole = len(raw) // size * size
        if whole < len(raw):
            with (self.folder / _JOURNAL).open("r+b") as file:
                file.truncate(whole)
        entries = np.frombuffer(raw[:whole], dtype="<u4").reshape(-1, self._array.ndim)
        return {tuple(entry) for entry in entries.tolist()}


def _identity(array: da.Array) -> dict[str, Any]:
    return {
        "name": array.name,
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "tile": list(array.chunksize),
    }
