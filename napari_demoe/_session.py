"""What the widget knows: choices, the state of a run, its results. No Qt in here.

One session belongs to one viewer. It freezes the choices into a `demoe.Recipe`, starts a worker
through the `launch` function that it was given, and turns the worker's reports into layers.
"""

from __future__ import annotations

import math
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from demoe.choices import BLURS, Choice, more, names_of, words_of
from demoe.errors import DemoeError
from demoe.image.axes import plane_axes
from demoe.live.kernels import placed
from demoe.live.order import Scope, View
from demoe.recipe import Recipe
from demoe.routing.correction import wishes
from napari_demoe._choices import PAINTED, Choices
from napari_demoe._compare import is_difference
from napari_demoe._job import Downloading, Failed, Finished, Handle, Job, Launch, Planned, TilesDone
from napari_demoe._layers import (
    is_image,
    is_labels,
    is_result,
    is_shapes,
    layer_axes,
    ours,
    result_kwargs,
    shifted,
)
from napari_demoe._looking import framed, view_of
from napari_demoe._maps import (
    blur_at,
    cells_to_image_order,
    cells_to_layer_order,
    complexity_kwargs,
    confidence_kwargs,
    consistency_kwargs,
    expert_features,
    experts_kwargs,
    glyphs,
    glyphs_kwargs,
    is_map,
    kernels_kwargs,
    speak,
)
from napari_demoe._outcome import Outcome, joined
from napari_demoe._outlook import Ask, Outlook
from napari_demoe._paint import cells_of_layer, name_regions
from napari_demoe._words import command, describe, duration, finest, script, tiles

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer, Shapes, Vectors
    from napari.utils.events import Event

    from demoe.lazy import Deblurred
    from demoe.live.run import LiveRun
    from demoe.model.zoo import ModelInfo

PREVIEW_SIDE = 512
"""A preview covers so many pixels a side, around the middle of the view."""

LOOK_SECONDS = 0.25
"""How often what is in view is counted before a run."""

REST = 3
"""After a redraw, the canvas has so many times its duration for other things."""

LARGE = 2048
"""Planes longer than this are shown by levels, of which the viewer reads what it needs."""

MAPS = ("confidence", "consistency", "complexity", "blur", "kernels")
"""What is shown of a result beside its expert map, by the session's names of the layers."""

Pulse = Callable[[Callable[[], None]], Callable[[], None]]
"""Calls a function on the main thread now and then; returns what ends that."""


