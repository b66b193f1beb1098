"""What is shown of a run: the layer that sharpens, and the maps of a result. No Qt in here."""

from __future__ import annotations

import re
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from demoe.choices import Choice, words_of
from demoe.image.axes import plane_axes
from demoe.live.kernels import placed
from napari_demoe._blurs import blur_at, glyphs, glyphs_kwargs
from napari_demoe._chosen import Chosen
from napari_demoe._layers import result_kwargs
from napari_demoe._looking import steps_of
from napari_demoe._maps import (
    cells_to_layer_order,
    complexity_kwargs,
    confidence_kwargs,
    consistency_kwargs,
    expert_features,
    experts_kwargs,
    kernels_kwargs,
    speak,
)
from napari_demoe._words import tiles

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer, Vectors
    from napari.utils.events import Event

    from demoe.live.run import LiveRun
    from napari_demoe._job import Finished, Planned

REST = 3
"""After a redraw, the canvas has so many times its duration for other things."""

LARGE = 2048
"""Planes longer than this are shown by levels, of which the viewer reads what it needs."""

_PART = re.compile(r" \((running|\d+ of [\d,]+ tiles?)\)$")  # what a name says of a run

MAPS = ("confidence", "consistency", "complexity", "blur", "kernels")
"""What is shown of a result beside its expert map, by the names of the layers here."""


