"""source -> TileStore -> finished file: out of core, resumable, with progress and cancel."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import dask.array as da
import numpy as np
from dask import config as dask_config
from dask.base import optimize
from numpy.typing import NDArray

from demoe.choices import names_of
from demoe.engine.runner import LANES
from demoe.engine.work import PlaneWork
from demoe.errors import Cancelled, OutputError, RecipeError
from demoe.execution.earlier import Correction, correct
from demoe.execution.store import Index, TileStore
from demoe.image.lazy_image import LazyImage
from demoe.io._write import check_output, write_image
from demoe.lazy import Deblurred, deblur, failed_cells
from demoe.recipe import Recipe

Progress = Callable[[int, int, str], None]

GRAPH_TILES = 64
"""Tiles that are taken from the graph together: a look into it takes time by all its tiles."""


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
        Part of the routing cells that each choice got, by name; sums to 1 unless all were skipped.
    skipped : float
        Part of the routing cells that no expert worked on.
    failed : int
        Routing cells that kept their source, because what the network gave was not plausible.
    consistency : float or None
        Median of `Deblurred.consistency`; None where no kernel was looked for.
    provenance : dict
        As in `Deblurred`.
    """

    output: Path
    tiles: int
    computed: int
    seconds: float
    megapixels: float
    shares: dict[str, float]
    skipped: float
    failed: int
    consistency: float | None
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
    **fields: Any,
) -> Report:
    """Deblur an image of any size into a file.

    Tiles are kept on disk beside the output until all are done; the output's name appears when it
    is whole. An interrupted run goes on where it was with ``resume=True``.

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
    overwrite : bool
        Replace an existing output and, unless it is to be resumed, drop an interrupted run.
    workers : int
        Tiles in work at once on this machine. The network runs one tile at a time with all cores;
        more workers let reading overlap with computing, at the cost of memory.
    client : distributed.Client, optional
        Compute tiles on a Dask cluster whose workers see the source's path.
    progress : callable, optional
        ``progress(done, total, message)``, in tiles.
    cancel : object with is_set(), optional
        Asked between tiles, and while the output is written.

    Raises
    ------
    Cancelled
        If ``cancel`` was set; what is done is kept for ``resume``.
    DemoeError
        If anything a person can mend is wrong.
    """
    began = time.monotonic()
    if workers < 1:
        raise RecipeError(f"workers must be at least 1, not {workers}.")
    target, correction = Path(output), None
    if earlier is None:
        result = deblur(source, axes, recipe=recipe, expert_map=expert_map, **fields)
    else:
        at_once = partial(_compute, client=client)
        correction = correct(earlier, source, axes, recipe, expert_map, at_once, **fields)
        result = correction.after
    check_output(target, result.as_image(), overwrite=overwrite, with_experts=True)
    folder = target.with_name(f".{target.name}.demoe-run")
    if folder.exists() and not (resume or overwrite):
        raise OutputError(
            f"An unfinished run for {target} is kept in {folder}; go on with resume, or drop it "
            "with overwrite."
        )
    open_store = TileStore.resume if resume else TileStore.create
    with _system_errors(target), open_store(folder, result.image) as store:
        try:
            watch = _Watch(progress, cancel, "resume goes on from there")
            if correction is not None:
                _take_over(correction, store, watch)
            before = len(store.done)
            _compute_tiles(result, store, workers, client, watch)
            experts, consistency = _finish(result, store, target, overwrite, watch, client)
            failed = len(store.failed)
        except BaseException:
            if not store.done:
                store.delete()
            raise
        store.delete()
    counts = np.bincount(experts.ravel(), minlength=len(result.choices) + 1)
    tiles = math.prod(result.image.numblocks)
    return Report(
        output=target,
        tiles=tiles,
        computed=tiles - before,
        seconds=time.monotonic() - began,
        megapixels=result.source.n_planes * math.prod(result.source.plane_shape) / 1e6,
        shares={
            name: float(n / max(1, counts[1:].sum()))
            for name, n in zip(names_of(result.choices), counts[1:], strict=True)
        },
        skipped=float(counts[0] / counts.sum()),
        failed=failed,
        consistency=None if consistency is None else float(np.median(consistency)),
        provenance=result.provenance,
    )


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
        If the result cannot be written there.
    """
    target = Path(path)
    watch = _Watch(progress, cancel, "nothing is kept")
    if isinstance(result, LazyImage):
        return write_image(target, result, overwrite=overwrite, progress=watch)
    check_output(target, result.as_image(), overwrite=overwrite, with_experts=True)
    folder = target.with_name(f".{target.name}.demoe-save-{os.getpid()}")
    with _system_errors(target), TileStore.create(folder, result.image) as store:
        try:
            _compute_tiles(result, store, 1, None, watch)
            _finish(result, store, target, overwrite, watch, None)
        finally:
            store.delete()
    return target


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
    result: Deblurred, store: TileStore, workers: int, client: Any, watch: _Watch
) -> None:
    """Compute the blocks that the store lacks, a few at a time, and put them there."""
    total = math.prod(result.image.numblocks)
    missing = _missing_tiles(result.image, store)
    with _submitter(result.work, workers, client) as (submit, in_flight):
        waiting: dict[Any, Index] = {}
        try:
            watch(len(store.done), total, "tiles")
            while True:
                for index, tile in itertools.islice(missing, in_flight - len(waiting)):
                    waiting[submit(index, tile)] = index
                if not waiting:
                    return
                finished, _ = _wait_any(list(waiting), client)
                for future in finished:
                    store.put(waiting.pop(future), *future.result())
                watch(len(store.done), total, "tiles")
        finally:
            for future in waiting:
                future.cancel()


def _missing_tiles(array: da.Array, store: TileStore) -> Iterator[tuple[Index, da.Array]]:
    """Give the blocks that the store lacks, each with a small graph."""
    every = itertools.product(*map(range, array.numblocks))
    missing = (index for index in every if index not in store.done)
    while group := list(itertools.islice(missing, GRAPH_TILES)):
        yield from zip(group, optimize(*(array.blocks[i] for i in group)), strict=True)


def _compute_tile(
    work: PlaneWork, index: Index, tile: da.Array
) -> tuple[NDArray[Any], list[Index]]:
    """Return a block, and the cells of the expert map in which the network failed."""
    values = tile.compute(scheduler="synchronous")  # this is what runs in parallel
    return values, failed_cells(work, index)


@contextmanager
def _submitter(
    work: PlaneWork, workers: int, client: Any
) -> Iterator[tuple[Callable[[Index, da.Array], Any], int]]:
    """Offer a function that starts the computation of a block, and how many to keep in work."""
    if client is not None:
        threads = max(1, sum(client.nthreads().values()))

        def submit(index: Index, tile: da.Array) -> Any:
            return client.submit(_compute_tile, work, index, tile, pure=False)

        yield submit, 2 * threads
        return
    if work.runner().model.device.type == "cuda":
        workers = max(workers, LANES)
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="demoe-tile") as pool:
        # One more than there are workers, so that none waits while a tile is written.
        yield (lambda index, tile: pool.submit(_compute_tile, work, index, tile)), workers + 1


def _wait_any(futures: list[Any], client: Any) -> tuple[set[Any], set[Any]]:
    if client is None:
        done: tuple[set[Future[Any]], set[Future[Any]]] = wait(futures, return_when=FIRST_COMPLETED)
        return done
    from distributed import wait as wait_cluster

    both = wait_cluster(futures, return_when=FIRST_COMPLETED)
    return both.done, both.not_done


def _finish(
    result: Deblurred, store: TileStore, target: Path, overwrite: bool, watch: _Watch, client: Any
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """Write the output from the stored tiles, and return the expert map and the consistency."""
    total = math.prod(result.image.numblocks)

    def tell(done: int, blocks: int, _: str) -> None:
        watch(total, total, f"writing {target.name}, {done / blocks:.0%}")

    tell(0, total, "")
    expert_map: NDArray[np.uint8]
    if client is None:  # now, because the output may take the place of the source
        expert_map, gates = np.asarray(result.expert_map), result.gates
        confidence = np.asarray(result.confidence)
    else:
        maps = [result.expert_map, result.confidence, result.gates]
        expert_map, confidence, found = client.gather(client.compute(maps))
        gates = da.from_array(found, chunks=result.gates.chunks)
    if store.failed:
        expert_map = expert_map.copy()
        expert_map[tuple(np.transpose(list(store.failed)))] = 0
    lazy = result.consistency_of(store.as_dask())
    # The tiles lie here, and so is the source read here, cluster or not.
    consistency = None if lazy is None else np.asarray(lazy.compute(scheduler="threads"))
    experts, sure, painted, consistent = (
        None
        if cells is None
        else result.source.of_cells(
            da.from_array(cells, chunks=result.expert_map.chunks), result.pitch
        )
        for cells in (expert_map, confidence, result.painted, consistency)
    )
    # On this machine, even where a cluster is dask's default: the tiles lie here.
    with dask_config.set(scheduler="threads"):
        write_image(
            target,
            result.as_image().with_data(store.as_dask()),
            experts=experts,
            gates=gates,
            confidence=sure,
            painted=painted,
            consistency=consistent,
            kernels=result.kernel_picture(),
            choices=result.choices,
            provenance=result.provenance,
            overwrite=overwrite,
            progress=tell,
        )
    return expert_map, consistency


@contextmanager
def _system_errors(target: Path) -> Iterator[None]:
    """Turn what the system refuses while tiles are kept into one sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"The tiles for {target} cannot be kept beside it ({reason}); free some space or "
            "choose another place."
        ) from error
