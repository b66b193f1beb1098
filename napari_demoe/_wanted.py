"""What is wanted: which tiles of which image, where one looks, and what that takes. No Qt."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from demoe.errors import DemoeError
from demoe.live.order import Scope, View
from napari_demoe._chosen import Chosen
from napari_demoe._job import Job
from napari_demoe._layers import is_shapes, layer_axes, ours, shifted
from napari_demoe._looking import framed, view_of
from napari_demoe._outlook import Ask, Outlook
from napari_demoe._paint import cells_of_layer
from napari_demoe._words import finest

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Shapes

PREVIEW_SIDE = 512
"""A preview covers so many pixels a side, around the middle of the view."""

LOOK_SECONDS = 0.25
"""How often what is in view is counted before a run."""


class Wanted:
    """What a person looks at, and what the next run would take.

    Parameters
    ----------
    viewer : ViewerModel
        Whose camera and sliders are followed.
    chosen : Chosen
        What is chosen.
    ask : Ask
        Calls a function in the background.
    changed : callable
        Called when there is something else to say.

    Attributes
    ----------
    outlook : Outlook
        What the run would take that would be next.
    """

    def __init__(
        self, viewer: ViewerModel, chosen: Chosen, ask: Ask, changed: Callable[[], None]
    ) -> None:
        self.outlook = Outlook(ask, changed)
        self._viewer, self._chosen, self._changed = viewer, chosen, changed
        self._said_ahead, self._look_again = ("", ""), 0.0

    # -- a run ------------------------------------------------------------------------------

    def job(self, layer: Image, preview: bool, download: bool, more: Callable[[], None]) -> Job:
        """Freeze what is chosen and looked at; DemoeError if that makes no run."""
        data, meta, _ = layer.as_layer_data_tuple()
        meta["unique_id"] = layer.unique_id
        chosen, focus = self._chosen, self._focus(layer)
        recipe, shape = chosen.choices.recipe(), finest(layer).shape
        axes = layer_axes(len(shape), meta)
        region = _region(axes, shape, focus) if preview else whole(layer)
        cells, reopened = None, ""
        if chosen.follows_map:
            cells = cells_of_layer(
                *(chosen.painted, layer, axes, region, recipe.pitch, chosen.brush, chosen.experts)
            )
            if not preview:
                reopened = file_of(chosen.painted)
        view, scope = None, Scope()
        if not preview:
            view = self.view(layer, axes)
            scope = self.scope(layer, axes)
        return Job(
            data,
            meta,
            recipe,
            region,
            cells,
            reopened=reopened,
            download=download,
            scope=scope,
            view=view,
            output="" if preview else chosen.output,
            folder=chosen.folder,
            more=more,
        )

    def scope(self, layer: Image, axes: str) -> Scope:
        """Return which tiles of a layer are wanted; RecipeError where shapes frame nothing."""
        chosen = self._chosen
        if chosen.scope != "region":
            return Scope(chosen.scope)
        shapes = chosen.painted if is_shapes(chosen.painted) else None
        return framed(shapes, layer, axes, self._viewer.dims.point)

    def view(self, layer: Image, axes: str) -> View:
        """Return what is looked at of a layer."""
        offset = self._viewer.dims.ndim - layer.ndim
        displayed = [axis - offset for axis in self._viewer.dims.displayed if axis >= offset]
        return view_of(layer, axes, displayed, self._focus(layer))

    def _focus(self, layer: Image) -> tuple[float, ...]:
        dims = self._viewer.dims
        point = np.array(dims.point, dtype=float)
        center = self._viewer.scene.camera.center[-dims.ndisplay :]
        point[list(dims.displayed)] = center
        place = [float(v) for v in layer.world_to_data(point)]
        return tuple(v if math.isfinite(v) else 0.0 for v in place)

    # -- before a run -------------------------------------------------------------------------

    def tick(self) -> None:
        """Ask what the next run takes, and say it anew where more or less is in view."""
        chosen = self._chosen
        self.outlook.tick(chosen.source, chosen.choices, chosen.folder, chosen.output)
        if (now := time.monotonic()) < self._look_again:
            return
        self._look_again = now + LOOK_SECONDS
        words = (self.prospect, self.shortage)
        if words != self._said_ahead:
            self._said_ahead = words
            self._changed()

    @property
    def prospect(self) -> str:
        """What the next run would take, in words; empty where nothing is known."""
        return self._ahead(self.outlook.words)

    @property
    def shortage(self) -> str:
        """What is wrong with where tiles would be kept, in words; empty if nothing is."""
        return self._ahead(self.outlook.shortage)

    def _ahead(self, say: Callable[[str, tuple[View, ...]], str]) -> str:
        layer = self._chosen.source
        if layer is None or self.outlook.forecast is None:
            return ""
        axes = layer_axes(len(finest(layer).shape), layer.as_layer_data_tuple()[1])
        views: tuple[View, ...] = (self.view(layer, axes),)
        if self._chosen.scope == "region":
            with suppress(DemoeError):  # nothing is drawn yet
                views = self.scope(layer, axes).region
        return say(self._chosen.scope, views)


def preview_meta(job: Job) -> Mapping[str, Any]:
    """Return what the layer of a preview has of its source's: its place is that of its region."""
    meta = shifted(job.meta, [part.start for part in job.region])
    return {**meta, "name": f"{job.meta['name']} preview"}


def file_of(layer: Labels | Shapes) -> str:
    """Return the file of a result whose map a layer is, if it was opened from one."""
    return str(ours({"metadata": layer.metadata}).get("result", ""))


def whole(layer: Image) -> tuple[slice, ...]:
    """Return all of a layer's pixels."""
    return tuple(slice(0, n) for n in finest(layer).shape)


def _region(axes: str, shape: tuple[int, ...], focus: tuple[float, ...]) -> tuple[slice, ...]:
    """Return one plane's pixels around a place, as much as a preview takes."""
    region = []
    for letter, length, place in zip(axes, shape, (*focus, 0.0), strict=False):
        side = {"Y": PREVIEW_SIDE, "X": PREVIEW_SIDE, "S": length}.get(letter, 1)
        start = min(max(round(place - (side - 1) / 2), 0), max(length - side, 0))
        region.append(slice(start, min(start + side, length)))
    return tuple(region)
