"""The one background worker: computes a result tile by tile into a store.

Importing torch, loading the network and every pixel operation happen in here, away from the
thread that draws the window.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from demoe.errors import DemoeError, ImageError, RecipeError
from demoe.live.order import Scope
from demoe.wanted import as_long_as
from napari_demoe._blurs import blur_sizes
from napari_demoe._job import Downloading, Failed, Finished, Handle, Job, Planned, TilesDone
from napari_demoe._layers import to_lazy
from napari_demoe._maps import expert_shares

if TYPE_CHECKING:
    import dask.array as da

    from demoe.engine.kernels.solution import Blur
    from demoe.execution.earlier import Correction
    from demoe.image.lazy_image import LazyImage
    from demoe.lazy import Deblurred
    from demoe.live.run import LiveRun

MEMORY_BYTES = 2**28
"""Whole results up to this size are arrays in memory, larger ones are read from their tiles."""

REPORT_SECONDS = 0.2
"""How often a download, or a run that waits, is reported."""

PULSE_MILLISECONDS = 60
"""How often the viewer is asked what is looked at, and shown what is new."""


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


def pulse(function: Callable[[], None]) -> Callable[[], None]:
    """Call a function on the main thread now and then; returns what ends that."""
    from qtpy.QtCore import QCoreApplication, QTimer

    # A timer must go in the thread that it lives in, not in that of who happens to collect garbage.
    timer = QTimer(QCoreApplication.instance())
    timer.timeout.connect(function)
    timer.start(PULSE_MILLISECONDS)

    def stop() -> None:
        with suppress(RuntimeError):  # at the very end, Qt has deleted it already
            timer.stop()
            timer.deleteLater()

    return stop


def ask(function: Callable[[], Any], answered: Callable[[Any], None]) -> None:
    """Call a function in napari's thread pool, and another with its answer on the main thread."""
    from napari.qt.threading import create_worker

    create_worker(function, _connect={"returned": answered})


def steps(job: Job) -> Generator[object, None, None]:
    """Deblur an image and report after every tile.

    Parameters
    ----------
    job : Job
        What to do.

    Yields
    ------
    Downloading, Planned, TilesDone, Finished
        In this order, or `Failed` at any time as the last one; nothing more after ``job.stop``.
    """
    try:
        yield from _steps(job)
    except DemoeError as error:
        if job.is_wanted():
            yield Failed(str(error))


def _steps(job: Job) -> Generator[object, None, None]:
    yield TilesDone(0)  # a chance to stop before the network is loaded
    if job.live is not None:
        run = job.live
        run.order.scope = job.scope
    else:
        if job.download:
            yield from _download(job.recipe.model)
        _warm_up()
        with as_long_as(job.is_wanted):
            run = _new_run(job)
    if job.view is not None:
        run.order.look(job.view)
    yield Planned(run)
    told = -1
    with _timed(run, job) as step:
        while True:
            if step():
                yield TilesDone(*run.order.counts())
            elif run.order.scope.kind != "view" or run.is_complete:
                break
            else:  # until somebody looks elsewhere, which is told before it is worked on
                if len(run.done) != told:
                    told = len(run.done)
                    yield _all_known(job, run)
                run.order.wait(REPORT_SECONDS)
                yield TilesDone(*run.order.counts())
    yield TilesDone(*run.order.counts())
    yield _all_known(job, run)


def _warm_up() -> None:
    """Let what a first layer of labels needs, pandas above all, be loaded in this thread.

    Else the viewer would load it when the maps are shown, and stand still meanwhile.
    """
    from napari.layers import Labels

    Labels(np.zeros((1, 1), np.uint8), features={"index": [0]})


@contextmanager
def _timed(run: LiveRun, job: Job) -> Iterator[Callable[[], bool]]:
    """Step through a run, and keep what its tiles took for the next estimate.

    Corrections are left out: much of what they need is known already.
    """
    from demoe.execution.speeds import note

    tiles, seconds = 0, 0.0

    def step() -> bool:
        nonlocal tiles, seconds
        began = time.monotonic()
        with as_long_as(job.is_wanted):
            if not run.step():
                return False
        tiles, seconds = tiles + 1, seconds + time.monotonic() - began
        return True

    try:
        yield step
    finally:
        if job.earlier is None and not job.reopened:
            note(run.result.provenance, tiles, seconds)


