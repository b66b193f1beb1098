"""The one background worker: computes a result tile by tile into a store.

Importing torch, loading the network and every pixel operation happen in here, away from the
thread that draws the window.
"""

from __future__ import annotations

import itertools
import math
import shutil
import tempfile
import weakref
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from demoe.errors import DemoeError, ImageError, RecipeError
from napari_demoe._job import Downloading, Failed, Finished, Handle, Job, Planned, TilesDone
from napari_demoe._layers import to_lazy

if TYPE_CHECKING:
    import dask.array as da

    from demoe.execution.earlier import Correction
    from demoe.image.lazy_image import LazyImage
    from demoe.lazy import Deblurred

MEMORY_BYTES = 2**30
"""Results up to this size are kept in memory, larger ones in a zarr array in a temporary folder."""

REPORT_SECONDS = 0.2
"""How often a download is reported."""

MAPS = ("expert_map", "gates", "confidence", "complexity")
"""What a result has for each routing cell; of the last, only where experts cost differently."""

Slices = tuple[slice, ...]


def launch(
    job: Job,
    *,
    reported: Callable[[object], None],
    crashed: Callable[[Exception], None],
    ended: Callable[[], None],
) -> Handle:
    """Run a job in napari's thread pool; the callbacks run on the main thread."""
    from napari.qt.threading import create_worker

    worker = create_worker(
        steps,
        job,
        _start_thread=False,
        _progress={"desc": f"Deblurring {job.meta['name']}"},
        _connect={"yielded": reported, "errored": crashed, "finished": ended},
    )
    worker.start()
    return worker


def steps(job: Job) -> Generator[object, None, None]:
    """Deblur an image and report after every tile.

    Parameters
    ----------
    job : Job
        What to do.

    Yields
    ------
    Downloading, Planned, TilesDone, Finished
        In this order, or `Failed` at any time as the last one.
    """
    try:
        yield from _steps(job)
    except DemoeError as error:
        yield Failed(str(error))


def _steps(job: Job) -> Generator[object, None, None]:
    import dask.array as da

    import demoe

    yield TilesDone(0)  # a chance to stop before the network is loaded
    if job.earlier is not None:
        out = job.earlier.result.corrected(job.expert_map)
        changed = out.changed_from(job.earlier.result)
        shown = job.earlier.pixels
        maps = {name: values.copy() for name, values in _maps(job.earlier)}
    else:
        image = to_lazy(job.data, job.meta)
        image = image.with_data(image.data[job.region])
        if job.download:
            yield from _download(job.recipe.model)
        correction = _correction(job, image)
        if correction is not None:
            out, shown = correction.after, correction.pixels
            changed = out.changed_from(correction.before)
            maps = {name: _compute(values) for name, values in _maps(out)}
        else:
            out = demoe.deblur(image, recipe=job.recipe, expert_map=job.expert_map)
            changed, shown = None, None
            maps = {name: np.zeros(values.shape, values.dtype) for name, values in _maps(out)}
    axes = out.source.axes
    focus = tuple(f - part.start for f, part in zip(job.focus, job.region, strict=False))
    boxes = sorted_boxes(out.image.chunks, axes, focus, changed)
    pixels = new_store(out.image.shape, out.image.dtype, out.image.chunksize)
    planned = Planned(pixels, axes, out.source.channel_names, len(boxes), out.choices)
    if shown is not None:
        for box in sorted_boxes(out.image.chunks, axes, focus):
            pixels[box] = np.asarray(shown[box])
            yield TilesDone(0)
        yield planned
    checked = None
    if out.consistency is not None:
        checked = np.zeros(out.expert_map.shape, np.float32)
    # A correction looks only at the planes that it changes.
    blurs = {} if job.earlier is None else dict(job.earlier.blurs)
    done = 0
    for plane, tiles in itertools.groupby(boxes, lambda box: _plane(box, axes)):
        todo = list(tiles)
        if shown is None:
            for box in todo:  # until a tile is done, its source is shown in its place
                pixels[box] = _compute(out.source.data[box])
                yield TilesDone(done)
            if not done:
                yield planned
        for box in todo:
            pixels[box] = _compute(out.image[box])
            done += 1
            yield TilesDone(done)
        # Now, while the core remembers what it decided for the tiles.
        for name, values in maps.items():
            values[plane] = _compute(getattr(out, name)[plane])
        blurs[plane] = out.blurs(plane)
    if checked is not None:
        consistency = out.consistency_of(da.from_array(pixels))
        for plane in np.ndindex(checked.shape[:-2]):
            checked[plane] = _compute(consistency[plane])
            yield TilesDone(done)
    yield Finished(
        **maps,
        consistency=checked,
        blurs=blurs,
        pitch=out.pitch,
        provenance=out.provenance,
        pixels=pixels,
        result=out,
    )


