"""``demoe models``: list, download, import and measure weights."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from demoe.cli.progress import bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions of ``demoe models``."""
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    show = actions.add_parser("list", help="show all weights that have a name")
    show.add_argument("--json", action="store_true", help="print as JSON")
    show.set_defaults(command=_list)
    download = actions.add_parser("download", help="bring released weights to this machine")
    download.add_argument("name", help="for example demoe")
    download.add_argument("--force", action="store_true", help="download again")
    download.add_argument("--quiet", action="store_true", help="no progress bar")
    download.set_defaults(command=_download)
    take = actions.add_parser("import", help="copy a weights file into the cache under a name")
    take.add_argument("path", type=Path)
    take.add_argument("name")
    take.set_defaults(command=_import)
    measure = actions.add_parser(
        "calibrate", help="show the halos that weights need, and the largest plausible changes"
    )
    measure.add_argument("name", help="name or path of weights; measured if nobody has yet")
    measure.add_argument(
        "--store", action="store_true", help="measure, and write it into the safetensors file"
    )
    measure.set_defaults(command=_calibrate)
    where = actions.add_parser("path", help="print where weights are")
    where.add_argument("name")
    where.set_defaults(command=_path)


def _list(arguments: argparse.Namespace) -> int:
    from demoe.model.zoo import list_models

    models = list_models()
    if arguments.json:
        print(json.dumps([asdict(m) | {"path": str(m.path)} for m in models], indent=2))
        return 0
    for model in models:
        state = "here" if model.available else f"`demoe models download {model.name}`"
        size = f"{model.size / 1e6:.1f} MB" if model.size else "missing"
        print(f"{model.name:<12} {size:>9}  {state}\n{'':<12} {model.summary} {model.license}")
    return 0


def _download(arguments: argparse.Namespace) -> int:
    from demoe.model.zoo import download, list_models

    licence = {m.name: m.license for m in list_models()}.get(arguments.name, "")
    if licence:
        print(f"Licence of {arguments.name}: {licence}", file=sys.stderr)
    with bar(arguments.name, arguments.quiet, unit="B") as progress:
        path = download(arguments.name, progress=progress, force=arguments.force)
    print(path)
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from demoe.model.zoo import import_weights

    print(import_weights(arguments.path, arguments.name))
    return 0


def _calibrate(arguments: argparse.Namespace) -> int:
    from demoe.model.calibration.measuring import add_calibration
    from demoe.model.loading import load_model
    from demoe.model.zoo import weights_path

    if arguments.store:
        add_calibration(weights_path(arguments.name))
    print(json.dumps(asdict(load_model(arguments.name, "cpu").calibration), indent=2))
    return 0


def _path(arguments: argparse.Namespace) -> int:
    from demoe.model.zoo import weights_path

    print(weights_path(arguments.name))
    return 0
