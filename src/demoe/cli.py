"""The command line: arguments in, the same calls as from Python, exit codes out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from demoe.errors import (
    AxesError,
    Cancelled,
    DemoeError,
    ImageError,
    OutputError,
    RecipeError,
)
from demoe.io._names import stem_of
from demoe.recipe import PHOTOMETRY, POOLINGS, PRECISIONS, ROUTINGS, TASKS, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demoe.run import Progress

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns 0 done, 1 failed, 2 usage, 130 interrupted."""
    arguments = build_parser().parse_args(argv)
    try:
        code: int = arguments.command(arguments)
        return code
    except RecipeError as error:
        return _complain(error, USAGE)
    except Cancelled as error:
        return _complain(error, INTERRUPTED)
    except DemoeError as error:
        return _complain(error, FAILED)
    except KeyboardInterrupt:
        return _complain("interrupted; a run goes on with --resume", INTERRUPTED)


def _complain(error: object, code: int) -> int:
    print(f"demoe: {error}", file=sys.stderr)
    return code


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="demoe",
        description="Remove blur from image stacks and photos of any size.",
    )
    parser.add_argument("--version", action="version", version=version("napari-demoe"))
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", help="deblur a file or a folder"))
    _add_demo(commands.add_parser("demo", help="deblur the bundled samples and draw a picture"))
    _add_info(commands.add_parser("info", help="describe an image without reading its pixels"))
    _add_models(commands.add_parser("models", help="list, download or import weights"))
    for name, text in (
        ("train", "train a network on your own sharp images"),
        ("evaluate", "measure a network against known truth"),
        ("bench", "measure speed and memory against the bare network"),
    ):
        _add_room(commands.add_parser(name, help=text), name)
    return parser


