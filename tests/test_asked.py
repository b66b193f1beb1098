"""What people are asked for: said once beside each field of a recipe, for forms and commands."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest

from demoe.asked import Asked, questions
from demoe.cli.options import add_recipe_arguments, recipe_from
from demoe.errors import RecipeError
from demoe.recipe import Recipe

SIDES = ("pitch", "window")


@dataclass(frozen=True)
class Wider(Recipe):
    """A recipe of a later version."""

    strength: Annotated[float, Asked("Strength", "How strongly, in %.", maximum=2)] = 1.0
    at_night: bool = True
    places: tuple[str, ...] = field(default_factory=tuple)


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_recipe_arguments(parser)
    return parser.parse_args(words)


def test_every_field_says_what_it_is() -> None:
    for question in questions(Recipe).values():
        assert question.asked.title, question.name
        assert question.asked.help.endswith("."), question.name
        offered = [value for value, _ in question.asked.offered]
        assert not offered or question.default in offered
        for value in offered:
            assert getattr(Recipe(**{question.name: value}), question.name) == value


def test_ranges_are_those_that_a_recipe_keeps_to() -> None:
    for name, question in questions(Recipe).items():
        for value, beyond in ((question.asked.minimum, -16), (question.asked.maximum, 16)):
            if value is not None:
                # A window is a multiple of a pitch.
                Recipe(
                    **{name: value} | ({"pitch": value, "window": value} if name in SIDES else {})
                )
                with pytest.raises(RecipeError, match=name):
                    Recipe(**{name: value + beyond})


def test_a_field_that_says_nothing_is_called_by_its_name() -> None:
    asked = questions(Wider)
    assert list(asked)[: len(questions(Recipe))] == list(questions(Recipe))
    assert (asked["at_night"].title, asked["at_night"].default) == ("At night", True)
    assert asked["places"].default == ()
    assert asked["strength"].asked.range == (-float("inf"), 2)
    assert asked["pooling"].is_closed
    assert not asked["tile"].is_closed


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        (["--pitch", "32", "--window", "64"], {"pitch": 32, "window": 64}),
        (["--tile", "auto", "--halo", "32"], {"halo": 32}),
        (["--skip-flat"], {"skip_flat": True}),
        (["--no-skip-flat"], {}),
        (["--intensity=-1,2.5"], {"intensity": (-1.0, 2.5)}),
        (["--instruction", "more", "--instruction", "less"], {"instructions": ("more", "less")}),
        (["--psf", "none", "--temperature", "2"], {"psf": None, "temperature": 2.0}),
        (["--device", "xpu:1", "--precision", "full"], {"device": "xpu:1", "precision": "full"}),
    ],
)
def test_the_command_line_has_every_field(words: list[str], fields: dict[str, Any]) -> None:
    given = parsed(*words, "--recipe", "unused").__dict__ | {"recipe": None}
    assert recipe_from(argparse.Namespace(**given)) == Recipe(**fields)


def test_the_command_line_has_a_new_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demoe.cli.options.Recipe", Wider)
    found = recipe_from(parsed("--strength", "1.5", "--no-at-night", "--place", "here"))
    assert found == Wider(strength=1.5, at_night=False, places=("here",))