class Display:
    """The layers of the run in work, and of the last result.

    Parameters
    ----------
    viewer : ViewerModel
        Gets the layers.
    chosen : Chosen
        Told of what is painted, and with what.
    changed : callable
        Called when there is something else to say of the layers.
    patient : bool
        Whether maps are added one after the other, by `show_next`, so that the viewer does not
        stand still while it adds their layers; else all at once.

    Attributes
    ----------
    result, overlay, confidence, consistency, complexity, blur, kernels
        See `napari_demoe._session.Session`.
    working : Image or None
        Shows the run in work, or one that was stopped and can go on.
    runs : dict
        What computes the pixels of the layers that are not in memory.
    axes : str
        Of the layer in work.
    is_preview : bool
        Whether it is one.
    to_show : list of callable
        Show one map each.
    fresh : Event
        Set by other threads when more can be shown.
    """

    def __init__(
        self, viewer: ViewerModel, chosen: Chosen, changed: Callable[[], None], patient: bool
    ) -> None:
        self.result: Image | None = None
        self.overlay: Labels | None = None
        self.confidence: Image | None = None
        self.consistency: Image | None = None
        self.complexity: Image | None = None
        self.blur: Vectors | None = None
        self.kernels: Image | None = None
        self.fresh = threading.Event()
        self.runs: dict[Image, LiveRun] = {}
        self.to_show: list[Callable[[], None]] = []
        self._viewer, self._chosen = viewer, chosen
        self._changed, self._patient = changed, patient
        self._found: tuple[list[float], list[str]] = ([], [])  # shares and sizes,
        self._experts: tuple[Choice, ...] = ()  # of these
        self._preview_layers: list[Layer] = []
        self._rest = 0.0
        self.begin({}, "", is_preview=False)

    def begin(self, meta: Mapping[str, Any], axes: str, is_preview: bool) -> None:
        """Get ready for the layer of another run."""
        self.working: Image | None = None
        self.axes, self.is_preview = axes, is_preview
        self._meta = meta
        self._rest = 0.0

    @property
    def shares(self) -> list[float]:
        """Part of the last result's cells that each of the experts got that are offered now."""
        return self._found[0] if self._experts == self._chosen.experts else []

    @property
    def sizes(self) -> list[str]:
        """Beside `shares`: how large the blurs are that were found there, or nothing."""
        return self._found[1] if self._experts == self._chosen.experts else []

    @property
    def run(self) -> LiveRun | None:
        """What computes the layer in work."""
        return None if self.working is None else self.runs.get(self.working)

    @property
    def coarser(self) -> int:
        """How many pixels a side one pixel stands for that is shown of the layer in work."""
        return 1 if self.working is None else round(float(steps_of(self.working).max()))

    # -- layers come and go -------------------------------------------------------------------

    def follow_layers(self) -> bool:
        """Forget layers that were removed; tell whether the one in work was."""
        layers = self._viewer.layers
        is_unwanted = self.working is not None and self.working not in layers
        if is_unwanted:
            self._forget_working()
        if self.overlay is not None and self.overlay not in layers:
            self.overlay, self._found = None, ([], [])
        for name in MAPS:
            if getattr(self, name) not in layers:
                setattr(self, name, None)
        if self.result is not None and self.result not in layers:
            self.result = None
        return is_unwanted

    def take_unseen(self) -> list[LiveRun]:
        """Return the runs whose layers are gone, and forget them."""
        gone = [layer for layer in self.runs if layer not in self._viewer.layers]
        return [self.runs.pop(layer) for layer in gone]

    def close_unseen(self) -> None:
        """Close the runs whose layers are gone."""
        for run in self.take_unseen():
            run.close()

    def drop_working(self) -> None:
        """Remove the layer in work."""
        layer = self._forget_working()
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def _forget_working(self) -> Image | None:
        """Let go of the layer in work, remove what maps it has, and return it."""
        layer, self.working = self.working, None
        if layer is not None and layer is self.result:
            maps = [getattr(self, name) for name in ("overlay", *MAPS)]
            for each in maps:
                if each is not None and each in self._viewer.layers:
                    self._viewer.layers.remove(each)
        return layer

    def name_working(self) -> None:
        """Say in the layer's name what there is of it."""
        if self.run is not None:
            done, total = self.run.order.whole
            part = "" if done == total else f" ({done} of {tiles(total)})"
            self.working.name = self._plain_name() + part

    def _plain_name(self) -> str:
        return _PART.sub("", self.working.name)

    def _keep(self, layer: Image, run: LiveRun) -> None:
        """Let a run live as long as the layer that shows it."""
        self.runs[layer] = run
        weakref.finalize(layer, run.close)

    # -- pixels -------------------------------------------------------------------------------

    def show_working(self, plan: Planned) -> None:
        """Show a run that begins or goes on."""
        run, source = plan.run, plan.run.result.source
        if self.working is not None:
            self.working.name = f"{self._plain_name()} (running)"
            return
        kwargs = result_kwargs(self._meta, source.channel_names)
        kwargs["name"] += " (running)"
        kwargs["metadata"]["demoe"]["run"] = uuid.uuid4().hex
        self.axes = source.axes
        levels: Any = run.glances.levels
        if max(source.plane_shape) > LARGE:
            kwargs["multiscale"] = True
        else:
            levels = levels[0]
        self.working = self._viewer.add_image(levels, **kwargs)
        self._keep(self.working, run)

    def draw_fresh(self) -> None:
        """Show tiles that were finished since, if the canvas had its rest."""
        now = time.monotonic()
        if self.fresh.is_set() and now >= self._rest:
            self.fresh.clear()
            for shown in self.runs:
                shown.refresh(thumbnail=False, highlight=False, extent=False)
            after = time.monotonic()
            self._rest = after + REST * (after - now)  # a slow canvas is asked less often

    def _put_pixels(self, layer: Image, done: Finished) -> None:
        """Show a result's own pixels where it is whole, the run's levels elsewhere."""
        if done.pixels is not None and not layer.multiscale:
            layer.data = done.pixels
            if (run := self.runs.pop(layer, None)) is not None:
                run.close()
            if done.run is not run:
                done.run.close()
        elif self.runs.get(layer) is not done.run:
            levels = done.run.glances.levels
            layer.data = levels if layer.multiscale else levels[0]
            self._keep(layer, done.run)

    # -- a result and its maps ------------------------------------------------------------------

    def show_next(self) -> None:
        """Show the next map."""
        self.to_show.pop(0)()

    def add(self, layer: Image, done: Finished) -> None:
        """Turn the layer on show into a result, and add its maps or have `show_next` add them."""
        left = self._remember(layer, done)
        self.name_working()
        self._put_pixels(layer, done)
        self.result, self.overlay = layer, None
        for name in MAPS:
            setattr(self, name, None)
        for show in self._maps_of(done, left):
            self.to_show.append(lambda show=show: self._show_beside(layer, show))
        while self.to_show and not self._patient:
            self.show_next()

    def renew(self, done: Finished) -> None:
        """Put what was corrected, or came about since, into the last result and its maps."""
        layer, overlay = self.result, self.overlay
        self.name_working()
        self._put_pixels(layer, done)
        left = self._remember(layer, done)
        if overlay is not None:
            overlay.metadata = {**overlay.metadata, "demoe": left}
            overlay.data[...] = cells_to_layer_order(done.expert_map, self.axes)  # undo goes on
            overlay.features = expert_features(list(done.shares), done.result.choices)
            overlay.refresh()
        for name in ("confidence", "consistency", "complexity", "kernels"):
            cells, values = getattr(self, name), getattr(done, name)
            if cells is not None and values is not None:
                cells.data = cells_to_layer_order(values, self.axes)
        if self.blur is not None:
            strokes, words = glyphs(done.blurs, self.axes)
            self.blur.data, self.blur.features = strokes, {"blur": words}

    def _remember(self, layer: Image, done: Finished) -> Mapping[str, Any]:
        """Note in a layer what a result and its maps remember of their run, and return that."""
        result = done.result
        self._found = list(done.shares), list(done.sizes)
        self._experts = result.choices
        left = {
            **layer.metadata["demoe"],
            "axes": self.axes,
            "expert_map": done.expert_map,
            "gates": done.gates,
            "confidence": done.confidence,
            "consistency": done.consistency,
            "complexity": done.complexity,
            "blurs": done.blurs,
            # To be called, because it is slow for huge images; a function, because napari copies
            # what is remembered when it duplicates a layer, and functions stay as they are.
            "kernels": lambda: result.kernel_picture(),
            "painted": result.painted,
            "choices": result.choices,
            "pitch": tuple(done.pitch),
            "provenance": dict(done.provenance),
        }
        layer.metadata = {**layer.metadata, "demoe": left}
        return left

    def _maps_of(self, done: Finished, left: Mapping[str, Any]) -> list[Callable[[], None]]:
        """Return what adds the maps of a result, a layer each."""
        place = (self._meta, self.axes, done.pitch)
        to_show = [lambda: self._add_cells("confidence", done, confidence_kwargs(*place))]
        if done.consistency is not None:
            kwargs = consistency_kwargs(*place)
            to_show.append(lambda: self._add_cells("consistency", done, kwargs))
        if done.complexity is not None:
            more = complexity_kwargs(*place)
            to_show.append(lambda: self._add_cells("complexity", done, more))
        if done.kernels is not None:
            to_show.append(lambda: self._add_kernels(done))
        if any(done.blurs.values()):
            to_show.append(lambda: self._add_blurs(done))
        to_show.append(lambda: self._add_overlay(done, left))
        return to_show

    def _show_beside(self, layer: Image, show: Callable[[], None]) -> None:
        if layer is self.result:  # else it was removed meanwhile
            show()

    def _add_cells(self, name: str, done: Finished, kwargs: Mapping[str, Any]) -> None:
        """Add a map over routing cells, by its name here and in what was finished."""
        self._add_image(name, cells_to_layer_order(getattr(done, name), self.axes), kwargs)

    def _add_kernels(self, done: Finished) -> None:
        """Add the picture of kernels."""
        plan, kernels = done.result.plan, done.result.work.kernels
        kwargs = kernels_kwargs(self._meta, self.axes, *placed(plan, kernels.side))
        self._add_image("kernels", cells_to_layer_order(done.kernels, self.axes), kwargs)

    def _add_image(self, name: str, values: np.ndarray, kwargs: Mapping[str, Any]) -> None:
        layer = self._viewer.add_image(values, **kwargs)
        layer.metadata["demoe"]["run"] = self.result.metadata["demoe"]["run"]
        layer.events.visible.connect(self._toggled)
        setattr(self, name, layer)

    def _add_blurs(self, done: Finished) -> None:
        """Draw the blurs that were found."""
        strokes, words = glyphs(done.blurs, self.axes)
        self.blur = self._viewer.add_vectors(strokes, **glyphs_kwargs(self._meta, words))
        self.blur.events.visible.connect(self._toggled)

    def _add_overlay(self, done: Finished, left: Mapping[str, Any]) -> None:
        """Add the expert map, above all other maps."""
        # Copied, because it can be painted on.
        overlay = self._viewer.add_labels(
            cells_to_layer_order(done.expert_map.copy(), self.axes),
            **experts_kwargs(
                self._meta, self.axes, done.pitch, list(done.shares), done.result.choices
            ),
            metadata={"demoe": left},
        )
        self.overlay = overlay
        overlay.brush_size, overlay.selected_label = 1, self._chosen.brush
        overlay.events.selected_label.connect(self._label_selected)
        overlay.events.paint.connect(self._painted)
        overlay.events.visible.connect(self._toggled)
        speak(overlay, self.describe_cell)
        if not self._chosen.follows_map:
            self._chosen.painted = overlay
        if self.is_preview:
            maps = [overlay, *(getattr(self, name) for name in MAPS)]
            self._replace_preview([self.result, *(each for each in maps if each is not None)])

    def _replace_preview(self, layers: list[Layer]) -> None:
        for earlier in self._preview_layers:
            if earlier in self._viewer.layers:
                self._viewer.layers.remove(earlier)
        self._preview_layers = layers

    # -- what people do to the maps -------------------------------------------------------------

    def _toggled(self, event: Event | None = None) -> None:
        self._changed()

    def _label_selected(self, event: Event | None = None) -> None:
        self._chosen.follow_label(self.overlay.selected_label if self.overlay is not None else 0)

    def _painted(self, event: Event | None = None) -> None:
        self._chosen.painted = self.overlay
        self._changed()

    def describe_cell(self, position: tuple[float, ...]) -> str:
        """Say which expert worked at a place, how sure that is, and what blur was found.

        For example "defocus 0.93; defocus, radius 3.2 px"; also while the map is hidden.
        """
        layer = self.overlay
        if layer is None:
            return ""
        left = layer.metadata["demoe"]
        words = words_of(left["choices"])
        cell = tuple(np.rint(layer.world_to_data(position)).astype(int))
        if not all(0 <= at < length for at, length in zip(cell, layer.data.shape, strict=True)):
            return ""
        value = layer.data[cell]
        if value >= len(words):  # a person may paint anything
            return ""
        at = dict(zip(left["axes"], cell, strict=False))
        place = tuple(at[letter] for letter in plane_axes(left["axes"]) + "YX")
        if value != left["expert_map"][place]:
            return f"{words[value] if value else 'the network decides'}, to be applied"
        said = f"{words[value]} {left['confidence'][place]:.2f}" if value else words[0]
        pixel = [(n + 0.5) * step for n, step in zip(place[-2:], left["pitch"], strict=True)]
        blur = blur_at(left["blurs"].get(place[:-2], ()), *pixel)
        return f"{said}; {blur}" if blur else said
