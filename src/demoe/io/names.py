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
