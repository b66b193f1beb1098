"""Reader: files and folders become image layers whose pixels are read when they are looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dask.array as da

    from demoe.image.lazy_image import LazyImage

LARGE = 4096
"""Planes longer than this are shown from the pyramid that is stored with them; where there is none
and parts of a plane can be read, from one that is made of what is looked at."""

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
    """Open an image lazily, with its pixel sizes, units and axes, and its expert map if it has one.

    Parameters
    ----------
    path : str
        A TIFF, photo, OME-Zarr (or its address) or folder of photos, see `demoe.open_image`.

    Returns
    -------
    list of layer data tuples
        The image as a dask array, or several of one pyramid where planes are large; then, for a
        result of ours, the confidence as a hidden image and the expert map as labels.

    Raises
    ------
    DemoeError
        If the path cannot be read; one sentence that says why.
    """
    import demoe
    from demoe.io.names import is_url
    from napari_demoe._layers import image_kwargs

    image = demoe.open_image(path)
    kwargs = image_kwargs(image)
    levels = [image.data]
    if max(image.plane_shape) > LARGE:
        levels += _coarser_levels(path, image)
    layers: list[LayerTuple] = [(image.data, kwargs, "image")]
    if len(levels) > 1:
        layers = [(levels, {**kwargs, "multiscale": True}, "image")]
    return layers if is_url(path) else layers + _map_layers(Path(path), image, kwargs)


def _coarser_levels(path: str, image: LazyImage) -> list[da.Array]:
    from demoe.io.names import is_url, is_zarr
    from demoe.io.zarr import coarser_levels
    from demoe.live.pixels import coarser

    stored = coarser_levels(path, image.axes) if is_url(path) or is_zarr(Path(path)) else []
    blocks = (image.data.chunksize[image.axes.index(letter)] for letter in "YX")
    if stored or tuple(blocks) == tuple(image.plane_shape):
        return stored
    return coarser(image.data, image.axes)


def _map_layers(path: Path, image: LazyImage, kwargs: dict[str, Any]) -> list[LayerTuple]:
    """Read the maps of an image; the expert map comes last, to lie over the other."""
    import demoe
    from demoe.image.axes import plane_axes
    from demoe.io.names import places_beside
    from demoe.io.record import choices_of
    from napari_demoe._maps import (
        cells_to_layer_order,
        complexity_kwargs,
        confidence_kwargs,
        consistency_kwargs,
        expert_shares,
        experts_kwargs,
    )

    letters = plane_axes(image.axes) + "YX"
    places = places_beside(path)
    described = {
        "complexity": complexity_kwargs,
        "consistency": consistency_kwargs,
        "confidence": confidence_kwargs,
    }
    maps = {
        kind: demoe.open_image(places[kind])
        for kind in (*described, "experts")
        if places[kind].exists()
    }
    if "experts" not in maps:
        return []
    experts = maps["experts"]
    down, across = (round(experts.scale.get(a, 1.0) / image.scale.get(a, 1.0)) for a in "YX")
    place = (kwargs, image.axes, (down, across))
    layers: list[LayerTuple] = []
    for kind, cells in maps.items():
        values = cells.data.transpose([cells.axes.index(a) for a in letters]).compute()
        shown = cells_to_layer_order(values, image.axes)
        if kind == "experts":
            choices = choices_of(path)
            shares = expert_shares(values, len(choices))
            mine = {"metadata": {"demoe": {"result": str(path)}}}
            experts_are = experts_kwargs(*place, shares, choices)
            layers.append((shown, {**experts_are, **mine}, "labels"))
        else:
            layers.append((shown, described[kind](*place), "image"))
    return layers