def _add_room(parser: argparse.ArgumentParser, name: str) -> None:
    """Add a command whose arguments live with its code."""
    if name == "train":
        from demoe.training import commands

        commands.add_train_arguments(parser)
        parser.set_defaults(command=commands.train)
        return
    room = import_module("demoe.bench" if name == "bench" else "demoe.training.evaluate_command")
    room.add_arguments(parser)
    parser.set_defaults(command=room.main)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, help="image file, zarr folder or folder of photos")
    parser.add_argument(
        "output", type=Path, help=".ome.zarr, .ome.tif, .tif, .png or .jpg; or a folder for many"
    )
    add_recipe_arguments(parser)
    parser.add_argument("--describe", metavar="SENTENCE", help="say what is wrong, for --routing")
    parser.add_argument("--axes", help="letters of TCZYXS, for example ZYX; else from the file")
    parser.add_argument("--expert-map", type=Path, help="painted map: 0 router, 1-5 an expert")
    parser.add_argument(
        "--earlier",
        type=Path,
        metavar="OUTPUT",
        help="finished output of this input: compute only what its map or --expert-map corrects",
    )
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--workers", type=int, default=1, help="tiles in work at once (default 1)")
    where.add_argument("--scheduler", help="address of a Dask scheduler to compute on")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(command=_run)


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an option for each recipe field that people set; unset ones stay as in the recipe."""
    parser.add_argument("--recipe", type=Path, help="JSON file of settings; options below win")
    parser.add_argument("--model", help="name or path of weights (default: default)")
    parser.add_argument("--routing", choices=ROUTINGS, help="who decides, and per what")
    parser.add_argument("--top-k", type=int, help="experts mixed at each place, 1 to 5")
    parser.add_argument("--temperature", type=float, help="above 1 the router is less sure")
    parser.add_argument("--smoothing", type=int, help="cells around that have a say in each")
    parser.add_argument("--agreement", type=int, help="planes beside that have a say, along Z or T")
    parser.add_argument("--tile", type=_auto_or_int, help="tile side in pixels, or auto")
    parser.add_argument("--halo", type=_auto_or_int, help="pixels read around a tile, or auto")
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--intensity", help="auto, full, percentile, or LOW,HIGH")
    parser.add_argument("--pooling", choices=POOLINGS, help="what the network's attention sees")
    parser.add_argument(
        "--skip-flat", action="store_true", default=None, help="pass flat background by"
    )
    parser.add_argument("--photometry", choices=PHOTOMETRY, help="preserve keeps the local mean")
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="full: float32 also where the result has 8 bits"
    )


def recipe_from(arguments: argparse.Namespace) -> Recipe:
    """Return the recipe of a command line."""
    recipe = read_recipe(arguments.recipe)
    names = (
        *("model", "routing", "top_k", "tile", "halo", "device"),
        *("temperature", "smoothing", "agreement", "pooling", "skip_flat", "photometry"),
        "precision",
    )
    given = {n: v for n in names if (v := getattr(arguments, n)) is not None}
    if arguments.intensity is not None:
        limits = arguments.intensity.split(",")
        given["intensity"] = limits if len(limits) == 2 else arguments.intensity
    return recipe.replace(**given)


def read_recipe(path: Path | None) -> Recipe:
    """Return the recipe in a JSON file; without one, the usual recipe."""
    if path is None:
        return Recipe()
    try:
        return Recipe.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"The recipe {path} cannot be read: {error}.") from None


def _auto_or_int(text: str) -> str | int:
    return text if text == "auto" else int(text)


def _run(arguments: argparse.Namespace) -> int:
    from demoe.io import SUFFIXES_OUT, open_image
    from demoe.run import run

    recipe = recipe_from(arguments)
    if arguments.describe is not None:
        recipe = recipe.replace(routing=_described(arguments.describe, arguments.routing))
    painted = None
    if arguments.expert_map:
        painted = open_image(arguments.expert_map)
    output: Path = arguments.output
    many = not output.name.lower().endswith(tuple(SUFFIXES_OUT))
    if arguments.earlier and many:
        raise RecipeError("--earlier is for a single image; give the output a suffix.")
    settings = None if arguments.earlier and recipe == Recipe() else recipe
    jobs = _folder_jobs(arguments.input, output) if many else [(arguments.input, output)]
    reports, code = [], DONE
    with _client(arguments.scheduler) as client:
        for source, target in jobs:
            if many and arguments.resume and not arguments.overwrite and target.exists():
                print(f"demoe: {target} is finished already", file=sys.stderr)
                continue
            try:
                with _bar(source.name, arguments.quiet) as progress:
                    report = run(
                        source,
                        target,
                        settings,
                        axes=arguments.axes,
                        expert_map=painted,
                        earlier=arguments.earlier,
                        resume=arguments.resume,
                        overwrite=arguments.overwrite,
                        workers=arguments.workers,
                        client=client,
                        progress=progress,
                    )
            except (AxesError, ImageError, OutputError) as error:
                if not many:
                    raise
                code = _complain(error, FAILED)  # the other images may be well
                continue
            reports.append(asdict(report) | {"output": str(report.output)})
            if not arguments.json:
                used = ", ".join(f"{k} {v:.0%}" for k, v in report.shares.items() if v)
                if report.failed:
                    used += f"; {report.failed} implausible cells kept their source"
                print(
                    f"{report.output}: {report.megapixels:.2f} MP in {report.seconds:.1f} s; {used}"
                )
    if arguments.json:
        print(json.dumps(reports if many else reports[0], indent=2))
    return code


def _described(sentence: str, routing: str | None) -> str:
    """Return the task that a sentence names."""
    from demoe.words import UNCLEAR, task_from_text

    if routing is not None:
        raise RecipeError("Give either --describe or --routing, not both.")
    found = task_from_text(sentence)
    if found.task == UNCLEAR:
        raise RecipeError(
            "The description names no kind of blur clearly; say it in other words, or choose one "
            f"with --routing: {', '.join(TASKS)}."
        )
    print(f"demoe: understood {found.task} ({found.confidence:.0%} sure)", file=sys.stderr)
    return found.task


def _folder_jobs(source: Path, output: Path) -> list[tuple[Path, Path]]:
    """Pair every image of a folder with a file of its name in the output folder."""
    from demoe.io import SUFFIXES_OUT, is_readable

    if not source.exists():
        raise ImageError(f"There is no file or folder {source}.")
    if not source.is_dir() or source.name.lower().endswith(".zarr"):
        raise OutputError(
            f"{output} has no suffix of an image; use one of {', '.join(SUFFIXES_OUT)}, or give a "
            "folder of images as input to fill a folder."
        )
    found = sorted(p for p in source.iterdir() if not p.name.startswith(".") and is_readable(p))
    if not found:
        raise ImageError(f"There is no image in the folder {source}.")
    try:
        output.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {output} cannot be made ({error.strerror}).") from None
    jobs = [(p, output / _output_name(p)) for p in found]
    # Expert map and record are named by the stem, so two images may not share it.
    stems: dict[str, Path] = {}
    for path, target in jobs:
        other = stems.setdefault(stem_of(target).lower(), path)
        if other != path:
            raise OutputError(
                f"{other.name} and {path.name} would both be written as {stem_of(target)} in "
                f"{output}; rename one of them."
            )
    return jobs


def _output_name(source: Path) -> str:
    """Keep an image's name where its format can be written; else take one that holds as much."""
    from demoe.io import SUFFIXES_OUT

    if source.name.lower().endswith(tuple(SUFFIXES_OUT)):
        return source.name
    lossless = ".png" if source.suffix.lower() in (".bmp", ".webp") else ".ome.tif"
    return stem_of(source) + lossless


