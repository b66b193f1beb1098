"""The dock widget "Deblur (DeMoE)": layout and forwarding only; the session decides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import (
    QApplication,
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QRadioButton,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible
from superqt.utils import signals_blocked

from demoe.model.zoo import list_models
from napari_demoe import _settings
from napari_demoe._batch_dialog import BatchDialog
from napari_demoe._compare_bar import CompareBar
from napari_demoe._session import PAINTED, PREVIEW_SIDE, Session
from napari_demoe._worker import launch, pulse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Layer
    from napari.viewer import Viewer

    from demoe.model.zoo import ModelInfo
    from demoe.recipe import Recipe

FROM_FILE = "file"
MODEL_WORDS = {"default": "Bundled network", "demoe": "Released DeMoE network"}
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
"""What a run takes; see `napari_demoe._session.SCOPES`."""

PAINTED_WORDS = "As painted or drawn in a layer"
POOLINGS = {"plane": "Over the whole plane", "tile": "In each tile by itself"}
DEVICES = {"auto": "Automatic", "cpu": "Processor (CPU)", "cuda": "Graphics card (CUDA)"}
TILES = {0: "Automatic", **{n: f"{n} pixels" for n in (128, 256, 512, 1024, 2048)}}

TOOLTIPS = {
    "image": "The image layer to deblur. Stacks, time series, channels, colour and multiscale\n"
    "layers are all fine; every plane is deblurred on its own.",
    "model": "The network's weights: the ones that come with the plugin, the published ones\n"
    "(downloaded once, after asking), imported ones, or a file.",
    "routing": "Who decides which kind of blur is removed: the network, for each place or once\n"
    "for each plane, or you, by naming the blur or by painting it.",
    "painted": "The map of a result, or any layer of labels (1, 2 ... in the order of the list\n"
    "below; 0 leaves the choice to the network) or of shapes (their feature 'task', or the\n"
    "expert that is chosen below). It counts where it lies on the image.",
    "sentence": "Say in English what went wrong, for example 'my sample moved', and press Enter:\n"
    "it chooses the kind of blur.",
    "pooling": "Where the network looks for how strong its channels are. The whole plane gives\n"
    "results without seams; each tile by itself needs no look at the rest, but shows seams.",
    "flat": "Pass by what is flat background below its own noise: faster, and the noise stays.",
    "psf": "Empty: the blur is looked for. Where it is known, it is undone by physics, without\n"
    "the network: radius=3 (out of focus), sigma=2.1, or length=11, angle=25 (pixels,\n"
    "degrees), or a PSF's file. none: the network works alone.",
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
    "top_k": "How many experts are mixed at each place. 1 is fastest;\n"
    "more help where kinds of blur overlap.",
    "device": "Where to compute. Automatic takes a graphics card if there is one.",
    "tile": "Larger tiles are faster and need more memory. The result hardly depends on it.",
    "scope": "What is looked at is deblurred first, from the middle outwards, and goes on as you\n"
    "pan, zoom and move the sliders. Shapes: their bounding boxes, in the layer chosen as map.",
    "resume": "Go on with the run that was stopped; what is done is not computed again.",
    "run": "Deblur the image: its tiles appear as they are done.",
    "preview": f"Deblur up to {PREVIEW_SIDE} by {PREVIEW_SIDE} pixels around the middle of the\n"
    "view, in the plane that is shown, to try the settings.",
    "cancel": "Stop after the tile in work; what is done stays.",
    "batch": "Deblur a folder of images, or the selected layers, into another folder.",
    "script": "Copy Python lines that do this run without the viewer.",
    "brightness": "Keep the local mean of the image as it is: for measurements of intensity,\n"
    "and for low light that should stay dark.",
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
        self.session = Session(napari_viewer, launch, pulse)
        self.session.choices = _settings.load()
        self._build()
        self._batch_dialog = BatchDialog(self._recipe, lambda: self.session.selected, self)
        self._fill()
        self._connect()
        self._show()

    # -- layout -----------------------------------------------------------------------------

    def _build(self) -> None:
        self.image, self.painted = QComboBox(), QComboBox()
        models = {model.name: MODEL_WORDS.get(model.name, model.name) for model in list_models()}
        choices = ({**models, FROM_FILE: "From a file …"}, {}, DEVICES, TILES, POOLINGS)
        self.model, self.routing, self.device, self.tile, self.pooling = map(_combo, choices)
        self.top_k = QSpinBox()
        self.brightness = QCheckBox("Keep local brightness")
        self.flat = QCheckBox("Skip flat background")
        self.psf = QLineEdit()
        self.psf.setPlaceholderText("radius=3, or a file")
        self.run = QPushButton("Run")
        self.preview = QPushButton("Preview")
        self.script = QPushButton("Copy as Python")
        self.cancel = QPushButton("Cancel")
        self.resume = QPushButton("Resume")
        self.scope = _combo(SCOPE_WORDS)
        self.progress = QProgressBar()
        keeping = self.progress.sizePolicy()
        keeping.setRetainSizeWhenHidden(True)  # nothing jumps when a run starts
        self.progress.setSizePolicy(keeping)
        self.status, self.error, self.cursor = (_line() for _ in range(3))
        self.error.setObjectName("demoe_error")
        self.error.setStyleSheet("color: #e0524d")
        self.said = _line()
        self.sentence = QLineEdit()
        self.sentence.setPlaceholderText("What is wrong with the picture?")
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
            getattr(self, name).setToolTip(tip)

        main = _form(
            ("Image", self.image),
            ("Network", self.model),
            ("In words", self.sentence),
            ("Blur", self.routing),
            ("Map", self.painted),
            ("Take", self.scope),
        )
        main.insertRow(3, self.said)
        self._map_row = (main.labelForField(self.painted), self.painted)
        more = _form(
            ("Experts mixed", self.top_k),
            ("Device", self.device),
            ("Tile size", self.tile),
            ("Attention", self.pooling),
            ("Known PSF", self.psf),
        )
        more.addRow("", self.brightness)
        more.addRow("", self.flat)
        more.addRow("", self.script)
        more.addRow("", self.batch)
        options = QWidget()
        options.setLayout(more)
        self.advanced = QCollapsible("More options")
        self.advanced.layout().setContentsMargins(0, 0, 0, 0)
        self.advanced.content().layout().setContentsMargins(0, 6, 0, 0)
        self.advanced.addWidget(options)
        buttons = QHBoxLayout()
        for button in (self.run, self.preview, self.resume, self.cancel):
            buttons.addWidget(button)

        layout = QVBoxLayout(self)
        layout.setContentsMargins(10, 10, 10, 10)
        layout.setSpacing(8)
        layout.addLayout(main)
        layout.addWidget(self.advanced)
        layout.addLayout(buttons)
        layout.addWidget(self.status)
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
        self.setMinimumWidth(280)

    def _offer(self) -> None:
        """List the experts of the chosen network: in the menu of blurs, and in the legend."""
        self._offered = experts = self.session.experts
        before = self.routing.currentData()
        with signals_blocked(self.routing):
            self.routing.clear()
            for value, words in DECISIONS.items():
                self.routing.addItem(words, value)
            for expert in experts:
                self.routing.addItem(f"Only {expert.words}", expert.name)
            self.routing.addItem(PAINTED_WORDS, PAINTED)
            self.routing.setCurrentIndex(max(0, self.routing.findData(before)))
        self.top_k.setRange(1, len(experts))
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
            for column, part in enumerate((swatch, brush, bar, number)):
                grid.addWidget(part, 2 * row, column)
            grid.addWidget(size, 2 * row + 1, 1, 1, 3)
            self.shares.append(number)
            self.sizes.append(size)
            self._bars.append(bar)
        return legend

    # -- widgets -> session -------------------------------------------------------------------

    def _connect(self) -> None:
        self.session.changed.connect(self._show)
        self._viewer.cursor.events.position.connect(self._show_cursor)
        self.image.currentIndexChanged.connect(self._choose_image)
        self.painted.currentIndexChanged.connect(self._choose_map)
        self.routing.currentIndexChanged.connect(self._show_map_row)
        self.model.activated.connect(self._choose_model)
        self.run.clicked.connect(lambda: self.start())
        self.preview.clicked.connect(lambda: self.start(preview=True))
        self.script.clicked.connect(self.copy_script)
        self.batch.clicked.connect(self.open_batch)
        self.cancel.clicked.connect(self.session.cancel)
        self.resume.clicked.connect(self.session.resume)
        self.scope.currentIndexChanged.connect(self._choose_scope)
        self.sentence.returnPressed.connect(self._understand)
        self.correct.clicked.connect(self.session.correct)
        for name in SHOWN:
            getattr(self, name).toggled.connect(lambda on, name=name: self._toggle(name, on))
        self.destroyed.connect(self.session.close)

    def start(self, preview: bool = False) -> None:
        """Read the choices, remember them, and run, on all of the image or around the view."""
        self._read_choices()
        missing = self.session.missing_network()
        if missing is None or self._may_download(missing):
            _settings.save(self.session.choices)
            self.session.start(preview=preview, download=missing is not None)

    def _choose_scope(self) -> None:
        self.session.scope = self.scope.currentData()
        self._show_map_row()

    def copy_script(self) -> None:
        """Put Python lines that do the same run on the clipboard."""
        self._read_choices()
        lines = self.session.script()
        if lines:
            QApplication.clipboard().setText(lines)

    def open_batch(self) -> None:
        """Open the dialog that deblurs many images with what is chosen here."""
        self._batch_dialog.show()
        self._batch_dialog.raise_()

    def _recipe(self) -> Recipe:
        self._read_choices()
        return self.session.choices.recipe()

    def _read_choices(self) -> None:
        choices = self.session.choices
        choices.model = self.model.currentData()
        choices.routing = self.routing.currentData()
        choices.top_k = self.top_k.value()
        choices.device = self.device.currentData()
        choices.tile = self.tile.currentData()
        choices.keep_brightness = self.brightness.isChecked()
        choices.pooling = self.pooling.currentData()
        choices.skip_flat = self.flat.isChecked()
        choices.psf = self.psf.text()

    def _may_download(self, model: ModelInfo) -> bool:
        answer = QMessageBox.question(
            self,
            "Download the network?",
            f"{model.summary}\n\nIt is downloaded once ({model.size / 1e6:.0f} MB) from\n"
            f"{model.url}\n\nLicence: {model.license}",
        )
        return answer == QMessageBox.StandardButton.Yes

    def _choose_image(self, index: int) -> None:
        sources = self.session.sources
        self.session.source = sources[index] if 0 <= index < len(sources) else None

    def _choose_map(self, index: int) -> None:
        maps = self.session.maps
        self.session.painted = maps[index] if 0 <= index < len(maps) else None

    def _choose_model(self, index: int) -> None:
        if self.model.itemData(index) != FROM_FILE:
            self.session.choose_network(self.model.itemData(index))
            return
        path, _ = QFileDialog.getOpenFileName(
            self, "Network weights", "", "Weights (*.safetensors *.pt *.pth)"
        )
        self.choose_model(path or self.session.choices.model)

    def choose_model(self, model: str) -> None:
        """Select a network by name, or by the path of a file with weights."""
        index = self.model.findData(model)
        if index < 0:
            index = self.model.findData(FROM_FILE)
            self.model.insertItem(index, Path(model).name, model)
            self.model.setItemData(index, model, Qt.ItemDataRole.ToolTipRole)
        self.model.setCurrentIndex(index)
        self.session.choose_network(model)

    def _toggle(self, name: str, visible: bool) -> None:
        layer = getattr(self.session, name)
        if layer is not None:
            layer.visible = visible

    def _understand(self) -> None:
        task = self.session.understand(self.sentence.text())
        if task is not None:
            self.routing.setCurrentIndex(self.routing.findData(task))

    # -- session -> widgets -------------------------------------------------------------------

    def _fill(self) -> None:
        choices = self.session.choices
        self.choose_model(choices.model)
        for combo, value in (
            (self.routing, choices.routing),
            (self.device, choices.device),
            (self.tile, choices.tile),
            (self.pooling, choices.pooling),
        ):
            combo.setCurrentIndex(max(0, combo.findData(value)))
        self.top_k.setValue(choices.top_k)
        self.brightness.setChecked(choices.keep_brightness)
        self.flat.setChecked(choices.skip_flat)
        self.psf.setText(choices.psf)

    def _show(self) -> None:
        session = self.session
        if session.experts != self._offered:
            self._offer()
        _list_layers(self.image, session.sources, session.source)
        _list_layers(self.painted, session.maps, session.painted)
        self._show_map_row()
        busy = session.busy
        for button in (self.run, self.preview):
            button.setEnabled(not busy and session.source is not None)
        self.script.setEnabled(session.source is not None)
        self.cancel.setEnabled(busy and session.state == "running")
        self.cancel.setVisible(not session.resumable)
        self.resume.setVisible(session.resumable)
        self.progress.setVisible(busy)
        self.progress.setRange(0, session.total)
        self.progress.setValue(session.done)
        self.progress.setFormat(f"{session.done} of {session.total} tiles")
        self.status.setText(session.status)
        self.status.setVisible(bool(session.status))
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
        self.said.setText(session.said)
        self.said.setVisible(bool(session.said))
        self.brushes.button(session.brush).setChecked(True)
        self.correct.setEnabled(not busy and session.correctable)
        self._show_cursor()

    def _show_map_row(self) -> None:
        for part in self._map_row:
            part.setVisible(
                self.routing.currentData() == PAINTED
                or self.session.scope == "region"
                or self.session.correctable
            )

    def _show_cursor(self, event: object = None) -> None:
        words = self.session.describe_cell(tuple(self._viewer.cursor.position))
        self.cursor.setText(f"Under the pointer: {words}" if words else "")

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


def _combo(words: dict[Any, str]) -> QComboBox:
    combo = QComboBox()
    for value, text in words.items():
        combo.addItem(text, value)
    return combo


def _list_layers(combo: QComboBox, layers: Sequence[Layer], chosen: Layer | None) -> None:
    with signals_blocked(combo):
        combo.clear()
        combo.addItems([layer.name for layer in layers])
        combo.setCurrentIndex(layers.index(chosen) if chosen in layers else -1)


def _line() -> QLabel:
    label = QLabel()
    label.setWordWrap(True)
    label.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label


def _rule() -> QFrame:
    rule = QFrame()
    rule.setFrameShape(QFrame.Shape.HLine)
    rule.setStyleSheet("color: palette(mid)")
    return rule


def _form(*rows: tuple[str, QWidget]) -> QFormLayout:
    form = QFormLayout()
    form.setContentsMargins(0, 0, 0, 0)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
    for text, widget in rows:
        label = QLabel(text)
        label.setToolTip(widget.toolTip())
        form.addRow(label, widget)
    return form
