"""Writer: an image layer, with the maps that belong to it, into one file or folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

LayerTuple = tuple[Any, dict[str, Any], str]


def write_layers(path: str, layers: Sequence[LayerTuple]) -> list[str]:
    """Save an image layer with its pixel sizes, and its maps if it has them.

    The maps and the gates are those that the run left with the image. A labels layer that is saved
    together with its image replaces the expert map, so that what a person painted is kept.

    Parameters
    ----------
    path : str
        Where to; the suffix decides the format (see `demoe.io.SUFFIXES_OUT`).
    layers : sequence of layer data tuples
        One image, and at most the expert map and the confidence of the same run.

    Returns
    -------
    list of str
        The path that was written.

    Raises
    ------
    OutputError
        If another layer is no map of the image, a folder of this name exists, or the format
        cannot hold the image.
    """
    from demoe.errors import OutputError
    from demoe.io import write_image
    from napari_demoe._layers import to_lazy
    from napari_demoe._maps import is_map, map_of_labels, maps_of_image, same_run

    (data, meta), *others = sorted_by_kind(layers)
    image = to_lazy(data, meta)
    maps = maps_of_image(image, meta)
    for cells, cells_meta in others:
        if not maps or not same_run(meta, cells_meta):
            raise OutputError(
                f"The layer {cells_meta['name']!r} is no map of the image {meta['name']!r}; save "
                "it on its own."
            )
        if not is_map(cells_meta):
            maps["experts"] = map_of_labels(cells, cells_meta, image, maps["experts"])
    # The save dialog asks before it replaces a file, but it cannot ask about a folder.
    written = write_image(path, image, **maps, overwrite=not Path(path).is_dir())
    return [str(written)]


def sorted_by_kind(layers: Sequence[LayerTuple]) -> list[tuple[Any, dict[str, Any]]]:
    """Put the image before its maps, whatever their order in the layer list."""
    from napari_demoe._maps import is_map

    ordered = sorted(layers, key=lambda layer: (layer[2], is_map(layer[1])))
    return [(data, meta) for data, meta, _ in ordered]
