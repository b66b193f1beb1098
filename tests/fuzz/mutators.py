"""What damage and malice make of a sound file; all of it follows from a random generator."""

import bz2
import gzip
import json
import lzma
import os
import pickle
import re
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

Random = np.random.Generator

INTEGERS = (0, 1, 2, 7, 255, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1)


@cache
def bombs() -> tuple[bytes, ...]:
    """Return streams of some kilobytes that unpack to more than a gigabyte of zeros."""
    zeros, times = bytes(3 * 2**20), 400
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    part = deflate.compress(zeros) + deflate.flush(zlib.Z_FULL_FLUSH)  # stands for itself
    check = (len(zeros) * times % 65521) << 16 | 1
    return (
        gzip.compress(zeros) * times,
        b"\x78\x9c" + part * times + b"\3\0" + struct.pack(">I", check),
        bz2.compress(zeros) * times,
        lzma.compress(zeros) * times,
    )


class Runs:
    """What runs code when it is unpickled: it leaves a file in the folder of secrets."""

    def __init__(self, secret: Path) -> None:
        self.secret = secret

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.secret / "ran"),)


def pick(random: Random, of: Any) -> Any:
    return of[int(random.integers(len(of)))]


# --- bytes ---


def flip(random: Random, data: bytearray, secret: Path) -> None:
    for _ in range(int(random.integers(1, 6))):
        data[int(random.integers(len(data)))] = int(random.integers(256))


def flip_head(random: Random, data: bytearray, secret: Path) -> None:
    for _ in range(int(random.integers(1, 4))):
        data[int(random.integers(min(len(data), 400)))] = pick(random, (0, 1, 0x7F, 0x80, 0xFF))


def number(random: Random, data: bytearray, secret: Path) -> None:
    width = pick(random, (2, 4, 8))
    at = int(random.integers(max(1, min(len(data), 600) - width)))
    value = pick(random, INTEGERS) & (256**width - 1)
    data[at : at + width] = value.to_bytes(width, pick(random, ("little", "big")))


def cut(random: Random, data: bytearray, secret: Path) -> None:
    del data[int(random.integers(len(data))) :]


def insert(random: Random, data: bytearray, secret: Path) -> None:
    at, count = int(random.integers(len(data))), int(random.integers(1, 5000))
    data[at:at] = pick(random, (b"\0", b"\xff", b"A", b"[", b"0")) * count


def repeat(random: Random, data: bytearray, secret: Path) -> None:
    at, to = (int(n) for n in sorted(random.integers(0, len(data), 2)))
    data[to:to] = data[at:to] * int(random.integers(1, 20))


def replaced(random: Random, data: bytearray, secret: Path) -> None:
    """Put something else in its place: bombs, code, nonsense."""
    packed = (
        *bombs(),
        b"\x02\x01\x21\x01" + struct.pack("<III", 2**31 - 1, 2**20, len(data)) + bytes(data[16:]),
        struct.pack("<IBQ", 0xFD2FB528, 0xE0, 2**40) + bytes(data[9:]),
        pickle.dumps(Runs(secret)),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        b"[" * 200_000,
        b"",
        b"{}",
        bytes(random.integers(0, 256, 3000, np.uint8)),
    )
    data[:] = pick(random, packed)


BYTES = (flip, flip_head, number, cut, insert, repeat, replaced)


# --- structures ---


def tag(random: Random, data: bytearray, secret: Path) -> None:
    """Change entries of the first image file directory of a TIFF."""
    order = "little" if data[:1] == b"I" else "big"
    large = data[2:3] == b"\x2b"
    size, entry, count_at = (8, 20, 8) if large else (4, 12, 2)
    first = int.from_bytes(data[size : 2 * size] if large else data[4:8], order)
    if first + count_at >= len(data):
        return
    count = int.from_bytes(data[first : first + count_at], order)
    for _ in range(int(random.integers(1, 4))):
        at = first + count_at + entry * int(random.integers(max(1, min(count, 60))))
        part, width = pick(random, ((0, 2), (2, 2), (4, size), (4 + size, size), (4 + size, size)))
        value = pick(random, INTEGERS) & (256**width - 1)
        data[at + part : at + part + width] = value.to_bytes(width, order)


