"""Expert maps as layers and as files: which expert worked in which cell, in colours and words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from demoe.choices import Choice, words_of
from demoe.errors import OutputError
from demoe.image.axes import plane_axes
from demoe.image.lazy_image import LazyImage
from napari_demoe._layers import GEOMETRY, ours, shifted

if TYPE_CHECKING:
    from napari.layers import Labels

WARNING = ((1.0, 0.25, 0.1, 0.0), (1.0, 0.25, 0.1, 0.8))
"""Colours of what is supported by the data, through which the image is seen, and of what is not."""


def cells_to_layer_order(cells: np.ndarray, axes: str) -> np.ndarray:
    """Put the axes of an expert map into the order of the image's layer.

    Parameters
    ----------
    cells : ndarray
        Plane axes of the image in its own order, then rows and columns of routing cells.
    axes : str
        The image's axes.

    Returns
    -------
    ndarray
        A view with one dimension for each axis of the image but S.
    """
    order = plane_axes(axes) + "YX"
    return cells.transpose([order.index(letter) for letter in axes.removesuffix("S")])


def cells_to_image_order(cells: np.ndarray, axes: str) -> np.ndarray:
    """Undo `cells_to_layer_order`."""
    spatial = axes.removesuffix("S")
    return cells.transpose([spatial.index(letter) for letter in plane_axes(axes) + "YX"])


def maps_of_image(image: LazyImage, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Find what a run left with its result.

    Parameters
    ----------
    image : LazyImage
        The result.
    meta : mapping
        Its layer's attributes.

    Returns
    -------
    dict
        What `demoe.io.write_image` takes: experts, gates, confidence, painted, consistency,
        complexity, kernels, choices and provenance; or nothing.
    """
    left = ours(meta)
    if "expert_map" not in left:
        return {}
    cells = {
        name: None if left.get(key) is None else image.of_cells(left[key], left["pitch"])
        for name, key in {
            "experts": "expert_map",
            "confidence": "confidence",
            "painted": "painted",
            "consistency": "consistency",
            "complexity": "complexity",
        }.items()
    }
    return {
        **cells,
        "gates": da.from_array(left["gates"]),
        "kernels": left["kernels"](),
        "choices": left["choices"],
        "provenance": dict(left["provenance"]),
    }


def map_of_labels(
    labels: Any, meta: Mapping[str, Any], image: LazyImage, experts: LazyImage
) -> LazyImage:
    """Take the values of a labels layer for an expert map; `OutputError` if it is another's."""
    cells = np.asarray(labels)
    expected = cells_to_layer_order(np.empty(experts.shape, np.uint8), image.axes).shape
    if cells.shape != expected:
        raise OutputError(
            f"The labels layer {meta['name']!r} has the shape {cells.shape}, but the expert map of "
            f"{image.name!r} has {expected}; save it on its own."
        )
    values = cells_to_image_order(cells, image.axes).astype(np.uint8)
    return experts.with_data(da.from_array(values))


