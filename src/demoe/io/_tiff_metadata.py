"""What a TIFF says of its axes, its scale and its channels: OME, ImageJ, scanners, plain tags."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import tifffile

from demoe.errors import AxesError
from demoe.image.lazy_image import SCALED_AXES, LazyImage, is_scale, unit_name
from demoe.io._tiff_file import parse_ome

# Micrometres in one ResolutionUnit; 1 means "no unit", so it is left out.
_RESOLUTION_UNITS = {2: 25400.0, 3: 10000.0, 4: 1000.0, 5: 1.0}

# OME-XML writes symbols where OME-Zarr writes names.
OME_SYMBOLS = {
    "angstrom": "\u00c5",
    "nanometer": "nm",
    "micrometer": "\u00b5m",
    "millimeter": "mm",
    "centimeter": "cm",
    "meter": "m",
    "inch": "in",
    "nanosecond": "ns",
    "microsecond": "\u00b5s",
    "millisecond": "ms",
    "second": "s",
    "minute": "min",
    "hour": "h",
    "day": "d",
    "pixel": "pixel",
}
_TIMES = ("nanosecond", "microsecond", "millisecond", "second", "minute", "hour", "day")


@dataclass(frozen=True)
class TiffMetadata:
    """Scale and units by axis letter, and channel names."""

    scale: dict[str, float] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    channel_names: tuple[str, ...] = ()


def read_metadata(file: tifffile.TiffFile, series: int) -> TiffMetadata:
    """Collect what the file says; what is damaged or senseless counts as not said."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if file.is_ome and file.ome_metadata:
            return _from_ome(file.filehandle.path, file.ome_metadata, series)
        if file.is_imagej and file.imagej_metadata:
            return _from_imagej(file.imagej_metadata, file.series[series].keyframe)
        if file.is_svs and series == 0:
            return _from_svs(file.pages.first.description)
        if file.is_qpi:
            return _from_qpi(file.filehandle.path, file.series[series])
        return _from_tags(file.series[series].keyframe)


def name_axes(path: str, axes: str, shape: tuple[int, ...]) -> list[str]:
    """Map tifffile's axis letters to ours; "" stands for a dimension of length 1 to drop.

    A dimension that tifffile cannot name (a sequence of pages, an unknown one) becomes the first
    of Z, T and C that is free. S that is not 3 or 4 long is C.
    """
    names = list(axes)
    for at, (letter, length) in enumerate(zip(axes, shape, strict=True)):
        if letter == "S" and length not in (3, 4):
            names[at] = "" if length == 1 else "C" if "C" not in axes else "?"
        elif letter not in "TCZYXS":
            names[at] = "" if length == 1 else "?"
    unknown = [at for at, name in enumerate(names) if name == "?"]
    free = [letter for letter in "ZTC" if letter not in names]
    if len(unknown) > 1 or len(unknown) > len(free):
        raise AxesError(
            f"{path} has the axes '{axes}' of shape {' x '.join(map(str, shape))}, which do not "
            "map to TCZYXS, so name them with axes=, one letter for each."
        )
    for at in unknown:
        names[at] = free[0]
    return names


def ome_metadata(image: LazyImage) -> dict[str, Any]:
    """Arrange an image's metadata as tifffile wants it for OME-XML."""
    found: dict[str, Any] = {"axes": image.axes, "Name": image.name}
    keys = {"X": "PhysicalSizeX", "Y": "PhysicalSizeY", "Z": "PhysicalSizeZ", "T": "TimeIncrement"}
    for letter, key in keys.items():
        if letter not in image.scale:
            continue
        name = image.units.get(letter, "pixel")
        if letter == "T" and name not in _TIMES:
            continue  # OME-XML has no other unit of time, such as "one frame"
        # A length in a unit that OME-XML does not know is worth keeping as a bare number.
        unit = OME_SYMBOLS.get(name, "reference frame")
        found[key] = image.scale[letter]
        found[f"{key}Unit"] = unit
    if image.channel_names:
        found["Channel"] = {"Name": list(image.channel_names)}
    return found


