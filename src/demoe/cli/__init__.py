"""The command line: arguments in, the same calls as from Python, exit codes out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

from demoe.cli.progress import complain
from demoe.cli.signals import Stopped, signals_stop
from demoe.errors import Cancelled, DemoeError, RecipeError

FAILED, USAGE, INTERRUPTED = 1, 2, 130

COMMANDS = {
    "run": "deblur a file or a folder",
    "demo": "restore the bundled samples and draw a picture",
    "info": "describe an image without reading its pixels",
    "models": "list, download or import weights",
    "train": "train a network on your own sharp images",
    "evaluate": "measure a network against known truth",
    "bench": "measure speed and memory against the bare network",
}
"""Each lives in the module of its name, as ``add_arguments`` and ``main``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns 0 done, 1 failed, 2 usage, 130 interrupted, 143 or 129 stopped."""
    arguments = build_parser().parse_args(argv)
    try:
        with signals_stop():
            code: int = arguments.command(arguments)
            return code
    except RecipeError as error:
        return complain(error, USAGE)
    except Cancelled as error:
        return complain(error, INTERRUPTED)
    except DemoeError as error:
        return complain(error, FAILED)
    except KeyboardInterrupt:
        return complain("interrupted; a run goes on with --resume", INTERRUPTED)
    except Stopped as stopped:
        return complain(f"stopped by {stopped}; a run goes on with --resume", stopped.code)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="demoe",
        description="Remove blur from image stacks and photos of any size.",
    )
    parser.add_argument("--version", action="version", version=version("napari-demoe"))
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, words in COMMANDS.items():
        command = import_module(f"demoe.cli.{name}")
        own = commands.add_parser(name, help=words)
        own.set_defaults(command=getattr(command, "main", None))  # `models` has actions instead
        command.add_arguments(own)
    return parser