def png(random: Random, data: bytearray, secret: Path) -> None:
    """Change the header of a PNG, with its checksum."""
    at, width = pick(random, ((16, 4), (20, 4), (24, 1), (25, 1), (28, 1)))
    data[at : at + width] = (pick(random, INTEGERS) & (256**width - 1)).to_bytes(width, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")


def jpeg(random: Random, data: bytearray, secret: Path) -> None:
    """Claim another size in the frame header of each JPEG."""
    for found in list(re.finditer(b"\xff[\xc0\xc2]\0[\x08-\x20]", bytes(data)))[:3]:
        data[found.start() + 5 : found.start() + 9] = struct.pack(
            ">HH", *(pick(random, (1, 100, 32767, 65500, 65535)) for _ in range(2))
        )


def xml(random: Random, data: bytearray, secret: Path) -> None:
    """Change what OME-XML says, at the same length so that offsets stay."""
    start, end = data.find(b"<OME"), data.find(b"</OME>")
    if start < 0 or end < 0:
        return
    text = bytes(data[start:end])
    kind = int(random.integers(4))
    spans = [found.span(1) for found in re.finditer(b'="([^"]*)"', text)]
    if kind == 0 and spans:
        values = [b"0", b"-1", b"999999999", b"1e308", b"NaN", b"XYCZT", b"../a.tif"]
        low, high = pick(random, spans)
        text = text[:low] + pick(random, values) + text[high:]
    elif kind == 1:
        entities = b'<!DOCTYPE OME [<!ENTITY a "aaaaaaaaaaaaaaaa">'
        entities += b"".join(b'<!ENTITY %c "%s">' % (c + 1, b"&%c;" % c * 9) for c in b"abcdefg")
        text = entities + b"]>" + text.replace(b'ID="Image:0"', b'ID="Image:0" Name="&h;"')
    elif kind == 2:
        place = pick(
            random,
            (
                os.path.join("..", "..", secret.name, "a.tif"),
                str(secret / "a.tif"),
                "/dev/zero",
                "/etc/passwd",
            ),
        ).encode()
        named = b'<TiffData IFD="0"><UUID FileName="%s">urn:uuid:9</UUID></TiffData>' % place
        text = re.sub(b"<TiffData", named + b"<TiffData", text, count=1)
        text = re.sub(b"second.tif", place, text)
    else:
        text = text.replace(b"/>", b' PlaneCount="2000000000"/>', 3)
    data[start:end] = text
    if len(text) != end - start:  # the description tag points to the old length
        at = data.find(struct.pack("<HH", 270, 2))
        if at >= 0:
            old = data[start : start + len(text) + 7]
            place = len(data)
            data[at + 4 : at + 12] = struct.pack("<II", len(old), place)
            tail = data[start + len(text) :]
            data[:] = data[:start] + b" " * (end - start) + tail + old


def json_value(random: Random, secret: Path) -> Any:
    deep: Any = 0
    for _ in range(int(random.integers(10, 500))):
        deep = [deep]
    values: tuple[Any, ...] = (
        *(None, True, 0, -1, 1, 3, 10**6, 10**9, 2**63, 10**30, 10**400, 0.5, 1e-300, 1e308),
        *(float("nan"), float("inf"), "", "x" * 300_000, "<u2", ">f8", "|O", "<M8[s]", "float64"),
        *([], [1], [10**9, 10**9], [0, 0], [-1, 5], {}, {"id": "pickle"}, [{"id": "pickle"}]),
        *({"name": "gzip"}, [{"name": "bytes"}], [{"name": "numcodecs.pickle"}], deep),
        *("../../secret/a.zarr", str(secret / "a.zarr"), "/dev/zero", "..", "/", "\0", "*"),
        *({"id": "lzma"}, [{"id": "packbits"}], [{"id": "astype", "decode_dtype": "f8"}] * 9),
    )
    return pick(random, values)


def change_json(random: Random, values: Any, secret: Path) -> Any:
    """Replace, remove or add a value anywhere within."""
    holders: list[Any] = []
    level = [values]
    while level:
        holders += [one for one in level if isinstance(one, dict | list) and one]
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    if not holders:
        return json_value(random, secret)
    for _ in range(int(random.integers(1, 3))):
        holder = pick(random, holders)
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            continue
        key = pick(random, keys)
        if random.integers(6) == 0:
            del holder[key]
        else:
            holder[key] = json_value(random, secret)
    return values


def json_text(random: Random, data: bytearray, secret: Path) -> None:
    try:
        values = json.loads(bytes(data))
    except (ValueError, RecursionError):
        return flip(random, data, secret)
    data[:] = json.dumps(change_json(random, values, secret)).encode()


def header(random: Random, data: bytearray, secret: Path) -> None:
    """Change the header of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    try:
        values = json.loads(bytes(data[8 : 8 + length]))
    except (ValueError, RecursionError):  # spoilt before
        return flip(random, data, secret)
    text = json.dumps(change_json(random, values, secret)).encode()
    data[: 8 + length] = len(text).to_bytes(8, "little") + text


def words(random: Random, data: bytearray, secret: Path) -> None:
    """Change a PSF as people write it."""
    value = pick(random, ("1e-300", "1e308", "inf", "nan", "-1", "0", "9" * 400, "x", "1_0", ""))
    text = data.decode("latin")
    text = re.sub(r"=[^,]*", lambda found: pick(random, (found[0], f"={value}")), text)
    data[:] = (text + pick(random, ("", ",", ",index=1e9", ",defocus=1e12", "=" * 99))).encode()


STRUCTURES: dict[str, tuple[Callable[[Random, bytearray, Path], None], ...]] = {
    ".tif": (tag, tag, jpeg, xml),
    ".png": (png,),
    ".jpg": (jpeg,),
    ".json": (json_text, json_text, json_text),
    ".safetensors": (header,),
    ".txt": (words, words, words),
}


def spoil(random: Random, place: Path, secret: Path) -> None:
    """Damage one to three files of a case: its path, and what lies beside or below it."""
    files = sorted(file for file in place.parent.rglob("*") if file.is_file())
    texts = [file for file in files if file.name.startswith(".z") or file.suffix == ".json"]
    for _ in range(int(random.integers(1, 4))):
        # Where there are many chunks, what describes them is met as often as they are.
        file = pick(random, texts if texts and random.integers(2) else files)
        if not file.is_file() or file.is_symlink():
            continue
        if random.integers(40) == 0:
            turn_into(random, file, secret, named=file == place)
            continue
        suffix = ".json" if file.name.startswith(".z") else file.suffix
        data = bytearray(file.read_bytes())
        if not data:
            continue
        own = STRUCTURES.get(suffix, ())
        pick(random, own if own and random.integers(3) else BYTES)(random, data, secret)
        file.write_bytes(data)


def turn_into(random: Random, file: Path, secret: Path, named: bool) -> None:
    """Put a link, a pipe or a folder in a file's place; a link that is named itself is followed."""
    file.unlink()
    targets: tuple[str, ...] = ("/dev/zero", file.name)
    if not named:
        targets += ("/etc/passwd", str(secret / "a.tif"), str(secret / "a.zarr"))
    kind = int(random.integers(len(targets) + 2))
    if kind == len(targets):
        os.mkfifo(file)
    elif kind > len(targets):
        file.mkdir()
    else:
        file.symlink_to(targets[kind])
