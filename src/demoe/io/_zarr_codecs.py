"""Codecs of zarr chunks: those that are known to be harmless, and how much each may make."""

from __future__ import annotations

import bz2
import lzma
import math
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import zarr
from numcodecs.abc import Codec as Numcodec
from zarr.abc.codec import BytesBytesCodec, Codec
from zarr.codecs import ShardingCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer
from zarr.core.metadata.v2 import ArrayV2Metadata

from demoe.errors import ImageError
from demoe.io._source import unreadable
from demoe.limits import block_bytes, check_block, check_bytes, quoted

_SAME_SIZE = (
    *("shuffle", "delta", "quantize", "bitround", "fletcher32", "jenkins_lookup3"),
    *("crc32", "crc32c", "adler32"),
)
_WIDER = ("astype", "fixedscaleoffset", "packbits")
_WIDENING = 8
_SLACK = 2**18  # checksums, padding, and a last block of Zstandard that counts as full
_STRUCTURE = ("bytes", "endian", "transpose", "sharding_indexed")
_DEFLATE_RATIO = 1032  # zlib's technical notes: no stream grows more
_ZSTD_BLOCK = 128 * 2**10  # RFC 8878, 3.1.1.2.4
_STEP = 2**20
_INDEX_ENTRY = 16  # bytes a chunk in the index of a shard


