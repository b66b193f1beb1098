"""The dock widget "Deblur (DeMoE)": layout and forwarding only; the session decides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from magicgui.widgets import ComboBox, FileEdit, Label, LineEdit
from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import (
    QApplication,
    QButtonGroup,
    QCheckBox,
    QFileDialog,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QRadioButton,
    QScrollArea,
    QSizePolicy,
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
from napari_demoe._session import PREVIEW_SIDE, Session
from napari_demoe._worker import ask, launch, pulse

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Layer
    from napari.viewer import Viewer

    from demoe.model.zoo import ModelInfo

FROM_FILE = "file"
MODEL_WORDS = {
    "default": "Bundled network",
    "instructir-small": "Bundled InstructIR network",
    "moceir-small": "Bundled MoCE-IR network",
    "demoe": "Released DeMoE network",
    "instructir": "Released InstructIR network",
}
DECISIONS = {
    "auto": "Automatic",
    "local": "Decide place by place",
    "image": "One decision for the image",
}
"""What the network decides by itself; its own choices follow, and then the painted map."""

SHOWN = ("overlay", "confidence", "blur", "kernels", "consistency", "complexity")
"""Maps of a result that can be shown: names of check boxes here, and of layers in the session."""

SCOPE_WORDS = {
    "all": "Everything, view first",
    "view": "Only the view",
    "region": "What shapes frame",
}
"""What a run takes; see `napari_demoe._choices.SCOPES`."""

PAINTED_WORDS = "As painted or drawn in a layer"
DEVICES = {"auto": "Automatic", "cpu": "Processor"}

TOOLTIPS = {
    "image": "The image layer to deblur. Stacks, time series, channels, colour and multiscale\n"
    "layers are all fine; every plane is deblurred on its own.",
    "painted": "The map of a result, or any layer of labels (1, 2 ... in the order of the list\n"
    "below; 0 leaves the choice to the network) or of shapes (their feature 'task', or the\n"
    "expert that is chosen below). It counts where it lies on the image.",
    "sentence": "Say in English what went wrong, for example 'my sample moved', and press Enter:\n"
    "it chooses the kind of blur.",
    "correct": "Deblur again where the map was corrected, with the settings of that run.\n"
    "Only the tiles that change are computed.",
    "confidence": "By how much the best expert leads, from black (a toss-up, or nothing to\n"
    "decide) to white (sure, or painted by you).",
    "blur": "The blur that was found in each place, drawn four times as large as it is.",
    "kernels": "A picture of the blur in each place, seven times as large as it is: what a point\n"
    "looks like there.",
    "consistency": "The result blurred again, against the data: black up to the noise, bright\n"
    "where the data do not support what is seen.",
    "complexity": "How much the experts of a place compute, from dark (cheap) to bright (the\n"
    "costliest), for networks whose experts cost differently.",
    "scope": "What is looked at is deblurred first, from the middle outwards, and goes on as you\n"
    "pan, zoom and move the sliders. Shapes: their bounding boxes, in the layer chosen as map.",
    "resume": "Go on with the run that was stopped; what is done is not computed again.",
    "run": "Deblur the image: its tiles appear as they are done.",
    "preview": f"Deblur up to {PREVIEW_SIDE} by {PREVIEW_SIDE} pixels around the middle of the\n"
    "view, in the plane that is shown, to try the settings.",
    "cancel": "Stop after the tile in work; what is done stays.",
    "batch": "Deblur a folder of images, or the selected layers, into another folder.",
    "script": "Copy Python lines that do this run without the viewer.",
    "command": "Copy a command line that does this run without the viewer.",
    "keep": "An output, such as result.ome.zarr: tiles are kept beside it and outlive the viewer.\n"
    "The same image with the same settings goes on with them; so does demoe run --resume,\n"
    "which writes that output.",
    "elsewhere": "Choose where tiles are kept while their layer lives.",
}


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
        _wrap(self.said.native)
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
        self.status, self.error, self.cursor = (_line() for _ in range(3))
        self.prospect, self.shortage, self.processor = (_line() for _ in range(3))
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
        layout.addWidget(_rule())
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
        layout.addWidget(_rule())
        hint = _line()
        hint.setText("To correct: choose an expert, paint on the map or draw shapes, and apply.")
        layout.addWidget(hint)
        layout.addWidget(self.correct)
        layout.addStretch(1)
        rolled = QScrollArea()
        rolled.setWidgetResizable(True)
        rolled.setFrameShape(QFrame.Shape.NoFrame)
        rolled.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        rolled.setWidget(whole)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(rolled)
        self._rolled = rolled

    def _offer(self) -> None:
        """List the experts of the chosen network: in the menu of blurs, and in the legend."""
        self._offered = experts = self.session.experts
        self.form.renew("routing")
        self.form["top_k"].max = len(experts)
        while self._legend_place.count():
            old = self._legend_place.takeAt(0).widget()
            old.setParent(None)  # gone from sight at once, and deleted when Qt finds the time
            old.deleteLater()
        self._legend_place.addWidget(self._legend())

    def _legend(self) -> QWidget:
        legend = QWidget()
        grid = QGridLayout(legend)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(3)
        grid.setColumnStretch(1, 1)
        self.brushes = QButtonGroup(legend)
        self.brushes.idClicked.connect(self.session.choose_brush)
        self.shares: list[QLabel] = []
        self.sizes: list[QLabel] = []
        self._bars: list[QProgressBar] = []
        for row, expert in enumerate(self.session.experts, start=1):
            words = expert.words
            colour = f"background-color: rgb{expert.colour}; border-radius: 3px"
            swatch = QLabel()
            swatch.setFixedSize(14, 14)
            swatch.setStyleSheet(colour)
            bar = QProgressBar()
            bar.setTextVisible(False)
            bar.setFixedSize(90, 8)
            bar.setStyleSheet(
                "QProgressBar { border: 0px; border-radius: 3px;"
                " background: rgba(128, 128, 128, 60) }"
                f"QProgressBar::chunk {{ {colour} }}"
            )
            number = QLabel()
            number.setMinimumWidth(number.fontMetrics().horizontalAdvance("100%") + 4)
            number.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            brush = QRadioButton(words)
            brush.setToolTip(f"Paint with {words}, and let shapes without a task stand for it.")
            self.brushes.addButton(brush, row)
            size = QLabel()
            size.setObjectName("demoe_size")
            size.setIndent(brush.iconSize().width() + 8)  # under the words
            size.hide()
            for place, part in enumerate((swatch, brush, bar, number)):
                grid.addWidget(part, 2 * row, place)
            grid.addWidget(size, 2 * row + 1, 1, 1, 3)
            self.shares.append(number)
            self.sizes.append(size)
            self._bars.append(bar)
        return legend

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
        if missing is None or self._may_download(missing):
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

    def _may_download(self, model: ModelInfo) -> bool:
        answer = QMessageBox.question(
            self,
            "Download the network?",
            f"{model.summary}\n\nIt is downloaded once ({model.size / 1e6:.0f} MB) from\n"
            f"{model.url}\n\nLicence: {model.license}",
        )
        return answer == QMessageBox.StandardButton.Yes

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
        _list_layers(self.image, session.source)
        _list_layers(self.painted, session.painted)
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
        for i, (label, bar) in enumerate(zip(self.shares, self._bars, strict=True), start=1):
            share = session.shares[i] if session.shares else 0.0
            label.setText(f"{share:.0%}" if session.shares else "")
            bar.setValue(round(100 * share))
            size = session.sizes[i] if session.shares else ""
            self.sizes[i - 1].setText(size)
            self.sizes[i - 1].setVisible(bool(size))
        for name in SHOWN:
            box, layer = getattr(self, name), getattr(session, name)
            box.setEnabled(layer is not None)
            with signals_blocked(box):
                box.setChecked(layer is not None and layer.visible)
        self.said.value = session.said
        show_row(self._main, self.said, bool(session.said))
        self.brushes.button(session.brush).setChecked(True)
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


def _list_layers(combo: ComboBox, chosen: Layer | None) -> None:
    """Offer the layers anew, in their order."""
    listed = combo.options["choices"]
    with combo.changed.blocked():
        combo.choices = ()
        combo.choices = listed
        if chosen is not None and chosen in combo.choices:
            combo.value = chosen
        else:
            combo.native.setCurrentIndex(-1)


def _line() -> QLabel:
    label = QLabel()
    _wrap(label)
    return label


def _wrap(label: QLabel) -> None:
    label.setWordWrap(True)
    label.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)


def _rule() -> QFrame:
    rule = QFrame()
    rule.setFrameShape(QFrame.Shape.HLine)
    rule.setStyleSheet("color: palette(mid)")
    return rule
