"""``demoe bench``: speed and memory, beside the bare network and the machine's matrix product."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from demoe.cli.options import DEVICE_HELP
from demoe.errors import RecipeError

GRID = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``demoe bench``."""
    parser.add_argument(
        "--size", type=_side, default=2048, help="side of the square RGB photo (default 2048)"
    )
    parser.add_argument(
        "--repeats", type=_count, default=3, help="runs of each; medians count (default 3)"
    )
    parser.add_argument("--model", default="default", help="name or path of weights")
    parser.add_argument("--tile", type=_tile, default="auto", help="tile side in pixels, or auto")
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)
    parser.add_argument(
        "--full",
        action="store_true",
        help="measure also the memory of planes of 100 and 1000 megapixels, and single tiles of a "
        "lazy array; takes minutes and 4 GB in the temporary folder",
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures to this file")


def main(arguments: argparse.Namespace) -> int:
    """Measure, print the table, write the JSON; returns 0.

    Raises
    ------
    DemoeError
        If weights, device or tile cannot be used, or the JSON cannot be written.
    """
    # Late, because torch comes with it and other commands share this parser.
    from demoe.bench.large import measure_full
    from demoe.bench.rows import expert_recipe, measure_all
    from demoe.bench.table import table
    from demoe.io.atomic import check_target, partial_output
    from demoe.model.loading import load_model

    target: Path | None = arguments.json
    if target is not None:
        check_target(target, overwrite=True)
    model = load_model(arguments.model, arguments.device)
    if not model.tenant.decides:
        raise RecipeError(
            f"`demoe bench` measures networks that decide by themselves; {model.name} is told "
            "what to do."
        )
    recipe = expert_recipe(arguments.model, arguments.tile, arguments.device)
    result = measure_all(recipe, arguments.size, arguments.repeats, say=_say)
    if arguments.full:
        headline = next(row for row in result["rows"] if row["name"] == result["headline"])
        speed = headline["megapixels_per_second"]
        result["full"] = measure_full(recipe, speed, arguments.repeats, say=_say)
    print(table(result))
    if target is not None:
        with partial_output(target, overwrite=True) as partial:
            partial.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def _say(text: str) -> None:
    print(f"measuring: {text}", file=sys.stderr)


def _side(text: str) -> int:
    side = _count(text)
    if side < 4 * GRID or side % GRID:
        raise argparse.ArgumentTypeError(
            f"must be a multiple of {GRID} of at least {4 * GRID} pixels, not {text}"
        )
    return side


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text}")
    return int(text)


def _tile(text: str) -> str | int:
    return text if text == "auto" else _side(text)
