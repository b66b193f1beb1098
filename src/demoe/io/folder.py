"""A folder of single pictures of one size and kind, as a stack."""

from __future__ import annotations

import math
import re
from pathlib import Path

import dask.array as da

from demoe.errors import ImageError
from demoe.image.lazy_image import LazyImage
from demoe.io._inside import inside
from demoe.io._source import pass_errors_on
from demoe.io.names import TIFF, kind_of, suffix_of
from demoe.io.photos import open_photo
from demoe.io.tiff import open_tiff

_PLACE = re.compile(r"(?<![a-z0-9])([tcz])(\d{1,9})(?![a-z0-9])", re.IGNORECASE)


def picture_files(folder: Path) -> list[Path]:
    """List the pictures directly in a folder, in the order of the numbers in their names."""
    files = [
        file
        for file in folder.iterdir()
        if kind_of(file) in ("tiff", "photo") and not file.name.startswith(".") and file.is_file()
    ]
    return sorted(files, key=natural_key)


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sort key that puts "b9" before "b10"."""
    parts = re.findall(r"\d+|\D+", path.name.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def open_folder(path: str, axes: str | None, name: str) -> LazyImage:
    """Open the pictures of a folder as one stack, without reading pixels.

    Parameters
    ----------
    path : str
        An existing folder; what is no picture, hidden or in a folder below is passed over.
    axes : str, optional
        Letters of the stack, if the pictures are to lie one after another; by their names, else
        "ZYX" or "ZYXS", if left out.
    name : str
        Name of the image.

    Returns
    -------
    LazyImage
        Pictures along Z in natural order of their names, or along T, C and Z where all names have
        these letters with a number (``cells_t01_c2.tif``); scale and units of the first.

    Raises
    ------
    ImageError
        For a folder without pictures, with several kinds, sizes or types of them, with a file
        that holds more than one plane, with a link that points out of it, or with names whose T, C
        and Z do not make a grid.
    """
    files = picture_files(Path(path))
    if not files:
        raise ImageError(
            f"{path} is a folder without TIFF, PNG, JPEG, BMP, WebP or other pictures."
        )
    kinds = sorted({_kind(file) for file in files})
    if len(kinds) > 1:
        raise ImageError(
            f"{path} holds pictures of several kinds ({', '.join(kinds)}), but a stack needs one "
            "kind only."
        )
    for file in files:
        inside(path, file.name, path)
    along, files = ({"Z": len(files)}, files) if axes else _grid(path, files)
    pictures = [_open_picture(file) for file in files]
    first = pictures[0]
    for file, picture in zip(files, pictures, strict=True):
        if (picture.axes, picture.shape, picture.dtype) != (first.axes, first.shape, first.dtype):
            raise ImageError(
                f"{file} is {_form(picture)}, but {files[0].name} in the same folder is "
                f"{_form(first)}; a stack needs pictures of one size and type."
            )
    blocks = [picture.data for picture in pictures]
    for length in reversed(list(along.values())):
        blocks = [da.stack(blocks[at : at + length]) for at in range(0, len(blocks), length)]
    letters = axes or "".join(along) + first.axes
    origins = tuple(origin for picture in pictures for origin in picture.origins)
    return LazyImage(blocks[0], letters, first.scale, first.units, (), name, path, origins)


def _grid(path: str, files: list[Path]) -> tuple[dict[str, int], list[Path]]:
    """Return the lengths along T, C and Z that names (a_t01_c2) tell, and files in that order.

    Without such names all lie along Z.
    """
    found = {file: {k.upper(): int(n) for k, n in _PLACE.findall(file.stem)} for file in files}
    letters = [letter for letter in "TCZ" if any(letter in place for place in found.values())]
    if not letters:
        return {"Z": len(files)}, files
    places = {tuple(place.get(letter, -1) for letter in letters) for place in found.values()}
    lengths = {letter: len({place[at] for place in places}) for at, letter in enumerate(letters)}
    whole = len(places) == len(files) == math.prod(lengths.values())
    if not whole or any(-1 in place for place in places):
        told = " x ".join(f"{length} {letter}" for letter, length in lengths.items())
        raise ImageError(
            f"{path} holds {len(files)} pictures whose names tell of {told}, but not of one "
            "picture for each; complete it, or give axes= to stack them in the order of their "
            "names."
        )
    return lengths, sorted(files, key=lambda file: [found[file][letter] for letter in letters])


def _kind(file: Path) -> str:
    suffix = suffix_of(file)
    return {".jpeg": ".jpg"}.get(suffix, ".tif" if suffix in TIFF else suffix)


def _open_picture(file: Path) -> LazyImage:
    open_one = _open_plane if suffix_of(file) in TIFF else open_photo
    picture: LazyImage = pass_errors_on(file, lambda: open_one(str(file), None, file.stem))
    return picture


def _open_plane(path: str, axes: str | None, name: str) -> LazyImage:
    image = open_tiff(path, axes, 0, name)
    if image.axes not in ("YX", "YXS"):
        raise ImageError(
            f"{path} holds more than one plane (axes {image.axes}), so open it by itself instead "
            "of its folder."
        )
    return image


def _form(image: LazyImage) -> str:
    return f"{' x '.join(str(length) for length in image.shape)} {image.dtype}"
