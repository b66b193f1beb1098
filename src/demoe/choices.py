"""What gates weigh: the choices of a network, each with a name, words for people and a colour."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from demoe.errors import RecipeError
from demoe.limits import quoted

Colour = tuple[int, int, int]

NOT_DECIDED = "not decided"
"""What the value 0 of an expert map means."""

MOST = 254
"""Choices of a network, at most: expert maps hold their numbers in 8 bits."""

_OKABE_ITO: tuple[Colour, ...] = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (86, 180, 233),
    (230, 159, 0),
)
"""Told apart with every common colour vision (Okabe and Ito, "Color Universal Design", 2008)."""

_TURN = 0.618034  # the golden angle: hues that follow each other are far apart


@dataclass(frozen=True)
class Choice:
    """One thing that a network can do to a place, such as undoing one kind of blur.

    Its number, in expert maps and elsewhere, is its position among the choices + 1; 0 means not
    decided, and has no colour.

    Attributes
    ----------
    name : str
        What recipes, files and the command line call it.
    words : str
        What people call it.
    colour : (int, int, int)
        RGB, 0..255, the same in pictures and in the viewer.
    """

    name: str
    words: str
    colour: Colour


def named(names: Iterable[str]) -> tuple[Choice, ...]:
    """Return choices of these names, with colours that can be told apart."""
    return tuple(
        Choice(name, name.replace("_", " "), _colour(number)) for number, name in enumerate(names)
    )


def more(choices: tuple[Choice, ...], names: Iterable[str]) -> tuple[Choice, ...]:
    """Return choices with others after them, whose words are their names."""
    own = (Choice(name, name, _colour(n)) for n, name in enumerate(names, len(choices)))
    return (*choices, *own)


def _colour(number: int) -> Colour:
    if number < len(_OKABE_ITO):
        return _OKABE_ITO[number]
    around = (number * _TURN) % 1
    red, green, blue = colorsys.hls_to_rgb(around, (0.35, 0.5, 0.65)[number % 3], 0.7)
    return round(255 * red), round(255 * green), round(255 * blue)


BLURS = tuple(
    Choice(name, words, _colour(number))
    for number, (name, words) in enumerate(
        {
            "defocus": "defocus",
            "global_motion": "global motion",
            "local_motion": "local motion",
            "synth_global_motion": "synthetic motion",
            "low_light": "low light",
        }.items()
    )
)
"""The kinds of blur that sentences name and trainings draw, in the order of arXiv 2508.06228."""

TASKS = tuple(blur.name for blur in BLURS)
"""Their names; the published network calls them tasks."""


INSTRUCTIONS = tuple(
    Choice(name, words, _colour(number))
    for number, (name, words) in enumerate(
        {
            "noise": "remove the noise",
            "blur": "remove the blur",
            "rain": "remove the rain",
            "haze": "remove the haze",
            "low_light": "it is too dark",
            "low_resolution": "improve the resolution",
            "retouch": "retouch the photo",
        }.items()
    )
)
"""What the network of arXiv 2401.16468 that was released is told, in the order of its classes."""

DAMAGES = INSTRUCTIONS[:5]
"""The kinds of damage that trainings draw, beside those of blur."""


def names_of(choices: Sequence[Choice]) -> tuple[str, ...]:
    """Return what recipes call the choices."""
    return tuple(choice.name for choice in choices)


def words_of(choices: Sequence[Choice]) -> tuple[str, ...]:
    """Return what the values 0, 1, 2 ... of an expert map mean."""
    return (NOT_DECIDED, *(choice.words for choice in choices))


def number_of(choices: Sequence[Choice], name: str) -> int:
    """Return the number of the choice of a name, 1 for the first.

    Raises
    ------
    RecipeError
        If there is none; the sentence lists what there is.
    """
    names = names_of(choices)
    if name not in names:
        raise RecipeError(
            f"The network has no choice {quoted(name)}; its choices are {', '.join(names)}."
        )
    return names.index(name) + 1


def to_record(choices: Sequence[Choice]) -> list[dict[str, Any]]:
    """Return the choices as JSON-able values, for the record of a result."""
    return [asdict(choice) | {"colour": list(choice.colour)} for choice in choices]


def from_record(record: Any) -> tuple[Choice, ...]:
    """Read what `to_record` made.

    Raises
    ------
    ValueError
        If it is nothing of the kind.
    """
    try:
        found = tuple(
            Choice(str(one["name"]), str(one["words"]), _rgb(one["colour"])) for one in record
        )
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"these are no choices of a network: {error}") from None
    if not 1 <= len(found) <= MOST:
        raise ValueError(f"{len(found)} choices are too few or too many")
    return found


def _rgb(values: Any) -> Colour:
    red, green, blue = (int(value) for value in values)
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise ValueError(f"{quoted(values)} is no colour")
    return red, green, blue
