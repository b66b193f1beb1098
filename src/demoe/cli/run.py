"""``demoe run``: deblur a file or a folder."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demoe.choices import TASKS
from demoe.cli.options import add_recipe_arguments, image_place, recipe_from
from demoe.cli.progress import bar, complain
from demoe.errors import RecipeError
from demoe.recipe import Recipe

if TYPE_CHECKING:
    from demoe.execution.run import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``demoe run``."""
    parser.add_argument(
        "input",
        type=image_place,
        help="image file, zarr folder or its address (https://..., s3://...), or folder of photos",
    )
    parser.add_argument(
        "output", type=Path, help=".ome.zarr, .ome.tif, .tif, .png or .jpg; or a folder for many"
    )
    add_recipe_arguments(parser)
    parser.add_argument("--describe", metavar="SENTENCE", help="say what is wrong, for --routing")
    parser.add_argument("--axes", help="letters of TCZYXS, for example ZYX; else from the file")
    parser.add_argument(
        "--series", help="which image of a file that holds several: a number from 0, or its name"
    )
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
    where.add_argument(
        "--workers", type=int, default=1, help="processes that compute tiles here (default 1)"
    )
    where.add_argument("--scheduler", help="address of a Dask scheduler to compute on")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def main(arguments: argparse.Namespace) -> int:
    """Deblur, and report each file; returns 0, or 1 where an image of a folder failed."""
    from demoe.execution.batch import run_each
    from demoe.io import SUFFIXES_OUT, open_image
    from demoe.io.batch import folder_jobs

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
    if arguments.series is not None and many:
        raise RecipeError("--series is for a single image; give the output a suffix.")
    settings = None if arguments.earlier and recipe == Recipe() else recipe
    source: Path | str = arguments.input
    if many and isinstance(source, str):
        raise RecipeError(f"{source} is a single image; give the output a suffix.")
    image: Any = source
    if arguments.series is not None or isinstance(source, str):
        image = open_image(source, arguments.axes, series=arguments.series or 0)
    jobs = folder_jobs(Path(source), output) if many else [(image, output)]
    reports, code = [], 0
    with _client(arguments.scheduler, arguments.workers) as client:
        ended = run_each(
            jobs,
            settings,
            watched=lambda image, _: bar(image.name, arguments.quiet),
            keep_finished=many and arguments.resume and not arguments.overwrite,
            axes=arguments.axes,
            expert_map=painted,
            earlier=arguments.earlier,
            resume=arguments.resume,
            overwrite=arguments.overwrite,
            workers=arguments.workers if client is None else 1,
            client=client,
            all_blocks=arguments.all_blocks,
        )
        for each in ended:
            report = each.report
            if each.error is not None:
                if not many:
                    raise each.error
                code = complain(each.error, 1)  # the other images may be well
            elif report is None:
                print(f"demoe: {each.output} is finished already", file=sys.stderr)
            else:
                reports.append(asdict(report) | {"output": str(report.output)})
                if not arguments.json:
                    print(_words(report, recipe))
    if arguments.json:
        print(json.dumps(reports if many else reports[0], indent=2))
    return code


def _words(report: Report, recipe: Recipe) -> str:
    """Say in one line what a run did."""
    used = ", ".join(f"{k} {v:.0%}" for k, v in report.shares.items() if v)
    if recipe.knows_psf:
        used = "undone by its PSF"
    if report.consistency is not None:
        used += f"; blurred again, {report.consistency:.1f} x the noise from the data"
    if report.saved is not None:
        used += f"; {report.saved:.0%} of the arithmetic saved"
    if report.absent:
        used += f"; {report.absent} chunks that the source lacks count as fill value"
    if report.failed:
        used += f"; {report.failed} implausible cells kept their source"
    return f"{report.output}: {report.megapixels:.2f} MP in {report.seconds:.1f} s; {used}"


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


@contextmanager
def _client(address: str | None, workers: int) -> Iterator[Any]:
    """Offer a cluster to compute on, the same for all images; None where this process does it."""
    if address is None and workers > 1:
        from demoe.execution.pool import processes

        with processes(workers) as client:
            yield client
        return
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
