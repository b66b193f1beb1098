"""Photos that Pillow does not open: JPEG XL, HEIC and camera raw, each by the package that does."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np

from demoe.errors import ImageError
from demoe.io._source import decoded, file_state, unreadable
from demoe.io.names import HEIC, JXL, RAW
from demoe.limits import check_block

if TYPE_CHECKING:
    from numpy.typing import NDArray

Form = tuple[tuple[int, ...], np.dtype[Any]]


@dataclass(frozen=True)
class Decoder:
    """How a kind of photo is read.

    Attributes
    ----------
    form : callable
        Gives the shape, (Y, X) or (Y, X, S), and the type of the upright photo of a path; one that
        is too large is refused before it is decoded.
    decode : callable
        Gives its pixels.
    """

    form: Callable[[str], Form]
    decode: Callable[[str], NDArray[Any]]


def _jxl_form(path: str) -> Form:
    # The header tells no more than the size in a few lines; decoded pixels are kept for later.
    pixels = decoded.get((file_state(path), "photo"), lambda: _jxl(path))
    return pixels.shape, pixels.dtype


def _jxl(path: str) -> NDArray[Any]:
    data = Path(path).read_bytes()
    check_block(path, (*jxl_size(path, data), 4), 2, "picture")
    pixels: NDArray[Any] = imagecodecs.jpegxl_decode(data, index=0)
    if pixels.ndim == 3 and pixels.shape[2] == 2:  # gray with alpha
        pixels = pixels[..., [0, 0, 0, 1]]
    return pixels


def jxl_size(path: str, data: bytes) -> tuple[int, int]:
    """Return the sides that a JPEG XL claims, as they are stored (ISO/IEC 18181-1, SizeHeader).

    Raises
    ------
    ImageError
        If it is no JPEG XL.
    """
    start = _codestream(data) if data.startswith(_JXL_BOX) else 0
    head = data[start : start + 16]
    if not head.startswith(b"\xff\x0a") or len(head) < 12:
        raise unreadable(path, "it is no JPEG XL")
    bits = int.from_bytes(head[2:], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    def side(small: bool) -> int:
        return 8 * (1 + take(5)) if small else 1 + take((9, 13, 18, 30)[take(2)])

    small = bool(take(1))
    height = side(small)
    ratio = take(3)
    over, under = _JXL_RATIOS[ratio - 1] if ratio else (0, 1)
    return height, height * over // under if ratio else side(small)


def _codestream(data: bytes) -> int:
    """Return where the picture starts in the boxes of the container; its end if nowhere."""
    at = 0
    while 0 <= at <= len(data) - 16:
        size, kind, long = struct.unpack_from(">I4sQ", data, at)
        head = 16 if size == 1 else 8
        if kind in (b"jxlc", b"jxlp"):  # the second in parts, each with its number before it
            return at + head + (4 if kind == b"jxlp" else 0)
        size = long if size == 1 else size
        if size < head:
            break
        at += size
    return len(data)


_JXL_BOX = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def _heif_form(path: str) -> Form:
    with _heif(path) as photo:
        width, height = photo.size
        samples = {"L": 1, "I": 1, "LA": 4}.get(photo.mode.partition(";")[0], 3)
        samples = 4 if photo.has_alpha else samples
        dtype = np.dtype(np.uint16 if ";16" in photo.mode else np.uint8)
    shape = (height, width) if samples == 1 else (height, width, samples)
    check_block(path, shape, dtype.itemsize, "picture")
    return shape, dtype


def _heif_pixels(path: str) -> NDArray[Any]:
    _heif_form(path)  # the file may be another by now
    with _heif(path) as photo:
        pixels = np.array(photo)
    if pixels.ndim == 3 and pixels.shape[2] == 2:
        pixels = pixels[..., [0, 0, 0, 1]]
    return pixels


@contextmanager
def _heif(path: str) -> Iterator[Any]:
    import pillow_heif

    with open(path, "rb") as file:
        # Turned upright by libheif; of more than 8 bits, the values fill 16.
        yield pillow_heif.open_heif(file, convert_hdr_to_8bit=False)


def _raw_form(path: str) -> Form:
    with _raw(path) as photo:
        sizes = photo.sizes
        height, width = sizes.iheight, sizes.iwidth
        if sizes.flip in (5, 6):
            height, width = width, height
    shape = (height, width, 3)
    check_block(path, shape, 2, "picture")
    return shape, np.dtype(np.uint8)


def _raw_pixels(path: str) -> NDArray[Any]:
    _raw_form(path)
    with _raw(path) as photo:
        # As the camera would have made a JPEG of it: that is what the network knows as a photo.
        pixels: NDArray[Any] = photo.postprocess(use_camera_wb=True, no_auto_bright=True)
    return pixels


@contextmanager
def _raw(path: str) -> Iterator[Any]:
    import rawpy

    with rawpy.imread(path) as photo:
        if photo.color_desc == b"" or photo.sizes.iheight < 1:
            raise ImageError(f"{path} holds no picture of a camera.")
        yield photo


DECODERS: dict[str, Decoder] = {
    **dict.fromkeys(JXL, Decoder(_jxl_form, _jxl)),
    **dict.fromkeys(HEIC, Decoder(_heif_form, _heif_pixels)),
    **dict.fromkeys(RAW, Decoder(_raw_form, _raw_pixels)),
}
