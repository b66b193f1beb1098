"""How much a file may ask for before it is refused, and how much of it a sentence repeats.

Files come from anywhere. What they claim (sizes, nesting, names) is compared with these limits
before memory is taken for it, so that a damaged or malicious file costs a sentence and no more.
"""

from __future__ import annotations

import json
import os
import reprlib
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from demoe.errors import DemoeError, ImageError

BLOCK_VARIABLE = "DEMOE_BLOCK_GIB"
"""Environment variable that raises or lowers `block_bytes`."""

BLOCK_GIB = 1.0
"""GiB that one block (a tile, strip or chunk, or a whole photo) may have when it is decoded."""

BLOCKS = 2**22
"""Blocks along one axis, at most: each is a number in memory before a pixel is read."""

PLANES = 2**24
"""Planes that a file may claim; twenty times those of the longest recordings."""

TEXT_BYTES = 32 * 2**20
"""Bytes of a text (JSON, OME-XML) that describes something; as objects it takes 20 times more."""

DEPTH = 64
"""Levels of nesting in a JSON text; OME-Zarr needs eight."""


def block_bytes() -> int:
    """Return how many bytes one block may have when it is decoded.

    Raises
    ------
    ImageError
        If the environment variable ``DEMOE_BLOCK_GIB`` is no positive number.
    """
    text = os.environ.get(BLOCK_VARIABLE, str(BLOCK_GIB))
    try:
        size = int(float(text) * 2**30)
    except (ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise ImageError(f"{BLOCK_VARIABLE} is a number of GiB above 0, not {quoted(text)}.")
    return size


def check_block(where: object, lengths: Iterable[int], itemsize: int, what: str) -> None:
    """Refuse a block that would be too large when it is decoded.

    Parameters
    ----------
    where : path or str
        The file.
    lengths : iterable of int
        The block's lengths as the file claims them.
    itemsize : int
        Bytes a value.
    what : str
        What the block is: "tile", "chunk".

    Raises
    ------
    ImageError
        If it would have more than `block_bytes`.
    """
    size = itemsize
    for length in lengths:
        size *= int(length)
    check_bytes(where, size, what)


def check_bytes(where: object, size: int, what: str) -> None:
    """Refuse what would have more than `block_bytes` when it is decoded, see `check_block`."""
    most = block_bytes()
    if size > most:
        raise ImageError(
            f"{where} has a {what} that would decode to {gibibytes(size)} at once, more than the "
            f"{gibibytes(most)} that are allowed; store it in smaller tiles or chunks, or set "
            f"{BLOCK_VARIABLE} to a larger number of GiB."
        )


def gibibytes(size: int) -> str:
    """Write a number of bytes for people, "1.5 GiB"."""
    return f"{min(size, 2**90) / 2**30:.3g} GiB"


def quoted(value: object) -> str:
    """Write a value that a person or a file gave as it may stand in a sentence: never long."""
    return shortened(_short.repr(value))


def shortened(text: object) -> str:
    """Write a name as it may stand in a sentence, without quotation marks: never long."""
    name = str(text)
    return name if len(name) <= _NAME else f"{name[: _NAME // 2]}...{name[-_NAME // 2 :]}"


_NAME = 120


class _Short(reprlib.Repr):
    """Shortens long values in the middle, and numbers that Python declines to write."""

    def repr_int(self, x: int, level: int) -> str:
        if abs(x) >= 10**self.maxlong:
            return f"a number of {x.bit_length()} bits"
        return repr(x)


_short = _Short()
_short.maxstring = _short.maxother = 60
_short.maxlong = 30
_short.maxlist = _short.maxtuple = _short.maxdict = 4
_short.maxlevel = 3


def read_text(path: Path, error: type[DemoeError], what: str) -> str:
    """Read a text file that describes something, of bounded size.

    Parameters
    ----------
    path : Path
        The file.
    error : type of DemoeError
        What to raise.
    what : str
        What it is, to begin the sentence: "The recipe".

    Raises
    ------
    DemoeError
        Of the type `error`, if it is no plain file, too large, or no UTF-8 text.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise error(f"{what} {path} is no plain file.")
        if status.st_size > TEXT_BYTES:
            raise error(f"{what} {path} has {_mebibytes(status.st_size)}; {_MOST_TEXT}.")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        raise error(f"{what} {path} is no UTF-8 text ({problem.reason}).") from None
    except (OSError, ValueError) as problem:
        why = getattr(problem, "strerror", None) or problem
        raise error(f"{what} {path} cannot be read ({why}).") from None


def parse_json(text: str | bytes) -> Any:
    """Parse a JSON text of bounded size and nesting.

    Raises
    ------
    ValueError
        If it is no JSON, too long or too deeply nested; the words say which.
    """
    if len(text) > TEXT_BYTES:
        raise ValueError(f"it has {_mebibytes(len(text))}; {_MOST_TEXT}")
    try:
        values = json.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    level = [values]
    for _ in range(DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return values
    raise ValueError(_TOO_DEEP)


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


_MOST_TEXT = f"at most {_mebibytes(TEXT_BYTES)} are allowed"
_TOO_DEEP = f"it is nested in more than {DEPTH} levels"
