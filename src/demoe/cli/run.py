"""``demoe run``: deblur a file or a folder."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from demoe.choices import TASKS
from demoe.cli.options import add_recipe_arguments, recipe_from
from demoe.cli.progress import bar, complain
from demoe.errors import AxesError, ImageError, OutputError, RecipeError
from demoe.io.names import stem_of
from demoe.recipe import Recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``demoe run``."""
    parser.add_argument("input", type=Path, help="image file, zarr folder or folder of photos")
    parser.add_argument(
        "output", type=Path, help=".ome.zarr, .ome.tif, .tif, .png or .jpg; or a folder for many"
    )
    add_recipe_arguments(parser)
    parser.add_argument("--describe", metavar="SENTENCE", help="say what is wrong, for --routing")
    parser.add_argument("--axes", help="letters of TCZYXS, for example ZYX; else from the file")
    parser.add_argument(
        "--expert-map", type=Path, help="painted map: 0 router, 1 and more an expert"
    )
    parser.add_argument(
        "--earlier",
        type=Path,
        metavar="OUTPUT",
        help="finished output of this input: compute only what its map or --expert-map corrects",
    )
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.add_argument(
        "--all-blocks",
        action="store_true",
        help="refuse a zarr that lacks chunks (else they count as its fill value)",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--workers", type=int, default=1, help="tiles in work at once (default 1)")
    where.add_argument("--scheduler", help="address of a Dask scheduler to compute on")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def main(arguments: argparse.Namespace) -> int:
    """Deblur, and report each file; returns 0, or 1 where an image of a folder failed."""
    from demoe.execution.run import run
    from demoe.execution.store import run_folder
    from demoe.io import SUFFIXES_OUT, open_image

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
    reports, code = [], 0
    with _client(arguments.scheduler) as client:
        for source, target in jobs:
            kept = run_folder(target).exists()
            if many and arguments.resume and not (arguments.overwrite or kept) and target.exists():
                print(f"demoe: {target} is finished already", file=sys.stderr)
                continue
            try:
                with bar(source.name, arguments.quiet) as progress:
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
                        all_blocks=arguments.all_blocks,
                    )
            except (AxesError, ImageError, OutputError) as error:
                if not many:
                    raise
                code = complain(error, 1)  # the other images may be well
                continue
            reports.append(asdict(report) | {"output": str(report.output)})
            if not arguments.json:
                used = ", ".join(f"{k} {v:.0%}" for k, v in report.shares.items() if v)
                if recipe.knows_psf:
                    used = "undone by its PSF"
                if report.consistency is not None:
                    used += f"; blurred again, {report.consistency:.1f} x the noise from the data"
                if report.absent:
                    used += f"; {report.absent} chunks that the source lacks count as fill value"
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
    from demoe.routing.words.classifier import UNCLEAR, task_from_text

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
