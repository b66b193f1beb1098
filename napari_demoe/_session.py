"""What the widget knows, without Qt: one session belongs to one viewer.

It holds four parts, each in a room of its own: what is chosen, what is wanted, what is computed,
and what is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from demoe.errors import DemoeError
from napari_demoe._chosen import Chosen
from napari_demoe._computed import Computed
from napari_demoe._display import Display
from napari_demoe._job import Launch
from napari_demoe._layers import is_shapes
from napari_demoe._outlook import Ask
from napari_demoe._progress import Progress
from napari_demoe._wanted import Wanted
from napari_demoe._words import command, describe, duration, script

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image
    from napari.utils.events import Event

    from demoe.lazy import Deblurred

AFAR = 4
"""From so many pixels a side on that one on the screen stands for, that is said."""

Pulse = Callable[[Callable[[], None]], Callable[[], None]]
"""Calls a function on the main thread now and then; returns what ends that."""


class _Of:
    """An attribute that one of the session's parts holds."""

    def __init__(self, part: str) -> None:
        self._part = part

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, session: Session | None, owner: type) -> Any:
        return self if session is None else getattr(getattr(session, self._part), self._name)

    def __set__(self, session: Session, value: Any) -> None:
        setattr(getattr(session, self._part), self._name, value)


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
    chosen, wanted, computed, display
        Its parts; what people read and set of them are attributes here, too.
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
    source : Image or None
        The image layer to deblur, one of `sources`; `selected` are those of them that are selected.
    painted : Labels, Shapes or None
        The expert map to follow if the routing is `PAINTED`, and to correct the last result by; one
        of `maps`.
    brush : int
        The number of the expert that is painted with, and that shapes without a task stand for.
    said : str
        What came of the last sentence, see `understand`.
    takes_words : bool
        Whether the chosen network is told in words what to do.
    """

    changed = Signal()

    choices, scope, output, folder = _Of("chosen"), _Of("chosen"), _Of("chosen"), _Of("chosen")
    source, sources, selected = _Of("chosen"), _Of("chosen"), _Of("chosen")
    painted, maps, brush = _Of("chosen"), _Of("chosen"), _Of("chosen")
    experts, said, takes_words = _Of("chosen"), _Of("chosen"), _Of("chosen")
    choose, choose_network, choose_brush = _Of("chosen"), _Of("chosen"), _Of("chosen")
    missing_network, understand = _Of("chosen"), _Of("chosen")
    outlook = _Of("wanted")
    result, overlay, shares, sizes = (_Of("display") for _ in range(4))
    confidence, consistency, complexity = _Of("display"), _Of("display"), _Of("display")
    blur, kernels, describe_cell = _Of("display"), _Of("display"), _Of("display")
    state, error, busy, waits = (_Of("computed") for _ in range(4))
    resumable, correctable = _Of("computed"), _Of("computed")
    start, resume, cancel, correct = (_Of("computed") for _ in range(4))
    done, total, seconds_left = _Of("progress"), _Of("progress"), _Of("progress")

    def __init__(
        self,
        viewer: ViewerModel,
        launch: Launch,
        pulse: Pulse | None = None,
        ask: Ask = lambda function, answered: None,
    ) -> None:
        self.chosen = Chosen(viewer, self.changed.emit, self._chosen_anew)
        self.wanted = Wanted(viewer, self.chosen, ask, self.changed.emit)
        self.display = Display(viewer, self.chosen, self.changed.emit, patient=pulse is not None)
        self.computed = Computed(self.chosen, self.wanted, self.display, launch, self.changed.emit)
        self._viewer = viewer
        self._stop_pulse = pulse(self.tick) if pulse is not None else lambda: None
        for layer in viewer.layers:
            layer.events.name.connect(self._layers_changed)
        viewer.layers.events.inserted.connect(self._layer_inserted)
        viewer.layers.events.removed.connect(self._layer_removed)
        viewer.layers.selection.events.active.connect(self._selected)
        self._selected()
        self._layers_changed()

    def close(self) -> None:
        """Stop and forget the viewer; called when the widget goes away, maybe more than once."""
        self.changed.disconnect()
        events = self._viewer.layers.events
        events.inserted.disconnect(self._layer_inserted)
        events.removed.disconnect(self._layer_removed)
        self._viewer.layers.selection.events.active.disconnect(self._selected)
        for layer in self._viewer.layers:
            layer.events.name.disconnect(self._layers_changed)
        self._stop_pulse()
        self.computed.close()

    def _chosen_anew(self) -> None:
        """Say no more what the next run would have taken, nor what was wrong with the last one."""
        self.outlook.stale()
        self.computed.forget_failure()

    # -- layers of the viewer -----------------------------------------------------------------

    def _selected(self, event: Event | None = None) -> None:
        self.chosen.follow_selection()

    def _layer_inserted(self, event: Event) -> None:
        event.value.events.name.connect(self._layers_changed)
        if is_shapes(event.value):  # most likely to be drawn into now
            self.painted = event.value
        self._layers_changed()

    def _layer_removed(self, event: Event) -> None:
        event.value.events.name.disconnect(self._layers_changed)
        self._layers_changed()

    def _layers_changed(self, event: Event | None = None) -> None:
        self.chosen.follow_layers()
        self.computed.follow_layers()
        self.changed.emit()

    def tick(self) -> None:
        """Follow the eye, and show what is new; called now and then on the main thread."""
        display = self.display
        self.computed.show_next()
        if self.busy and display.run is not None and not display.is_preview:
            display.run.order.look(self.wanted.view(display.working, display.axes))
        if not self.busy:
            self.wanted.tick()
        display.draw_fresh()

    # -- in words -------------------------------------------------------------------------------

    @property
    def progress(self) -> Progress:
        """How far the run is."""
        return self.computed.progress

    @property
    def shown(self) -> Image | None:
        """The layer of the run in work, or of the last result."""
        return self.display.working or self.result

    @property
    def described(self) -> Deblurred | None:
        """What computes that layer."""
        if self.display.run is not None:
            return self.display.run.result
        return None if self.computed.last is None else self.computed.last.finished.result

    @property
    def prospect(self) -> str:
        """What the next run would take, in words; empty where nothing is known, or one runs."""
        return "" if self.busy else self.wanted.prospect

    @property
    def shortage(self) -> str:
        """What is wrong with where tiles would be kept, in words; empty if nothing is."""
        return "" if self.busy else self.wanted.shortage

    @property
    def status(self) -> str:
        """What is going on, in words."""
        if self.state == "cancelling":
            return "Stopping …"
        if self.state == "running":
            if not self.total:
                return self.computed.note or "Loading the network …"
            left = self.seconds_left
            wait = "" if left is None else f", about {duration(left)} left"
            if self.done >= self.total:
                words = "All in view is done; look elsewhere."
                return words if self.waits else "Drawing the maps …"
            words = f"Deblurring tile {self.done + 1} of {self.total}{wait}."
            coarser = self.display.coarser
            if coarser >= AFAR:
                words += f" From afar: 1 of {coarser**2} pixels is seen, so zoom in."
            return words
        if self.computed.note or self.state == "failed":
            return self.computed.note
        if self.source is None:
            return "Open an image, or one of File > Open Sample > DeMoE."
        return f"Ready: {describe(self.source)}."

    def script(self) -> str:
        """Return Python lines that do the same run without the viewer; nothing if there is none."""
        return self._written(script)

    def command(self) -> str:
        """Return a command line that does the same run; nothing if there is none."""
        return self._written(command)

    def _written(self, write: Callable[..., str]) -> str:
        try:
            return self.chosen.written(write)
        except DemoeError as error:
            self.computed.fail(str(error))
            return ""
