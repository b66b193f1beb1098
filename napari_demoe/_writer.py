"""Writer: an image layer, with the expert map that belongs to it, into one file or folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

LayerTuple = tuple[Any, dict[str, Any], str]


def write_layers(path: str, layers: Sequence[LayerTuple]) -> list[str]:
    """Save an image layer with its pixel sizes, and its expert map if it has one.

    The map and the gates are those that the run left with the image. A labels layer that is saved
    together with its image replaces the map, so that what a person painted is kept.

    Parameters
    ----------
    path : str
        Where to; the suffix decides the format (see `demoe.io.SUFFIXES_OUT`).
    layers : sequence of layer data tuples
        One image, and at most one labels layer of the same run.

    Returns
    -------
    list of str
        The path that was written.

    Raises
    ------
    OutputError
        If the labels are no expert map of the image, a folder of this name exists, or the format
        cannot hold the image.
    """
    from demoe.errors import OutputError
    from demoe.io import write_image
    from napari_demoe._layers import to_lazy
    from napari_demoe._maps import map_of_labels, maps_of_image, same_run

    (data, meta), *labels = sorted_by_kind(layers)
    image = to_lazy(data, meta)
    experts, gates, provenance = maps_of_image(image, meta)
    for cells, cells_meta in labels:
        if experts is None or not same_run(meta, cells_meta):
            raise OutputError(
                f"The labels layer {cells_meta['name']!r} is no expert map of the image "
                f"{meta['name']!r}; save it on its own."
            )
        experts = map_of_labels(cells, cells_meta, image, experts)
    # The save dialog asks before it replaces a file, but it cannot ask about a folder.
    written = write_image(
        path,
        image,
        experts=experts,
        gates=gates,
        provenance=provenance,
        overwrite=not Path(path).is_dir(),
    )
    return [str(written)]


def sorted_by_kind(layers: Sequence[LayerTuple]) -> list[tuple[Any, dict[str, Any]]]:
    """Put the image before the labels, whatever their order in the layer list."""
    return [(data, meta) for data, meta, kind in sorted(layers, key=lambda layer: layer[2])]