def bounded(array: zarr.Array[Any], where: str) -> zarr.Array[Any]:
    """Return the array with codecs that refuse to make more than a block may have.

    Parameters
    ----------
    array : zarr.Array
        Of zarr v2 or v3.
    where : str
        Its place, for the sentence.

    Raises
    ------
    ImageError
        If it is packed with a codec of which it is not known how much it makes, or which runs
        programs (pickle); or if its chunks or shards are larger than is allowed.
    """
    metadata = array.metadata
    itemsize = np.dtype(array.dtype).itemsize
    check_block(where, array.chunks, itemsize, "chunk")
    stored = array.shards or array.chunks
    inside = math.prod(shard // chunk for shard, chunk in zip(stored, array.chunks, strict=True))
    if array.shards is not None:
        check_bytes(where, inside * _INDEX_ENTRY, "shard whose index")
    # Filters may widen what they are given eightfold; no sound chunk is larger before them.
    room = _WIDENING * math.prod(stored) * itemsize + inside * _INDEX_ENTRY + _SLACK
    limit = _Limit(where, min(room, block_bytes()))
    if isinstance(metadata, ArrayV2Metadata):
        filters = tuple(_numcodec(one, limit) for one in metadata.filters or ())
        compressor = metadata.compressor and _numcodec(metadata.compressor, limit)
        metadata = replace(metadata, filters=filters or None, compressor=compressor)
    else:
        metadata = replace(metadata, codecs=_codecs(metadata.codecs, limit))
    return zarr.Array(zarr.AsyncArray(metadata, array.store_path))


@dataclass(frozen=True)
class _Limit:
    """How much may be made of a chunk, and of which array."""

    where: str
    most: int

    def check(self, name: str, data: Any) -> None:
        """Refuse a chunk that would be larger when it is unpacked with the codec of a name."""
        if name in _SIZES:
            made = _SIZES[name](bytes(data), self.most)
        else:
            made = memoryview(data).nbytes * (_WIDENING if name in _WIDER else 1)
        check_bytes(self.where, made, "chunk")
        if made > self.most:
            raise unreadable(self.where, "a chunk would unpack to more than its shape can hold")


def _codecs(codecs: Iterable[Codec], limit: _Limit) -> tuple[Codec, ...]:
    return tuple(_codec(one, limit) for one in codecs)


def _codec(codec: Codec, limit: _Limit) -> Codec:
    if isinstance(codec, ShardingCodec):
        return replace(codec, codecs=_codecs(codec.codecs, limit))
    name = _check_name(str(codec.to_dict()["name"]), limit.where)
    return _Bounded(codec, name, limit) if isinstance(codec, BytesBytesCodec) else codec


def _numcodec(codec: Any, limit: _Limit) -> Numcodec:
    return _BoundedNumcodec(codec, _check_name(str(codec.codec_id), limit.where), limit)


def _check_name(name: str, where: str) -> str:
    name = name.removeprefix("numcodecs.")
    if name not in (*_SAME_SIZE, *_WIDER, *_STRUCTURE, *_SIZES):
        raise ImageError(
            f"{where} is packed with the codec {quoted(name)}, which is not read, since it could "
            f"do anything; {', '.join(_SIZES)} are."
        )
    return name


@dataclass(frozen=True)
class _Bounded(BytesBytesCodec):
    """A codec of zarr v3 that looks before it unpacks."""

    codec: BytesBytesCodec
    name: str
    limit: _Limit

    @property
    def is_fixed_size(self) -> bool:  # type: ignore[override]
        return self.codec.is_fixed_size

    def compute_encoded_size(self, length: int, spec: ArraySpec) -> int:
        return self.codec.compute_encoded_size(length, spec)

    def to_dict(self) -> dict[str, Any]:
        return dict(self.codec.to_dict())

    async def decode(
        self, chunks_and_specs: Iterable[tuple[Buffer | None, ArraySpec]]
    ) -> Iterable[Buffer | None]:
        chunks = list(chunks_and_specs)
        for chunk, _ in chunks:
            if chunk is not None:
                self.limit.check(self.name, chunk.to_bytes())
        return await self.codec.decode(chunks)


class _BoundedNumcodec(Numcodec):  # type: ignore[misc]
    """A codec or filter of zarr v2 that looks before it unpacks."""

    codec_id = "bounded"

    def __init__(self, codec: Any, name: str, limit: _Limit) -> None:
        self.codec, self.name, self.limit = codec, name, limit

    def get_config(self) -> Any:
        return self.codec.get_config()

    def encode(self, buf: Any) -> Any:
        return self.codec.encode(buf)

    def decode(self, buf: Any, out: Any = None) -> Any:
        self.limit.check(self.name, buf)
        return self.codec.decode(buf, out)


def _deflated(data: bytes, most: int) -> int:
    if len(data) * _DEFLATE_RATIO <= most:
        return len(data) * _DEFLATE_RATIO
    return _counted(data, most, lambda: zlib.decompressobj(zlib.MAX_WBITS | 32))


def _counted(data: bytes, most: int, start: Callable[[], Any]) -> int:
    """Unpack step by step, one stream after another, until the end or the limit."""
    made, unpack = 0, start()
    while made <= most:
        try:
            step = len(unpack.decompress(data, _STEP))
        except (zlib.error, lzma.LZMAError, OSError, EOFError):
            break  # the codec itself says what is damaged
        made += step
        data = getattr(unpack, "unconsumed_tail", b"")  # the others keep it themselves
        if unpack.eof:
            data, unpack = unpack.unused_data, start()
            if not data:
                break
        elif not (step or data):
            break
    return made


def _zstd(data: bytes, most: int) -> int:
    """Return what Zstandard frames unpack to at most, by their block headers (RFC 8878)."""
    at, made = 0, 0
    while at + 5 <= len(data):
        magic, flags = struct.unpack_from("<IB", data, at)
        if magic & 0xFFFFFFF0 == 0x184D2A50:  # a frame that is skipped
            at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
            continue
        if magic != 0xFD2FB528:
            break
        single = flags >> 5 & 1
        length = (0, 2, 4, 8)[flags >> 6] or single
        at += 5 + (not single) + (0, 1, 2, 4)[flags & 3]
        told = int.from_bytes(data[at : at + length], "little") + 256 * (length == 2)
        at += length
        summed, last = 0, False
        while not last and at + 3 <= len(data):
            header = int.from_bytes(data[at : at + 3], "little")
            last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
            summed += size if kind < 2 else _ZSTD_BLOCK
            at += 3 + (1 if kind == 1 else size)
        made += told if length else summed
        at += 4 * (flags >> 2 & 1)
    return made


_SIZES: dict[str, Callable[[bytes, int], int]] = {
    "blosc": lambda data, most: int.from_bytes(data[4:8], "little"),
    "lz4": lambda data, most: int.from_bytes(data[:4], "little"),
    "zstd": _zstd,
    "gzip": _deflated,
    "zlib": _deflated,
    "bz2": lambda data, most: _counted(data, most, bz2.BZ2Decompressor),
    "lzma": lambda data, most: _counted(data, most, lzma.LZMADecompressor),
}
"""How much each codec would make of the bytes that it is given, at most; counted until `most`."""
