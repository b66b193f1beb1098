"""The dock widget "Deblur (DeMoE)": layout and forwarding only; the session decides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from magicgui.widgets import ComboBox, FileEdit, Label, LineEdit
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from demoe.model.zoo import list_models
from demoe.recipe import Recipe
from napari_demoe import _settings
from napari_demoe._batch_dialog import BatchDialog
from napari_demoe._choices import PAINTED
from napari_demoe._compare_bar import CompareBar
from napari_demoe._form import Fold, RecipeForm, column, show_row
from napari_demoe._legend import Legend
from napari_demoe._parts import explain, line, list_layers, may_download, rolled, rule, wrap
from napari_demoe._session import Session
from napari_demoe._widget_words import (
    DECISIONS,
    DEVICES,
    FROM_FILE,
    MODEL_WORDS,
    PAINTED_WORDS,
    SCOPE_WORDS,
    SHOWN,
    TOOLTIPS,
)
from napari_demoe._worker import ask, launch, pulse

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Layer
    from napari.viewer import Viewer


class DeblurWidget(QWidget):
    """Choose an image and a network, run, watch, and see which expert worked where.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Filled in by napari.
    parent : QWidget, optional
        Qt parent.
    """

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = napari_viewer
        self._found: tuple[tuple[str, str], ...] = ()
        self.session = Session(napari_viewer, launch, pulse, ask)
        self.session.choices = _settings.load(Recipe)
        self._build()
        self._batch_dialog = BatchDialog(self._recipe, lambda: self.session.selected, self)
        self._fill()
        self._connect()
        self._show()

    # -- layout -----------------------------------------------------------------------------

    def _build(self) -> None:
        self.form = RecipeForm(
            Recipe,
            offered={"model": self._networks, "routing": self._routings, "device": self._devices},
        )
        self.image = ComboBox(label="Image", choices=self._sources)
        self.painted = ComboBox(label="Map", choices=self._maps)
        self.scope = ComboBox(label="Take", choices=[(w, v) for v, w in SCOPE_WORDS.items()])
        self.sentence = LineEdit(label="In words")
        self.sentence.native.setPlaceholderText("What is wrong with the picture?")
        self.said = Label(label="")
        wrap(self.said.native)
        self.run = QPushButton("Run")
        self.preview = QPushButton("Preview")
        self.script = QPushButton("Copy as Python")
        self.command = QPushButton("Copy as command")
        self.cancel = QPushButton("Cancel")
        self.resume = QPushButton("Resume")
        self.progress = QProgressBar()
        keeping = self.progress.sizePolicy()
        keeping.setRetainSizeWhenHidden(True)  # nothing jumps when a run starts
        self.progress.setSizePolicy(keeping)
        self.status, self.error, self.cursor = (line() for _ in range(3))
        self.prospect, self.shortage, self.processor = (line() for _ in range(3))
        self.shortage.setStyleSheet("color: #e69f00")
        self.elsewhere = QPushButton("Another folder …")
        self.keep = FileEdit(label="Keep tiles for", mode="w", nullable=True)
        self.error.setObjectName("demoe_error")
        self.error.setStyleSheet("color: #e0524d")
        self.overlay = QCheckBox("Expert map")
        self.confidence = QCheckBox("Confidence")
        self.blur = QCheckBox("Blur")
        self.kernels = QCheckBox("Kernels")
        self.consistency = QCheckBox("Consistency")
        self.complexity = QCheckBox("Complexity")
        self.correct = QPushButton("Apply corrections")
        self.compare = CompareBar(self._viewer)
        self.batch = QPushButton("Batch …")
        for name, tip in TOOLTIPS.items():
            part = getattr(self, name)
            if isinstance(part, QWidget):
                part.setToolTip(tip)
            else:
                part.tooltip = tip

        model, routing = self.form["model"], self.form["routing"]
        asked = (self.image, model, self.sentence, self.said, routing, self.painted, self.scope)
        self._main = main = column(asked)
        fine = Fold("Fine tuning", self.form.places["fine"])
        texts = QWidget()
        side_by_side = QHBoxLayout(texts)
        side_by_side.setContentsMargins(0, 0, 0, 0)
        for button in (self.script, self.command):
            side_by_side.addWidget(button)
        kept = column([self.keep])
        self.advanced = Fold(
            "More", self.form.places["more"], self.processor, kept, fine, texts, self.batch
        )
        buttons = QHBoxLayout()
        for button in (self.run, self.preview, self.resume, self.cancel):
            buttons.addWidget(button)

        whole = QWidget()
        layout = QVBoxLayout(whole)
        layout.setContentsMargins(10, 10, 10, 10)
        layout.setSpacing(8)
        layout.addWidget(main)
        layout.addWidget(self.advanced)
        layout.addLayout(buttons)
        layout.addWidget(self.status)
        layout.addWidget(self.prospect)
        layout.addWidget(self.shortage)
        layout.addWidget(self.elsewhere)
        layout.addWidget(self.error)
        layout.addWidget(self.progress)
        layout.addWidget(rule())
        layout.addWidget(QLabel("Which expert worked where"))
        self._legend_place = QVBoxLayout()
        layout.addLayout(self._legend_place)
        self._offer()
        shown = QGridLayout()
        for number, name in enumerate(SHOWN):
            shown.addWidget(getattr(self, name), *divmod(number, 2))
        shown.setColumnStretch(2, 1)
        layout.addLayout(shown)
        layout.addWidget(self.cursor)
        layout.addWidget(self.compare)
        layout.addWidget(rule())
        hint = line()
        hint.setText("To correct: choose an expert, paint on the map or draw shapes, and apply.")
        layout.addWidget(hint)
        layout.addWidget(self.correct)
        layout.addStretch(1)
        self._rolled = rolled(whole)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self._rolled)

    def _offer(self) -> None:
        """List the experts of the chosen network: in the menu of blurs, and in the legend."""
        self._offered = experts = self.session.experts
        self.form.renew("routing")
        self.form["top_k"].max = len(experts)
        while self._legend_place.count():
            old = self._legend_place.takeAt(0).widget()
            old.setParent(None)  # gone from sight at once, and deleted when Qt finds the time
            old.deleteLater()
        self.legend = Legend(experts, self.session.choose_brush)
        self._legend_place.addWidget(self.legend)

    # -- widgets -> session -------------------------------------------------------------------

    def _connect(self) -> None:
        self.session.changed.connect(self._show)
        self._viewer.cursor.events.position.connect(self._show_cursor)
        self.image.changed.connect(self._choose_image)
        self.painted.changed.connect(self._choose_map)
        self.form["routing"].changed.connect(self._show_map_row)
        self.form["model"].changed.connect(self._choose_model)
        self.run.clicked.connect(lambda: self.start())
        self.preview.clicked.connect(lambda: self.start(preview=True))
        self.script.clicked.connect(lambda: self.copy(self.session.script))
        self.command.clicked.connect(lambda: self.copy(self.session.command))
        self.form.changed.connect(self.read_choices)
        self.keep.changed.connect(self.read_choices)
        self.elsewhere.clicked.connect(self._choose_folder)
        self.batch.clicked.connect(self.open_batch)
        self.cancel.clicked.connect(self.session.cancel)
        self.resume.clicked.connect(self.session.resume)
        self.scope.changed.connect(self._choose_scope)
        self.sentence.native.returnPressed.connect(self._understand)
        self.correct.clicked.connect(self.session.correct)
        for name in SHOWN:
            getattr(self, name).toggled.connect(lambda on, name=name: self._toggle(name, on))
        self.destroyed.connect(self.session.close)

    def start(self, preview: bool = False) -> None:
        """Read the choices, remember them, and run, on all of the image or around the view."""
        self.read_choices()
        missing = self.session.missing_network()
        if missing is None or may_download(self, missing):
            _settings.save(self.session.choices)
            self.session.start(preview=preview, download=missing is not None)

    def _choose_scope(self) -> None:
        self.read_choices()
        self._show_map_row()

    def _choose_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "A folder for tiles", self.session.folder)
        if folder:
            self.session.choose(folder=folder)

    def copy(self, write: Callable[[], str]) -> None:
        """Put lines that do the same run on the clipboard."""
        self.read_choices()
        lines = write()
        if lines:
            QApplication.clipboard().setText(lines)

    def open_batch(self) -> None:
        """Open the dialog that deblurs many images with what is chosen here."""
        self._batch_dialog.show()
        self._batch_dialog.raise_()

    def _recipe(self) -> Recipe:
        self.read_choices()
        return self.session.choices.recipe()

    def read_choices(self) -> None:
        """Take over what the form says."""
        kept, values = self.keep.value, self.form.values
        del values["model"]  # it has been told the session, together with its experts
        self.session.choose(
            **values,
            scope=self.scope.value,
            output="" if kept is None or not kept.name else str(kept),
        )

    # -- what there is to choose from -----------------------------------------------------------

    def _sources(self, _: object) -> list[tuple[str, Layer]]:
        return [(layer.name, layer) for layer in self.session.sources]

    def _maps(self, _: object) -> list[tuple[str, Layer]]:
        return [(layer.name, layer) for layer in self.session.maps]

    def _networks(self) -> list[tuple[str, str]]:
        known = [(MODEL_WORDS.get(one.name, one.name), one.name) for one in list_models()]
        return [*known, ("From a file …", FROM_FILE)]

    def _routings(self) -> list[tuple[str, str]]:
        decided = [(words, value) for value, words in DECISIONS.items()]
        experts = [(f"Only {expert.words}", expert.name) for expert in self.session.experts]
        return [*decided, *experts, (PAINTED_WORDS, PAINTED)]

    def _devices(self) -> list[tuple[str, str]]:
        there = dict(self._found)
        return [(words, value) for value, words in ({**DEVICES, **there}).items()]

    def _choose_image(self, layer: Layer | None) -> None:
        self.session.source = layer

    def _choose_map(self, layer: Layer | None) -> None:
        self.session.painted = layer

    def _choose_model(self, model: str) -> None:
        if model != FROM_FILE:
            self.session.choose_network(model)
            return
        path, _ = QFileDialog.getOpenFileName(
            self, "Network weights", "", "Weights (*.safetensors *.pt *.pth)"
        )
        self.choose_model(path or self.session.choices.model)

    def choose_model(self, model: str) -> None:
        """Select a network by name, or by the path of a file with weights."""
        self.form.choose("model", model, words=Path(model).name)
        explain(self.form["model"], {one.name: one.summary for one in list_models()})
        self.session.choose_network(model)

    def _toggle(self, name: str, visible: bool) -> None:
        layer = getattr(self.session, name)
        if layer is not None:
            layer.visible = visible

    def _understand(self) -> None:
        task = self.session.understand(self.sentence.value)
        if task is not None:
            self.form["routing"].value = task

    # -- session -> widgets -------------------------------------------------------------------

    def _fill(self) -> None:
        self.choose_model(self.session.choices.model)
        routings = [value for _, value in self._routings()]
        values = vars(self.session.choices).copy()
        if values["routing"] not in routings:  # of a network that is gone
            values["routing"] = "auto"
        self.form.show(values)

    def _show(self) -> None:
        session = self.session
        if session.experts != self._offered:
            self._offer()
        list_layers(self.image, session.source)
        list_layers(self.painted, session.painted)
        self._show_map_row()
        busy = session.busy
        for button in (self.run, self.preview):
            button.setEnabled(not busy and session.source is not None)
        for button in (self.script, self.command):
            button.setEnabled(session.source is not None)
        self.cancel.setEnabled(busy and session.state == "running")
        self.cancel.setVisible(not session.resumable)
        self.resume.setVisible(session.resumable)
        self.progress.setVisible(busy)
        self.progress.setRange(0, session.total)
        self.progress.setValue(session.done)
        self.progress.setFormat(f"{session.done} of {session.total} tiles")
        self.status.setText(session.status)
        self.status.setVisible(bool(session.status))
        for label, words in ((self.prospect, session.prospect), (self.shortage, session.shortage)):
            label.setText(words)
            label.setVisible(bool(words))
        self.elsewhere.setVisible(bool(session.shortage))
        self._show_devices()
        self.error.setText(session.error)
        self.error.setVisible(bool(session.error))
        self.legend.show_found(session.shares, session.sizes, session.brush)
        for name in SHOWN:
            box, layer = getattr(self, name), getattr(session, name)
            box.setEnabled(layer is not None)
            with signals_blocked(box):
                box.setChecked(layer is not None and layer.visible)
        self.said.value = session.said
        show_row(self._main, self.said, bool(session.said))
        self.correct.setEnabled(not busy and session.correctable)
        self._show_cursor()

    def _show_devices(self) -> None:
        """Offer what was found in the background, and say why the processor computes."""
        found = self.session.outlook.forecast
        if found is not None and found.devices != self._found:
            self._found = found.devices
            self.form.renew("device")
        words = "" if found is None else found.why
        self.processor.setText(words)
        self.processor.setVisible(bool(words))

    def _show_map_row(self) -> None:
        is_wanted = self.form["routing"].value == PAINTED or self.session.scope == "region"
        show_row(self._main, self.painted, is_wanted or self.session.correctable)

    def _show_cursor(self, event: object = None) -> None:
        words = self.session.describe_cell(tuple(self._viewer.cursor.position))
        self.cursor.setText(f"Under the pointer: {words}" if words else "")

    def showEvent(self, event: QEvent) -> None:
        """Be as wide as what is rolled up and down."""
        super().showEvent(event)
        bar = self._rolled.verticalScrollBar().sizeHint().width()
        self.setMinimumWidth(self._rolled.widget().minimumSizeHint().width() + bar)

    def resizeEvent(self, event: QEvent) -> None:
        """Have what is rolled laid out once more, or a bar that is not needed stays."""
        super().resizeEvent(event)
        self._rolled.widget().updateGeometry()

    # -- the end ------------------------------------------------------------------------------

    def changeEvent(self, event: QEvent) -> None:
        """Stop when the dock is closed: napari then takes this widget out of it."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.close_session()

    def close_session(self) -> None:
        """Stop a run and let go of the viewer."""
        self._viewer.cursor.events.position.disconnect(self._show_cursor)
        self.compare.close_comparison()
        self._batch_dialog.close()
        self.session.close()
