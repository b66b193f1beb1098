"""Reader: files and folders become image layers whose pixels are read when they are looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

LayerTuple = tuple[Any, dict[str, Any], str]


def get_reader(path: str | Sequence[str]) -> Callable[[str], list[LayerTuple]] | None:
    """Return the reader for a path, or None if it holds nothing that we read.

    Parameters
    ----------
    path : str or sequence of str
        One path; a list of files to be stacked is left to other readers.

    Returns
    -------
    callable or None
        `read`.
    """
    from demoe.io import is_readable

    return read if isinstance(path, str) and is_readable(path) else None


def read(path: str) -> list[LayerTuple]:
    """Open an image lazily, with its pixel sizes, units and axes.

    Parameters
    ----------
    path : str
        A TIFF, photo, OME-Zarr or folder of photos, see `demoe.open_image`.

    Returns
    -------
    list of one layer data tuple
        A dask array, the keyword arguments of the layer, and "image".

    Raises
    ------
    DemoeError
        If the path cannot be read; one sentence that says why.
    """
    import demoe

    from napari_demoe._layers import image_kwargs

    image = demoe.open_image(path)
    return [(image.data, image_kwargs(image), "image")]
