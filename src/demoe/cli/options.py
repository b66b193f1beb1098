"""Options that several commands share, and what they mean."""

from __future__ import annotations

import argparse
from pathlib import Path

from demoe.choices import more, number_of
from demoe.errors import RecipeError
from demoe.limits import read_text
from demoe.model.zoo import choices_of
from demoe.recipe import DECIDED, PHOTOMETRY, POOLINGS, PRECISIONS, Recipe

DEVICE_HELP = "auto, cpu, cuda (ROCm, too), mps or xpu, or one of several, as cuda:1"


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an option for each recipe field that people set; unset ones stay as in the recipe."""
    parser.add_argument("--recipe", type=Path, help="JSON file of settings; options below win")
    parser.add_argument("--model", help="name or path of weights (default: default)")
    parser.add_argument(
        "--routing", help="auto, image, local, or a choice of the network such as defocus"
    )
    parser.add_argument(
        "--instruction",
        action="append",
        dest="instructions",
        metavar="TEXT",
        help="say what to do, for networks that take words such as instructir; given again, "
        "further choices for --routing and painted maps",
    )
    parser.add_argument("--top-k", type=int, help="experts mixed at each place (default 1)")
    parser.add_argument("--temperature", type=float, help="above 1 the router is less sure")
    parser.add_argument("--smoothing", type=int, help="cells around that have a say in each")
    parser.add_argument("--agreement", type=int, help="planes beside that have a say, along Z or T")
    parser.add_argument("--tile", type=_auto_or_int, help="tile side in pixels, or auto")
    parser.add_argument("--halo", type=_auto_or_int, help="pixels read around a tile, or auto")
    parser.add_argument("--device", help=DEVICE_HELP)
    parser.add_argument("--intensity", help="auto, full, percentile, or LOW,HIGH")
    parser.add_argument("--pooling", choices=POOLINGS, help="what the network's attention sees")
    parser.add_argument(
        "--skip-flat", action="store_true", default=None, help="pass flat background by"
    )
    parser.add_argument("--photometry", choices=PHOTOMETRY, help="preserve keeps the local mean")
    parser.add_argument(
        "--psf",
        help="the blur, if it is known: an image file, or radius=3, sigma=2.1, length=11,angle=25, "
        "na=1.4,wavelength=0.52,pixel=0.1; auto: look for it; none: the network alone",
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="full: float32 also where the result has 8 bits"
    )


def recipe_from(arguments: argparse.Namespace) -> Recipe:
    """Return the recipe of a command line."""
    recipe = read_recipe(arguments.recipe)
    names = (
        *("model", "routing", "top_k", "tile", "halo", "device", "instructions"),
        *("temperature", "smoothing", "agreement", "pooling", "skip_flat", "photometry"),
        "precision",
    )
    given = {n: v for n in names if (v := getattr(arguments, n)) is not None}
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


def count(text: str) -> int:
    """Read a number of at least 1 from the command line."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value
