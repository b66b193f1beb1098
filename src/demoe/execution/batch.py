"""Many images, one after the other: what is wrong with one of them does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demoe.errors import AxesError, DemoeError, ImageError, OutputError
from demoe.execution.run import Progress, Report, run
from demoe.execution.speeds import note
from demoe.execution.store import run_folder
from demoe.recipe import Recipe

OF_ONE_IMAGE = (AxesError, ImageError, OutputError)
"""Errors that say nothing about the next image; a wrong recipe or network fails them all."""


@dataclass(frozen=True)
class Ended:
    """How it went with one image.

    Attributes
    ----------
    source : path or LazyImage
        The image.
    output : Path
        What it was to be written to.
    report : Report or None
        What the run did; None if it failed, or was finished before.
    error : DemoeError or None
        What was wrong with this image.
    """

    source: Any
    output: Path
    report: Report | None = None
    error: DemoeError | None = None

    @property
    def was_there(self) -> bool:
        """Whether the output was finished before, so that nothing was done."""
        return self.report is None and self.error is None


def run_each(
    jobs: Iterable[tuple[Any, Path]],
    recipe: Recipe | None = None,
    *,
    watched: Callable[[Any, Path], AbstractContextManager[Progress]],
    keep_finished: bool = False,
    **options: Any,
) -> Iterator[Ended]:
    """Run images one after the other.

    Parameters
    ----------
    jobs : iterable of (path or LazyImage, Path)
        Images and outputs.
    recipe : Recipe, optional
        How to deblur them.
    watched : callable
        Called with an image and its output when its run begins; opens what shows its progress.
    keep_finished : bool
        Pass by images whose output exists.
    **options
        Of `demoe.run`.

    Yields
    ------
    Ended
        One an image, after it.

    Raises
    ------
    DemoeError
        What concerns all images: settings, networks, devices, `Cancelled`.
    """
    for source, output in jobs:
        if keep_finished and output.exists() and not run_folder(output).exists():
            yield Ended(source, output)
            continue
        try:
            with watched(source, output) as progress:
                report = run(source, output, recipe, progress=progress, **options)
        except OF_ONE_IMAGE as error:
            yield Ended(source, output, error=error)
        else:
            if options.get("client") is None:
                note(report.provenance, report.computed, report.seconds)
            yield Ended(source, output, report)
