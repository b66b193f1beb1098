"""Small parts of widgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from magicgui.widgets import ComboBox
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QLabel, QMessageBox, QScrollArea, QSizePolicy, QWidget

if TYPE_CHECKING:
    from napari.layers import Layer

    from demoe.model.zoo import ModelInfo


def list_layers(combo: ComboBox, chosen: Layer | None) -> None:
    """Offer the layers anew, in their order."""
    listed = combo.options["choices"]
    with combo.changed.blocked():
        combo.choices = ()
        combo.choices = listed
        if chosen is not None and chosen in combo.choices:
            combo.value = chosen
        else:
            combo.native.setCurrentIndex(-1)


def explain(combo: ComboBox, lines: Mapping[str, str]) -> None:
    """Say a line about each choice where the pointer rests on it in the list."""
    for number, value in enumerate(combo.choices):
        combo.native.setItemData(number, lines.get(value, ""), Qt.ItemDataRole.ToolTipRole)


def may_download(parent: QWidget, model: ModelInfo) -> bool:
    """Ask whether a network may be downloaded."""
    answer = QMessageBox.question(
        parent,
        "Download the network?",
        f"{model.summary}\n\nIt is downloaded once ({model.size / 1e6:.0f} MB) from\n"
        f"{model.url}\n\nLicence: {model.license}",
    )
    return answer == QMessageBox.StandardButton.Yes


def rolled(whole: QWidget) -> QScrollArea:
    """Let a widget be rolled up and down where it is higher than its place."""
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setWidget(whole)
    return area


def line() -> QLabel:
    """Return an empty line of text that may wrap."""
    label = QLabel()
    wrap(label)
    return label


def wrap(label: QLabel) -> None:
    """Let a text take as many lines as it needs, and be selected."""
    label.setWordWrap(True)
    label.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)


def rule() -> QFrame:
    """Return a line that parts what is above from what is below."""
    frame = QFrame()
    frame.setFrameShape(QFrame.Shape.HLine)
    frame.setStyleSheet("color: palette(mid)")
    return frame
