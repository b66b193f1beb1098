"""Many images, one after the other, in the background: what is to be done and how far it is. No Qt.

`demoe.execution.batch.run_each` does the work; this keeps what a dialog shows of it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demoe.errors import Cancelled, DemoeError, ImageError, OutputError
from demoe.io.batch import check_distinct, folder_jobs, make_folder
from demoe.recipe import Recipe
from napari_demoe._layers import to_lazy

if TYPE_CHECKING:
    from napari.layers import Image

    from demoe.execution.run import Progress

REPORT_SECONDS = 0.2
"""How often progress is reported."""

SUFFIXES = (".ome.zarr", ".ome.tif", ".tif", ".png")
"""Formats that are offered for outputs."""

Jobs = Sequence[tuple[Any, Path]]


@dataclass(frozen=True)
class State:
    """How far a batch is.

    Attributes
    ----------
    number, count : int
        Images that ended, and all of them.
    name : str
        The image in work.
    done, total : int
        Its tiles; total is 0 until they are known.
    message : str
        What is done with them.
    written, there : int
        Images that were written, and those that were finished before.
    failures : tuple of (str, str)
        Names of images and what was wrong with them.
    stopped : str
        Why the batch ended before its last image; empty otherwise.
    """

    number: int
    count: int
    name: str = ""
    done: int = 0
    total: int = 0
    message: str = ""
    written: int = 0
    there: int = 0
    failures: tuple[tuple[str, str], ...] = ()
    stopped: str = ""

    @property
    def words(self) -> str:
        """What came of it, once it has ended."""
        parts = [f"{self.written} of {self.count} images written"]
        if self.there:
            parts.append(f"{self.there} were there already")
        if self.failures:
            parts.append(f"{len(self.failures)} failed")
        return f"{', '.join(parts)}. {self.stopped}".strip()


class Batch:
    """Images to deblur into a folder.

    Parameters
    ----------
    jobs : sequence of (path or LazyImage, Path)
        Images and outputs.
    recipe : Recipe
        How.
    failures : sequence of (str, str)
        Images that could not even be described, and why.

    Attributes
    ----------
    state : State
        How far it is; another one after each tile.
    """

    def __init__(
        self, jobs: Jobs, recipe: Recipe, failures: Sequence[tuple[str, str]] = ()
    ) -> None:
        self._jobs, self._recipe = jobs, recipe
        self._cancelled = threading.Event()
        count = len(jobs) + len(failures)
        self.state = State(len(failures), count, failures=tuple(failures))

    def cancel(self) -> None:
        """Stop after the tile in work; the next batch into the folder goes on from there."""
        self._cancelled.set()

    def steps(self) -> Generator[State, None, None]:
        """Deblur all images, and report now and then; the last report is the outcome."""
        with ThreadPoolExecutor(1, thread_name_prefix="demoe-batch") as pool:
            running = pool.submit(self._run)
            try:
                while not running.done():
                    yield self.state
                    wait([running], timeout=REPORT_SECONDS)
            finally:
                self.cancel()
            running.result()
        yield self.state

    def _run(self) -> None:
        from demoe.execution.batch import run_each

        ended = run_each(
            self._jobs,
            self._recipe,
            watched=self._watched,
            keep_finished=True,
            resume=True,
            cancel=self._cancelled,
        )
        try:
            for each in ended:
                state = replace(self.state, number=self.state.number + 1, done=0, total=0)
                if each.error is not None:
                    failure = (_name(each.source), str(each.error))
                    state = replace(state, failures=(*state.failures, failure))
                elif each.was_there:
                    state = replace(state, there=state.there + 1)
                else:
                    state = replace(state, written=state.written + 1)
                self.state = state
                if self._cancelled.is_set():
                    raise Cancelled("Stopped.")
        except Cancelled:
            self.state = replace(self.state, stopped="Cancelled; start again to go on.")
        except DemoeError as error:  # would be wrong with all images
            self.state = replace(self.state, stopped=str(error))

    @contextmanager
    def _watched(self, source: Any, output: Path) -> Iterator[Progress]:
        self.state = replace(self.state, name=_name(source), done=0, total=0, message="opening")

        def progress(done: int, total: int, message: str) -> None:
            self.state = replace(self.state, done=done, total=total, message=message)

        yield progress


def jobs_of_folder(source: Path, output: Path, pattern: str, suffix: str | None) -> Jobs:
    """Pair the images of a folder with outputs in another; see `demoe.io.batch.folder_jobs`.

    Raises
    ------
    ImageError
        If there is no such folder, or no such image in it.
    OutputError
        If both folders are one, or for a reason of `folder_jobs`.
    """
    if not source.is_dir():
        raise ImageError(f"There is no folder {source}; choose the folder of the images.")
    if source.resolve() == output.resolve():
        raise OutputError(
            f"Images and outputs cannot both be in {source}; choose another folder for the outputs."
        )
    return folder_jobs(source, output, pattern=pattern.strip() or "*", suffix=suffix)


def jobs_of_layers(
    layers: Iterable[Image], output: Path, suffix: str
) -> tuple[Jobs, list[tuple[str, str]]]:
    """Pair image layers with outputs of their names.

    Parameters
    ----------
    layers : iterable of Image
        What to deblur; nothing is read.
    output : Path
        The folder for the outputs, which is made.
    suffix : str
        Their format.

    Returns
    -------
    jobs : sequence of (LazyImage, Path)
        Of layers that can be described as images.
    failures : list of (str, str)
        Names of the others, and why.

    Raises
    ------
    ImageError
        If there are no layers.
    OutputError
        If the folder cannot be made, or two outputs would have one name.
    """
    jobs, failures = [], []
    for layer in layers:
        data, meta, _ = layer.as_layer_data_tuple()
        try:
            jobs.append((to_lazy(data, meta), output / f"{file_name(layer.name)}{suffix}"))
        except DemoeError as error:
            failures.append((layer.name, str(error)))
    if not jobs and not failures:
        raise ImageError("No image layer is selected; select some in the layer list.")
    check_distinct([(image.name, target) for image, target in jobs])
    make_folder(output)
    return jobs, failures


def file_name(name: str) -> str:
    """Return a layer's name as every system takes it for a file."""
    return re.sub(r'[\\/:*?"<>|\x00-\x1f]+', "_", name).strip(" .") or "image"


def _name(source: Any) -> str:
    return str(source.name)
