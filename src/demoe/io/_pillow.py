"""Pillow, told which formats to try and to leave the limits to us."""

from __future__ import annotations

import io
import threading

from PIL import Image

from demoe.io._source import unreadable
from demoe.limits import check_block

PHOTOS = ("PNG", "JPEG", "BMP", "WEBP", "AVIF")
IN_TIFF = ("PNG", "JPEG", "JPEG2000", "WEBP")

_pillow_limit = threading.Lock()


def open_picture(file: str | io.BytesIO, formats: tuple[str, ...]) -> Image.Image:
    """Read the header of a picture; of other formats, some would run programs.

    Raises
    ------
    PIL.UnidentifiedImageError
        If it is of none of the formats.
    """
    # Pillow takes pictures above its own limit for an attack; here they are the point.
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def check_picture_in(path: str, data: bytes) -> None:
    """Refuse a tile that is a whole picture in itself and claims to be larger than is allowed.

    Parameters
    ----------
    path : str
        The TIFF.
    data : bytes
        A JPEG, JPEG 2000, PNG or WebP.
    """
    try:
        with open_picture(io.BytesIO(data), IN_TIFF) as picture:
            kind, size = picture.format, picture.size
            samples = len(picture.getbands())
    except Exception:  # what Pillow does not understand is left to the decoder
        return
    check_block(path, (*size, samples), 2, "tile")
    check_density(path, kind, size, len(data))


def check_density(path: str, kind: str | None, size: tuple[int, int], stored: int) -> None:
    """Refuse a picture that claims more pixels than its bytes can hold.

    Of a JPEG, each block of 8 x 8 pixels takes a bit at least; of a PNG, a byte unpacks to 1032,
    each of at most eight pixels.
    """
    most = {"JPEG": 8 * 64, "MPO": 8 * 64, "PNG": 8 * 1032}.get(kind or "")
    if most is not None and size[0] * size[1] > most * stored:
        raise unreadable(path, f"{stored} bytes cannot hold {size[0]} x {size[1]} pixels")
