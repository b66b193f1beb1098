"""``demoe info``: this machine's devices; or an image and a run on it, without its pixels."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from demoe.cli.options import add_recipe_arguments, image_place, recipe_from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``demoe info``."""
    parser.add_argument(
        "input",
        type=image_place,
        nargs="?",
        help="an image, as for run; without one, the devices are listed",
    )
    parser.add_argument("--axes", help="letters of TCZYXS; else from the file")
    parser.add_argument(
        "--series",
        nargs="?",
        const="",
        help="which image of a file that holds several, by number or name; alone: list them",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    add_recipe_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print the facts."""
    from demoe.errors import ImageError
    from demoe.execution.estimate import as_text, describe
    from demoe.io import open_image, series_of
    from demoe.model.devices import list_devices, why_processor

    if arguments.series is not None and arguments.input is None:
        raise ImageError("--series speaks of an image, but none is named.")
    if arguments.series == "":
        names = series_of(arguments.input)
        listed = [f"{number}  {name}".rstrip() for number, name in enumerate(names)]
        print(json.dumps(names, indent=2) if arguments.json else "\n".join(listed))
        return 0
    recipe = recipe_from(arguments)
    facts: dict[str, Any] = {}
    if arguments.input is not None:
        image = open_image(arguments.input, arguments.axes, series=arguments.series or 0)
        facts = describe(image, recipe)
    if arguments.json:
        devices = [asdict(device) for device in list_devices()]
        print(json.dumps(facts | {"devices": devices}, indent=2))
        return 0
    if facts:
        print(as_text(facts))
    else:
        for device in list_devices():
            print(f"{device.name:<8}  {device.label}")
    if recipe.device == "auto" and (words := why_processor()):
        print(f"{'device':<8}  {words}")
    return 0