def same_run(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two layers, given by their attributes, come from one run of the widget."""
    run = ours(first).get("run")
    return run is not None and run == ours(second).get("run")


def is_map(meta: Mapping[str, Any]) -> bool:
    """Whether a layer, given by its attributes, is a map of a run that is saved with its result."""
    return ours(meta).get("map") in ("confidence", "consistency", "complexity", "kernels")


def expert_shares(expert_map: np.ndarray, count: int) -> list[float]:
    """Return the part of all cells that has each value, 0 to the number of choices."""
    counts = np.bincount(expert_map.ravel(), minlength=count + 1)
    return [float(n) / expert_map.size for n in counts]


def expert_features(shares: Sequence[float], choices: Sequence[Choice]) -> dict[str, list[Any]]:
    """Say what each value of an expert map means, and which part of all cells has it."""
    words = words_of(choices)
    return {
        "index": list(range(len(words))),
        "blur": list(words),
        "share": [f"{share:.0%}" for share in shares],
    }


def experts_kwargs(
    source: Mapping[str, Any],
    axes: str,
    pitch: tuple[int, int],
    shares: Sequence[float],
    choices: Sequence[Choice],
) -> dict[str, Any]:
    """Describe an expert map as keyword arguments of a labels layer that overlays its image.

    Parameters
    ----------
    source, axes, pitch
        As for `cells_kwargs`.
    shares : sequence of float
        Part of all cells that has each value, 0 to 1.
    choices : sequence of Choice
        What the values 1, 2 ... mean.

    Returns
    -------
    dict
        name, geometry, colormap, features (value -> words), opacity.
    """
    from napari.utils.colormaps import DirectLabelColormap

    colours: dict[int | None, Any] = {0: "transparent", None: "transparent"}
    colours |= {n: np.array(choice.colour) / 255 for n, choice in enumerate(choices, start=1)}
    return {
        **cells_kwargs(source, axes, pitch),
        "name": f"{source['name']} experts",
        "colormap": DirectLabelColormap(color_dict=colours),
        "features": expert_features(shares, choices),
        "opacity": 0.25,
    }


def confidence_kwargs(
    source: Mapping[str, Any], axes: str, pitch: tuple[int, int]
) -> dict[str, Any]:
    """Describe a confidence map as keyword arguments of an image layer, hidden at first.

    Gray, so that the colours of the expert map, which may lie over it, keep their meaning.
    """
    return {
        **cells_kwargs(source, axes, pitch),
        "name": f"{source['name']} confidence",
        "rgb": False,
        "colormap": "gray",
        "contrast_limits": (0.0, 1.0),
        "interpolation2d": "nearest",
        "multiscale": False,
        "visible": False,
        "metadata": {"demoe": {"map": "confidence"}},
    }


def consistency_kwargs(
    source: Mapping[str, Any], axes: str, pitch: tuple[int, int]
) -> dict[str, Any]:
    """Describe a consistency map as keyword arguments of an image layer, hidden at first.

    Nothing is seen of it up to the noise; red where the result is not supported by the data.
    """
    from napari.utils import Colormap

    return {
        **confidence_kwargs(source, axes, pitch),
        "name": f"{source['name']} consistency",
        "colormap": Colormap(WARNING, name="not supported"),
        "contrast_limits": (1.0, 4.0),
        "metadata": {"demoe": {"map": "consistency"}},
    }


def complexity_kwargs(
    source: Mapping[str, Any], axes: str, pitch: tuple[int, int]
) -> dict[str, Any]:
    """Describe a map of complexity as keyword arguments of an image layer, hidden at first.

    From dark where cheap experts work to bright where the costliest do in all layers.
    """
    return {
        **confidence_kwargs(source, axes, pitch),
        "name": f"{source['name']} complexity",
        "colormap": "viridis",
        "metadata": {"demoe": {"map": "complexity"}},
    }


def kernels_kwargs(
    source: Mapping[str, Any], axes: str, step: float, first: tuple[float, float]
) -> dict[str, Any]:
    """Describe a picture of kernels as keyword arguments of an image layer, hidden at first.

    It glows over the image, which is seen where it is dark.

    Parameters
    ----------
    source, axes
        As for `cells_kwargs`.
    step, first
        See `demoe.live.kernels.placed`.
    """
    spatial = axes.removesuffix("S")
    steps = np.array([step if letter in "YX" else 1 for letter in spatial])
    start = dict(zip("YX", first, strict=True))
    return {
        **{key: source[key] for key in GEOMETRY if key in source},
        "scale": np.asarray(source["scale"], dtype=float) * steps,
        "translate": shifted(source, [start.get(letter, 0) for letter in spatial])["translate"],
        "name": f"{source['name']} kernels",
        "rgb": False,
        "colormap": "yellow",
        "blending": "additive",
        "contrast_limits": (0, 255),
        "interpolation2d": "nearest",
        "multiscale": False,
        "visible": False,
        "metadata": {"demoe": {"map": "kernels"}},
    }


def speak(layer: Labels, words: Callable[[tuple[float, ...]], str]) -> None:
    """Let the status bar say what is under the pointer in words, while they are not empty."""
    plain = layer.get_status

    def get_status(position: Any = None, **kwargs: Any) -> dict[str, str]:
        status = plain(position, **kwargs)
        said = words(tuple(position)) if kwargs.get("world") else ""
        if said:
            status |= {"coordinates": f"{status['coords']}: {said}", "value": said}
        return status

    layer.get_status = get_status


def cells_kwargs(source: Mapping[str, Any], axes: str, pitch: tuple[int, int]) -> dict[str, Any]:
    """Return what places a map over routing cells on its image.

    A cell's centre must lie over the centre of the pixels it decides on: with a pitch of p the
    first centre is at pixel (p - 1) / 2, so the map is p times coarser and shifted by that much,
    along the image's own axes even where the layer is rotated or sheared.

    Parameters
    ----------
    source : mapping
        The image layer's attributes, as in ``layer.as_layer_data_tuple()[1]`` or of `image_kwargs`.
    axes : str
        The image's axes.
    pitch : (int, int)
        Rows and columns of pixels a routing cell covers.
    """
    spatial = axes.removesuffix("S")
    cell = np.array([dict(zip("YX", pitch, strict=True)).get(a, 1) for a in spatial], dtype=float)
    return {
        **{key: source[key] for key in GEOMETRY if key in source},
        "scale": np.asarray(source["scale"], dtype=float) * cell,
        "translate": shifted(source, (cell - 1) / 2)["translate"],
    }
