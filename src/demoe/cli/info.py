"""``demoe info``: describe an image and a run on it, without reading its pixels."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from demoe.cli.options import add_recipe_arguments, recipe_from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``demoe info``."""
    parser.add_argument("input", type=Path)
    parser.add_argument("--axes", help="letters of TCZYXS; else from the file")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    add_recipe_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print the facts."""
    from demoe.execution.estimate import as_text, describe

    facts = describe(arguments.input, arguments.axes, recipe_from(arguments))
    print(json.dumps(facts, indent=2) if arguments.json else as_text(facts))
    return 0
