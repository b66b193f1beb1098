"""Photos in and out: PNG of 8 and 16 bits, JPEG, and others to read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from demoe.errors import ImageError, OutputError
from demoe.image.lazy_image import LazyImage
from demoe.io._more_photos import DECODERS
from demoe.io._pillow import PHOTOS, check_density, open_picture
from demoe.io._source import FileSource, decoded, file_state
from demoe.io.names import PNG, suffix_of
from demoe.limits import check_block

if TYPE_CHECKING:
    from numpy.typing import NDArray

JPEG_QUALITY = 95
_JPEG_LIMIT = 65500
_ORIENTATION = 0x0112
_ALPHA_MODES = {"LA", "La", "PA", "RGBA", "RGBa"}
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_SAMPLES = {0: 1, 2: 3, 4: 4, 6: 4}  # by colour type; gray with alpha (4) is read as RGBA


@dataclass(frozen=True)
class PhotoSource(FileSource):
    """A photo, decoded whole and kept for the next block."""

    def read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        """Read a box of the upright photo."""
        pixels = decoded.get((file_state(self.path), "photo"), lambda: _decode(self.path))
        if pixels.shape != self.shape or pixels.dtype != self.dtype:
            raise ImageError(f"{self.path} has changed since it was opened; open it again.")
        return pixels[box]


def open_photo(path: str, axes: str | None, name: str) -> LazyImage:
    """Open a photo without decoding it.

    Parameters
    ----------
    path : str
        An existing PNG, JPEG, BMP, WebP, AVIF, JPEG XL, HEIC or camera raw file; of an animation
        the first picture is taken.
    axes : str, optional
        "YX" or "YXS" if left out.
    name : str
        Name of the image.

    Returns
    -------
    LazyImage
        uint8 or uint16 (a JPEG XL may hold floats), one block; turned upright by its EXIF
        orientation. Palettes become RGB, gray with alpha becomes RGBA, CMYK becomes RGB; camera raw
        becomes RGB of 8 bits as the camera would make it.

    Raises
    ------
    ImageError
        For a file that is no picture.
    """
    shape, dtype = photo_form(path)
    source = PhotoSource(path, shape, dtype)
    letters = axes or ("YXS" if len(shape) == 3 else "YX")
    data = source.lazy(shape, "photo")
    return LazyImage(data, letters, name=name, source=path, origins=(source,))


def photo_form(path: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the upright photo, from its header; one that is too large is refused."""
    if (decoder := DECODERS.get(suffix_of(Path(path)))) is not None:
        return decoder.form(path)
    with _open(path) as photo:
        check_density(path, photo.format, photo.size, Path(path).stat().st_size)
        width, height = photo.size
        if photo.getexif().get(_ORIENTATION) in (5, 6, 7, 8):
            width, height = height, width
        deep = _deep_png_samples(path)
        samples = deep or _samples(photo)
    shape = (height, width) if samples == 1 else (height, width, samples)
    dtype = np.dtype(np.uint16 if deep else np.uint8)
    check_block(path, shape, dtype.itemsize, "picture")
    return shape, dtype


def check_photo(path: Path, image: LazyImage) -> None:
    """Refuse what a PNG or JPEG cannot hold, before anything is computed."""
    kind = "PNG" if suffix_of(path) in PNG else "JPEG"
    if image.n_planes > 1:
        raise OutputError(
            f"{path} cannot hold {image.n_planes} planes, because a {kind} is one plane; use "
            ".ome.tif or .ome.zarr."
        )
    if kind == "JPEG":
        if image.dtype != np.uint8:
            raise OutputError(
                f"{path} cannot hold {image.dtype} values, because a JPEG has 8 bits; use .png or "
                ".tif."
            )
        if image.is_rgb and image.shape[-1] == 4:
            raise OutputError(f"{path} cannot hold the alpha channel, so use .png or .tif.")
        if max(image.plane_shape) > _JPEG_LIMIT:
            raise OutputError(
                f"{path} cannot be wider or higher than {_JPEG_LIMIT} pixels, so use .tif."
            )
    elif image.dtype not in (np.uint8, np.uint16):
        raise OutputError(
            f"{path} cannot hold {image.dtype} values, because a PNG has 8 or 16 bits; use .tif."
        )


def encode_photo(path: Path, target: Path, pixels: NDArray[Any]) -> None:
    """Write one plane, (Y, X) or (Y, X, S), to `target` in the format of the name `path`."""
    if suffix_of(path) in PNG:
        target.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels)))
    else:
        Image.fromarray(pixels).save(target, "JPEG", quality=JPEG_QUALITY, subsampling=0)


@contextmanager
def _open(path: str) -> Iterator[Image.Image]:
    try:
        photo = open_picture(path, PHOTOS)
    except UnidentifiedImageError:
        raise ImageError(
            f"{path} is not a picture that can be read; PNG, JPEG, BMP, WebP and AVIF can."
        ) from None
    with photo:
        yield photo


def _samples(photo: Image.Image) -> int:
    if photo.mode in _ALPHA_MODES or (photo.mode == "P" and "transparency" in photo.info):
        return 4
    return 1 if photo.mode in ("1", "L") else 3


def _deep_png_samples(path: str) -> int:
    """Count the samples of a 16-bit PNG, which Pillow would cut to 8 bits; else give 0."""
    with open(path, "rb") as file:
        head = file.read(26)
    if len(head) < 26 or not head.startswith(_PNG_SIGNATURE) or head[24] != 16:
        return 0
    return _PNG_SAMPLES.get(head[25], 0)


def _decode(path: str) -> NDArray[Any]:
    if (decoder := DECODERS.get(suffix_of(Path(path)))) is not None:
        return decoder.decode(path)
    photo_form(path)  # the file may be another by now
    with _open(path) as photo:
        if _deep_png_samples(path):
            orientation = photo.getexif().get(_ORIENTATION, 1)
            return _turn(_deep_png(path), orientation)
        photo.load()
        upright = ImageOps.exif_transpose(photo)
        samples = _samples(photo)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[samples]
    return np.array(upright if upright.mode == mode else upright.convert(mode))


def _deep_png(path: str) -> NDArray[Any]:
    pixels: NDArray[Any] = imagecodecs.png_decode(Path(path).read_bytes())
    if pixels.ndim == 3 and pixels.shape[2] == 2:
        pixels = pixels[..., [0, 0, 0, 1]]
    return pixels


def _turn(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn upright by the EXIF orientation, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.array(pixels)
