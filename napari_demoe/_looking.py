"""What is looked at in the viewer, and what a person framed, in pixels of an image. No Qt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from demoe.errors import RecipeError
from demoe.image.axes import plane_axes
from demoe.live.order import Scope, View
from demoe.plan.tiling import Box

if TYPE_CHECKING:
    from napari.layers import Image, Shapes


def view_of(layer: Image, axes: str, displayed: Sequence[int], focus: Sequence[float]) -> View:
    """Return what is looked at of a layer.

    Parameters
    ----------
    layer : Image
        In a viewer; its corners are those that were drawn last.
    axes : str
        Letter of each axis of its data.
    displayed : sequence of int
        The axes that are shown, by their place in the layer.
    focus : sequence of float
        The middle of the canvas, in pixels of the layer's finest level.
    """
    factors = steps_of(layer)
    low, high = (np.asarray(corner)[: layer.ndim] * factors for corner in layer.corner_pixels)
    high = high + factors  # the last pixel belongs to it
    spatial = axes.removesuffix("S")
    spans = {}
    for axis, letter in enumerate(spatial):
        at = int(np.clip(round(focus[axis]), 0, _length(layer, axis) - 1))
        if letter in "YX" and axis in displayed:
            spans[letter] = (int(low[axis]), int(high[axis]))
        else:
            spans[letter] = (at, at + 1)
    (top, bottom), (left, right) = spans["Y"], spans["X"]
    centre = focus[spatial.index("Y")], focus[spatial.index("X")]
    plane = tuple(spans[letter][0] for letter in plane_axes(axes))
    return View(plane, Box(top, left, bottom, right), centre)


def steps_of(layer: Image) -> np.ndarray:
    """Return how many pixels one that is shown stands for, along each axis (ndim,)."""
    if not layer.multiscale:
        return np.ones(layer.ndim)
    return np.asarray(layer.downsample_factors[layer.data_level], dtype=float)[: layer.ndim]


def framed(shapes: Shapes | None, layer: Image, axes: str, point: Sequence[float]) -> Scope:
    """Return what the shapes of a layer frame of an image.

    Parameters
    ----------
    shapes : Shapes or None
        Their bounding boxes count, where they lie on the image.
    layer : Image
        The image.
    axes : str
        Its axes.
    point : sequence of float
        Where the viewer stands, in world coordinates: for shapes that have fewer dimensions.

    Raises
    ------
    RecipeError
        If there is no shape on the image.
    """
    spatial, views = axes.removesuffix("S"), []
    for shape in shapes.data if shapes is not None else ():
        world = np.array([shapes.data_to_world(corner) for corner in np.asarray(shape)])
        missing = layer.ndim - world.shape[1]
        lead = np.tile(np.asarray(point, dtype=float)[:missing], (len(world), 1))
        corners = np.array([layer.world_to_data(at) for at in np.hstack([lead, world])])
        low, high = corners.min(axis=0), corners.max(axis=0)
        spans: dict[str, Any] = {}
        for axis, letter in enumerate(spatial):
            most = _length(layer, axis)
            start, stop = (int(np.clip(round(n), 0, most)) for n in (low[axis], high[axis]))
            spans[letter] = (min(start, most - 1), stop)
        (top, bottom), (left, right) = spans["Y"], spans["X"]
        if bottom > top and right > left:
            plane = tuple(spans[letter][0] for letter in plane_axes(axes))
            views.append(View(plane, Box(top, left, bottom, right)))
    if not views:
        raise RecipeError(
            "There is no shape on the image that says which region; draw a rectangle in a layer "
            "of shapes and choose it as the map."
        )
    return Scope("region", tuple(views))


def _length(layer: Image, axis: int) -> int:
    return int((layer.data[0] if layer.multiscale else layer.data).shape[axis])
