"""What was read of the source for the tiles of a store: so that a changed source is found.

Size and time of a file say that it may have changed, not that it did. Each tile depends on pixels
around it and on samples from elsewhere, so all that was read is noted with a digest, in the order
in which tiles were finished; what is noted can be read again and compared.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from demoe.engine.reader import Read
from demoe.plan.tiling import Box

_ENTRY = struct.Struct("<7I16s")  # plane, box, digest; a checksum follows
_CHECK = struct.Struct("<I")
_SIZE = _ENTRY.size + _CHECK.size


class Ledger:
    """A file of reads, which grows.

    Parameters
    ----------
    path : Path
        Made if it does not exist. An entry that a crash cut off or spoilt, and what follows it, is
        dropped: no finished tile depends on it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("a+b")
        self._file.truncate(sum(_SIZE for _ in self._raw()))

    def add(self, reads: Iterable[Read]) -> None:
        """Append reads, and wait until the disk has them."""
        for read in reads:
            box = read.box
            place = (*read.plane, box.top, box.left, box.bottom, box.right)
            entry = _ENTRY.pack(*place, read.digest)
            self._file.write(entry + _CHECK.pack(zlib.crc32(entry)))
        self._file.flush()
        os.fsync(self._file.fileno())

    def __iter__(self) -> Iterator[Read]:
        """Give all reads."""
        for entry in self._raw():
            *plane, top, left, bottom, right, digest = _ENTRY.unpack(entry)
            t, c, z = plane
            yield Read((t, c, z), Box(top, left, bottom, right), digest)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _raw(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            while len(entry := file.read(_SIZE)) == _SIZE:
                if _CHECK.pack(zlib.crc32(entry[: _ENTRY.size])) != entry[_ENTRY.size :]:
                    return
                yield entry[: _ENTRY.size]
