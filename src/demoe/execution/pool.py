"""Where tiles are computed and shards written: in threads here, or by the workers of a cluster.

Only what is asked for and small reports travel. A worker keeps its tiles itself, in the folder
beside the output, so that it has to see that folder.
"""

from __future__ import annotations

import itertools
import math
import os
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from demoe.engine.memory import Found
from demoe.engine.runner import LANES
from demoe.engine.work import Common, PlaneWork
from demoe.errors import DeviceError, OutputError, RecipeError
from demoe.execution.store import Kept
from demoe.execution.tile import common_of, compute_tile
from demoe.io._spread import Job, over_threads
from demoe.io.mosaic import Index, Mosaic

_COUNTED_SECONDS = 5.0
_ASKED_SECONDS = 1.0
"""How long to wait for a cluster before somebody is asked whether to go on."""

LOST_SECONDS = 600.0
"""How long a run waits for workers to come back after all have gone."""

_HELD = 1024
"""Findings, of at most 50 kB each, that workers keep for tiles to come."""


class Pool(Protocol):
    """What does work elsewhere than in the thread that asks for it.

    Attributes
    ----------
    client : distributed.Client or None
        The cluster.
    """

    client: Any

    @property
    def at_once(self) -> int:
        """How many tiles to have in work or waiting."""

    def ahead(self, tiles: Iterator[Index]) -> Iterator[Index]:
        """Give tiles in their order, beginning early with what several of them depend on."""

    def tile(self, index: Index, made: Any) -> Any:
        """Begin to compute a tile and keep it; the future gives a `Kept`."""

    def pack(self, shard: Index) -> Any:
        """Begin to pack a shard."""

    def first(self, futures: Iterable[Any]) -> set[Any]:
        """Wait until some are done, or for a while."""

    def result(self, future: Any) -> Any:
        """Return what a future that is done gives, or raise its error."""

    def spread(
        self, function: Callable[..., Any], jobs: Iterable[Job], after: Callable[[], object]
    ) -> None:
        """Call a function for each job; see `demoe.io._spread`."""


class _Threads:
    """Tiles one by one, with all cores for each; shards are packed beside."""

    client = None

    def __init__(self, work: PlaneWork, mosaic: Mosaic, held: ExitStack) -> None:
        self._work, self._mosaic = work, mosaic
        self._lanes = lanes = LANES if work.runner().model.device.type == "cuda" else 1
        tiles = ThreadPoolExecutor(lanes, thread_name_prefix="demoe-tile")
        shards = ThreadPoolExecutor(1, thread_name_prefix="demoe-pack")
        self._tiles, self._shards = held.enter_context(tiles), held.enter_context(shards)

    @property
    def at_once(self) -> int:
        """One more than there are threads, so that none waits while a tile is noted."""
        return self._lanes + 1

    def ahead(self, tiles: Iterator[Index]) -> Iterator[Index]:
        return tiles  # all of them share one memory

    def tile(self, index: Index, made: Any) -> Future[Any]:
        return self._tiles.submit(keep_tile, self._work, self._mosaic, index, made)

    def pack(self, shard: Index) -> Future[Any]:
        return self._shards.submit(self._mosaic.pack, shard)

    def first(self, futures: Iterable[Future[Any]]) -> set[Future[Any]]:
        return wait(futures, return_when=FIRST_COMPLETED).done

    def result(self, future: Future[Any]) -> Any:
        return future.result()

    def spread(
        self, function: Callable[..., Any], jobs: Iterable[Job], after: Callable[[], object]
    ) -> None:
        over_threads(function, jobs, after)


