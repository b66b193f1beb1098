"""Layers to lazy images and back: axes, pixel sizes, geometry, colours; no pixels are touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from demoe.axes import plane_axes
from demoe.colours import EXPERT_COLOURS
from demoe.errors import AxesError, OutputError
from demoe.image import SCALED_AXES, LazyImage
from demoe.intensity import resolve_intensity
from demoe.recipe import TASKS

if TYPE_CHECKING:
    from napari.layers import Image

GEOMETRY = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
"""What places a layer in the world; a result has all of it in common with its source."""

TASK_WORDS = {
    "defocus": "defocus",
    "global_motion": "global motion",
    "local_motion": "local motion",
    "synth_global_motion": "synthetic motion",
    "low_light": "low light",
}
"""The five blur types in words, in the published order."""

EXPERT_WORDS = ("not decided", *(TASK_WORDS[task] for task in TASKS))
"""What the values 0 to 5 of an expert map mean."""

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


def layer_to_lazy(layer: Image) -> LazyImage:
    """Read an image layer as a lazy image; see `to_lazy`."""
    data, meta, _ = layer.as_layer_data_tuple()
    return to_lazy(data, meta)


def geometry(layer: Image) -> dict[str, Any]:
    """Collect what places a layer in the world, as keyword arguments for another layer."""
    meta = layer.as_layer_data_tuple()[1]
    return {key: meta[key] for key in GEOMETRY}


def image_kwargs(image: LazyImage) -> dict[str, Any]:
    """Describe a lazy image from a file as keyword arguments of an image layer.

    The contrast limits come from a sparse sample of the pixels (see `demoe.intensity`), because
    without them the viewer would read whole planes to find its own.

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
        The source layer's attributes, as in ``layer.as_layer_data_tuple()[1]``.
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
        "metadata": {"demoe": {"channel_names": tuple(channel_names)}},
    }


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


def maps_of_image(
    image: LazyImage, meta: Mapping[str, Any]
) -> tuple[LazyImage | None, da.Array | None, dict[str, Any] | None]:
    """Find what a run left with its result.

    Parameters
    ----------
    image : LazyImage
        The result.
    meta : mapping
        Its layer's attributes.

    Returns
    -------
    experts : LazyImage or None
        The expert map, its scale that of a cell.
    gates : dask array or None
        Plane axes, 5 experts, rows and columns of cells.
    provenance : dict or None
        How the result was made.
    """
    ours = _ours(meta)
    if "expert_map" not in ours:
        return None, None, None
    cell = dict(zip("YX", ours["pitch"], strict=True))
    experts = LazyImage.from_array(
        ours["expert_map"],
        plane_axes(image.axes) + "YX",
        scale={a: image.scale.get(a, 1.0) * cell.get(a, 1) for a in SCALED_AXES if a in image.axes},
        units=image.units,
        channel_names=image.channel_names,
        name=f"{image.name} experts",
    )
    return experts, da.from_array(ours["gates"]), dict(ours["provenance"])


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
    run = _ours(first).get("run")
    return run is not None and run == _ours(second).get("run")


def expert_shares(expert_map: np.ndarray) -> list[float]:
    """Return the part of all cells that has each value, 0 to 5."""
    counts = np.bincount(expert_map.ravel(), minlength=len(EXPERT_WORDS))
    return [float(n) / expert_map.size for n in counts]


def experts_kwargs(
    source: Mapping[str, Any], axes: str, pitch: tuple[int, int], shares: Sequence[float]
) -> dict[str, Any]:
    """Describe an expert map as keyword arguments of a labels layer that overlays its image.

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
    shares : sequence of 6 float
        Part of all cells that has each value, 0 to 1.

    Returns
    -------
    dict
        name, geometry, colormap, features (value -> words), opacity.
    """
    from napari.utils.colormaps import DirectLabelColormap
    from napari.utils.transforms import Affine

    colours: dict[int | None, Any] = {0: "transparent", None: "transparent"}
    colours |= {value: np.array(rgb) / 255 for value, rgb in EXPERT_COLOURS.items()}
    spatial = axes.removesuffix("S")
    cell = np.array([dict(zip("YX", pitch, strict=True)).get(a, 1) for a in spatial], dtype=float)
    turned = {key: source[key] for key in ("translate", "rotate", "shear") if key in source}
    place = Affine(scale=source["scale"], ndim=len(spatial), **turned)
    return {
        **{key: source[key] for key in GEOMETRY if key in source},
        "name": f"{source['name']} experts",
        "scale": np.asarray(source["scale"], dtype=float) * cell,
        "translate": place(tuple((cell - 1) / 2)),
        "colormap": DirectLabelColormap(color_dict=colours),
        "features": {
            "index": list(range(len(EXPERT_WORDS))),
            "blur": list(EXPERT_WORDS),
            "share": [f"{share:.0%}" for share in shares],
        },
        "opacity": 0.3,
    }


def _ours(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    noted = (meta.get("metadata") or {}).get("demoe")
    return noted if isinstance(noted, Mapping) else {}


def _channel_names(meta: Mapping[str, Any], axes: str, shape: Sequence[int]) -> tuple[str, ...]:
    names = tuple(_ours(meta).get("channel_names", ()))
    return names if "C" in axes and len(names) == shape[axes.index("C")] else ()


def _is_time(unit: Any) -> bool:
    return dict(getattr(unit, "dimensionality", {})) == {"[time]": 1}
