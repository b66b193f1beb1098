"""Zarr at an address (http, https, s3 and others), read through fsspec where it is installed.

The same holds as for folders: nothing outside of the address that a person named, nothing without
bound, and what goes wrong is a sentence.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, product
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

import numpy as np
import zarr
from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore

from demoe.errors import ImageError
from demoe.io._source import FileSource, FileState
from demoe.io._zarr_store import check_text, is_text, open_array
from demoe.limits import TEXT_BYTES, block_bytes, check_bytes, quoted, shortened

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

_NEEDED = {
    **dict.fromkeys(("http", "https"), "fsspec and aiohttp"),
    **{"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"},
}
CONNECT_SECONDS = 10.0
SILENT_SECONDS = 60.0
"""How long a server may be silent before it counts as gone."""

TRIES = 3
"""How often a chunk is asked for when the line fails; what describes an image is asked for once."""

COUNTED = 10_000
"""Most chunks that are looked for one by one to count those that are missing."""

_WATCHED = 16
_AT_ONCE = 32


class _Gone(Exception):
    """The line failed, or the server did: another try may help."""


class RemoteStore(FsspecStore):
    """A folder at an address that is only read."""

    @property
    def root(self) -> str:
        """The address."""
        return str(self.fs.unstrip_protocol(self.path))

    async def get(
        self,
        key: str,
        prototype: BufferPrototype,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Read a file, or a part of it; ImageError if it cannot be had or is not to be read."""
        check_below(key, self.root)
        described = is_text(key)
        for attempt in range(1 if described else TRIES):
            if attempt:
                await asyncio.sleep(2.0**attempt / 4)
            try:
                found = await self._bytes(key, byte_range)
                break
            except _Gone as error:
                problem = error
        else:
            raise ImageError(f"{self.root} {problem}.") from problem
        if found is None:
            return None
        if described:
            check_text(self.root, key, found)
        return prototype.buffer.from_bytes(found)

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Read parts of files, see `get`."""
        wanted = [self.get(key, prototype, byte_range) for key, byte_range in key_ranges]
        return list(await asyncio.gather(*wanted))

    async def marks(self, key: str) -> tuple[str, ...] | None:
        """Return what tells one version of a file from the next; None if there is none.

        Raises
        ------
        ImageError
            If the server does not say.
        """
        check_below(key, self.root)
        try:
            found = await self._told(self.fs._info(self._place(key)))
        except _Gone as error:
            raise ImageError(f"{self.root} {error}.") from error
        known = ("size", "ETag", "LastModified", "Last-Modified", "Content-MD5")
        return None if found is None else tuple(str(found.get(name)) for name in known)

    def _place(self, key: str) -> str:
        return f"{self.path.rstrip('/')}/{key}"

    async def _bytes(self, key: str, byte_range: ByteRequest | None) -> bytes | None:
        """Read a file of bounded size; None if there is none."""
        most = TEXT_BYTES if is_text(key) else block_bytes()
        if isinstance(byte_range, RangeByteRequest):
            check_bytes(self.root, byte_range.end - byte_range.start, "chunk")
        if "http" in self.fs.protocol:
            return await self._told(self._by_http(key, byte_range, most), described=is_text(key))
        info = await self._told(self.fs._info(self._place(key)))
        if info is None or info.get("type") == "directory":
            return None
        start, end = _limits(byte_range, int(info["size"]))
        self._check_size(key, end - start, most)
        found = await self._told(self.fs._cat_file(self._place(key), start=start, end=end))
        return None if found is None else bytes(found)

    async def _by_http(self, key: str, byte_range: ByteRequest | None, most: int) -> bytes:
        """Ask for a file, and take no more of it than is allowed, whatever the server says."""
        session = await self.fs.set_session()
        headers = {"Accept-Encoding": "identity"}
        if (asked := _header(byte_range)) is not None:
            headers["Range"] = asked
        url = self.fs.encode_url(self._place(key))
        async with session.get(url, headers=headers) as answer:
            self.fs._raise_not_found_for_status(answer, url)
            self._check_size(key, answer.content_length or 0, most)
            parts, length = [], 0
            async for part in answer.content.iter_chunked(2**18):
                length += len(part)
                self._check_size(key, length, most)
                parts.append(part)
            found = b"".join(parts)
            if byte_range is not None and answer.status == 200:  # it gives whole files only
                start, end = _limits(byte_range, length)
                found = found[start:end]
        return found

    def _check_size(self, key: str, size: int, most: int) -> None:
        if size > most and is_text(key):
            raise ImageError(
                f"{self.root} has {quoted(key)} of more than {TEXT_BYTES >> 20} MiB, which are "
                "allowed."
            )
        check_bytes(self.root, size, "chunk")

    async def _told(self, asked: Coroutine[Any, Any, T], *, described: bool = False) -> T | None:
        """Await an answer; None if there is no such file.

        Stores that may not be listed say of files that are not there that they are forbidden:
        that is believed of what describes an image, of which several names are tried.
        """
        try:
            return await asked
        except (ImageError, MemoryError):
            raise
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        except TimeoutError as error:
            raise _Gone("did not answer in time") from error
        except Exception as error:  # those of aiohttp, botocore and others
            status = getattr(error, "status", None)
            forbidden = status in (401, 403) or isinstance(error, PermissionError)
            if forbidden and described:
                return None
            if forbidden:
                raise ImageError(f"{self.root} may not be read: the server forbids it.") from error
            if status is not None and not (status >= 500 or status == 429):
                raise ImageError(
                    f"{self.root} cannot be read: the server says {status}."
                ) from error
            words = shortened(" ".join(str(error).split()).rstrip("."))
            raise _Gone(f"cannot be reached ({words or type(error).__name__})") from error


def _limits(byte_range: ByteRequest | None, size: int) -> tuple[int, int]:
    """Start and end of a part of a file of known size."""
    if isinstance(byte_range, RangeByteRequest):
        return min(byte_range.start, size), min(byte_range.end, size)
    if isinstance(byte_range, OffsetByteRequest):
        return min(byte_range.offset, size), size
    if isinstance(byte_range, SuffixByteRequest):
        return max(0, size - byte_range.suffix), size
    return 0, size


def _header(byte_range: ByteRequest | None) -> str | None:
    if isinstance(byte_range, RangeByteRequest):
        return f"bytes={byte_range.start}-{byte_range.end - 1}"
    if isinstance(byte_range, OffsetByteRequest):
        return f"bytes={byte_range.offset}-"
    if isinstance(byte_range, SuffixByteRequest):
        return f"bytes=-{byte_range.suffix}"
    return None


def check_below(key: str, root: str) -> None:
    """Refuse a name that leads out of the address that a person named.

    Raises
    ------
    ImageError
        For "..", also written with percent signs, for other addresses, and for queries.
    """
    for part in key.split("/"):
        plain = unquote(unquote(part))
        if plain in ("..", ".") or any(sign in plain for sign in "/\\?#:\0\r\n"):
            raise ImageError(
                f"{root} points to {quoted(key)}, which lies outside of it and is not read."
            )


@lru_cache(maxsize=32)
def store_at(url: str) -> RemoteStore:
    """Return the store of an address; nothing is asked for yet.

    Raises
    ------
    ImageError
        For an address of an unknown kind, or one whose package is not installed.
    """
    parts = urlsplit(url)
    if parts.scheme not in _NEEDED or not parts.netloc or "::" in url:
        raise ImageError(
            f"{shortened(url)} is no address that is read; they begin with "
            f"{', '.join(f'{scheme}://' for scheme in _NEEDED)}."
        )
    if parts.query or parts.fragment:
        raise ImageError(
            f"{shortened(url)} has a '?' or '#', but an image is a folder of files, each with an "
            "address of its own; give the address of the folder."
        )
    try:
        found = RemoteStore.from_url(url.rstrip("/"), _options(parts.scheme), read_only=True)
    except ImportError:
        needed = _NEEDED[parts.scheme]
        raise ImageError(
            f"{shortened(url)} is read with {needed}: install napari-demoe[remote], or the package."
        ) from None
    assert isinstance(found, RemoteStore)
    return found


def _options(scheme: str) -> dict[str, Any]:
    if scheme in ("http", "https"):
        import aiohttp

        limits = {"sock_connect": CONNECT_SECONDS, "sock_read": SILENT_SECONDS}
        return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=None, **limits)}}
    if scheme == "s3":
        import botocore.session

        # Without credentials, what is public can still be read.
        known = botocore.session.get_session().get_credentials() is not None
        waits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": SILENT_SECONDS}
        return {"anon": not known, "config_kwargs": waits}
    return {}


@dataclass(frozen=True)
class RemoteSource(FileSource):
    """One zarr array at an address.

    Attributes
    ----------
    root : str
        The address that the person named: nothing outside of it is read.
    """

    root: str

    def state(self) -> FileState:
        """Tell one version of the array from the next by what it says of itself."""
        told = hashlib.blake2b(_described(_array(self.root, self.path)), digest_size=6)
        return self.path, int.from_bytes(told.digest()), 0, 0, 0

    def files(self) -> list[str]:
        """List nothing: addresses are no files."""
        return []

    def stamp(self) -> str:
        """Tell one version from the next by metadata, and size, time and tag of some chunks.

        Raises
        ------
        ImageError
            If the array is gone.
        """
        try:
            array = open_array(self.root, self.path)
        except FileNotFoundError as error:
            raise ImageError(f"{self.path} is not there any more.") from error
        keys = list(_chunk_keys(array, _WATCHED))
        found = hashlib.blake2b(_described(array), digest_size=16)
        found.update(repr(self._marks(array, keys)).encode())
        return found.hexdigest()

    def absent(self) -> int:
        """Count the chunks (of a sharded array the shards) that are not there.

        Only where there are `COUNTED` at most, since each is asked for by itself.

        Raises
        ------
        ImageError
            If there are some, and the array does not say what value they have.
        """
        array = open_array(self.root, self.path)
        if _grid_size(array) > COUNTED:
            return 0
        count = self._marks(array, list(_chunk_keys(array, COUNTED))).count(None)
        if count and array.metadata.fill_value is None:
            raise ImageError(
                f"{self.path} lacks {count} of {_grid_size(array)} chunks and does not say what "
                "value they have (no fill_value), so complete it first."
            )
        return count

    def read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        """Read a box of the array."""
        return np.asarray(_array(self.root, self.path)[box])

    def _marks(self, array: zarr.Array[Any], keys: list[str]) -> list[tuple[str, ...] | None]:
        store = store_at(self.root)
        prefix = f"{array.path}/" if array.path else ""

        async def ask() -> list[tuple[str, ...] | None]:
            free = asyncio.Semaphore(_AT_ONCE)

            async def one(key: str) -> tuple[str, ...] | None:
                async with free:
                    return await store.marks(prefix + key)

            return list(await asyncio.gather(*(one(key) for key in keys)))

        return sync(ask())


@lru_cache(maxsize=16)
def _array(root: str, path: str) -> zarr.Array[Any]:
    # Kept, since each opening asks the server several times.
    return open_array(root, path)


def _described(array: zarr.Array[Any]) -> bytes:
    return json.dumps(array.metadata.to_dict(), sort_keys=True, default=str).encode()


def _grid(array: zarr.Array[Any]) -> list[int]:
    sides = array.shards or array.chunks
    return [math.ceil(n / side) for n, side in zip(array.shape, sides, strict=True)]


def _grid_size(array: zarr.Array[Any]) -> int:
    return math.prod(_grid(array))


def _chunk_keys(array: zarr.Array[Any], most: int) -> Iterable[str]:
    """Names of chunks, or of shards: all, or some that are spread evenly."""
    grid = _grid(array)
    count = math.prod(grid)
    places: Iterable[tuple[int, ...]] = product(*(range(n) for n in grid))
    if count > most:
        numbers = sorted({number * count // most for number in range(most)})
        places = (tuple(int(i) for i in np.unravel_index(number, grid)) for number in numbers)
    return (array.metadata.encode_chunk_key(place) for place in islice(places, most))
