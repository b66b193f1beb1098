"""Which names belong to which format."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

TIFF = (".tif", ".tiff", ".btf", ".tf2", ".tf8", ".lsm", ".svs", ".qptiff")
PNG = (".png",)
JPEG = (".jpg", ".jpeg")
JXL = (".jxl",)
HEIC = (".heic", ".heif", ".hif")
RAW = (".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".raf", ".rw2", ".pef")
PHOTOS = (*PNG, *JPEG, ".bmp", ".webp", ".avif", *JXL)
ZARR = (".zarr",)

SUFFIXES_IN = (*TIFF, *PHOTOS, *ZARR)
SUFFIXES_OUT = (".tif", ".tiff", *PNG, *JPEG, *ZARR)
_BESIDE = {
    "experts": ("labels/expert_map", "experts.tif"),
    "confidence": ("demoe/confidence", "confidence.tif"),
    "painted": ("demoe/painted", "painted.tif"),
    "consistency": ("demoe/consistency", "consistency.tif"),
    "complexity": ("demoe/complexity", "complexity.tif"),
    "kernels": ("demoe/kernels", "kernels.tif"),
    "record": ("zarr.json", "demoe.json"),
}
ZARR_MARKERS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")


_OTHERS = {
    "bioio-czi": "czi",
    "bioio-nd2": "nd2",
    "bioio-lif": "lif",
    "bioio-dv": "dv r3d",
    "bioio-sldy": "sldy",
    "bioio-bioformats": "vsi oib oif oir ets ims lei lof xlef zvi flex stk nd scn",
    "openslide-python": "ndpi mrxs svslide bif vms vmu",
    "imagecodecs": "jp2 j2k jxr exr",
    "pillow-heif": " ".join(end[1:] for end in HEIC),
    "rawpy": " ".join(end[1:] for end in RAW),
    "pillow": "gif ico pbm pgm ppm tga",
    "mrcfile": "mrc rec map",
    "nibabel": "nii",
    "pydicom": "dcm",
    "h5py": "h5 hdf5 he5",
    "numpy": "npy npz",
    "imageio": "mp4 avi mov mkv",
}
_OPENED_BY = {f".{end}": package for package, ends in _OTHERS.items() for end in ends.split()}
"""Suffixes of images that other packages open."""

_WHEN_THERE = {"pillow-heif": "pillow_heif", "rawpy": "rawpy"}
"""Modules of packages that are used where they are installed."""

Kind = Literal["tiff", "photo", "bioio", ""]


def kind_of(path: Path) -> Kind:
    """Say what reads a file of this name; "" if nothing that is installed.

    A name that no image is known to have is not looked up among the plugins of bioio here, since
    those take seconds to load; `open_image` does it.
    """
    suffix = suffix_of(path)
    if suffix in TIFF:
        return "tiff"
    package = _OPENED_BY.get(suffix, "")
    if suffix in PHOTOS or (package in _WHEN_THERE and _is_there(_WHEN_THERE[package])):
        return "photo"
    return "bioio" if package and is_of_bioio(suffix) else ""


def is_of_bioio(suffix: str) -> bool:
    """Whether a plugin of bioio is installed that reads files of a suffix."""
    if not _is_there("bioio"):
        return False
    from demoe.io.bio import suffixes

    return suffix in suffixes()


@cache
def _is_there(module: str) -> bool:
    return find_spec(module) is not None


def why_not(path: Path) -> str:
    """Say why a file of this name is not opened, and what opens it, to follow its name."""
    package = _OPENED_BY.get(suffix_of(path))
    if package is None:
        return f"has a suffix that is not known; images end in {', '.join(SUFFIXES_IN)}."
    if package in _WHEN_THERE or package.startswith("bioio-"):
        needed = f"bioio {package}" if package.startswith("bioio-") else package
        return (
            f"is opened by the package {package}, which is not installed: install it "
            f"(python -m pip install {needed}), or save the image as "
            ".ome.tif or .ome.zarr."
        )
    return (
        f"is not opened here, but by the package {package}: read it with that and give the array "
        "to demoe.deblur, or save it as .ome.tif or .ome.zarr."
    )


def is_url(place: object) -> bool:
    """Whether a text is an address ("https://..."), rather than a path."""
    return isinstance(place, str) and re.match(r"[a-z][a-z0-9+.-]+://", place) is not None


def suffix_of(path: Path) -> str:
    """Lower-case suffix with its dot: ".zarr" for "a.ome.ZARR"."""
    return path.suffix.lower()


def stem_of(path: Path) -> str:
    """Name without the suffix of its format, and without ".ome" before it."""
    name = path.name
    if suffix_of(path) in (*SUFFIXES_IN, *_OPENED_BY):
        name = name[: -len(path.suffix)]
    if name.lower().endswith(".ome"):
        name = name[: -len(".ome")]
    return name or path.name


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr group or array."""
    return path.is_dir() and any((path / marker).is_file() for marker in ZARR_MARKERS)


def places_beside(path: Path) -> dict[str, Path]:
    """Return where an image's maps and record are written: within a zarr, else beside the file.

    Parameters
    ----------
    path : Path
        The image, which need not exist.

    Returns
    -------
    dict of str to Path
        Places of "experts", "confidence", "painted", "consistency", "complexity", "kernels" and
        "record".
    """
    if path.is_dir() or suffix_of(path) in ZARR:
        return {kind: path / inside for kind, (inside, _) in _BESIDE.items()}
    return {k: path.with_name(f"{stem_of(path)}.{end}") for k, (_, end) in _BESIDE.items()}