class Session:
    """The state behind the widget of one viewer.

    Parameters
    ----------
    viewer : ViewerModel
        Where sources come from and results go to.
    launch : callable
        Starts a `Job` in the background, see `Launch`.
    pulse : callable, optional
        Calls a function on the main thread now and then; returns what ends that. Maps of a result
        are then shown one after the other, so that the viewer does not stand still while it adds
        their layers; without, all at once.
    ask : callable
        Calls a function in the background, see `napari_demoe._outlook.Ask`.

    Attributes
    ----------
    choices : Choices
        Set them freely; they are read when a run starts.
    scope : str
        One of `napari_demoe._choices.SCOPES`; read when a run starts or is resumed.
    output : str
        Where tiles are kept while a run goes on, so that it can be finished later, by `demoe run
        --resume` too; empty: in a temporary folder.
    folder : str
        Where that temporary folder is made; empty: where the system makes them.
    outlook : Outlook
        What the run would take that would be next.
    state : str
        "idle", "running", "cancelling", "paused" (which can be resumed) or "failed" (both start
        like idle).
    error : str
        The sentence of the last failure, empty after a good start.
    done, total : int
        Tiles; total is 0 until the tiles are known.
    experts : tuple of Choice
        What the chosen network offers; see `choose_network`.
    shares : list of float
        Part of the last result's cells that each of its experts got, from "not decided" on; empty
        without a result of such experts.
    sizes : list of str
        Beside `shares`: how large the blurs are that were found there, or nothing.
    result, overlay : Image, Labels, or None
    confidence, consistency, complexity, blur, kernels : Image or Vectors, or None
        The last result, its expert map, how sure that is, how well the data support the result,
        how much was computed, and the blurs that were found, drawn and as a picture.
    painted : Labels, Shapes or None
        The expert map to follow if the routing is `PAINTED`, and to correct the last result by.
    brush : int
        The number of the expert that is painted with, and that shapes without a task stand for.
    said : str
        What came of the last sentence, see `understand`.
    takes_words : bool
        Whether the chosen network is told in words what to do.
    """

    changed = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        launch: Launch,
        pulse: Pulse | None = None,
        ask: Ask = lambda function, answered: None,
    ) -> None:
        self.choices = Choices()
        self.scope = "all"
        self.output = self.folder = ""
        self.outlook = Outlook(ask, self.changed.emit)
        self.state = "idle"
        self.error = ""
        self.done = self.total = 0
        self.experts: tuple[Choice, ...] = BLURS
        self.shares: list[float] = []
        self.sizes: list[str] = []
        self.result: Image | None = None
        self.overlay: Labels | None = None
        self.confidence: Image | None = None
        self.consistency: Image | None = None
        self.complexity: Image | None = None
        self.blur: Vectors | None = None
        self.kernels: Image | None = None
        self.painted: Labels | Shapes | None = None
        self.brush = 1
        self.said = ""
        self.takes_words = False
        self._viewer = viewer
        self._launch = launch
        self._handle: Handle | None = None
        self._source: Image | None = None
        self._note = ""
        self._job: Job | None = None  # the last one that was started
        self._last: Outcome | None = None
        self._wishes: tuple[np.ndarray, np.ndarray] | None = None  # of the correction in work
        self._preview_layers: list[Layer] = []
        self._fresh = threading.Event()  # set by other threads when more can be shown
        self._runs: dict[Image, LiveRun] = {}
        self._paused: Job | None = None
        self._to_show: list[Callable[[], None]] = []  # one after the other
        self._over = False  # the worker's end waits until all is shown
        self._said_ahead, self._look_again = ("", ""), 0.0
        self._clear_run()
        self._patient = pulse is not None
        self._stop_pulse = pulse(self.tick) if pulse is not None else lambda: None
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
        """Every image layer but maps of ours, in the order of the layer list."""
        images = (layer for layer in self._viewer.layers if is_image(layer))
        fresh = (image for image in images if not is_difference(image))
        return [image for image in fresh if not is_map({"metadata": image.metadata})]

    @property
    def selected(self) -> list[Image]:
        """The selected ones of `sources`."""
        return [layer for layer in self.sources if layer in self._viewer.layers.selection]

    @property
    def maps(self) -> list[Labels | Shapes]:
        """Every layer of labels or shapes, in the order of the layer list."""
        return [each for each in self._viewer.layers if is_labels(each) or is_shapes(each)]

    @property
    def source(self) -> Image | None:
        """The image layer to deblur."""
        return self._source

    @source.setter
    def source(self, layer: Image | None) -> None:
        if layer is not self._source:
            self._source = layer
            self.outlook.stale()
            self.changed.emit()

    def _follow_selection(self, event: object = None) -> None:
        active = self._viewer.layers.selection.active
        if active in self.sources and not is_result(active):
            self.source = active

    def _layer_inserted(self, event: Event) -> None:
        event.value.events.name.connect(self._layers_changed)
        if is_shapes(event.value):  # most likely to be drawn into now
            self.painted = event.value
        self._layers_changed()

    def _layer_removed(self, event: Event) -> None:
        event.value.events.name.disconnect(self._layers_changed)
        self._layers_changed()

    def _layers_changed(self, event: object = None) -> None:
        layers = self.sources
        if self._source not in layers:
            fresh = [layer for layer in layers if not is_result(layer)]
            self._source = (fresh or layers or [None])[-1]
            self.outlook.stale()
        maps = self.maps
        if self.painted not in maps:
            self.painted = maps[-1] if maps else None
        if self.overlay is not None and self.overlay not in self._viewer.layers:
            self.overlay, self.shares = None, []
        for name in MAPS:
            if getattr(self, name) not in self._viewer.layers:
                setattr(self, name, None)
        if self.result is not None and self.result not in self._viewer.layers:
            self.result = self._last = None  # with it, what it keeps on disk
        if self.state == "running" and self._correcting and not self.correctable:
            self.cancel()
        if self._working is not None and self._working not in self._viewer.layers:
            self._working = None  # its layer was deleted, so nobody wants the rest
            self.cancel()
        gone = [layer for layer in self._runs if layer not in self._viewer.layers]
        for layer in gone:
            run = self._runs.pop(layer)
            if self._paused is not None and self._paused.live is run:
                self._paused, self.state, self._note = None, "idle", ""
            if not self.busy:
                run.close()
        self.changed.emit()

    # -- a run ------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a worker runs."""
        return self._handle is not None

    def choose_network(self, model: str) -> None:
        """Take another network, by name or path, and with it the experts that it offers."""
        from demoe.model.zoo import choices_of, takes_words

        if model != self.choices.model:
            self.choices.instructions = ()  # which were for the network before
        self.choices.model = model
        self.outlook.stale()
        self.takes_words = takes_words(model)
        found = choices_of(model)  # of PyTorch's own files, known once they are loaded
        if found is not None:
            self._offer(more(found, self.choices.instructions))
        self.changed.emit()

    def _offer(self, experts: tuple[Choice, ...]) -> None:
        if experts != self.experts:
            self.experts, self.shares = experts, []
            self.brush = min(self.brush, len(experts))

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
                "There is no layer to take the expert map from; add labels or shapes and paint."
            )
            return
        try:
            job = self._new_job(self._source, painted, preview, download)
        except DemoeError as error:
            self._fail(str(error))
            return
        self._paused = None
        meta = job.meta
        if preview:
            name = f"{meta['name']} preview"
            meta = {**shifted(meta, [part.start for part in job.region]), "name": name}
        self._begin(job, meta, preview)

    def resume(self) -> None:
        """Go on with a run that was cancelled; does nothing while one is on."""
        job = self._paused
        if self.busy or job is None or self._working is None:
            return
        self.state, self.error, self._note = "running", "", ""
        self._started_at = self._planned_at = time.monotonic()
        try:
            scope = self._scope(self._working, self._axes)
        except DemoeError as error:
            self._fail(str(error))
            return
        view, run = self._view(self._working), self._runs[self._working]
        self._run_job(replace(job, scope=scope, view=view, live=run))

    def script(self) -> str:
        """Return Python lines that do the same run without the viewer; nothing if there is none."""
        return self._written(script)

    def command(self) -> str:
        """Return a command line that does the same run; nothing if there is none."""
        return self._written(command)

    def _written(self, write: Callable[..., str]) -> str:
        if self._source is None:
            return ""
        painted = self.painted if self.choices.routing == PAINTED else None
        try:
            psf = self.choices.psf if isinstance(self.choices.psf, str) else ""
            return write(self.choices.recipe(), self._source, self.output, painted, psf)
        except DemoeError as error:
            self._fail(str(error))
            return ""

    @property
    def correctable(self) -> bool:
        """Whether there is a result whose expert map can be corrected."""
        return self._last is not None and None not in (self.result, self.overlay)

    def correct(self) -> None:
        """Follow corrections of the last result's expert map; does nothing while a run is on.

        What is painted on the map itself counts first, then the layer of labels or shapes that is
        chosen as the map, as it is now; 0 leaves cells to the network. Settings are those of the
        run; only tiles whose gates change are computed.
        """
        last = self._last
        if self.busy or last is None or not self.correctable:
            return
        try:
            self._wishes = self._wished(last)
        except DemoeError as error:
            self._fail(str(error))
            return
        cells = joined(*self._wishes)
        if np.array_equal(cells, joined(last.by_hand, last.by_layer)):
            self.state, self.error = "idle", ""
            name = (self.painted or self.overlay).name
            self._note = f"Nothing to apply: {name!r} says what the result follows already."
            self.changed.emit()
            return
        job = replace(last.job, expert_map=cells, earlier=last.finished, download=False)
        self._begin(job, job.meta, preview=False)

    def _wished(self, last: Outcome) -> tuple[np.ndarray, np.ndarray]:
        axes = self.result.metadata["demoe"]["axes"]
        shown = cells_to_image_order(np.asarray(self.overlay.data), axes)
        layer = None
        if self.painted is not None and self.painted is not self.overlay:
            pitch, region = last.job.recipe.pitch, _all(self.result)
            layer = cells_of_layer(
                self.painted,
                self.result,
                axes,
                region,
                pitch,
                self.brush,
                last.finished.result.choices,
            )
            if _file_of(self.painted):  # the map of a result: what is followed is no wish
                layer = wishes(layer, last.finished.expert_map, last.by_layer)
        return last.wishes(shown, layer)

    def _begin(self, job: Job, meta: Mapping[str, Any], preview: bool) -> None:
        self._clear_run()
        self._job, self._meta, self._preview = job, meta, preview
        if job.earlier is not None:
            self._axes, self._correcting = self.result.metadata["demoe"]["axes"], True
        self.state, self.error, self._note = "running", "", ""
        self.outlook.stale()  # whoever is asked still leaves the machine to the run
        self._run_job(job)

    def _run_job(self, job: Job) -> None:
        self._job = job = replace(job, stop=threading.Event())
        self._handle = self._launch(
            job,
            reported=self._reported,
            crashed=self._crashed,
            ended=self._ended,
        )
        self.changed.emit()

    def _new_job(self, layer: Image, painted: bool, preview: bool, download: bool) -> Job:
        data, meta, _ = layer.as_layer_data_tuple()
        meta["unique_id"] = layer.unique_id
        recipe, focus = self.choices.recipe(), self._focus(layer)
        shape = finest(layer).shape
        axes = layer_axes(len(shape), meta)
        region = _region(axes, shape, focus) if preview else _all(layer)
        cells, reopened = None, ""
        if painted:
            pitch = recipe.pitch
            cells = cells_of_layer(
                self.painted, layer, axes, region, pitch, self.brush, self.experts
            )
            if not preview:
                reopened = _file_of(self.painted)
        view, scope = None, Scope()
        if not preview:
            view = view_of(layer, axes, self._displayed(layer), focus)
            scope = self._scope(layer, axes)
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
            output="" if preview else self.output,
            folder=self.folder,
            more=self._fresh.set,
        )

    def _scope(self, layer: Image, axes: str) -> Scope:
        if self.scope != "region":
            return Scope(self.scope)
        shapes = self.painted if is_shapes(self.painted) else None
        return framed(shapes, layer, axes, self._viewer.dims.point)

    def _view(self, layer: Image) -> View:
        """Return what is looked at of the layer that shows a run."""
        return view_of(layer, self._axes, self._displayed(layer), self._focus(layer))

    def _displayed(self, layer: Image) -> list[int]:
        offset = self._viewer.dims.ndim - layer.ndim
        return [axis - offset for axis in self._viewer.dims.displayed if axis >= offset]

    def tick(self) -> None:
        """Follow the eye, and show what is new; called now and then on the main thread."""
        if self._to_show:
            self._show_next()
        layer = self._working
        if self.busy and layer is not None and layer in self._runs and not self._preview:
            self._runs[layer].order.look(self._view(layer))
        if not self.busy:
            self.outlook.tick(self._source, self.choices, self.folder, self.output)
            self._look_ahead()
        now = time.monotonic()
        if self._fresh.is_set() and now >= self._rest:
            self._fresh.clear()
            for shown in self._runs:
                shown.refresh(thumbnail=False, highlight=False, extent=False)
            after = time.monotonic()
            self._rest = after + REST * (after - now)  # a slow canvas is asked less often

    def choose(self, **values: Any) -> None:
        """Choose other fields of the recipe, or another ``scope``, ``output`` or ``folder``."""
        for name in ("scope", "output", "folder"):
            setattr(self, name, values.pop(name, getattr(self, name)))
        self.choices.update(values)
        self.outlook.stale()

    def _look_ahead(self) -> None:
        """Say anew what a run takes, where what is in view is more or less than before."""
        if (now := time.monotonic()) < self._look_again:
            return
        self._look_again = now + LOOK_SECONDS
        words = (self.prospect, self.shortage)
        if words != self._said_ahead:
            self._said_ahead = words
            self.changed.emit()

    def _next_views(self) -> tuple[View, ...]:
        """Return what the next run would take first."""
        layer = self._source
        axes = layer_axes(len(finest(layer).shape), layer.as_layer_data_tuple()[1])
        if self.scope == "region":
            with suppress(DemoeError):  # nothing is drawn yet
                return self._scope(layer, axes).region
        return (view_of(layer, axes, self._displayed(layer), self._focus(layer)),)

    @property
    def prospect(self) -> str:
        """What the next run would take, in words; empty where nothing is known, or one runs."""
        if self.busy or self._source is None or self.outlook.forecast is None:
            return ""
        return self.outlook.words(self.scope, self._next_views())

    @property
    def shortage(self) -> str:
        """What is wrong with where tiles would be kept, in words; empty if nothing is."""
        if self.busy or self._source is None or self.outlook.forecast is None:
            return ""
        return self.outlook.shortage(self.scope, self._next_views())

    @property
    def shown(self) -> Image | None:
        """The layer of the run in work, or of the last result."""
        return self._working or self.result

    @property
    def described(self) -> Deblurred | None:
        """What computes that layer."""
        run = self._runs.get(self._working) if self._working is not None else None
        if run is not None:
            return run.result
        return None if self._last is None else self._last.finished.result

    @property
    def waits(self) -> bool:
        """Whether a run has done all that is looked at, and waits for another view."""
        shown = self.result is not None and self.result is self._working
        is_done = self.done >= self.total > 0 and not self._to_show
        return self.scope == "view" and self.busy and shown and is_done

    @property
    def resumable(self) -> bool:
        """Whether a run was stopped that can go on."""
        return not self.busy and self._paused is not None and self._working is not None

    def cancel(self) -> None:
        """Stop after the tile in work; what is done stays, and `resume` goes on."""
        if self._handle is not None and self.state == "running" and not self._over:
            self.state = "cancelling"
            self._job.stop.set()
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
        self._stop_pulse()
        self._to_show.clear()
        if self._over:
            self._handle = None
        self.outlook.close()
        self.cancel()
        if self.busy or self._paused is not None:
            self._drop_working()
        self._close_unseen()

    @property
    def seconds_left(self) -> float | None:
        """Estimate from the tiles done so far; None before the first one."""
        fresh = self.done - self._begun
        if fresh <= 0 or not self.total:
            return None
        return (time.monotonic() - self._planned_at) / fresh * (self.total - self.done)

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
            if self.done >= self.total:
                words = "All in view is done; look elsewhere."
                return words if self.waits else "Drawing the maps …"
            return f"Deblurring tile {self.done + 1} of {self.total}{wait}"
        if self._note or self.state == "failed":
            return self._note
        if self._source is None:
            return "Open an image, or one of File > Open Sample > DeMoE."
        return f"Ready: {describe(self._source)}."

    # -- what a person says and paints ----------------------------------------------------------

    def understand(self, sentence: str) -> str | None:
        """Return the choice that a sentence names, or None; `said` tells what came of it.

        For a network that takes words, the sentence itself becomes a choice.
        """
        if self.takes_words:
            return self._instruct(sentence.strip())
        from demoe.routing.words.classifier import UNCLEAR, task_from_text

        task = None
        try:
            found = task_from_text(sentence)
        except DemoeError as error:
            self.said = str(error)
        else:
            sure = f"({found.confidence:.0%} sure)"
            known = dict(zip(names_of(self.experts), self.experts, strict=True))
            if found.task == UNCLEAR:
                self.said = f"Unclear {sure}: this names no kind of blur, so nothing was changed."
            elif found.task not in known:
                words = found.task.replace("_", " ")
                self.said = f"Understood: {words} {sure}; the chosen network has no expert for it."
            else:
                task = found.task
                self.said = f"Understood: {known[task].words} {sure}."
        self.changed.emit()
        return task

    def _instruct(self, sentence: str) -> str | None:
        """Make a sentence a choice of the network, if it is none yet, and return its name."""
        choice = None
        if sentence in names_of(self.experts):
            choice, self.said = sentence, f"Follows: {sentence}."
        else:
            try:
                recipe = Recipe(instructions=(*self.choices.instructions, sentence))
            except DemoeError as error:
                self.said = str(error)
            else:
                self.choices.instructions = recipe.instructions
                self._offer(more(self.experts, (sentence,)))
                choice, self.said = sentence, f"Follows: {sentence}. It can be painted, too."
        self.changed.emit()
        return choice

    def choose_brush(self, expert: int) -> None:
        """Paint with an expert, by its number, from now on."""
        before, self.brush = self.brush, expert
        if is_shapes(self.painted):
            name_regions(self.painted, expert, before, self.experts)
        elif self.painted is not None:
            self.painted.selected_label = expert
        self.changed.emit()

    def _label_selected(self, event: object = None) -> None:
        label = self.overlay.selected_label if self.overlay is not None else 0
        if 1 <= label <= len(self.experts) and label != self.brush:
            self.brush = label
            self.changed.emit()

    def _overlay_painted(self, event: object = None) -> None:
        self.painted = self.overlay
        self.changed.emit()

    def describe_cell(self, position: tuple[float, ...]) -> str:
        """Say which expert worked at a place, how sure that is, and what blur was found.

        For example "defocus 0.93; defocus, radius 3.2 px".
        """
        layer = self.overlay
        if layer is None or not layer.visible:
            return ""
        left = layer.metadata["demoe"]
        words = words_of(left["choices"])
        value = layer.get_value(position, world=True)
        if value is None or value >= len(words):  # a person may paint anything
            return ""
        cell = tuple(np.rint(layer.world_to_data(position)).astype(int))
        at = dict(zip(left["axes"], cell, strict=False))
        place = tuple(at[letter] for letter in plane_axes(left["axes"]) + "YX")
        if value != left["expert_map"][place]:
            return f"{words[value] if value else 'the network decides'}, to be applied"
        said = f"{words[value]} {left['confidence'][place]:.2f}" if value else words[0]
        pixel = [(n + 0.5) * step for n, step in zip(place[-2:], left["pitch"], strict=True)]
        blur = blur_at(left["blurs"].get(place[:-2], ()), *pixel)
        return f"{said}; {blur}" if blur else said

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
            self.done, self.total, self._note = report.done, report.total or self.total, ""
        elif isinstance(report, Finished):
            self._finish(report)
        elif isinstance(report, Failed):
            self._fail(report.message)
        self.changed.emit()

    def _crashed(self, error: Exception) -> None:
        # The viewer shows the error with its traceback by itself.
        self._fail(f"{type(error).__name__}: {error}", notify=False)

    def _ended(self) -> None:
        self._over = True
        if not self._to_show:
            self._conclude()

    def _show_next(self) -> None:
        try:
            self._to_show.pop(0)()
        finally:
            if self._over and not self._to_show:
                self._conclude()
            self.changed.emit()

    def _conclude(self) -> None:
        self._handle, self._over = None, False
        self.outlook.stale()  # tiles were timed
        run = self._runs.get(self._working) if self._working is not None else None
        if self.state == "running":  # all that was wanted is done
            self.state, self._paused = "idle", None
            seconds = duration(time.monotonic() - self._started_at)
            device = self._last.finished.provenance.get("device", "") if self._last else ""
            self._note = f"Done in {seconds}: {tiles(self.total)} on {device}."
            self._name_working()
            self._working = None
        elif self._correcting:
            if self.state == "cancelling":
                self.state, self._note = "idle", "Cancelled; the result is as it was."
        elif run is not None and run.done and not self._preview:
            # What is done stays, also where something went wrong.
            done, total = run.order.whole
            self._paused = replace(self._job, live=run)
            self._name_working()
            if self.state == "cancelling":
                self.state = "paused"
                self._note = f"Stopped with {done} of {tiles(total)} done; Resume goes on."
        else:
            self._drop_working()
            if self.state == "cancelling":
                self.state, self._note = "idle", "Cancelled before a tile was done."
        self._close_unseen()
        self.changed.emit()

    def _show_working(self, plan: Planned) -> None:
        run, result = plan.run, plan.run.result
        self.done, self.total = run.order.counts()
        self._planned_at, self._begun = time.monotonic(), self.done
        self._offer(result.choices)
        if self._correcting:  # the earlier result stays on show until all is done
            return
        if self._working is not None:  # it goes on
            self._working.name = f"{self._plain_name()} (running)"
            return
        kwargs = result_kwargs(self._meta, result.source.channel_names)
        kwargs["name"] += " (running)"
        kwargs["metadata"]["demoe"]["run"] = uuid.uuid4().hex
        self._axes = result.source.axes
        levels: Any = run.glances.levels
        if max(result.source.plane_shape) > LARGE:
            kwargs["multiscale"] = True
        else:
            levels = levels[0]
        self._working = self._viewer.add_image(levels, **kwargs)
        self._keep(self._working, run)

    def _keep(self, layer: Image, run: LiveRun) -> None:
        """Let a run live as long as the layer that shows it."""
        self._runs[layer] = run
        weakref.finalize(layer, run.close)

    def _close_unseen(self) -> None:
        """Close the runs whose layers are gone."""
        for layer in [layer for layer in self._runs if layer not in self._viewer.layers]:
            self._runs.pop(layer).close()

    def _plain_name(self) -> str:
        return self._working.name.partition(" (")[0]

    def _name_working(self) -> None:
        """Say in the layer's name what there is of it."""
        run = self._runs.get(self._working) if self._working is not None else None
        if run is None:
            return
        done, total = run.order.whole
        part = "" if done == total else f" ({done} of {tiles(total)})"
        self._working.name = self._plain_name() + part

    def _overlay_toggled(self, event: object = None) -> None:
        self.changed.emit()

    def _finish(self, done: Finished) -> None:
        """Show what is known of a result, all of it or of what was looked at."""
        while self._to_show:  # of what was known before
            self._to_show.pop(0)()
        if self._correcting:
            if not self.correctable:
                return
            self._renew(done)
        elif self._working is None:
            return
        elif self._working is self.result:
            self._renew(done)
        else:
            self._to_show += self._add(self._working, done)
            while self._to_show and not self._patient:
                self._to_show.pop(0)()
        if self._correcting:
            by_hand, by_layer = self._wishes
        else:
            painted = done.result.work.painted
            by_hand = np.zeros_like(done.expert_map)
            by_layer = by_hand if painted is None else by_hand + painted.cells
        self._last = Outcome(replace(self._job, earlier=None, live=None), done, by_hand, by_layer)

    def _put_pixels(self, layer: Image, done: Finished) -> None:
        """Show a result's own pixels where it is whole, the run's levels elsewhere."""
        if done.pixels is not None and not layer.multiscale:
            layer.data = done.pixels
            if (run := self._runs.pop(layer, None)) is not None:
                run.close()
            if done.run is not run:
                done.run.close()
        elif self._runs.get(layer) is not done.run:
            levels = done.run.glances.levels
            layer.data = levels if layer.multiscale else levels[0]
            self._keep(layer, done.run)

    def _left(self, layer: Image, done: Finished) -> dict[str, Any]:
        """Return what a result and its maps remember of their run."""
        result = done.result
        return {
            **layer.metadata["demoe"],
            "axes": self._axes,
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

    def _add(self, layer: Image, done: Finished) -> list[Callable[[], None]]:
        """Turn the layer on show into a result; return what adds its maps, a layer each."""
        self.shares, self.sizes = list(done.shares), list(done.sizes)
        left = self._left(layer, done)
        layer.metadata = {**layer.metadata, "demoe": left}
        self._name_working()
        self._put_pixels(layer, done)
        self.result, self.overlay = layer, None
        for name in MAPS:
            setattr(self, name, None)
        place = (self._meta, self._axes, done.pitch)
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
        to_show.append(lambda: self._add_overlay(layer, done, left))
        return [lambda show=show: self._show_beside(layer, show) for show in to_show]

    def _show_beside(self, layer: Image, show: Callable[[], None]) -> None:
        if layer is self.result:  # else it was removed meanwhile
            show()

    def _add_cells(self, name: str, done: Finished, kwargs: Mapping[str, Any]) -> None:
        """Add a map over routing cells, by its name here and in what was finished."""
        self._add_image(name, cells_to_layer_order(getattr(done, name), self._axes), kwargs)

    def _add_kernels(self, done: Finished) -> None:
        """Add the picture of kernels."""
        plan, kernels = done.result.plan, done.result.work.kernels
        kwargs = kernels_kwargs(self._meta, self._axes, *placed(plan, kernels.side))
        self._add_image("kernels", cells_to_layer_order(done.kernels, self._axes), kwargs)

    def _add_image(self, name: str, values: np.ndarray, kwargs: Mapping[str, Any]) -> None:
        layer = self._viewer.add_image(values, **kwargs)
        layer.metadata["demoe"]["run"] = self.result.metadata["demoe"]["run"]
        layer.events.visible.connect(self._overlay_toggled)
        setattr(self, name, layer)

    def _add_overlay(self, layer: Image, done: Finished, left: Mapping[str, Any]) -> None:
        """Add the expert map, above all other maps."""
        # Copied, because it can be painted on.
        overlay = self._viewer.add_labels(
            cells_to_layer_order(done.expert_map.copy(), self._axes),
            **experts_kwargs(self._meta, self._axes, done.pitch, self.shares, done.result.choices),
            metadata={"demoe": left},
        )
        self.overlay = overlay
        overlay.brush_size, overlay.selected_label = 1, self.brush
        overlay.events.selected_label.connect(self._label_selected)
        overlay.events.paint.connect(self._overlay_painted)
        overlay.events.visible.connect(self._overlay_toggled)
        speak(overlay, self.describe_cell)
        if self.choices.routing != PAINTED:
            self.painted = overlay
        if self._preview:
            maps = [overlay, *(getattr(self, name) for name in MAPS)]
            self._replace_preview([layer, *(each for each in maps if each is not None)])

    def _add_blurs(self, done: Finished) -> None:
        """Draw the blurs that were found."""
        strokes, words = glyphs(done.blurs, self._axes)
        self.blur = self._viewer.add_vectors(strokes, **glyphs_kwargs(self._meta, words))
        self.blur.events.visible.connect(self._overlay_toggled)

    def _renew(self, done: Finished) -> None:
        """Put what was corrected, or came about since, into the last result and its maps."""
        layer, overlay = self.result, self.overlay
        self.shares, self.sizes = list(done.shares), list(done.sizes)
        left = self._left(layer, done)
        self._put_pixels(layer, done)
        layer.metadata = {**layer.metadata, "demoe": left}
        if overlay is not None:
            overlay.metadata = {**overlay.metadata, "demoe": left}
            overlay.data[...] = cells_to_layer_order(done.expert_map, self._axes)  # undo goes on
            overlay.features = expert_features(self.shares, done.result.choices)
            overlay.refresh()
        for name in ("confidence", "consistency", "complexity", "kernels"):
            cells, values = getattr(self, name), getattr(done, name)
            if cells is not None and values is not None:
                cells.data = cells_to_layer_order(values, self._axes)
        if self.blur is not None:
            strokes, words = glyphs(done.blurs, self._axes)
            self.blur.data, self.blur.features = strokes, {"blur": words}

    def _replace_preview(self, layers: list[Layer]) -> None:
        for earlier in self._preview_layers:
            if earlier in self._viewer.layers:
                self._viewer.layers.remove(earlier)
        self._preview_layers = layers

    def _fail(self, message: str, notify: bool = True) -> None:
        self.state, self.error, self._note = "failed", message, ""
        if not self.busy:
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
        self._preview = self._correcting = False
        self._rest, self._begun = 0.0, 0
        self._started_at = self._planned_at = time.monotonic()

    def _focus(self, layer: Image) -> tuple[float, ...]:
        dims = self._viewer.dims
        point = np.array(dims.point, dtype=float)
        center = self._viewer.scene.camera.center[-dims.ndisplay :]
        point[list(dims.displayed)] = center
        place = [float(v) for v in layer.world_to_data(point)]
        return tuple(v if math.isfinite(v) else 0.0 for v in place)


def _file_of(layer: Labels | Shapes) -> str:
    """Return the file of a result whose map a layer is, if it was opened from one."""
    return str(ours({"metadata": layer.metadata}).get("result", ""))


def _all(layer: Image) -> tuple[slice, ...]:
    return tuple(slice(0, n) for n in finest(layer).shape)


def _region(axes: str, shape: tuple[int, ...], focus: tuple[float, ...]) -> tuple[slice, ...]:
    """Return one plane's pixels around a place, as much as a preview takes."""
    region = []
    for letter, length, place in zip(axes, shape, (*focus, 0.0), strict=False):
        side = {"Y": PREVIEW_SIDE, "X": PREVIEW_SIDE, "S": length}.get(letter, 1)
        start = min(max(round(place - (side - 1) / 2), 0), max(length - side, 0))
        region.append(slice(start, min(start + side, length)))
    return tuple(region)
