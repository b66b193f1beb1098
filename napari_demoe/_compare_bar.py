"""The part of the widget that compares a result with its source."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from demoe.errors import DemoeError
from napari_demoe._compare import Alike, Pair, difference_kwargs, pair_at_hand
from napari_demoe._figures import Figures, View, looked_at, measure, words
from napari_demoe._swipe import Swipe

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

KEY = "H"
"""Held, it shows the source; no key of the viewer's own."""

PATIENCE_MS = 300
"""Figures are measured when the view has rested for so long."""

STEPS = 1000
"""Of the slider."""


class CompareBar(QWidget):
    """Hold to see the source, swipe, difference, and figures of the view.

    It compares the result that is selected, or else the newest.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose layers are compared.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._pair: Pair | None = None
        self._held: Alike | None = None
        self._alike: Alike | None = None  # while swiping
        self._swipe: Swipe | None = None
        self._differences: dict[Image, tuple[Image, list[tuple[Any, Any]]]] = {}
        self._waiting: list[Callable[[Figures], None]] = []
        self._worker: Any = None
        self._stale = False
        self._build()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(PATIENCE_MS)
        self._timer.timeout.connect(self._look)
        self._connect()
        self._follow()

    def _build(self) -> None:
        self.hold = QPushButton("Source")
        self.hold.setToolTip(f"Hold, or hold the key {KEY}, to see the source in its place.")
        self.swipe = QCheckBox("Swipe")
        self.swipe.setToolTip("Source left of a line and result right of it. Drag the line.")
        self.difference = QCheckBox("Difference")
        self.difference.setToolTip("A layer: red where the result is brighter, blue where darker.")
        self.figures = QCheckBox("Figures")
        self.figures.setToolTip("Sharpness, mean and experts of what is in view.")
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, STEPS)
        self.slider.setValue(STEPS // 2)
        self.line = QLabel()
        self.line.setWordWrap(True)
        self.line.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        row = QHBoxLayout()
        for each in (self.hold, self.swipe, self.difference, self.figures):
            row.addWidget(each)
        row.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(QLabel("Compare with the source"))
        layout.addLayout(row)
        layout.addWidget(self.slider)
        layout.addWidget(self.line)
        self.slider.hide()
        self.line.hide()

    def _connect(self) -> None:
        self.hold.pressed.connect(self.show_source)
        self.hold.released.connect(self.show_result)
        self.swipe.toggled.connect(self._toggle_swipe)
        self.slider.valueChanged.connect(self._slide)
        self.difference.toggled.connect(self._toggle_difference)
        self.figures.toggled.connect(self._toggle_figures)
        viewer = self._viewer
        events = viewer.layers.events
        self._listened = [
            (events.inserted, self._follow),
            (events.removed, self._follow),
            (viewer.layers.selection.events.active, self._follow),
            (viewer.dims.events.ndisplay, self._end_swipe),
            (viewer.canvas.grid.events.enabled, self._end_swipe),
            (viewer.dims.events.point, self._view_changed),
            (viewer.scene.camera.events.center, self._view_changed),
            (viewer.scene.camera.events.zoom, self._view_changed),
        ]
        for signal, slot in self._listened:
            signal.connect(slot)

        def hold_for_source(_: object) -> Any:
            self.show_source()
            yield
            self.show_result()

        viewer.bind_key(KEY, hold_for_source, overwrite=True)

    def close_comparison(self) -> None:
        """Let go of the viewer, and leave its layers as they were; maybe more than once."""
        self.show_result()
        self._end_swipe()
        self._timer.stop()
        self._waiting.clear()
        _disconnect(self._listened)
        self._listened = []
        for _, slots in self._differences.values():
            _disconnect(slots)
        self._differences.clear()
        if self._pair is not None:
            self._pair.result.events.set_data.disconnect(self._view_changed)
            self._pair = None
        self._viewer.bind_key(KEY, None)

    # -- what is compared ---------------------------------------------------------------------

    def _follow(self, event: object = None) -> None:
        layers = self._viewer.layers
        for result in [r for r, (layer, _) in self._differences.items() if layer not in layers]:
            _disconnect(self._differences.pop(result)[1])
        pair = pair_at_hand(layers)
        before = self._pair
        if (
            before is None
            or pair is None
            or (pair.result, pair.source)
            != (
                before.result,
                before.source,
            )
        ):
            self.show_result()
            self._end_swipe()
            if before is not None:
                before.result.events.set_data.disconnect(self._view_changed)
            if pair is not None:
                pair.result.events.set_data.connect(self._view_changed)
            self._pair = pair
        for each in (self.hold, self.swipe, self.difference, self.figures):
            each.setEnabled(pair is not None)
        self._show_difference()
        self._view_changed()

    # -- the source in the result's place -----------------------------------------------------

    def show_source(self) -> None:
        """Show the source instead of the result, until `show_result`."""
        if self._pair is None or self._held is not None:
            return
        if self._swipe is not None:
            self._swipe.place = 1.0
        self._held = Alike(self._pair, self._viewer.layers)
        if self._swipe is None:
            self._pair.result.visible = False

    def show_result(self) -> None:
        """End `show_source`."""
        if self._held is not None:
            self._held.undo()
            self._held = None
            if self._swipe is not None:
                self._swipe.place = self.slider.value() / STEPS

    def _toggle_swipe(self, on: bool) -> None:
        if not on:
            self._end_swipe()
        elif self._viewer.dims.ndisplay != 2 or self._viewer.canvas.grid.enabled:
            self._say("Swiping works in 2-D and without the grid.")
            self.swipe.setChecked(False)
        elif self._pair is not None:
            self._alike = Alike(self._pair, self._viewer.layers)
            self._swipe = Swipe(self._viewer, self._pair, self._dragged)
            self._slide(self.slider.value())
            self.slider.show()

    def _slide(self, value: int) -> None:
        if self._swipe is not None:
            self._swipe.place = value / STEPS

    def _dragged(self, place: float) -> None:
        with signals_blocked(self.slider):
            self.slider.setValue(round(place * STEPS))

    def _end_swipe(self, event: object = None) -> None:
        if self._swipe is not None:
            swipe, self._swipe = self._swipe, None
            swipe.remove()
            self._alike.undo()
            self._alike = None
        self.slider.hide()
        with signals_blocked(self.swipe):
            self.swipe.setChecked(False)

    # -- difference ---------------------------------------------------------------------------

    def _toggle_difference(self, on: bool) -> None:
        pair = self._pair
        if pair is None:
            return
        if pair.result in self._differences:
            self._differences[pair.result][0].visible = on
        elif on and not self._measure(lambda found: self._add_difference(pair, found.most)):
            self._add_difference(pair, 0.0)  # nothing of it is in view

    def _add_difference(self, pair: Pair, most: float) -> None:
        layers = self._viewer.layers
        if pair.result not in layers or pair.result in self._differences:
            return
        layer = self._viewer.add_image(pair.difference(), **difference_kwargs(pair, most))

        def renew(event: object = None) -> None:
            layer.data = pair.difference()

        def redraw(event: object = None) -> None:
            if layer.visible:
                layer.refresh(thumbnail=False, highlight=False, extent=False)

        events = pair.result.events
        slots = [
            (events.data, renew),
            (events.set_data, redraw),
            (layer.events.visible, self._show_difference),
        ]
        for signal, slot in slots:
            signal.connect(slot)
        self._differences[pair.result] = (layer, slots)
        layers.selection = {pair.result}

    def _show_difference(self, event: object = None) -> None:
        found = None if self._pair is None else self._differences.get(self._pair.result)
        with signals_blocked(self.difference):
            self.difference.setChecked(found is not None and found[0].visible)

    # -- figures ------------------------------------------------------------------------------

    def _toggle_figures(self, on: bool) -> None:
        self.line.setVisible(on)
        self.line.clear()
        if on:
            self._look()

    def _view_changed(self, event: object = None) -> None:
        if self.figures.isChecked():
            self._timer.start()  # again from 0

    def _look(self) -> None:
        if self.figures.isChecked():
            self._measure(self._show_figures)

    def _show_figures(self, figures: Figures) -> None:
        if self.figures.isChecked():
            self._say(words(figures))

    def _say(self, sentence: str) -> None:
        self.line.setText(sentence)
        self.line.show()

    def _measure(self, wanted: Callable[[Figures], None]) -> bool:
        """Measure the view on another thread, one at a time and the last view in the end.

        Returns whether there is anything in view.
        """
        view = None if self._pair is None else looked_at(self._viewer, self._pair)
        if view is None:
            self.line.clear()
            return False
        if wanted not in self._waiting:
            self._waiting.append(wanted)
        if self._worker is not None:
            self._stale = True
            return True
        from napari.qt.threading import create_worker

        self._worker = create_worker(
            _measured, view, _connect={"returned": self._measured, "finished": self._ended}
        )
        return True

    def _measured(self, found: Figures | str) -> None:
        waiting, self._waiting = self._waiting, []
        if isinstance(found, str):
            self._say(found)
            return
        for wanted in waiting:
            wanted(found)

    def _ended(self) -> None:
        self._worker = None
        if self._stale:
            self._stale = False
            self._view_changed()


def _measured(view: View) -> Figures | str:
    try:
        return measure(view)
    except DemoeError as error:
        return str(error)


def _disconnect(slots: list[tuple[Any, Any]]) -> None:
    for signal, slot in slots:
        signal.disconnect(slot)
