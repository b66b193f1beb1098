"""The form of a recipe: magicgui's widgets, made of what the recipe says of its fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from magicgui.widgets import ComboBox, LineEdit, LiteralEvalLineEdit, create_widget
from magicgui.widgets.bases import ButtonWidget, ValueWidget, Widget
from psygnal import Signal
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFormLayout, QLabel, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from demoe.asked import Question, questions
from demoe.recipe import Recipe

Offered = Callable[[], Iterable[tuple[str, Any]]]
"""Gives words and values to choose from, as they are now."""

PLACES = ("first", "more", "fine")
"""See `demoe.asked.Asked`."""


class RecipeForm:
    """A widget for each field of a recipe that a form asks for.

    Parameters
    ----------
    kind : type of Recipe
        The recipe; a new field of it shows up here by itself.
    offered : mapping
        For fields whose values depend on the machine or the network: what there is to choose from.

    Attributes
    ----------
    places : mapping of str to QWidget
        The widgets by place, in the order of the fields; those of "first" are for the caller to
        lay out.
    """

    changed = Signal()

    def __init__(
        self, kind: type[Recipe] = Recipe, offered: Mapping[str, Offered] | None = None
    ) -> None:
        self._offered = dict(offered or {})
        self._widgets: dict[str, ValueWidget] = {}
        self._by_place: dict[str, list[ValueWidget]] = {place: [] for place in PLACES}
        for name, question in questions(kind).items():
            if question.asked.place:
                widget = self._widget_for(question)
                self._widgets[name] = widget
                self._by_place[question.asked.place].append(widget)
        for widget in self._widgets.values():
            widget.changed.connect(lambda _: self.changed.emit())
        self.places = {place: column(self._by_place[place]) for place in PLACES[1:]}

    def __getitem__(self, name: str) -> ValueWidget:
        """Return the widget of a field."""
        return self._widgets[name]

    @property
    def values(self) -> dict[str, Any]:
        """What is chosen, by field."""
        return {name: widget.value for name, widget in self._widgets.items()}

    def show(self, values: Mapping[str, Any]) -> None:
        """Show other values, of fields that are asked for."""
        for name in self._widgets.keys() & values.keys():
            self.choose(name, values[name])

    def choose(self, name: str, value: Any, words: str = "") -> None:
        """Show a value; one that is not among those that are offered is added to them."""
        widget = self._widgets[name]
        if isinstance(widget, ComboBox) and value not in widget.choices:
            widget.set_choice(words or str(value), value)
        if isinstance(widget, LineEdit) and not isinstance(widget, LiteralEvalLineEdit):
            value = "" if value == "auto" else str(value)
        widget.value = value

    def renew(self, name: str) -> None:
        """Offer anew what there is to choose from; what is chosen stays if it is among it."""
        widget = self._widgets[name]
        fresh = list(self._offered[name]())
        before = widget.value
        with widget.changed.blocked():
            widget.choices = ()  # so that the order is the new one
            widget.choices = fresh
            values = [value for _, value in fresh]
            if values:
                widget.value = before if before in values else values[0]

    def _widget_for(self, question: Question) -> ValueWidget:
        asked = question.asked
        shown = {
            "name": question.name,
            "label": question.title,
            "tooltip": _wrapped(asked.help),
            "value": question.default,
        }
        if question.name in self._offered:
            return ComboBox(choices=list(self._offered[question.name]()), **shown)
        if asked.offered:
            return ComboBox(choices=[(words, value) for value, words in asked.offered], **shown)
        if question.type is Any:  # written as people write it; whoever freezes it reads it
            widget = LineEdit(**shown | {"value": ""})
            widget.native.setPlaceholderText(asked.hint)
            return widget
        options = {"min": asked.minimum, "max": asked.maximum, "step": asked.step}
        try:
            return create_widget(
                annotation=question.type,
                options={"tooltip": shown["tooltip"]}
                | {name: value for name, value in options.items() if value is not None},
                **{name: shown[name] for name in ("name", "label", "value")},
            )
        except (TypeError, ValueError):  # of a kind that magicgui has no widget for
            return LiteralEvalLineEdit(**shown)


def column(widgets: Iterable[Widget]) -> QWidget:
    """Lay out widgets below each other, with their labels in a column beside them.

    Not in a `Container`: that measures labels before the viewer's style makes them wider.
    """
    laid_out = QWidget()
    form = QFormLayout(laid_out)
    form.setContentsMargins(0, 0, 0, 0)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
    for widget in widgets:
        if isinstance(widget, ButtonWidget) or not widget.label:
            form.addRow(widget.native)
        else:
            label = QLabel(widget.label)
            label.setToolTip(widget.tooltip or "")
            form.addRow(label, widget.native)
    return laid_out


class Fold(QWidget):
    """Widgets below a line that shows and hides them.

    superqt's has no height when it is folded, but still asks for one in a scroll area.

    Parameters
    ----------
    title : str
        What the line says.
    *parts : QWidget
        What lies below it, hidden at first.
    """

    def __init__(self, title: str, *parts: QWidget) -> None:
        super().__init__()
        self.line = QToolButton()
        self.line.setText(title)
        self.line.setCheckable(True)
        self.line.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.line.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._below = QWidget()
        below = QVBoxLayout(self._below)
        layout = QVBoxLayout(self)
        for each in (below, layout):
            each.setContentsMargins(0, 0, 0, 0)
        for part in parts:
            below.addWidget(part)
        layout.addWidget(self.line)
        layout.addWidget(self._below)
        self.line.toggled.connect(self._show)
        self._show(False)

    def unfold(self) -> None:
        """Show what lies below the line."""
        self.line.setChecked(True)

    def _show(self, is_open: bool) -> None:
        arrows = Qt.ArrowType
        self.line.setArrowType(arrows.DownArrow if is_open else arrows.RightArrow)
        self._below.setVisible(is_open)


def show_row(laid_out: QWidget, widget: Widget, visible: bool) -> None:
    """Show or hide a widget of a `column`, and its label."""
    widget.native.setVisible(visible)
    label = laid_out.layout().labelForField(widget.native)
    if label is not None:
        label.setVisible(visible)


def _wrapped(text: str, width: int = 84) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
