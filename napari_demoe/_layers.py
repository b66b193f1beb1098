"""Layers to lazy images and back: axes, pixel sizes, geometry; no pixels are touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from demoe.errors import AxesError
from demoe.image.intensity import resolve_intensity
from demoe.image.lazy_image import SCALED_AXES, LazyImage

if TYPE_CHECKING:
    from napari.layers import Layer

GEOMETRY = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
"""What places a layer in the world; a result has all of it in common with its source."""

_AXIS_WORDS = {
    **dict.fromkeys(("t", "time", "frame", "frames"), "T"),
    **dict.fromkeys(("c", "ch", "channel", "channels"), "C"),
    **dict.fromkeys(("z", "depth", "slice", "plane"), "Z"),
    **dict.fromkeys(("y", "row", "rows"), "Y"),
    **dict.fromkeys(("x", "column", "columns", "col"), "X"),
}
_LEADING = {0: "", 1: "Z", 2: "TZ", 3: "TCZ"}


def layer_axes(ndim: int, meta: Mapping[str, Any]) -> str:
    """Name the axes of an image layer.

    The layer's axis labels decide if every one is a known word (t, time, c, channel, z, depth, y,
    x, ...) and both y and x are among them. Otherwise the position does: YX, ZYX (TYX if the
    first axis is counted in seconds or another unit of time), TZYX, TCZYX.

    Parameters
    ----------
    ndim : int
        Dimensions of the data, colour samples included.
    meta : mapping
        The layer's attributes as in its layer data tuple: rgb, axis_labels, units.

    Returns
    -------
    str
        One letter of TCZYXS for each dimension of the data.

    Raises
    ------
    AxesError
        If there are more than five axes without telling labels.
    """
    samples = "S" if meta.get("rgb") else ""
    spatial = ndim - len(samples)
    labels = [str(label).strip().lower() for label in meta.get("axis_labels") or ()]
    letters = "".join(_AXIS_WORDS.get(label, "?") for label in labels)
    if (
        len(letters) == len(set(letters)) == spatial
        and "?" not in letters
        and {*"YX"} <= {*letters}
    ):
        return letters + samples
    leading = spatial - 2
    if leading not in _LEADING:
        raise AxesError(
            f"The layer has {spatial} axes, but only up to 5 can be named by their order; "
            "set its axis_labels, for example ('t', 'c', 'z', 'y', 'x')."
        )
    units = list(meta.get("units") or ())
    if leading == 1 and len(units) == spatial and _is_time(units[0]):
        return "TYX" + samples
    return _LEADING[leading] + "YX" + samples


def to_lazy(data: Any, meta: Mapping[str, Any]) -> LazyImage:
    """Read an image layer's data tuple as a lazy image; nothing is computed.

    Parameters
    ----------
    data : array-like, or sequence of them
        numpy, dask or zarr array; of a multiscale layer the finest level is taken.
    meta : mapping
        The layer's attributes, as in ``layer.as_layer_data_tuple()[1]``.

    Returns
    -------
    LazyImage
        With the layer's name, pixel sizes and units.

    Raises
    ------
    ImageError, AxesError
        If the layer holds no image (bool, complex), or its axes cannot be named.
    """
    array = data[0] if meta.get("multiscale") else data
    array = exactly(array)
    axes = layer_axes(len(array.shape), meta)
    spatial = axes.removesuffix("S")
    steps = meta.get("scale")
    names = meta.get("units")
    scale, units = {}, {}
    for i, letter in enumerate(spatial):
        if letter not in SCALED_AXES:
            continue
        step = 1.0 if steps is None else abs(float(steps[i]))  # a flipped axis has the same size
        if np.isfinite(step) and step > 0:
            scale[letter] = step
        if names is not None:
            units[letter] = str(names[i])
    return LazyImage.from_array(
        array,
        axes,
        scale=scale,
        units=units,
        channel_names=_channel_names(meta, axes, array.shape),
        name=str(meta.get("name") or "image"),
    )


def exactly(array: Any) -> Any:
    """Return an array that waits for its pixels; one for eyes shows black for what is unread."""
    return getattr(array, "exact", array)


def image_kwargs(image: LazyImage) -> dict[str, Any]:
    """Describe a lazy image from a file as keyword arguments of an image layer.

    The contrast limits come from a sparse sample of the pixels (see `demoe.image.intensity`),
    because without them the viewer would read whole planes to find its own.

    Parameters
    ----------
    image : LazyImage
        Any image.

    Returns
    -------
    dict
        name, rgb, scale, units, axis_labels, contrast_limits, multiscale, cache, metadata.
    """
    spatial = image.axes.removesuffix("S")
    limits = resolve_intensity(image, "auto")
    return {
        "name": image.name,
        "rgb": image.is_rgb,
        "scale": [image.scale.get(letter, 1.0) for letter in spatial],
        "units": [image.units.get(letter, "pixel") for letter in spatial],
        "axis_labels": [letter.lower() for letter in spatial],
        "contrast_limits": (limits.low, limits.high),
        "multiscale": False,
        "cache": False,
        "metadata": {
            "demoe": {
                "channel_names": tuple(image.channel_names),
                "source": image.source,
            }
        },
    }


def result_kwargs(source: Mapping[str, Any], channel_names: Sequence[str]) -> dict[str, Any]:
    """Describe the deblurred image of a layer as keyword arguments of an image layer.

    Parameters
    ----------
    source : mapping
        The source layer's attributes, as in ``layer.as_layer_data_tuple()[1]``, and its
        "unique_id", by which it is found to be compared with.
    channel_names : sequence of str
        Names along axis C, or none.

    Returns
    -------
    dict
        The geometry, colours and contrast of the source, and a fresh ``metadata["demoe"]``.
    """
    return {
        **{key: source[key] for key in GEOMETRY},
        "name": f"{source['name']} deblurred",
        "rgb": bool(source["rgb"]),
        "contrast_limits": tuple(source["contrast_limits"]),
        "colormap": source["colormap"],
        "gamma": source["gamma"],
        "interpolation2d": source["interpolation2d"],
        "multiscale": False,
        "cache": False,
        "metadata": {
            "demoe": {"channel_names": tuple(channel_names), "made_from": source.get("unique_id")}
        },
    }


def shifted(source: Mapping[str, Any], start: Sequence[float]) -> dict[str, Any]:
    """Move a layer so that its first pixel lies where pixel `start` of it was.

    Parameters
    ----------
    source : mapping
        A layer's attributes; "scale" at least.
    start : sequence of float
        A place in the layer's data, without colour samples.

    Returns
    -------
    dict
        The same attributes with another "translate".
    """
    from napari.utils.transforms import Affine

    turned = {key: source[key] for key in ("translate", "rotate", "shear") if key in source}
    ndim = len(source["scale"])
    place = Affine(scale=source["scale"], ndim=ndim, **turned)
    return {**source, "translate": place(tuple(start[:ndim]))}


def ours(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what this plugin noted in a layer's metadata, or an empty mapping."""
    noted = (meta.get("metadata") or {}).get("demoe")
    return noted if isinstance(noted, Mapping) else {}


def is_image(layer: Layer) -> bool:
    """Whether a layer holds an image."""
    from napari.layers import Image  # late, because it brings the canvas along

    return isinstance(layer, Image)


def is_labels(layer: Layer) -> bool:
    """Whether a layer holds labels."""
    from napari.layers import Labels

    return isinstance(layer, Labels)


def is_shapes(layer: Layer | None) -> bool:
    """Whether a layer holds shapes."""
    from napari.layers import Shapes

    return isinstance(layer, Shapes)


def is_result(layer: Layer) -> bool:
    """Whether a layer was made by a run, so that it is not taken as the next source by itself."""
    return "run" in ours({"metadata": layer.metadata})


def _channel_names(meta: Mapping[str, Any], axes: str, shape: Sequence[int]) -> tuple[str, ...]:
    names = tuple(ours(meta).get("channel_names", ()))
    return names if "C" in axes and len(names) == shape[axes.index("C")] else ()


def _is_time(unit: Any) -> bool:
    return dict(getattr(unit, "dimensionality", {})) == {"[time]": 1}
