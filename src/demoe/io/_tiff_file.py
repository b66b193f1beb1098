"""A TIFF is opened here, and what its metadata claim is checked before it is followed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import tifffile

from demoe.errors import ImageError
from demoe.io._inside import check_plain, inside
from demoe.limits import PLANES, TEXT_BYTES

_SIZES = ("SizeT", "SizeC", "SizeZ", "SizeY", "SizeX")


@contextmanager
def opened_tiff(path: str) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF whose series may be listed: nothing outside its folder is read for that.

    Raises
    ------
    ImageError
        If its metadata name a file outside of its folder, claim more planes than any image has,
        or hold entities.
    """
    check_plain(path, path)
    with tifffile.TiffFile(path) as file:
        # Counts all, and finds a chain that comes back to itself, which a walk may follow for ever.
        _check_count(path, "pages", len(file.pages))
        folder = file.filehandle.dirname
        if file.is_ome and file.ome_metadata:
            _check_ome(path, folder, file)
        if file.is_mmstack:
            _check_micromanager(path, file.micromanager_metadata)
            for part in Path(folder).glob("*_MMStack*.tif"):
                check_plain(inside(folder, part.name, path), path)
        if file.is_ndtiff:
            index = inside(folder, "NDTiff.index", path)
            check_plain(index, path)
            for _, name, *_ in tifffile.read_ndtiff_index(index):
                inside(folder, name, path)
        yield file


def parse_ome(path: str, text: str) -> ElementTree.Element | None:
    """Parse OME-XML; None if it is damaged.

    Raises
    ------
    ImageError
        If it is too large, or declares a document type, whose entities could grow without end.
    """
    if len(text) > TEXT_BYTES:
        raise ImageError(
            f"{path} has OME-XML of {len(text) >> 20} MiB; at most {TEXT_BYTES >> 20} MiB are "
            "allowed."
        )
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise ImageError(
            f"{path} has OME-XML that declares a document type or entities, which OME files never "
            "need; it is not read."
        )
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return None


def _check_ome(path: str, folder: str, file: tifffile.TiffFile) -> None:
    root = parse_ome(path, file.ome_metadata or "")
    for element in root.iter() if root is not None else ():
        kind = element.tag.rpartition("}")[2]
        given = element.attrib
        if kind == "UUID" and "FileName" in given:
            check_plain(inside(folder, given["FileName"], path), path)
        elif kind == "BinaryOnly" and "MetadataFile" in given:
            inside(folder, given["MetadataFile"], path)
        elif kind == "TiffData":
            for key in ("PlaneCount", "NumPlanes"):
                _check_count(path, key, _number(given.get(key, 1)))
        elif kind == "Pixels":
            sizes = math.prod(_number(given.get(key, 1)) for key in _SIZES)
            _check_count(path, "planes", sizes // _page_size(file, element))
        elif "Along" in kind and "Start" in given:
            start, stop, step = (
                _number(given.get(key, 1), float) for key in ("Start", "End", "Step")
            )
            _check_count(path, kind, abs(stop - start) / abs(step) if step else math.inf)


def _page_size(file: tifffile.TiffFile, pixels: ElementTree.Element) -> int:
    """Return the pixels of a page: tifffile counts planes by the first that an image names."""
    first = next((one for one in pixels if one.tag.endswith("TiffData")), None)
    index = 0 if first is None else _number(first.attrib.get("IFD", 0))
    pages: list[tifffile.TiffPage | tifffile.TiffFrame] = [file.pages.first]
    if 0 < index < len(file.pages):
        pages.append(file.pages[index])
    return max(1, min(math.prod(page.shape) for page in pages))


def _check_micromanager(path: str, found: Mapping[str, Any] | None) -> None:
    summary = (found or {}).get("Summary")
    if not isinstance(summary, Mapping):
        return
    lengths = dict.fromkeys(("Channels", "Slices", "Frames", "Positions"), 1)
    for name in lengths:
        lengths[name] = max(1, _number(summary.get(name, 1)))
    indices = (found or {}).get("IndexMap")
    if indices is not None and len(indices):
        most = (indices[:, :4].max(axis=0).astype(float) + 1).tolist()
        lengths = {name: max(length, most[at]) for at, (name, length) in enumerate(lengths.items())}
    _check_count(path, "planes", math.prod(lengths.values()))


def _number(text: Any, kind: type[int] | type[float] = int) -> Any:
    """Read a number; what is none counts as 0, which tifffile refuses in its own words."""
    try:
        return kind(text)
    except (TypeError, ValueError, OverflowError):
        return 0


def _check_count(path: str, what: str, count: float) -> None:
    if count > PLANES:
        raise ImageError(
            f"{path} claims {min(count, 10**30):.2g} {what}, but an image may have "
            f"{PLANES} planes at most."
        )