def _new_run(job: Job) -> LiveRun:
    import dask.array as da

    import demoe
    from demoe.live.run import LiveRun, Maps, where_of

    earlier = job.earlier
    shared: dict[str, Any] = {
        "folder": Path(job.folder) if job.folder else None,
        "more": job.more,
    }
    if earlier is not None:
        out = earlier.result.corrected(job.expert_map)
        only = {where_of(out, index) for index in out.changed_from(earlier.result)}
        if earlier.done is not None:
            only &= set(earlier.done)
        under = earlier.run.exact if earlier.pixels is None else earlier.pixels
        known = Maps(earlier.expert_map, earlier.gates, earlier.confidence, {})
        return LiveRun(out, Scope(), under=_lazily(under, out), only=only, known=known, **shared)
    image = to_lazy(job.data, job.meta)
    if any(part != slice(0, n) for part, n in zip(job.region, image.shape, strict=False)):
        image = image.with_data(image.data[job.region])
    correction = _correction(job, image)
    if correction is not None:
        out = correction.after
        only = {where_of(out, index) for index in out.changed_from(correction.before)}
        cells = (out.expert_map, out.gates, out.confidence)
        known = Maps(*(_compute(lazy) for lazy in cells), {})
        return LiveRun(out, Scope(), under=correction.pixels, only=only, known=known, **shared)
    out = demoe.deblur(image, recipe=job.recipe, expert_map=job.expert_map)
    target = Path(job.output) if job.output else None
    pyramid = list(job.data[1:]) if job.meta.get("multiscale") else []
    whole = image.shape == tuple(job.data[0].shape) if pyramid else False
    return LiveRun(
        out,
        job.scope,
        target=target,
        pyramid=[da.asarray(level) for level in pyramid] if whole else (),
        **shared,
    )


def _all_known(job: Job, run: LiveRun) -> Finished:
    with as_long_as(job.is_wanted):
        return _finished(job, run)


def _finished(job: Job, run: LiveRun) -> Finished:
    """Say what is known now."""
    out, maps = run.result, run.maps
    whole = run.is_complete and (job.earlier is None or job.earlier.done is None)
    fits = math.prod(out.image.shape) * out.image.dtype.itemsize <= MEMORY_BYTES
    pixels = np.asarray(run.exact) if whole and fits else None
    # What the layers show of the expert map is compared with what it was, so it must not grow; the
    # others, of hundreds of megabytes for the largest images, are handed on as they are.
    found = {
        "expert_map": maps.expert_map.copy(),
        "gates": maps.gates,
        "confidence": maps.confidence,
    }
    if whole and run.kept:  # of an earlier session, nothing is known but the pixels
        found = {name: _compute(getattr(out, name)) for name in found}
    blurs: dict[tuple[int, ...], Sequence[Blur]] = {plane: run.blurs(plane) for plane in maps.blurs}
    if job.earlier is not None:
        blurs = _correct_maps(job.earlier, run, found)
    if out.complexity is not None and whole:
        found["complexity"] = _compute(out.complexity)
    checked = None
    if out.consistency is not None and whole:
        shown = _lazily(run.exact if pixels is None else pixels, out)
        checked = _compute(out.consistency_of(shown))
    return Finished(
        **found,
        shares=expert_shares(found["expert_map"], len(out.choices)),
        sizes=blur_sizes(blurs, found["expert_map"], out.pitch, len(out.choices)),
        consistency=checked,
        blurs=blurs,
        kernels=maps.kernels,
        pitch=out.pitch,
        provenance=out.provenance,
        pixels=pixels,
        run=run,
        done=None if whole else frozenset(run.done if job.earlier is None else job.earlier.done),
    )


def _correct_maps(
    earlier: Finished, run: LiveRun, found: dict[str, np.ndarray]
) -> dict[tuple[int, ...], Sequence[Blur]]:
    """Bring maps up to date in the planes that were corrected; return all blurs."""
    out, kernels = run.result, run.maps.kernels
    corrected, blurs = {where[:-2] for where in run.done}, {**earlier.blurs}
    if kernels is not None and earlier.kernels is not None:
        for plane in blurs.keys() - corrected:
            kernels[plane] = earlier.kernels[plane]
    # What was painted over as it was is surer now, in tiles that did not change, too.
    if earlier.done is not None:  # of the others, nobody knows anything
        for where in earlier.done:
            if where[:-2] in corrected:
                run.note(where)
        for plane in corrected:
            for name, values in found.items():
                values[plane] = getattr(run.maps, name)[plane]
    else:
        for plane in corrected:
            for name, values in found.items():
                values[plane] = _compute(getattr(out, name)[plane])
            run.note_blurs(plane)
    return blurs | {plane: run.blurs(plane) for plane in corrected}


def _lazily(pixels: Any, out: Deblurred) -> da.Array:
    """Return an array in blocks of a result's tiles."""
    import dask.array as da

    return da.from_array(pixels, chunks=out.image.chunks, inline_array=True, name=False)


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


def _compute(lazy: da.Array) -> np.ndarray:
    # The network uses all cores by itself: one tile at a time, in this thread.
    return np.asarray(lazy.compute(scheduler="synchronous"))
