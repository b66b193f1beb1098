"""Options that several commands share, and what they mean."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demoe.asked import Question, questions
from demoe.choices import more, number_of
from demoe.errors import RecipeError
from demoe.io.names import is_url
from demoe.limits import read_text
from demoe.model.zoo import choices_of
from demoe.recipe import DECIDED, Recipe

DEVICE_HELP = "auto, cpu, cuda (ROCm, too), mps or xpu, or one of several, as cuda:1"


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an option for each recipe field that people set; unset ones stay as in the recipe."""
    parser.add_argument("--recipe", type=Path, help="JSON file of settings; options below win")
    for question in questions(Recipe).values():
        parser.add_argument(*_flags(question), dest=question.name, **_settings(question))


def _flags(question: Question) -> list[str]:
    flag = "--" + question.name.replace("_", "-")
    return [flag.removesuffix("s") if question.type == tuple[str, ...] else flag]


def _settings(question: Question) -> dict[str, Any]:
    """Return what `argparse` is told of a field."""
    offered = [str(value) for value, _ in question.asked.offered]
    words = question.asked.help[:1].lower() + question.asked.help[1:].rstrip(".")
    words = words.replace("%", "%%")
    if question.name == "device":
        words = f"{words}: {DEVICE_HELP}"
    settings: dict[str, Any] = {"help": f"{words} (default {question.default})"}
    if question.type is bool:
        return settings | {"action": argparse.BooleanOptionalAction}
    if question.type == tuple[str, ...]:
        return {"help": words, "action": "append", "metavar": "TEXT"}
    if question.is_closed:
        return settings | {"choices": offered}
    kinds: dict[Any, Callable[[str], Any]] = {int: int, float: float, str | int: _auto_or_int}
    return settings | {"type": kinds.get(question.type, str), "metavar": question.name.upper()}


def recipe_from(arguments: argparse.Namespace) -> Recipe:
    """Return the recipe of a command line."""
    recipe = read_recipe(arguments.recipe)
    given = {n: v for n in questions(Recipe) if (v := getattr(arguments, n)) is not None}
    given = {n: tuple(v) if isinstance(v, list) else v for n, v in given.items()}
    if arguments.intensity is not None:
        limits = arguments.intensity.split(",")
        given["intensity"] = limits if len(limits) == 2 else arguments.intensity
    if arguments.psf is not None:
        from demoe.io.psf import read_psf

        given["psf"] = read_psf(arguments.psf)
    recipe = recipe.replace(**given)
    _check_routing(recipe)
    return recipe


def _check_routing(recipe: Recipe) -> None:
    """Refuse a routing that the network lacks, before an image is opened or torch loaded."""
    known = choices_of(recipe.model)
    if known is not None and recipe.routing not in DECIDED:
        number_of(more(known, recipe.instructions), recipe.routing)


def read_recipe(path: Path | None) -> Recipe:
    """Return the recipe in a JSON file; without one, the usual recipe."""
    if path is None:
        return Recipe()
    return Recipe.from_json(read_text(path, RecipeError, "The recipe"))


def _auto_or_int(text: str) -> str | int:
    return text if text == "auto" else int(text)


def image_place(text: str) -> Path | str:
    """Read a path, or an address, from the command line."""
    return text if is_url(text) else Path(text)


def count(text: str) -> int:
    """Read a number of at least 1 from the command line."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value
