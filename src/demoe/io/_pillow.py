"""Pillow, told which formats to try and to leave the limits to us."""

from __future__ import annotations

import io
import threading

from PIL import Image

from demoe.limits import check_block

PHOTOS = ("PNG", "JPEG", "BMP", "WEBP")
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
            size = picture.size
            samples = len(picture.getbands())
    except Exception:  # what Pillow does not understand is left to the decoder
        return
    check_block(path, (*size, samples), 2, "tile")
