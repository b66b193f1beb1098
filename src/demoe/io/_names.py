"""Which names belong to which format."""

from __future__ import annotations

from pathlib import Path

TIFF = (".tif", ".tiff", ".btf", ".tf2", ".tf8", ".lsm")
PNG = (".png",)
JPEG = (".jpg", ".jpeg")
PHOTOS = (*PNG, *JPEG, ".bmp", ".webp")
ZARR = (".zarr",)

SUFFIXES_IN = (*TIFF, *PHOTOS, *ZARR)
SUFFIXES_OUT = (".tif", ".tiff", *PNG, *JPEG, *ZARR)
ZARR_MARKERS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")


def suffix_of(path: Path) -> str:
    """Lower-case suffix with its dot: ".zarr" for "a.ome.ZARR"."""
    return path.suffix.lower()


def stem_of(path: Path) -> str:
    """Name without the suffix of its format, and without ".ome" before it."""
    name = path.name
    if suffix_of(path) in SUFFIXES_IN:
        name = name[: -len(path.suffix)]
    if name.lower().endswith(".ome"):
        name = name[: -len(".ome")]
    return name or path.name


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr group or array."""
    return path.is_dir() and any((path / marker).is_file() for marker in ZARR_MARKERS)
