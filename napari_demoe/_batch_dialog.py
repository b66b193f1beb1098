"""The dialog "Batch": a folder or the selected layers, deblurred one after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import (
    ComboBox,
    Container,
    FileEdit,
    Label,
    LineEdit,
    ProgressBar,
    PushButton,
    Table,
)
from qtpy.QtWidgets import QDialog, QHeaderView, QSizePolicy, QVBoxLayout, QWidget

from demoe.errors import DemoeError, OutputError
from demoe.recipe import Recipe
from napari_demoe._batch import SUFFIXES, Batch, State, jobs_of_folder, jobs_of_layers

if TYPE_CHECKING:
    from napari.layers import Image

FOLDER, LAYERS = "A folder", "The selected layers"
AS_IT_IS = "As the image's own"
COLUMNS = ("Image", "What was wrong")


class BatchDialog(QDialog):
    """Choose images, an output folder and a format; run, watch, cancel; see what failed.

    Parameters
    ----------
    recipe : callable
        Returns the settings that are chosen now, or raises `DemoeError`.
    selected : callable
        Returns the image layers that are selected now.
    parent : QWidget, optional
        Over which it is shown.
    """

    def __init__(
        self,
        recipe: Callable[[], Recipe],
        selected: Callable[[], list[Image]],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("Batch: many images, one after the other")
        self._recipe, self._selected = recipe, selected
        self._batch: Batch | None = None
        self.images = ComboBox(label="Images", choices=(FOLDER, LAYERS))
        self.folder = FileEdit(label="Folder", mode="d", nullable=True)
        self.pattern = LineEdit(
            label="Names", value="*", tooltip="Which files: * for all, *.tif, cell_??.png ..."
        )
        self.output = FileEdit(
            label="Output folder",
            mode="d",
            nullable=True,
            tooltip="It is made if it is missing. Outputs that are there already are kept.",
        )
        self.format = ComboBox(label="Format", choices=(AS_IT_IS, *SUFFIXES))
        self.start = PushButton(text="Start")
        self.cancel = PushButton(text="Cancel", enabled=False)
        self.overall = ProgressBar(label="Images", value=0, min=0, max=1)
        self.current = ProgressBar(label="Tiles", value=0, min=0, max=1)
        self.status = Label(value="The settings are those of the widget.")
        self.failed = Table(value=([], [], COLUMNS), visible=False)
        self.form = Container(
            widgets=[self.images, self.folder, self.pattern, self.output, self.format]
        )
        buttons = Container(widgets=[self.start, self.cancel], layout="horizontal", labels=False)
        shown = Container(widgets=[self.overall, self.current])
        layout = QVBoxLayout(self)
        for part in (self.form, buttons, shown, self.status, self.failed):
            layout.addWidget(part.native)
        layout.addStretch(1)
        self.status.native.setWordWrap(True)
        self.status.native.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum)
        self.failed.native.setMinimumHeight(160)
        self.failed.read_only = True
        header = self.failed.native.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        header.setStretchLastSection(True)
        self.failed.native.setWordWrap(True)
        self.setMinimumWidth(560)
        self.images.changed.connect(self._show_form)
        self.start.changed.connect(self.begin)
        self.cancel.changed.connect(self.stop)
        self._show_form()

    @property
    def busy(self) -> bool:
        """Whether a batch runs."""
        return self._batch is not None

    def begin(self) -> None:
        """Start what is chosen; does nothing while a batch runs."""
        if self.busy:
            return
        try:
            batch = self._chosen()
        except DemoeError as error:
            self.status.value = str(error)
            return
        from napari.qt.threading import create_worker

        self._batch = batch
        self.failed.visible = False
        self._show(batch.state)
        self._show_buttons()
        create_worker(batch.steps, _connect={"yielded": self._show, "finished": self._ended})

    def stop(self) -> None:
        """End the batch after the tile in work."""
        if self._batch is not None:
            self._batch.cancel()
            self.cancel.enabled = False
            self.status.value = "Stopping after the tile in work …"

    def reject(self) -> None:
        """Close; a batch that runs is stopped first."""
        self.stop()
        super().reject()

    def closeEvent(self, event: Any) -> None:
        """Stop a batch that runs."""
        self.stop()
        super().closeEvent(event)

    def _chosen(self) -> Batch:
        output = self.output.value
        if output is None:
            raise OutputError("No output folder is chosen; choose or write one.")
        suffix = None if self.format.value == AS_IT_IS else self.format.value
        recipe = self._recipe()
        if self.images.value == LAYERS:
            jobs, failures = jobs_of_layers(self._selected(), Path(output), suffix or SUFFIXES[0])
            return Batch(jobs, recipe, failures)
        folder = self.folder.value
        if folder is None:
            raise OutputError("No folder of images is chosen; choose or write one.")
        return Batch(jobs_of_folder(folder, Path(output), self.pattern.value, suffix), recipe)

    def _show_form(self) -> None:
        of_folder = self.images.value == FOLDER
        self.folder.visible = self.pattern.visible = of_folder
        # A layer has no format of its own.
        self.format.choices = (AS_IT_IS, *SUFFIXES) if of_folder else SUFFIXES

    def _show_buttons(self) -> None:
        self.form.enabled = self.start.enabled = not self.busy
        self.cancel.enabled = self.busy

    def _show(self, state: State) -> None:
        for bar, value, most in (
            (self.overall, state.number, state.count),
            (self.current, state.done, state.total),
        ):
            bar.max = max(1, most)
            bar.value = value
        if state.name and self.cancel.enabled:
            what = f"{state.done} of {state.total} tiles" if state.total else state.message
            self.status.value = f"{state.name}: {what}"

    def _ended(self) -> None:
        state, self._batch = self._batch.state, None
        self._show(state)
        self._show_buttons()
        self.status.value = state.words
        rows = [list(each) for each in state.failures]
        self.failed.value = (rows, range(1, len(rows) + 1), COLUMNS)
        self.failed.native.resizeRowsToContents()
        self.failed.visible = bool(state.failures)