def _maps(out: Deblurred | Finished) -> list[tuple[str, Any]]:
    """Return the maps that a result has, with their names."""
    return [(name, values) for name in MAPS if (values := getattr(out, name)) is not None]


def _correction(job: Job, image: LazyImage) -> Correction | None:
    """Return what was painted on a result that was opened, if it was made from this image."""
    from demoe.execution.earlier import correct

    if not job.reopened:
        return None
    try:
        # A painted map takes the place of the routing; all else has to be as it was.
        settings = {k: v for k, v in asdict(job.recipe).items() if k != "routing"}
        found = correct(job.reopened, image, None, None, job.expert_map, _compute, **settings)
        found.check()
    except (ImageError, RecipeError):
        return None  # of something else, or nothing was painted: all of the map is followed
    return found


def sorted_boxes(
    chunks: tuple[tuple[int, ...], ...],
    axes: str,
    focus: tuple[float, ...],
    only: Iterable[tuple[int, ...]] | None = None,
) -> list[Slices]:
    """List a dask array's blocks, those that are being looked at first.

    Parameters
    ----------
    chunks : tuple of tuple of int
        Block lengths along each axis.
    axes : str
        Letter of each axis.
    focus : tuple of float
        A place in the array, one number for each axis but S.
    only : iterable of tuple of int, optional
        Indices of the blocks to list; by default all.

    Returns
    -------
    list of tuple of slice
        Each block once, plane by plane: the nearest first, and in a plane from `focus` outwards.
    """
    place = (*focus, 0.0)[: len(axes)] if "S" in axes else focus
    along = []
    for lengths in chunks:
        ends = np.cumsum(lengths).tolist()
        along.append([slice(e - n, e) for n, e in zip(lengths, ends, strict=True)])

    def distance(box: Slices) -> tuple[float, tuple[int, ...], float]:
        planes, pixels = 0.0, 0.0
        for letter, part, where in zip(axes, box, place, strict=True):
            if letter in "YX":
                pixels += (where - (part.start + part.stop - 1) / 2) ** 2
            elif letter != "S":
                planes += max(part.start - where, where - (part.stop - 1), 0.0)
        return planes, _plane(box, axes), pixels

    if only is None:
        only = itertools.product(*(range(len(cuts)) for cuts in along))
    boxes = (tuple(cuts[i] for cuts, i in zip(along, index, strict=True)) for index in only)
    return sorted(boxes, key=distance)


def new_store(shape: tuple[int, ...], dtype: np.dtype[Any], chunks: tuple[int, ...]) -> Any:
    """Make an empty array for a result of any size.

    Parameters
    ----------
    shape, dtype : tuple of int, dtype
        Of the result.
    chunks : tuple of int
        Lengths of a tile.

    Returns
    -------
    ndarray or zarr array
        Zeros; a zarr array's temporary folder is deleted with the array, at the latest at exit.
    """
    if math.prod(shape) * np.dtype(dtype).itemsize <= MEMORY_BYTES:
        return np.zeros(shape, dtype)
    import zarr

    folder = tempfile.mkdtemp(prefix="demoe-")
    store = zarr.create_array(
        store=folder, shape=shape, chunks=chunks, dtype=dtype, compressors=None, fill_value=0
    )
    weakref.finalize(store, shutil.rmtree, folder, ignore_errors=True)
    return store


def _download(name: str) -> Generator[Downloading, None, None]:
    from demoe.errors import Cancelled
    from demoe.model.zoo import download

    state: dict[str, Any] = {"at": Downloading(0, 0), "stopped": False}

    def progress(done: int, total: int, message: str) -> None:
        if state["stopped"]:
            raise Cancelled(f"The download of {name} was stopped.")
        state["at"] = Downloading(done, total)

    # A thread of its own, so that this generator can go on reporting and be stopped.
    with ThreadPoolExecutor(1) as pool:
        fetched = pool.submit(download, name, progress=progress)
        try:
            while not fetched.done():
                yield state["at"]
                wait([fetched], timeout=REPORT_SECONDS)
        finally:
            state["stopped"] = True
        fetched.result()


def _plane(box: Slices, axes: str) -> tuple[int, ...]:
    return tuple(s.start for s, letter in zip(box, axes, strict=True) if letter not in "YXS")


def _compute(lazy: da.Array) -> np.ndarray:
    # The network uses all cores by itself: one tile at a time, in this thread.
    return np.asarray(lazy.compute(scheduler="synchronous"))
