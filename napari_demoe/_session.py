"""What the widget knows: choices, the state of a run, its results. No Qt in here.

One session belongs to one viewer. It freezes the choices into a `demoe.Recipe`, starts a worker
through the `launch` function that it was given, and turns the worker's reports into layers.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from demoe.axes import plane_axes
from demoe.errors import DemoeError
from demoe.recipe import Recipe
from napari_demoe._job import Downloading, Failed, Finished, Handle, Job, Launch, Planned, TilesDone
from napari_demoe._layers import layer_axes, result_kwargs, shifted
from napari_demoe._maps import (
    EXPERT_WORDS,
    cells_to_layer_order,
    expert_shares,
    experts_kwargs,
    painted_map,
)
from napari_demoe._words import describe, duration, finest, tiles

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer
    from napari.utils.events import Event

    from demoe.model.zoo import ModelInfo

PAINTED = "painted"
"""The routing that takes the expert map from a labels layer."""

PREVIEW_SIDE = 512
"""A preview covers so many pixels a side, around the middle of the view."""

REFRESH_SECONDS = 0.2
"""A running result is redrawn at most five times a second."""


@dataclass
class Choices:
    """What a person chose in the widget; see `demoe.Recipe` for the meaning.

    Routing may also be `PAINTED`: the expert map is a labels layer.
    """

    model: str = "default"
    routing: str = "auto"
    top_k: int = 1
    device: str = "auto"
    tile: int = 0  # 0: chosen for the device
    keep_brightness: bool = False

    def recipe(self) -> Recipe:
        """Freeze the choices; `RecipeError` if one is out of range."""
        return Recipe(
            model=self.model,
            routing="auto" if self.routing == PAINTED else self.routing,
            top_k=self.top_k,
            device=self.device,
            tile=self.tile or "auto",
            photometry="preserve" if self.keep_brightness else "model",
        )


class Session:
    """The state behind the widget of one viewer.

    Parameters
    ----------
    viewer : ViewerModel
        Where sources come from and results go to.
    launch : callable
        Starts a `Job` in the background, see `Launch`.

    Attributes
    ----------
    choices : Choices
        Set them freely; they are read when a run starts.
    state : str
        "idle", "running", "cancelling" or "failed" (which starts like idle).
    error : str
        The sentence of the last failure, empty after a good start.
    done, total : int
        Tiles; total is 0 until the tiles are known.
    shares : list of 6 float
        Part of the last result's cells that each expert got, empty before one.
    overlay : Labels or None
        The last result's expert map.
    painted : Labels or None
        The expert map to follow if the routing is `PAINTED`.
    """

    changed = Signal()

    def __init__(self, viewer: ViewerModel, launch: Launch) -> None:
        self.choices = Choices()
        self.state = "idle"
        self.error = ""
        self.done = self.total = 0
        self.shares: list[float] = []
        self.overlay: Labels | None = None
        self.painted: Labels | None = None
        self._viewer = viewer
        self._launch = launch
        self._handle: Handle | None = None
        self._source: Image | None = None
        self._note = ""
        self._preview_layers: list[Layer] = []
        self._clear_run()
        for layer in viewer.layers:
            layer.events.name.connect(self._layers_changed)
        viewer.layers.events.inserted.connect(self._layer_inserted)
        viewer.layers.events.removed.connect(self._layer_removed)
        viewer.layers.selection.events.active.connect(self._follow_selection)
        self._follow_selection()
        self._layers_changed()

    # -- the source -------------------------------------------------------------------------

    @property
    def sources(self) -> list[Image]:
        """Every image layer, in the order of the layer list."""
        return [layer for layer in self._viewer.layers if is_image(layer)]

    @property
    def maps(self) -> list[Labels]:
        """Every labels layer, in the order of the layer list."""
        return [layer for layer in self._viewer.layers if is_labels(layer)]

    @property
    def source(self) -> Image | None:
        """The image layer to deblur."""
        return self._source

    @source.setter
    def source(self, layer: Image | None) -> None:
        if layer is not self._source:
            self._source = layer
            self.changed.emit()

    def _follow_selection(self, event: object = None) -> None:
        active = self._viewer.layers.selection.active
        if active is not None and is_image(active) and not is_result(active):
            self.source = active

    def _layer_inserted(self, event: Event) -> None:
        event.value.events.name.connect(self._layers_changed)
        self._layers_changed()

    def _layer_removed(self, event: Event) -> None:
        event.value.events.name.disconnect(self._layers_changed)
        self._layers_changed()

    def _layers_changed(self, event: object = None) -> None:
        layers = self.sources
        if self._source not in layers:
            fresh = [layer for layer in layers if not is_result(layer)]
            self._source = (fresh or layers or [None])[-1]
        maps = self.maps
        if self.painted not in maps:
            self.painted = maps[-1] if maps else None
        if self.overlay is not None and self.overlay not in self._viewer.layers:
            self.overlay, self.shares = None, []
        if self._working is not None and self._working not in self._viewer.layers:
            self._working = None  # its layer was deleted, so nobody wants the rest
            self.cancel()
        self.changed.emit()

    # -- a run ------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a worker runs."""
        return self._handle is not None

    def missing_network(self) -> ModelInfo | None:
        """Return the chosen network if it would have to be downloaded first."""
        from demoe.model.zoo import list_models

        chosen = (model for model in list_models() if model.name == self.choices.model)
        return next((model for model in chosen if model.url and not model.available), None)

    def start(self, *, preview: bool = False, download: bool = False) -> None:
        """Deblur the source in the background; does nothing while a run is on.

        Parameters
        ----------
        preview : bool
            Take only what is around the middle of the view, in the plane that is shown. Each
            preview takes the place of the one before.
        download : bool
            Whether a network that is not here yet may be downloaded.
        """
        if self.busy:
            return
        if self._source is None:
            self._fail("There is no image layer to deblur; open an image first.")
            return
        painted = self.choices.routing == PAINTED
        if painted and self.painted is None:
            self._fail(
                "There is no labels layer to take the expert map from; add one and paint on it."
            )
            return
        try:
            job = self._job(self._source, self.painted if painted else None, preview, download)
        except DemoeError as error:
            self._fail(str(error))
            return
        self._clear_run()
        self._preview, self._meta = preview, job.meta
        if preview:
            name = f"{job.meta['name']} preview"
            self._meta = {**shifted(job.meta, [part.start for part in job.region]), "name": name}
        self.state, self.error, self._note = "running", "", ""
        self._handle = self._launch(
            job,
            reported=self._reported,
            crashed=self._crashed,
            ended=self._ended,
        )
        self.changed.emit()

    def _job(self, layer: Image, painted: Labels | None, preview: bool, download: bool) -> Job:
        data, meta, _ = layer.as_layer_data_tuple()
        recipe, focus = self.choices.recipe(), self._focus(layer)
        shape = finest(layer).shape
        axes = layer_axes(len(shape), meta)
        region = _region(axes, shape, focus) if preview else tuple(slice(0, n) for n in shape)
        cells = None
        if painted is not None:
            map_meta = painted.as_layer_data_tuple()[1]
            cells = painted_map(np.asarray(finest(painted)), map_meta, axes, shape, region)
        return Job(data, meta, recipe, focus, region, cells, download)

    def cancel(self) -> None:
        """Stop after the tile in work; the unfinished layer is removed."""
        if self._handle is not None and self.state == "running":
            self.state = "cancelling"
            self._handle.quit()
            self.changed.emit()

    def close(self) -> None:
        """Stop and forget the viewer; called when the widget goes away, maybe more than once."""
        self.changed.disconnect()
        events = self._viewer.layers.events
        events.inserted.disconnect(self._layer_inserted)
        events.removed.disconnect(self._layer_removed)
        self._viewer.layers.selection.events.active.disconnect(self._follow_selection)
        for layer in self._viewer.layers:
            layer.events.name.disconnect(self._layers_changed)
        self.cancel()
        self._drop_working()

    @property
    def seconds_left(self) -> float | None:
        """Estimate from the tiles done so far; None before the first one."""
        if not self.done or not self.total:
            return None
        return (time.monotonic() - self._planned_at) / self.done * (self.total - self.done)

    @property
    def status(self) -> str:
        """What is going on, in words."""
        if self.state == "cancelling":
            return "Stopping after the tile in work …"
        if self.state == "running":
            if not self.total:
                return self._note or "Loading the network …"
            left = self.seconds_left
            wait = "" if left is None else f", about {duration(left)} left"
            if self.done == self.total:
                return "Drawing the expert map …"
            return f"Deblurring tile {self.done + 1} of {self.total}{wait}"
        if self._note or self.state == "failed":
            return self._note
        if self._source is None:
            return "Open an image, or one of File > Open Sample > DeMoE."
        return f"Ready: {describe(self._source)}."

    def describe_cell(self, position: tuple[float, ...]) -> str:
        """Say which expert worked at a place of the world, for example "defocus 0.93"."""
        layer = self.overlay
        if layer is None or not layer.visible:
            return ""
        value = layer.get_value(position, world=True)
        if not value or value >= len(EXPERT_WORDS):  # a person may paint anything
            return ""
        ours = layer.metadata["demoe"]
        cell = np.rint(layer.world_to_data(position)).astype(int)
        at = dict(zip(ours["axes"], cell, strict=False))
        plane = tuple(at[letter] for letter in plane_axes(ours["axes"]))
        weight = ours["gates"][(*plane, int(value) - 1, at["Y"], at["X"])]
        return f"{EXPERT_WORDS[int(value)]} {float(weight):.2f}"

    # -- reports of the worker, on the main thread ---------------------------------------------

    def _reported(self, report: object) -> None:
        if self.state == "cancelling":
            return
        if isinstance(report, Downloading):
            here, total = (f"{n / 1e6:.0f}" for n in (report.done, report.total))
            self._note = f"Downloading the network: {here} of {total} MB"
        elif isinstance(report, Planned):
            self._show_working(report)
        elif isinstance(report, TilesDone):
            self.done, self._note = report.done, ""
            self._redraw()
        elif isinstance(report, Finished):
            self._finish(report)
        elif isinstance(report, Failed):
            self._fail(report.message)
        self.changed.emit()

    def _crashed(self, error: Exception) -> None:
        # The viewer shows the error with its traceback by itself.
        self._fail(f"{type(error).__name__}: {error}", notify=False)

    def _ended(self) -> None:
        self._handle = None
        if self.state in ("running", "cancelling"):  # neither finished nor failed
            self.state, self._note = "idle", "Cancelled; the unfinished result was removed."
        self._drop_working()
        self.changed.emit()

    def _show_working(self, plan: Planned) -> None:
        self.total, self._planned_at = plan.total, time.monotonic()
        kwargs = result_kwargs(self._meta, plan.channel_names)
        kwargs["name"] += " (running)"
        kwargs["metadata"]["demoe"]["run"] = uuid.uuid4().hex
        self._axes = plan.axes
        self._working = self._viewer.add_image(plan.pixels, **kwargs)

    def _overlay_toggled(self, event: object = None) -> None:
        self.changed.emit()

    def _redraw(self) -> None:
        now = time.monotonic()
        if self._working is not None and now - self._drawn_at >= REFRESH_SECONDS:
            self._drawn_at = now
            self._working.refresh(thumbnail=False, highlight=False, extent=False)

    def _finish(self, result: Finished) -> None:
        layer = self._working
        if layer is None:
            return
        self._working = None
        self.shares = expert_shares(result.expert_map)
        ours = {
            **layer.metadata["demoe"],
            "axes": self._axes,
            "expert_map": result.expert_map,
            "gates": result.gates,
            "pitch": tuple(result.pitch),
            "provenance": dict(result.provenance),
        }
        layer.metadata = {**layer.metadata, "demoe": ours}
        layer.name = layer.name.replace(" (running)", "")
        layer.refresh()
        overlay = self._viewer.add_labels(
            cells_to_layer_order(result.expert_map, self._axes),
            **experts_kwargs(self._meta, self._axes, result.pitch, self.shares),
            metadata={"demoe": ours},
        )
        overlay.events.visible.connect(self._overlay_toggled)
        self.overlay = overlay
        if self._preview:
            self._replace_preview([layer, overlay])
        seconds = duration(time.monotonic() - self._started_at)
        device = result.provenance.get("device", "")
        self.state = "idle"
        self._note = f"Done in {seconds}: {tiles(self.total)} on {device}."

    def _replace_preview(self, layers: list[Layer]) -> None:
        for earlier in self._preview_layers:
            if earlier in self._viewer.layers:
                self._viewer.layers.remove(earlier)
        self._preview_layers = layers

    def _fail(self, message: str, notify: bool = True) -> None:
        self.state, self.error, self._note = "failed", message, ""
        self._drop_working()
        if notify:
            from napari.utils.notifications import show_error

            show_error(message)
        self.changed.emit()

    def _drop_working(self) -> None:
        layer, self._working = self._working, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def _clear_run(self) -> None:
        self.done = self.total = 0
        self._working: Image | None = None
        self._meta: Mapping[str, Any] = {}
        self._axes = ""
        self._preview = False
        self._drawn_at = 0.0
        self._started_at = self._planned_at = time.monotonic()

    def _focus(self, layer: Image) -> tuple[float, ...]:
        dims = self._viewer.dims
        point = np.array(dims.point, dtype=float)
        center = self._viewer.scene.camera.center[-dims.ndisplay :]
        point[list(dims.displayed)] = center
        place = [float(v) for v in layer.world_to_data(point)]
        return tuple(v if math.isfinite(v) else 0.0 for v in place)


def _region(axes: str, shape: tuple[int, ...], focus: tuple[float, ...]) -> tuple[slice, ...]:
    """Return one plane's pixels around a place, as much as a preview takes."""
    region = []
    for letter, length, place in zip(axes, shape, (*focus, 0.0), strict=False):
        side = {"Y": PREVIEW_SIDE, "X": PREVIEW_SIDE, "S": length}.get(letter, 1)
        start = min(max(round(place - (side - 1) / 2), 0), max(length - side, 0))
        region.append(slice(start, min(start + side, length)))
    return tuple(region)


def is_image(layer: Layer) -> bool:
    """Whether a layer holds an image."""
    from napari.layers import Image  # late, because it brings the canvas along

    return isinstance(layer, Image)


def is_labels(layer: Layer) -> bool:
    """Whether a layer holds labels."""
    from napari.layers import Labels

    return isinstance(layer, Labels)


def is_result(layer: Layer) -> bool:
    """Whether a layer was made by a run, so that it is not taken as the next source by itself."""
    ours = layer.metadata.get("demoe")
    return isinstance(ours, Mapping) and "run" in ours
