"""Tiles on the disk beside the output, until all of them are done.

They are put together as what the output is made of (`demoe.io.mosaic`). Of zarr, that is the output
itself but for its name; other formats are streamed from it. A tile enters the journal after its
pixels. A crash of the machine may keep a journal entry without its pixels; so each file has a
checksum, and all pixels are read before the output gets its name. A tile that is lost or damaged is
never taken for zeros: reading it raises `LostTile`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from demoe.engine.reader import Read
from demoe.errors import OutputError
from demoe.execution.ledger import Ledger
from demoe.image.lazy_image import LazyImage
from demoe.io._shards import SHARD
from demoe.io._source import split_index
from demoe.io.atomic import Placing, flush, remove
from demoe.io.mosaic import Index, LostTile, Mosaic, Tiles

__all__ = ["Index", "Kept", "LostTile", "TileStore", "delete", "run_folder"]

_LAYOUT = 2
"""Changes with what a store consists of."""

_IDENTITY = "run.json"
_JOURNAL = "done"
_FAILED = "failed"
_READS = "reads"
_WHOLE = "whole.json"


@dataclass(frozen=True)
class Kept:
    """What is noted of a tile whose pixels are kept.

    Attributes
    ----------
    index : tuple of int
        The block.
    failed : sequence of tuple of int
        Cells of the expert map in which it holds its source.
    reads : sequence of Read
        What was read of the source since the last one.
    """

    index: Index
    failed: Sequence[Index] = ()
    reads: Sequence[Read] = ()


class TileStore:
    """The finished blocks of one dask array.

    Parameters
    ----------
    folder : Path
        Where the store is.
    image : LazyImage
        What is stored; its blocks are the tiles.
    number : int
        Tells this store's files from those of an earlier one in the same folder, which somebody may
        still be writing.

    Attributes
    ----------
    done : set of tuple of int
        Block indices that are finished.
    failed : set of tuple of int
        Cells of the expert map in which finished blocks hold their source.
    reads : Ledger
        What was read of the source.
    mosaic : Mosaic
        The pixels.
    """

    def __init__(
        self,
        folder: Path,
        image: LazyImage,
        number: int,
        described: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self._image, self._number = folder, image, number
        self._described = described or {}
        self.mosaic = _mosaic(folder, image, number)
        self.done = self._read_journal()
        self.failed = self._read_failed()
        self.reads = Ledger(folder / _READS)
        self._journal = (folder / _JOURNAL).open("ab")

    @classmethod
    def create(
        cls, folder: Path, image: LazyImage, described: Mapping[str, Any] | None = None
    ) -> Self:
        """Begin a store; whatever was in the folder is deleted.

        ``described`` says, JSON-able, what is computed; `description` gives it back.
        """
        remove(folder / _IDENTITY)  # first: without it, the rest is no store
        delete(folder)
        number = secrets.randbelow(10**9)
        try:
            folder.mkdir()
            _mosaic(folder, image, number).create(image.dtype)
            (folder / _JOURNAL).touch()
            # Last: a folder without it is no store.
            _describe(folder, image, number, described or {})
            return cls(folder, image, number, described)
        except BaseException:
            delete(folder)
            raise

    @classmethod
    def resume(
        cls, folder: Path, image: LazyImage, described: Mapping[str, Any] | None = None
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
            return cls.create(folder, image, described)  # interrupted before the first tile
        if found.get("layout") != _LAYOUT:
            raise OutputError(
                f"The unfinished run in {folder} was begun by another version of napari-demoe; "
                "finish it with that, start over with overwrite, or write somewhere else."
            )
        if found["tiles"] != _tiles(image):
            raise OutputError(
                f"The unfinished run in {folder} is of an image of another size or type or has "
                "other tiles, so it cannot be resumed; start over with overwrite, or write "
                "somewhere else."
            )
        store = cls(folder, image, found["number"], found["described"])
        store.check()
        return store

    @staticmethod
    def description(folder: Path) -> dict[str, Any] | None:
        """Return how the tiles in a folder were described; None if there is no store."""
        found = _identity_in(folder)
        return None if found is None else dict(found["described"])

    def describe(self, described: Mapping[str, Any]) -> None:
        """Describe what is computed in other words."""
        self._described = described
        _describe(self.folder, self._image, self._number, described)

    def put(
        self,
        index: Index,
        values: NDArray[Any],
        failed: Sequence[Index] = (),
        reads: Sequence[Read] = (),
    ) -> None:
        """Keep a block, what failed in it and was read for it, and note that it is finished."""
        self.mosaic.put(index, values)
        try:
            for shard in self.note([Kept(index, failed, reads)]):
                self.mosaic.pack(shard)
        except LostTile:
            self.check(pixels=True)  # one that was there before; this one is

    def note(self, kept: Sequence[Kept]) -> list[Index]:
        """Note that blocks are finished whose pixels are in the mosaic.

        Returns
        -------
        list of tuple of int
            Shards of the mosaic that can be packed now.
        """
        failed = [cell for one in kept for cell in one.failed]
        if failed:
            with (self.folder / _FAILED).open("a") as file:
                file.write(f"\n{json.dumps(failed)}")
            self.failed.update(map(tuple, failed))
        self.reads.add(read for one in kept for read in one.reads)
        self._journal.write(np.asarray([one.index for one in kept], dtype="<u4").tobytes())
        self._journal.flush()
        os.fsync(self._journal.fileno())
        ready: dict[Index, None] = {}
        for one in kept:
            self.done.add(one.index)
        for one in kept:
            ready |= dict.fromkeys(self.mosaic.ready(one.index, self.done))
        return list(ready)

    def missing(self) -> Iterator[Index]:
        """Give the blocks that are not done, those of a shard one after the other."""
        axes, grid = self._image.axes, self.mosaic.grid
        least = dict(zip("YX", (SHARD, SHARD), strict=True))
        sides = [
            max(1, least.get(axis, 0) // chunks[0])
            for axis, chunks in zip(axes, self.mosaic.chunks, strict=True)
        ]
        starts = (range(0, n, side) for n, side in zip(grid, sides, strict=True))
        for corner in itertools.product(*starts):
            ends = (min(n + side, most) for n, side, most in zip(corner, sides, grid, strict=True))
            for index in itertools.product(*map(range, corner, ends)):
                if index not in self.done:
                    yield index

    def unpacked(self) -> Iterator[Index]:
        """Give the shards that are not packed."""
        return (shard for shard in self.mosaic.shards if not self.mosaic.shards.has(shard))

    def check(self, *, pixels: bool = False) -> None:
        """Forget the tiles that are lost or damaged, so that they are computed again.

        Parameters
        ----------
        pixels : bool
            Read those in shards, too; else it is enough that there is a file.
        """
        if not self.mosaic.is_whole:  # somebody removed what is no tile, or all of it
            self.folder.mkdir(exist_ok=True)
            self.mosaic.create(self._image.dtype)
            self.describe(self._described)
        if pixels:
            self.mosaic.drop_damaged()
        packed = {shard for shard in self.mosaic.shards if self.mosaic.shards.has(shard)}
        for index in list(self.done):
            if not self.mosaic.holds(index, packed):
                self.done.discard(index)

    def as_dask(self) -> da.Array:
        """Return the stored pixels as a dask array, in blocks of a tile.

        Computing a block that is lost or damaged raises `LostTile`.
        """
        stored: da.Array = da.from_array(
            _Stored(self.mosaic, self._image),
            chunks=self._image.data.chunks,
            inline_array=True,
            fancy=False,
        )
        return stored

    def read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        """Read a part of the pixels: one slice with step 1 for each axis.

        Raises
        ------
        LostTile
            If a tile that it touches is lost or damaged.
        """
        return self.mosaic.read(box)

    def note_whole(self, placings: list[Placing]) -> None:
        """Note that all is written, and that only these names are to be given."""
        beside = self.folder.parent
        entries = [
            [p.partial.relative_to(beside).as_posix(), p.final.name, p.inode] for p in placings
        ]
        _write(self.folder / _WHOLE, entries)

    @staticmethod
    def whole(folder: Path) -> list[Placing]:
        """Return what `note_whole` noted in a folder, if all of it can still be done."""
        try:
            entries = json.loads((folder / _WHOLE).read_text())
            placings = [
                Placing(_place(folder, partial), folder.with_name(final), inode)
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

    def _read_failed(self) -> set[Index]:
        """Return the noted cells; a line cut off by a crash belongs to no finished block."""
        found: set[Index] = set()
        if (self.folder / _FAILED).exists():
            for line in (self.folder / _FAILED).read_text().splitlines():
                with contextlib.suppress(ValueError):
                    found.update(map(tuple, json.loads(line or "[]")))
        return found

    def _read_journal(self) -> Tiles:
        """Return the finished blocks; an entry cut off by a crash does not count."""
        done = Tiles(self.mosaic.grid)
        ndim = self._image.ndim
        try:
            raw = (self.folder / _JOURNAL).read_bytes()
        except FileNotFoundError:
            return done
        whole = len(raw) // (4 * ndim) * 4 * ndim
        if whole < len(raw):
            with (self.folder / _JOURNAL).open("r+b") as file:
                file.truncate(whole)
        entries = np.frombuffer(raw[:whole], dtype="<u4").reshape(-1, ndim)
        inside = (entries < np.asarray(self.mosaic.grid, "<u4")).all(axis=1)
        for entry in entries[inside].tolist():
            done.add(tuple(entry))
        return done


def run_folder(target: Path) -> Path:
    """Return where the tiles of a run are kept."""
    return target.with_name(f".{target.name}.demoe-run")


def delete(folder: Path) -> None:
    """Remove a store: last, what says that its output is whole."""
    if folder.is_dir():
        for place in (*folder.glob("tiles-*"), *folder.glob("image-*")):
            remove(place)
    for name in (_JOURNAL, _FAILED, _READS, _IDENTITY):
        remove(folder / name)
    remove(folder)


def _place(folder: Path, partial: str) -> Path:
    """Return what a noted name stands for: something beside a store, or in it."""
    owner, _, name = partial.rpartition("/")
    if owner not in ("", folder.name):
        raise ValueError(f"{partial} lies elsewhere")
    return folder.joinpath("x").with_name(name) if owner else folder.with_name(name)


class _Stored:
    """Stored pixels as dask slices them, here or in another process."""

    def __init__(self, mosaic: Mosaic, image: LazyImage) -> None:
        self._mosaic = mosaic
        self.shape, self.dtype = image.shape, image.dtype
        self.ndim = len(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read by integers and slices, as dask asks for it."""
        box, rest = split_index(key, self.shape)
        return self._mosaic.read(box)[rest]


def _mosaic(folder: Path, image: LazyImage, number: int) -> Mosaic:
    chunks = tuple(tuple(map(int, sides)) for sides in image.data.chunks)
    tiles, root = folder / f"tiles-{number}", folder / f"image-{number}"
    return Mosaic(tiles, root, image.axes, chunks)


def _tiles(image: LazyImage) -> dict[str, Any]:
    return {
        "axes": image.axes,
        "shape": list(image.shape),
        "dtype": str(image.dtype),
        "tile": [int(side) for side in image.data.chunksize],
    }


def _describe(folder: Path, image: LazyImage, number: int, described: Mapping[str, Any]) -> None:
    content = {"layout": _LAYOUT, "number": number, "tiles": _tiles(image), "described": described}
    _write(folder / _IDENTITY, content)


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
