"""The legend: the experts with their colours, shares and blurs, and which one paints."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QButtonGroup, QGridLayout, QLabel, QProgressBar, QRadioButton, QWidget

from demoe.choices import Choice


class Legend(QWidget):
    """One row an expert.

    Parameters
    ----------
    experts : sequence of Choice
        What a network offers.
    choose : callable
        Told which one is to paint, by its number.
    """

    def __init__(self, experts: Sequence[Choice], choose: Callable[[int], None]) -> None:
        super().__init__()
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(3)
        grid.setColumnStretch(1, 1)
        self.brushes = QButtonGroup(self)
        self.brushes.idClicked.connect(choose)
        self.shares: list[QLabel] = []
        self.sizes: list[QLabel] = []
        self._bars: list[QProgressBar] = []
        for row, expert in enumerate(experts, start=1):
            self._add(grid, row, expert)

    def _add(self, grid: QGridLayout, row: int, expert: Choice) -> None:
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

    def show_found(self, shares: Sequence[float], sizes: Sequence[str], brush: int) -> None:
        """Show what was found of each expert, from "not decided" on, and which one paints."""
        rows = zip(self.shares, self._bars, self.sizes, strict=True)
        for i, (label, bar, size) in enumerate(rows, start=1):
            label.setText(f"{shares[i]:.0%}" if shares else "")
            bar.setValue(round(100 * shares[i]) if shares else 0)
            size.setText(sizes[i] if shares else "")
            size.setVisible(bool(size.text()))
        self.brushes.button(brush).setChecked(True)