class _Cluster:
    """Tiles on the workers of a Dask cluster, as many at a time as they have threads, and more."""

    def __init__(self, work: PlaneWork, mosaic: Mosaic, client: Any) -> None:
        self.client = client
        self._counted, self._threads = -math.inf, 1
        self._seen: float | None = None  # when there was a worker
        self._here = work
        self._finding: OrderedDict[Common, Any] = OrderedDict()
        # As the result of a task, it is sent once to each worker, and again to those that come
        # later or instead of one that died.
        self._work, self._mosaic = (
            client.submit(_itself, one, pure=False) for one in (work, mosaic)
        )

    @property
    def at_once(self) -> int:
        """Twice as many as there are threads, which come and go."""
        now = time.monotonic()
        if now > self._counted + _COUNTED_SECONDS:
            threads = sum(self.client.nthreads().values())
            self._threads, self._counted = max(1, threads), now
            if threads:
                self._seen = now
            elif self._seen is not None and now - self._seen > LOST_SECONDS:
                raise DeviceError(
                    f"All workers are gone, and none came back within {LOST_SECONDS / 60:.0f} "
                    "minutes; what is done is kept, so start workers again and resume the run."
                )
        return 2 * self._threads

    def ahead(self, tiles: Iterator[Index]) -> Iterator[Index]:
        waiting: deque[Index] = deque()
        for index in tiles:
            self._find_common(index)
            waiting.append(index)
            while len(waiting) > self.at_once:
                yield waiting.popleft()
        yield from waiting

    def tile(self, index: Index, made: Any) -> Any:
        found = self._find_common(index)
        return self.client.submit(
            _tile_there, self._work, self._mosaic, index, made, found, pure=False
        )

    def _find_common(self, index: Index) -> list[Any]:
        """Begin to find what a tile has in common with others, unless that was begun before."""
        found = []
        for common in common_of(self._here, index):
            if common not in self._finding:
                # Before all else, since several wait for it.
                self._finding[common] = self.client.submit(
                    _find_there, self._work, common, pure=False, priority=2
                )
            self._finding.move_to_end(common)
            found.append(self._finding[common])
        while len(self._finding) > _HELD:
            self._finding.popitem(last=False)
        return found

    def pack(self, shard: Index) -> Any:
        # Before other tiles, so that few files of tiles lie about.
        return self.client.submit(_pack_there, self._mosaic, shard, pure=False, priority=1)

    def first(self, futures: Iterable[Any]) -> set[Any]:
        from distributed import wait as wait_cluster

        try:
            with self.client.as_current():  # it need not be the default one
                both = wait_cluster(list(futures), _ASKED_SECONDS, return_when=FIRST_COMPLETED)
        except TimeoutError:
            return set()
        done: set[Any] = both.done
        return done

    def result(self, future: Any) -> Any:
        from distributed import KilledWorker

        try:
            return future.result()
        except KilledWorker as error:
            raise DeviceError(
                f"Workers died again and again at the same task ({error.task}), probably because "
                "memory ran out; choose a smaller tile, or fewer workers a machine."
            ) from None

    def spread(
        self, function: Callable[..., Any], jobs: Iterable[Job], after: Callable[[], object]
    ) -> None:
        waiting = iter(jobs)
        at_work: set[Any] = set()
        try:
            while True:
                for job in itertools.islice(waiting, max(0, self.at_once - len(at_work))):
                    at_work.add(self.client.submit(function, *job, pure=False))
                if not at_work:
                    return
                done = self.first(at_work)
                at_work -= done
                for future in done:
                    self.result(future)
                    after()
        finally:
            for future in at_work:
                future.cancel()


@contextmanager
def pool_for(work: PlaneWork, mosaic: Mosaic, client: Any) -> Iterator[Pool]:
    """Offer what computes tiles and packs shards: on a cluster, or without one in threads here."""
    with ExitStack() as held:
        yield _Threads(work, mosaic, held) if client is None else _Cluster(work, mosaic, client)


@contextmanager
def processes(count: int, threads: int = 0) -> Iterator[Any]:
    """Offer a client of worker processes on this machine.

    Parameters
    ----------
    count : int
        Of processes; each computes one tile at a time.
    threads : int
        Cores that a tile may take; by default the processes share all of them.

    Raises
    ------
    RecipeError
        If the package distributed is not installed.
    """
    try:
        from dask import config
        from distributed import Client, LocalCluster
    except ImportError:
        raise RecipeError(
            f"{count} workers need the package distributed; install napari-demoe[cluster], or "
            "leave workers at 1."
        ) from None
    share = str(threads or max(1, (os.cpu_count() or 1) // count))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    settings = {
        "distributed.comm.timeouts.connect": "120s",  # on a machine that is busy
        # The allocator as it is elsewhere: told to trim, it gives back memory that the next layer
        # of a network asks for again, and the system clears each page of it.
        "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
        # Nobody looks at these, a hundred and fifty times a second.
        "distributed.worker.profile.enabled": False,
        "distributed.admin.tick.interval": "1s",
    }
    with (
        # Workers inherit these, and dask's own settings of that name only count without them.
        _environment(dict.fromkeys(names, share)),
        config.set(settings),
        LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            # Tiles are as large as the recipe says, whatever a worker's share of the memory.
            memory_limit=0,
            dashboard_address=":0",  # nobody's, whatever else runs here
            silence_logs=50,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def keep_tile(work: PlaneWork, mosaic: Mosaic, index: Index, made: Any = None) -> Kept:
    """Compute a tile and keep its pixels."""
    values, failed, reads = compute_tile(work, index, made)
    mosaic.put(index, values)
    return Kept(index, failed, reads)


def _find_there(work: PlaneWork, common: Common) -> Found:
    work.memory.note_reads()
    return work.find(common)


def _tile_there(
    work: PlaneWork, mosaic: Mosaic, index: Index, made: Any, common: list[Found]
) -> Kept:
    _check_sight(mosaic)
    work.memory.note_reads()
    for found in common:
        work.memory.learn(found)
    return keep_tile(work, mosaic, index, made)


def _pack_there(mosaic: Mosaic, shard: Index) -> None:
    _check_sight(mosaic)
    mosaic.pack(shard)


def _check_sight(mosaic: Mosaic) -> None:
    """Refuse, on a worker, to compute what cannot be kept."""
    if not mosaic.tiles.is_dir():
        raise OutputError(
            f"The worker on {socket.gethostname()} does not see the folder {mosaic.tiles.parent}; "
            "write the output to a disk that all workers share, under the same path."
        )


def _itself(value: Any) -> Any:
    return value
