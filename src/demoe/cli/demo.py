"""``demoe demo``: restore the bundled samples and draw a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from demoe.cli.options import add_recipe_arguments, recipe_from
from demoe.cli.progress import bar
from demoe.errors import RecipeError
from demoe.model.zoo import bundled_networks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``demoe demo``."""
    parser.add_argument(
        "--out", type=Path, default=Path("demo-output"), help="folder for the results"
    )
    parser.add_argument(
        "--network",
        choices=tuple(bundled_networks()),
        help="show the bundled network of an architecture (default: demoe, or --model)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_recipe_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Restore the samples and print the table."""
    from demoe.samples.demo import run_demo

    if arguments.network:
        if arguments.model:
            raise RecipeError("--network and --model name two networks; give one of them.")
        arguments.model = bundled_networks()[arguments.network]

    with bar("demo", arguments.quiet, unit="sample") as progress:
        table = run_demo(arguments.out, recipe_from(arguments), progress=progress)
    print(table)
    return 0
