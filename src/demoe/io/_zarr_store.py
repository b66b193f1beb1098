"""Zarr is read through this: nothing outside, nothing endless, no text without bound."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import zarr
from zarr.abc.store import ByteRequest, RangeByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from demoe.errors import ImageError
from demoe.io._inside import check_plain, inside
from demoe.io._zarr_codecs import bounded
from demoe.io.names import ZARR_MARKERS, is_url
from demoe.limits import TEXT_BYTES, check_bytes, parse_json, quoted

_TEXTS = (*ZARR_MARKERS, ".zmetadata")


class BoundedStore(LocalStore):
    """A folder that is only read, and of which links lead nowhere else."""

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Read a file, or a part of it; ImageError if it is not to be read."""
        size = self._check(key, byte_range)
        if size is None:
            return None
        found = await super().get(key, prototype, byte_range)
        if found is not None and is_text(key):
            check_text(self.root, key, found.to_bytes())
        return found

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Read parts of files, see `get`."""
        wanted = list(key_ranges)
        for key, byte_range in wanted:
            self._check(key, byte_range)
        return await super().get_partial_values(prototype, wanted)

    def _check(self, key: str, byte_range: ByteRequest | None) -> int | None:
        """Return the size of the file, None if there is none; refuse what is not to be read."""
        size = check_plain(inside(self.root, key, self.root), self.root)
        if size is None:
            return None
        if is_text(key) and size > TEXT_BYTES:
            raise ImageError(
                f"{self.root} has {quoted(key)} of {size >> 20} MiB; at most {TEXT_BYTES >> 20} "
                "MiB are allowed."
            )
        wanted = size
        if isinstance(byte_range, RangeByteRequest):
            wanted = byte_range.end - byte_range.start
        check_bytes(self.root, wanted, "chunk")
        return size


def is_text(key: str) -> bool:
    """Whether a file of this name describes something, rather than holding pixels."""
    return os.path.basename(key) in _TEXTS


def check_text(root: object, key: str, text: bytes) -> None:
    """Refuse a description that is no JSON, or nested without end."""
    try:
        parse_json(text)
    except ValueError as error:
        raise ImageError(
            f"{root} has damaged zarr metadata: {quoted(key)} cannot be read ({error})."
        ) from error


def below(place: str, name: str) -> str:
    """Return the place of a name within a folder, or below an address."""
    return f"{place.rstrip('/')}/{name}" if is_url(place) else str(Path(place) / name)


def open_node(root: str, place: str | Path) -> zarr.Group | zarr.Array[Any]:
    """Open a group or an array within the folder or address `root`, which the person named.

    Raises
    ------
    ImageError
        If it lies outside, or its codecs or chunks are not to be read.
    FileNotFoundError
        If there is none.
    """
    store, path = _find(root, place)
    node = zarr.open(store, path=path, mode="r", use_consolidated=False)
    return bounded(node, str(place)) if isinstance(node, zarr.Array) else node


def open_array(root: str, place: str | Path) -> zarr.Array[Any]:
    """Open an array, see `open_node`."""
    store, path = _find(root, place)
    return bounded(zarr.open_array(store, path=path, mode="r"), str(place))


def _find(root: str, place: str | Path) -> tuple[Store, str]:
    """Return the store of a folder or address, and how a place within it is called there."""
    if is_url(root):
        from demoe.io._zarr_remote import check_below, store_at

        key = str(place).removeprefix(root.rstrip("/")).strip("/")
        if key:
            check_below(key, root)
        return store_at(root), key
    name = os.path.relpath(place, root)
    inside(root, name, root)
    return BoundedStore(root, read_only=True), "" if name == "." else name
