"""source -> TileStore -> finished file: out of core, resumable, with progress and cancel."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import dask.array as da
import numpy as np
from dask import config as dask_config
from numpy.typing import NDArray

from demoe.choices import names_of
from demoe.engine.costs import mean_complexity, saved_share, shares_of
from demoe.engine.restorer import is_cut
from demoe.errors import Cancelled, ImageError, OutputError, RecipeError
from demoe.execution.earlier import Correction, correct
from demoe.execution.identity import (
    SourceWatch,
    check_content,
    describe,
    differences,
    digest,
    same_files,
    stamp,
)
from demoe.execution.pool import Pool, pool_for, processes
from demoe.execution.store import LostTile, TileStore, delete, run_folder
from demoe.image.lazy_image import LazyImage
from demoe.io._write import check_output, recover_all, write_image
from demoe.io.atomic import Placing, reason_of, refused
from demoe.io.lock import OutputLock, hold
from demoe.io.record import read_record
from demoe.lazy import Deblurred, deblur
from demoe.model.protocol import Arithmetic
from demoe.recipe import Recipe

Progress = Callable[[int, int, str], None]

ATTEMPTS = 3
"""How often an output is written before tiles that are lost each time are taken for a bad disk."""


class CancelToken(Protocol):
    """Whatever says that a run is to stop, for example a `threading.Event`."""

    def is_set(self) -> bool:
        """Return True once the run is to stop."""


@dataclass(frozen=True)
class Report:
    """What a run did.

    Attributes
    ----------
    output : Path
        The finished file or folder.
    tiles, computed : int
        Tiles of the image, and those computed in this run; the rest came from an earlier one.
    seconds : float
        Time from call to finished file.
    megapixels : float
        Size of the image, all planes, without counting colour samples.
    shares : dict of str to float
        Part of the routing cells that each choice got, by name, or of the layers in all cells where
        the network decides layer by layer; sums to 1 unless all were skipped.
    saved : float or None
        Part of the arithmetic that the costliest choice everywhere would have taken, in tiles seen
        by themselves, and that was not needed; reading around tiles and what is pooled over a plane
        are left out. None where all choices cost the same.
    skipped : float
        Part of the routing cells that no expert worked on.
    failed : int
        Routing cells that kept their source, because what the network gave was not plausible.
    consistency : float or None
        Median of `Deblurred.consistency`; None where no kernel was looked for.
    absent : int
        Chunks that the files of the source lack; they count as the array's fill value.
    provenance : dict
        As in `Deblurred`.
    """

    output: Path
    tiles: int
    computed: int
    seconds: float
    megapixels: float
    shares: dict[str, float]
    saved: float | None
    skipped: float
    failed: int
    consistency: float | None
    absent: int
    provenance: dict[str, Any] = field(repr=False)


def run(
    source: Any,
    output: str | os.PathLike[str],
    recipe: Recipe | None = None,
    *,
    axes: str | None = None,
    expert_map: Any = None,
    earlier: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    workers: int = 1,
    client: Any = None,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
    all_blocks: bool = False,
    **fields: Any,
) -> Report:
    """Deblur an image of any size into a file.

    Tiles are kept on disk beside the output until all are done; the output's name appears when it
    is whole. An interrupted run goes on where it was with ``resume=True``. Meanwhile nobody else
    can write this output.

    Parameters
    ----------
    source, recipe, axes, expert_map, **fields
        As in `demoe.deblur`.
    output : path-like
        Its suffix decides the format: .ome.zarr, .ome.tif, .tif, .png, .jpg.
    earlier : path-like, optional
        A finished output of the same image: what ``expert_map`` corrects in it, or what was painted
        on the map that is stored with it, is computed, and all other tiles are taken from it.
        Settings are those that it was made with.
    resume : bool
        Go on with an interrupted run of the same image, recipe and network; without one, begin.
        Where the output is finished already, nothing is done.
    overwrite : bool
        Replace an existing output and, unless it is to be resumed, drop an interrupted run.
    workers : int
        Processes that compute tiles on this machine; more than one need the package distributed.
        Each holds the network, and they share the cores among them. A script that asks for them
        has to begin under ``if __name__ == "__main__":``, because they are started from it.
    client : distributed.Client, optional
        Compute tiles on a Dask cluster whose workers see the source and the folder of the output
        under the same paths: they keep their tiles there themselves.
    progress : callable, optional
        ``progress(done, total, message)``, in tiles.
    cancel : object with is_set(), optional
        Asked between tiles, and while the output is written.
    all_blocks : bool
        Refuse a zarr that lacks chunks; else they count as its fill value, and the report says how
        many they are.

    Raises
    ------
    Cancelled
        If ``cancel`` was set; what is done is kept for ``resume``.
    OutputError
        If the output cannot be written, another process writes there, or what is to be resumed is
        another job.
    ImageError
        If the source cannot be read, or changed since the run began.
    DemoeError
        If anything a person can mend is wrong.
    """
    began = time.monotonic()
    if workers < 1:
        raise RecipeError(f"workers must be at least 1, not {workers}.")
    if workers > 1 and client is None:
        again = {**fields, "axes": axes, "expert_map": expert_map, "earlier": earlier}
        again |= {"resume": resume, "overwrite": overwrite, "progress": progress, "cancel": cancel}
        with processes(workers) as client:
            return run(source, output, recipe, client=client, all_blocks=all_blocks, **again)
    target, correction = Path(output), None
    folder = run_folder(target)
    with hold(target) as lock:
        is_written = _tidy_up(target, folder, overwrite)
        if earlier is None:
            result = deblur(source, axes, recipe=recipe, expert_map=expert_map, **fields)
        else:
            at_once = partial(_compute, client=client)
            correction = correct(earlier, source, axes, recipe, expert_map, at_once, **fields)
            result = correction.after
        described = describe(result)
        if all_blocks and described["absent"]:
            raise ImageError(
                f"{result.source.source} lacks {described['absent']} blocks, which read as its "
                "fill value; complete it, or run without asking for all blocks."
            )
        report = partial(_report, result, described, target, began)
        if resume:
            finished = _finished_before(target, folder, result, described, is_written)
            if finished is not None:
                delete(folder)
                return report(finished, computed=0)
        check_output(target, result.as_image(), overwrite=overwrite, with_experts=True)
        if TileStore.description(folder) is not None and not (resume or overwrite):
            raise OutputError(
                f"An unfinished run for {target} is kept in {folder}; go on with resume, or drop "
                "it with overwrite."
            )
        open_store = TileStore.resume if resume else TileStore.create
        with _system_errors(target), open_store(folder, result.as_image(), described) as store:
            try:
                watch = _Watch(progress, cancel, "resume goes on from there")
                _check_same_source(result, store, folder, described, watch)
                if correction is not None:
                    _take_over(correction, store, watch)
                before = len(store.done)
                summary = _complete(
                    result, store, described, target, lock, overwrite, client, watch
                )
            except BaseException:
                if not store.done:
                    store.delete()
                raise
            store.delete()
        return report(summary, computed=math.prod(result.image.numblocks) - before)


def save(
    result: Deblurred | LazyImage,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
) -> Path:
    """Compute a lazy result tile by tile into a file, with its maps and provenance.

    Parameters
    ----------
    result : Deblurred or LazyImage
        What `deblur` or `open_image` returned.
    path : path-like
        Its suffix decides the format: .ome.zarr, .ome.tif, .tif, .png, .jpg.
    overwrite, progress, cancel
        As in `run`; a save that is interrupted leaves nothing behind.

    Raises
    ------
    OutputError
        If the result cannot be written there, or another process writes there.
    ImageError
        If the source changes meanwhile.
    """
    target = Path(path)
    watch = _Watch(progress, cancel, "nothing is kept")
    with hold(target) as lock:
        _tidy_up(target, run_folder(target), overwrite)
        if isinstance(result, LazyImage):
            before = stamp(result)

            def whole(_: list[Placing]) -> None:
                if stamp(result) != before:
                    raise ImageError(f"{result.source} changed while it was read; save it again.")

            return write_image(
                target, result, overwrite=overwrite, progress=watch, lock=lock, when_whole=whole
            )
        check_output(target, result.as_image(), overwrite=overwrite, with_experts=True)
        described = describe(result)
        folder = _save_folder(target)
        with (
            _system_errors(target),
            TileStore.create(folder, result.as_image(), described) as store,
        ):
            try:
                _complete(result, store, described, target, lock, overwrite, None, watch)
            finally:
                store.delete()
    return target


@contextmanager
def begin(result: Deblurred, target: Path, described: dict[str, Any]) -> Iterator[TileStore]:
    """Keep tiles for an output, going on with those of an interrupted run; `run` can do the rest.

    Raises
    ------
    OutputError
        If tiles cannot be kept there, those that are kept are of another job, the output is there
        already, or another process writes it.
    """
    folder = run_folder(target)
    with hold(target):
        _tidy_up(target, folder, overwrite=False)
        if (then := TileStore.description(folder)) is not None:
            _check_same_job(target, then, described)
        check_output(target, result.as_image(), overwrite=False, with_experts=True)
        opened = TileStore.resume(folder, result.as_image(), described)
        with _system_errors(target), opened as store:
            _check_same_source(result, store, folder, described, _Watch(None, None, ""))
            try:
                yield store
            finally:
                if not store.done:
                    store.delete()


def _save_folder(target: Path) -> Path:
    return target.with_name(f".{target.name}.demoe-save")


def _tidy_up(target: Path, folder: Path, overwrite: bool) -> bool:
    """Mend what a process left that died here; say if all that a run has to do is done.

    Where it died while it gave names to files that were whole, they get them now, unless the names
    are taken and nothing may be replaced.
    """
    placings = TileStore.whole(folder)
    if not overwrite and any(p.final.exists() and not p.is_done for p in placings):
        placings = []
    try:
        for placing in placings:
            placing.finish()
    except OSError as error:
        raise refused(target, error) from error
    recover_all(target)
    delete(_save_folder(target))
    return bool(placings)


def _finished_before(
    target: Path, folder: Path, result: Deblurred, described: dict[str, Any], is_written: bool
) -> dict[str, Any] | None:
    """Return the summary of an output that is finished already, if it is of the same job.

    Raises
    ------
    OutputError
        If tiles of another job are kept.
    """
    then = TileStore.description(folder)
    if then is not None:
        _check_same_job(target, then, described)
        origin = result.source.source
        here = origin is not None and Path(origin).exists()  # it may be at an address
        in_place = here and target.exists() and target.samefile(str(origin))
        if not is_written or not (in_place or same_files(then, described)):
            return None
        described = then
    with suppress(ImageError, KeyError, TypeError):
        record = read_record(target)
        if target.exists() and record["identity"] == digest(described):
            return dict(record["summary"])
    return None


def _check_same_job(target: Path, then: dict[str, Any], described: dict[str, Any]) -> None:
    if said := differences(then, described):
        raise OutputError(
            f"The unfinished run for {target} is another job: {', '.join(said)}; resume with the "
            "same settings, start over with overwrite, or write somewhere else."
        )


def _check_same_source(
    result: Deblurred, store: TileStore, folder: Path, described: dict[str, Any], watch: _Watch
) -> None:
    """Refuse to go on with tiles of other pixels; who only touched the files may go on."""
    then = TileStore.description(folder)
    if then is None or same_files(then, described):
        return
    total = math.prod(result.image.numblocks)

    def tell() -> None:
        watch(len(store.done), total, "comparing the source")

    if store.done:
        check_content(result.work.reader, store.reads, then["absent"], tell)
    store.describe(described)


def _complete(
    result: Deblurred,
    store: TileStore,
    described: dict[str, Any],
    target: Path,
    lock: OutputLock,
    overwrite: bool,
    client: Any,
    watch: _Watch,
) -> dict[str, Any]:
    """Compute what the store lacks and write the output; return the summary.

    Tiles that are found lost or damaged while they are written are computed again.
    """
    source = SourceWatch(result.work.reader, store.reads, described)

    def whole(placings: list[Placing]) -> None:
        source.check()
        if any(store.unpacked()):
            raise LostTile(f"{store.folder} has lost pixels that were written")
        store.note_whole(placings)

    with pool_for(result.work, store.mosaic, client) as pool:
        for _ in range(ATTEMPTS):
            try:
                _compute_tiles(result, store, pool, watch, source)
                return _finish(
                    result, store, digest(described), target, lock, overwrite, whole, watch, pool
                )
            except LostTile:
                store.check(pixels=True)
    raise OutputError(
        f"Tiles in {store.folder} are lost or damaged again and again; check the disk, or choose "
        "another place."
    )


def _report(
    result: Deblurred,
    described: dict[str, Any],
    target: Path,
    began: float,
    summary: dict[str, Any],
    *,
    computed: int,
) -> Report:
    return Report(
        output=target,
        tiles=math.prod(result.image.numblocks),
        computed=computed,
        seconds=time.monotonic() - began,
        megapixels=result.source.n_planes * math.prod(result.source.plane_shape) / 1e6,
        absent=described["absent"],
        provenance=result.provenance,
        **summary,
    )


@dataclass(frozen=True)
class _Watch:
    """Tells about progress, and stops the work when it is asked to."""

    progress: Progress | None
    cancel: CancelToken | None
    consequence: str

    def __call__(self, done: int, total: int, message: str) -> None:
        if self.progress is not None:
            self.progress(done, total, message)
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled(f"Stopped with {done} of {total} tiles done; {self.consequence}.")


def _take_over(correction: Correction, store: TileStore, watch: _Watch) -> None:
    """Put the tiles that a correction does not change into the store."""
    total = math.prod(correction.after.image.numblocks)
    correction.check()
    for index, values, failed in correction.kept(but=frozenset(store.done)):
        store.put(index, values, failed)
        watch(len(store.done), total, "taking over tiles")


def _compute(lazy: da.Array, *, client: Any) -> Any:
    """Compute an array here or on a cluster."""
    return np.asarray(lazy) if client is None else client.compute(lazy).result()


def _compute_tiles(
    result: Deblurred, store: TileStore, pool: Pool, watch: _Watch, source: SourceWatch
) -> None:
    """Compute the blocks that the store lacks, a few at a time, and pack what is complete."""
    total = math.prod(result.image.numblocks)
    missing = pool.ahead(store.missing())
    computing: set[Any] = set()
    packing: set[Any] = set()
    try:
        watch(len(store.done), total, "tiles")
        while True:
            for index in itertools.islice(missing, max(0, pool.at_once - len(computing))):
                made = None if result.is_untouched else result.image.blocks[index]
                computing.add(pool.tile(index, made))
            if not (computing or packing):
                return
            finished = pool.first(computing | packing)
            for future in finished & packing:
                pool.result(future)
            kept = [pool.result(future) for future in finished & computing]
            computing -= finished
            packing -= finished
            # Where many finish at a time, one wait for the disk serves several.
            together = max(1, pool.at_once // 8)
            for first in range(0, len(kept), together):
                ready = store.note(kept[first : first + together])
                packing.update(map(pool.pack, ready))
                watch(len(store.done), total, "tiles")
            watch(len(store.done), total, "tiles")
            source.check_at_times()
    finally:
        for future in computing | packing:
            future.cancel()
        result.work.memory.reads = None  # of what comes now, the files are watched


def _finish(
    result: Deblurred,
    store: TileStore,
    identity: str,
    target: Path,
    lock: OutputLock,
    overwrite: bool,
    whole: Callable[[list[Placing]], None],
    watch: _Watch,
    pool: Pool,
) -> dict[str, Any]:
    """Write the output from the stored tiles, and return what a report says of it."""
    total = math.prod(result.image.numblocks)

    def tell(done: int, blocks: int, _: str) -> None:
        watch(total, total, f"writing {target.name}, {done / blocks:.0%}")

    tell(0, total, "")
    # Those that a run would have packed when it ended.
    left = ((shard,) for shard in store.unpacked())
    pool.spread(store.mosaic.pack, left, lambda: watch(total, total, "tiles"))
    lazy = result.consistency_of(store.as_dask())
    kernels, gates = result.kernel_picture(), result.gates
    maps = [result.expert_map, result.confidence, result.layer_map, lazy]
    if pool.client is None:  # now, because the output may take the place of the source
        found = [one if one is None else one.compute(scheduler="threads") for one in maps]
    else:
        maps += [gates, None if kernels is None else kernels.data]
        *found, weights, picture = _compute_there(pool.client, maps)
        gates = da.from_array(weights, chunks=gates.chunks)
        kernels = None if kernels is None else kernels.with_data(da.from_array(picture))
    expert_map, confidence = np.asarray(found[0]), found[1]
    layers, consistency = found[2:]
    if store.failed:
        expert_map = expert_map.copy()
        expert_map[tuple(np.transpose(list(store.failed)))] = 0
    shown = expert_map[..., None, :, :]
    layers = shown if layers is None else np.where(shown > 0, layers, 0)
    arithmetic = _arithmetic(result)
    complexity = None if arithmetic is None else mean_complexity(layers, arithmetic)
    experts, sure, painted, consistent, complex_ = (
        None
        if cells is None
        else result.source.of_cells(
            da.from_array(cells, chunks=result.expert_map.chunks), result.pitch
        )
        for cells in (expert_map, confidence, result.painted, consistency, complexity)
    )
    names = names_of(result.choices)
    summary = {
        "shares": dict(zip(names, shares_of(layers, len(names)).tolist(), strict=True)),
        "saved": _saved(result, layers),
        "skipped": float(np.mean(expert_map == 0)),
        "failed": len(store.failed),
        "consistency": None if consistency is None else float(np.median(consistency)),
    }
    # What is left is in memory: on this machine, even where a cluster is dask's default.
    with dask_config.set(scheduler="threads"):
        write_image(
            target,
            result.as_image(),
            experts=experts,
            gates=gates,
            confidence=sure,
            painted=painted,
            consistency=consistent,
            complexity=complex_,
            kernels=kernels,
            choices=result.choices,
            provenance={**result.provenance, "summary": summary, "identity": identity},
            overwrite=overwrite,
            progress=tell,
            lock=lock,
            when_whole=whole,
            pixels=store.mosaic,
            spread=pool.spread,
        )
    return summary


def _compute_there(client: Any, arrays: list[da.Array | None]) -> list[Any]:
    """Compute arrays on a cluster, all at once; None stays None."""
    futures = iter(client.gather(client.compute([one for one in arrays if one is not None])))
    return [None if one is None else next(futures) for one in arrays]


def _arithmetic(result: Deblurred) -> Arithmetic | None:
    """Return what the choices of the network cost, where they work and cost differently."""
    return None if result.layer_map is None else result.work.runner().model.tenant.arithmetic


def _saved(result: Deblurred, layers: NDArray[np.uint8]) -> float | None:
    arithmetic = _arithmetic(result)
    if arithmetic is None:
        return None
    held = result.recipe.pooling == "plane" and is_cut(result.plan, result.recipe)
    return saved_share(layers, arithmetic, held=held)


@contextmanager
def _system_errors(target: Path) -> Iterator[None]:
    """Turn what the system refuses while tiles are kept into one sentence."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"The tiles for {target} cannot be kept beside it: {reason_of(error)}; what is done "
            "goes on with resume."
        ) from error
