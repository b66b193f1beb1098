"""Images from files and to files: TIFF, OME-Zarr, zarr, photos, folders, microscopes' formats."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demoe.errors import ImageError
from demoe.image.lazy_image import LazyImage
from demoe.io.names import (
    SUFFIXES_IN,
    SUFFIXES_OUT,
    ZARR,
    is_of_bioio,
    is_url,
    is_zarr,
    kind_of,
    stem_of,
    suffix_of,
    why_not,
)

if TYPE_CHECKING:
    from demoe.io._write import write_image

__all__ = ["SUFFIXES_IN", "SUFFIXES_OUT", "is_readable", "open_image", "series_of", "write_image"]


def open_image(
    path: str | os.PathLike[str], axes: str | None = None, *, series: int | str = 0
) -> LazyImage:
    """Open an image of any size; only its metadata is read.

    Parameters
    ----------
    path : str or path
        A TIFF (OME-TIFF, ImageJ, BigTIFF, SVS, QPTIFF), a photo (PNG, JPEG, BMP, WebP, AVIF, JPEG
        XL), an OME-Zarr 0.4 or 0.5 image, a plain zarr array, or a folder of photos or single-plane
        TIFFs of one size and kind, which becomes a stack along Z in natural order, or along T, C
        and Z as names such as ``cells_t01_c2.tif`` say. Where the packages for them are installed:
        HEIC, camera raw, what the plugins of bioio read (CZI, ND2, LIF, DV and others), and an
        OME-Zarr or plain zarr by its address (``https://...``, ``s3://...``).
    axes : str, optional
        One letter of TCZYXS for each dimension; from the file, or guessed from the shape, if left
        out.
    series : int or str, default 0
        Which image, where a file holds several: its number, or the name that it has there.

    Returns
    -------
    LazyImage
        Pixels are read block by block when its dask array is computed; a damaged block is an
        ImageError then.

    Raises
    ------
    ImageError
        If there is no such file, or it is empty, damaged, of an unknown kind, or no image.
    AxesError
        If the axes do not fit or cannot be told.
    """
    place = Path(path)
    if is_url(path):
        return _open_at(str(path), axes, series)
    text = str(place)
    kind = _check_place(place)
    from demoe.io._source import pass_errors_on

    name = stem_of(place)
    suffix = suffix_of(place)
    # Each format is imported when it is first met: the plugin asks about names far more often.
    if place.is_dir() and (is_zarr(place) or suffix in ZARR):
        from demoe.io.zarr import open_zarr

        image: LazyImage = pass_errors_on(text, lambda: open_zarr(text, axes, series, name))
    elif place.is_dir():
        from demoe.io._series import series_number
        from demoe.io.folder import open_folder

        series_number(text, series, [name])
        image = pass_errors_on(text, lambda: open_folder(text, axes, name))
    elif kind == "tiff":
        from demoe.io.tiff import open_tiff

        image = pass_errors_on(text, lambda: open_tiff(text, axes, series, name))
    elif kind == "bioio":
        from demoe.io.bio import open_bio

        image = pass_errors_on(text, lambda: open_bio(text, axes, series, name))
    else:
        from demoe.io._series import series_number
        from demoe.io.photos import open_photo

        series_number(text, series, [name])
        image = pass_errors_on(text, lambda: open_photo(text, axes, name))
    return image


def series_of(path: str | os.PathLike[str]) -> list[str]:
    """List the images of a file that may hold several.

    Parameters
    ----------
    path : str or path
        What `open_image` opens.

    Returns
    -------
    list of str
        The name of each, "" where the file gives none; the place in the list is its number.

    Raises
    ------
    ImageError
        As `open_image`.
    """
    place = Path(path)
    if is_url(path):
        from demoe.io.zarr import zarr_series

        return zarr_series(str(path))
    text = str(place)
    kind = _check_place(place)
    from demoe.io._source import pass_errors_on

    names = [stem_of(place)]
    if place.is_dir() and (is_zarr(place) or suffix_of(place) in ZARR):
        from demoe.io.zarr import zarr_series

        names = pass_errors_on(text, lambda: zarr_series(text))
    elif kind == "tiff":
        from demoe.io.tiff import tiff_series

        names = pass_errors_on(text, lambda: tiff_series(text))
    elif kind == "bioio":
        from demoe.io.bio import scenes

        names = pass_errors_on(text, lambda: scenes(text))
    return names


def is_readable(path: str | os.PathLike[str]) -> bool:
    """Say by its name, or by the names in a folder, whether a path looks like an image of ours.

    Parameters
    ----------
    path : str or path
        A file or a folder.

    Returns
    -------
    bool
        True for the suffixes of `SUFFIXES_IN`, those of microscopes and cameras whose package is
        installed, zarr folders, and folders that hold pictures.
    """
    place = Path(path)
    if is_url(path):
        return suffix_of(place) in ZARR
    if not place.is_dir():
        return bool(kind_of(place))
    if is_zarr(place) or suffix_of(place) in ZARR:
        return True
    try:
        return any(
            kind_of(file) in ("tiff", "photo") and not file.name.startswith(".")
            for file in place.iterdir()
        )
    except OSError:
        return False


def _open_at(url: str, axes: str | None, series: int | str) -> LazyImage:
    """Open a zarr at an address."""
    from demoe.io._source import pass_errors_on
    from demoe.io.zarr import open_zarr

    place = Path(url)
    if kind_of(place):
        raise ImageError(
            f"{url} is the address of a file, but only zarr is read from addresses; download it."
        )
    image: LazyImage = pass_errors_on(url, lambda: open_zarr(url, axes, series, stem_of(place)))
    return image


def __getattr__(name: str) -> Any:
    # The writers bring zarr and tifffile, which whoever only asks about names should not wait for.
    if name == "write_image":
        from demoe.io._write import write_image

        return write_image
    raise AttributeError(f"module 'demoe.io' has no attribute {name!r}")


def _check_place(place: Path) -> str:
    """Say what reads a file; "" for a folder."""
    try:
        status = place.stat()
    except (OSError, ValueError):  # ValueError: a null character
        raise ImageError(f"There is no file or folder {place}.") from None
    if stat.S_ISDIR(status.st_mode):
        return ""
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{place} is a device or a pipe, but an image is a file or a folder.")
    kind = kind_of(place) or ("bioio" if is_of_bioio(suffix_of(place)) else "")
    if not kind:
        raise ImageError(f"{place} {why_not(place)}")
    if status.st_size == 0:
        raise ImageError(f"{place} is empty (0 bytes).")
    return kind
