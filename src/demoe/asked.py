"""What people are told and asked about a value, said once, beside the value.

Forms, preferences and the command line are made from it, so none of them has to be told of a new
field.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from types import MappingProxyType
from typing import Annotated, Any, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Asked:
    """How people are asked for a value; stands in the annotation of a dataclass's field.

    Attributes
    ----------
    title : str
        What the value is called in a form.
    help : str
        What it means and what it costs, in a sentence or two.
    minimum, maximum : float, optional
        The range of a number, both included.
    step : float, optional
        What a whole number has to be a multiple of; of others, how far an arrow key goes.
    offered : tuple of (value, str)
        Values to choose from, and their words. Of a field that holds text and nothing else there
        are no others.
    place : str
        Where a form asks for it: "first", "more" (where most people never look), "fine" (where
        only experts do), or "" for nowhere, because something else asks.
    hint : str
        What an empty line of text shows.
    """

    title: str = ""
    help: str = ""
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    offered: tuple[tuple[Any, str], ...] = ()
    place: str = "more"
    hint: str = ""

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest number."""
        least = -math.inf if self.minimum is None else self.minimum
        return least, math.inf if self.maximum is None else self.maximum


@dataclass(frozen=True)
class Question:
    """A field of a dataclass, and how people are asked for it.

    Attributes
    ----------
    name : str
        The field.
    type : type
        What it holds.
    default : object
        What it holds if nobody says anything.
    asked : Asked
        How; a field that says nothing about it is called by its name.
    """

    name: str
    type: Any
    default: Any
    asked: Asked

    @property
    def title(self) -> str:
        """What the value is called."""
        return self.asked.title or self.name.replace("_", " ").capitalize()

    @property
    def is_closed(self) -> bool:
        """Whether only the values that are offered are allowed."""
        return self.type is str and bool(self.asked.offered)


@functools.cache
def questions(kind: type[Any]) -> Mapping[str, Question]:
    """Return what people are asked for to make one of a dataclass, by field, in its order."""
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for field in fields(kind):
        hint, asked = hints[field.name], Asked()
        if get_origin(hint) is Annotated:
            hint, *notes = get_args(hint)
            asked = next((note for note in notes if isinstance(note, Asked)), asked)
        default = field.default
        if default is MISSING and field.default_factory is not MISSING:
            default = field.default_factory()
        found[field.name] = Question(field.name, hint, default, asked)
    return MappingProxyType(found)