def _from_ome(path: str, text: str, series: int) -> TiffMetadata:
    root = parse_ome(path, text)
    if root is None:
        return TiffMetadata()
    pixels = [element for element in root.iter() if element.tag.rpartition("}")[2] == "Pixels"]
    if series >= len(pixels):
        return TiffMetadata()
    attributes = pixels[series].attrib
    scale: dict[str, float] = {}
    units: dict[str, str] = {}
    for letter in SCALED_AXES:
        key = "TimeIncrement" if letter == "T" else f"PhysicalSize{letter}"
        size = _positive(attributes.get(key))
        if size is not None:
            scale[letter] = size
            default = "s" if letter == "T" else "\u00b5m"
            unit = unit_name(attributes.get(f"{key}Unit", default))
            units[letter] = "pixel" if unit == "reference frame" else unit
    names = [
        element.attrib.get("Name", "")
        for element in pixels[series]
        if element.tag.rpartition("}")[2] == "Channel"
    ]
    return TiffMetadata(scale, units, tuple(names) if all(names) else ())


def _from_imagej(found: Mapping[str, Any], page: tifffile.TiffPage) -> TiffMetadata:
    scale: dict[str, float] = {}
    units: dict[str, str] = {}
    unit = unit_name(str(found.get("unit", "")))
    if unit != "pixel":  # without a unit, ImageJ's resolution is that of a screen or nothing
        steps = {**_pixel_sizes(page), "Z": _positive(found.get("spacing"))}
        for letter, size in steps.items():
            if size is not None:
                scale[letter] = size
                units[letter] = unit
        other = {"Y": found.get("yunit"), "Z": found.get("zunit")}
        units.update({k: unit_name(str(v)) for k, v in other.items() if v and k in units})
    interval = _positive(found.get("finterval"))
    if interval is not None:
        scale["T"] = interval
        units["T"] = unit_name(str(found.get("tunit", "s")))
    return TiffMetadata(scale, units)


def _from_svs(description: str) -> TiffMetadata:
    said = re.search(r"\|\s*MPP\s*=\s*([\d.]+)", description)  # micrometres per pixel
    size = _positive(said and said[1])
    if size is None:
        return TiffMetadata()
    return TiffMetadata({"Y": size, "X": size}, {"Y": "micrometer", "X": "micrometer"})


def _from_qpi(path: str, series: tifffile.TiffPageSeries) -> TiffMetadata:
    """Sizes are in tags; each page has the name of its channel in XML."""
    found = _from_tags(series.keyframe)
    names = []
    for page in series:
        root = parse_ome(path, page.description if isinstance(page, tifffile.TiffPage) else "")
        names.append(((root is not None and root.findtext("Name")) or "").strip())
    return TiffMetadata(found.scale, found.units, tuple(names) if all(names) else ())


def _from_tags(page: tifffile.TiffPage) -> TiffMetadata:
    micrometres = _RESOLUTION_UNITS.get(int(page.tags.valueof(296, 2)))
    sizes = _pixel_sizes(page)
    if micrometres is None or not sizes or 296 not in page.tags:
        return TiffMetadata()
    return TiffMetadata(
        {letter: size * micrometres for letter, size in sizes.items()},
        dict.fromkeys(sizes, "micrometer"),
    )


def _pixel_sizes(page: tifffile.TiffPage) -> dict[str, float]:
    """Units a pixel along X and Y, from the tags that hold pixels a unit."""
    sizes = {}
    for letter, code in (("X", 282), ("Y", 283)):
        value = page.tags.valueof(code)
        if isinstance(value, tuple) and len(value) == 2 and value[0] and value[1]:
            sizes[letter] = value[1] / value[0]
    return sizes if set(sizes.values()) != {1.0} else {}


def _positive(value: Any) -> float | None:
    try:
        size = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return size if is_scale(size) else None
