"""Cases are read in processes that may die: with bounded memory, and killed after some seconds."""

import multiprocessing
import os
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import psutil

SECONDS = 10.0
"""Time of the processor after which a case is a hang, however busy the machine is."""

WAITING = 120.0
"""Seconds after which it is one that does nothing, such as one that waits for a pipe."""

GROWTH = 2**30
"""Bytes that reading a case may take beside what the process has."""

_CEILING = 6 * 2**30
"""Bytes after which a process gets no more, so that a bomb harms nobody."""

BAD = ("sentence", "traceback", "escaped", "crash", "hang", "memory")
"""Verdicts that no case may have."""


@dataclass(frozen=True)
class Verdict:
    """What became of a case.

    Attributes
    ----------
    seed : int
        Makes the same case again.
    name : str
        The file of the corpus.
    what : str
        "opened", "refused", or one of `BAD`.
    words : str
        More about it.
    """

    seed: int
    name: str
    what: str
    words: str


def judge(seeds: Iterable[int], place: Path, workers: int = 2) -> Iterator[Verdict]:
    """Read a case for each seed, in any order; the corpus is at `place` (`fuzz.corpus.build`)."""
    left = iter(seeds)
    running = [_Worker(place) for _ in range(workers)]
    busy = {worker for worker in running if worker.give(next(left, None))}
    try:
        while busy:
            ready = wait([worker.mine for worker in busy], timeout=0.2)
            for worker in list(busy):
                verdict = worker.verdict(worker.mine in ready)
                if verdict is None:
                    continue
                yield verdict
                if not worker.give(next(left, None)):
                    busy.discard(worker)
    finally:
        for worker in running:
            worker.stop()


class _Worker:
    """A process that reads one case after another, and is replaced when it dies."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.seed: int | None = None
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.mine, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.place), daemon=True)
        self.process.start()
        theirs.close()
        self.since: float | None = None  # once it says that it is ready
        self.used = 0.0

    def give(self, seed: int | None) -> bool:
        self.seed = seed
        if seed is not None and self.since is not None:
            self.since, self.used = time.monotonic(), self.processor()
            self.mine.send(seed)
        return seed is not None

    def verdict(self, ready: bool) -> Verdict | None:
        seed = self.seed
        assert seed is not None
        try:
            if ready:
                answer = self.mine.recv()
                if answer is None:  # it has begun
                    self.since = 0.0
                    self.give(seed)
                    return None
                return Verdict(seed, *answer)
        except EOFError:
            self.process.join()
            code = self.process.exitcode
            self.again()
            return Verdict(seed, case_name(seed), "crash", f"exit code {code}")
        if self.since is None:
            return None
        worked, waited = self.processor() - self.used, time.monotonic() - self.since
        if worked > SECONDS or waited > WAITING:
            self.again()
            words = f"{worked:.0f} s of work in {waited:.0f} s"
            return Verdict(seed, case_name(seed), "hang", words)
        return None

    def processor(self) -> float:
        """Return the seconds that the process has worked."""
        try:
            times = psutil.Process(self.process.pid).cpu_times()
        except psutil.NoSuchProcess:  # it died just now, which the pipe will tell
            return 0.0
        return float(times.user + times.system)

    def again(self) -> None:
        self.stop()
        shutil.rmtree(self.place / "cases" / str(self.seed), ignore_errors=True)
        self.start()

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.process.close()
        self.mine.close()


def case_name(seed: int) -> str:
    """Return which file of the corpus a seed spoils."""
    from fuzz.corpus import MAKERS

    return list(MAKERS)[seed % len(MAKERS)]


def make_case(seed: int, place: Path) -> Path:
    """Write the case of a seed; returns the path to be read."""
    import numpy as np

    from fuzz.corpus import SECRET
    from fuzz.mutators import spoil

    name = case_name(seed)
    folder = place / "cases" / str(seed)
    shutil.copytree(place / "corpus" / name, folder)
    spoil(np.random.default_rng(seed), folder / name, place / SECRET)
    return folder / name


def _serve(theirs: Connection, place: Path) -> None:
    warnings.simplefilter("ignore")
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    import torch

    from fuzz.attempts import attempt, watch
    from fuzz.corpus import MAKERS, SECRET
    from fuzz.mutators import bombs

    bombs()
    torch.set_num_threads(1)
    watch(place / SECRET)
    resource.setrlimit(resource.RLIMIT_AS, (_CEILING, _CEILING))
    theirs.send(None)
    while True:
        seed: int = theirs.recv()
        path = make_case(seed, place)
        name = case_name(seed)
        before = _memory("VmRSS", reset=True)
        what, words = attempt(MAKERS[name][0], path, place / SECRET)
        grown = _memory("VmHWM") - before
        if grown > GROWTH and what not in BAD:
            what, words = "memory", f"{grown / 2**20:.0f} MiB; {words}"
        shutil.rmtree(place / "cases" / str(seed), ignore_errors=True)
        answer: tuple[Any, ...] = (name, what, words)
        theirs.send(answer)


def _memory(which: str, reset: bool = False) -> int:
    """Return what the process has (VmRSS) or had at most (VmHWM) in bytes."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if which in x)
    return int(line.split()[1]) * 1024