@contextmanager
def _client(address: str | None) -> Iterator[Any]:
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError:
        raise RecipeError(
            "--scheduler needs the package distributed; install napari-demoe[cluster]."
        ) from None
    try:
        # Not the default: a client that fails to connect would stay it.
        client = Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise RecipeError(f"No Dask scheduler answers at {address} ({error}).") from None
    with client, client.as_current():
        yield client


@contextmanager
def _bar(name: str, quiet: bool, unit: str = "tile") -> Iterator[Progress]:
    """Show a progress bar on stderr and offer the callable that moves it."""
    with tqdm(desc=name, unit=unit, file=sys.stderr, disable=quiet, unit_scale=unit == "B") as bar:

        def progress(done: int, total: int, message: str) -> None:
            bar.total = total
            bar.set_postfix_str(message if message not in ("", "tiles") else "", refresh=False)
            bar.update(done - bar.n)
            bar.refresh()

        yield progress


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("demo-output"), help="folder for the results"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_recipe_arguments(parser)
    parser.set_defaults(command=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from demoe.demo import run_demo

    with _bar("demo", arguments.quiet, unit="sample") as progress:
        table = run_demo(arguments.out, recipe_from(arguments), progress=progress)
    print(table)
    return DONE


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path)
    parser.add_argument("--axes", help="letters of TCZYXS; else from the file")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    add_recipe_arguments(parser)
    parser.set_defaults(command=_info)


def _info(arguments: argparse.Namespace) -> int:
    from demoe.info import as_text, describe

    facts = describe(arguments.input, arguments.axes, recipe_from(arguments))
    print(json.dumps(facts, indent=2) if arguments.json else as_text(facts))
    return DONE


def _add_models(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    show = actions.add_parser("list", help="show all weights that have a name")
    show.add_argument("--json", action="store_true", help="print as JSON")
    show.set_defaults(command=_models_list)
    download = actions.add_parser("download", help="bring released weights to this machine")
    download.add_argument("name", help="for example demoe")
    download.add_argument("--force", action="store_true", help="download again")
    download.add_argument("--quiet", action="store_true", help="no progress bar")
    download.set_defaults(command=_models_download)
    take = actions.add_parser("import", help="copy a weights file into the cache under a name")
    take.add_argument("path", type=Path)
    take.add_argument("name")
    take.set_defaults(command=_models_import)
    measure = actions.add_parser(
        "calibrate", help="show the halos that weights need, and the largest plausible changes"
    )
    measure.add_argument("name", help="name or path of weights; measured if nobody has yet")
    measure.add_argument(
        "--store", action="store_true", help="measure, and write it into the safetensors file"
    )
    measure.set_defaults(command=_models_calibrate)
    where = actions.add_parser("path", help="print where weights are")
    where.add_argument("name")
    where.set_defaults(command=_models_path)


def _models_list(arguments: argparse.Namespace) -> int:
    from demoe.model.zoo import list_models

    models = list_models()
    if arguments.json:
        print(json.dumps([asdict(m) | {"path": str(m.path)} for m in models], indent=2))
        return DONE
    for model in models:
        state = "here" if model.available else f"`demoe models download {model.name}`"
        size = f"{model.size / 1e6:.1f} MB" if model.size else "missing"
        print(f"{model.name:<12} {size:>9}  {state}\n{'':<12} {model.summary} {model.license}")
    return DONE


def _models_download(arguments: argparse.Namespace) -> int:
    from demoe.model.zoo import download, list_models

    licence = {m.name: m.license for m in list_models()}.get(arguments.name, "")
    if licence:
        print(f"Licence of {arguments.name}: {licence}", file=sys.stderr)
    with _bar(arguments.name, arguments.quiet, unit="B") as progress:
        path = download(arguments.name, progress=progress, force=arguments.force)
    print(path)
    return DONE


def _models_import(arguments: argparse.Namespace) -> int:
    from demoe.model.zoo import import_weights

    print(import_weights(arguments.path, arguments.name))
    return DONE


def _models_calibrate(arguments: argparse.Namespace) -> int:
    from demoe.model.calibration import add_calibration
    from demoe.model.loading import load_model
    from demoe.model.zoo import weights_path

    if arguments.store:
        add_calibration(weights_path(arguments.name))
    print(json.dumps(asdict(load_model(arguments.name, "cpu").calibration), indent=2))
    return DONE


def _models_path(arguments: argparse.Namespace) -> int:
    from demoe.model.zoo import weights_path

    print(weights_path(arguments.name))
    return DONE


if __name__ == "__main__":
    sys.exit(main())
