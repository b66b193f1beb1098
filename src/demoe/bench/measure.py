"""Seconds and memory of a piece of work, and what the machine could do at best."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from demoe.model.devices import give_back, wait_for

SAMPLING_SECONDS = 0.005
"""Time between two looks at the resident memory."""

MATRIX_SIDES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}
"""Sides of the square matrices that are tried; the fastest product counts."""

MATRIX_SECONDS = 0.3
"""How long to multiply at each side; the median product counts."""


@dataclass(frozen=True)
class Timing:
    """What some runs of the same work took.

    Attributes
    ----------
    seconds : tuple of float
        Each run, in order; the first one includes what is only done once.
    peak_bytes : int or None
        Most memory above the idle process during all of them; on CUDA, of the device. None where
        the system does not tell.
    """

    seconds: tuple[float, ...]
    peak_bytes: int | None

    @property
    def median(self) -> float:
        """Seconds of the run in the middle."""
        return statistics.median(self.seconds)


def timed(
    work: Callable[[], object], repeats: int, device: torch.device, idle: int | None
) -> Timing:
    """Run work some times.

    Parameters
    ----------
    work : callable
        What to time; its result is dropped.
    repeats : int
        How often.
    device : torch.device
        Where it computes; a CUDA device is waited for.
    idle : int or None
        What `memory_in_use` said before there was any work in this process.
    """
    give_memory_back(device)
    seconds = []
    with PeakMemory(device) as peak:
        for _ in range(repeats):
            began = time.perf_counter()
            work()
            wait_for(device)
            seconds.append(time.perf_counter() - began)
    above = None if peak.bytes is None or idle is None else max(0, peak.bytes - idle)
    return Timing(tuple(seconds), above)


def matrix_product_rate(device: torch.device) -> float:
    """Return the rate of the fastest float32 matrix product on a device, in GFLOP/s."""
    best = 0.0
    for side in MATRIX_SIDES[device.type]:
        a, b = torch.rand(2, side, side, device=device)
        product = torch.mm(a, b)  # the first one pays for threads and buffers
        wait_for(device)
        taken: list[float] = []
        while sum(taken) < MATRIX_SECONDS:
            began = time.perf_counter()
            torch.mm(a, b, out=product)
            wait_for(device)
            taken.append(time.perf_counter() - began)
        best = max(best, 2 * side**3 / statistics.median(taken) / 1e9)
    return best


class PeakMemory:
    """Watch the memory while a block runs.

    Attributes
    ----------
    bytes : int or None
        After the block: the most that was in use, on a CUDA device allocated there, else resident
        in this process. None where the system does not tell.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes: int | None = None
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="demoe-memory", daemon=True)

    def _look(self) -> None:
        now = memory_in_use(self.device)
        if now is not None:
            self.bytes = max(now, self.bytes or 0)

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLING_SECONDS):
            self._look()

    def __enter__(self) -> Self:
        """Begin to watch."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._look()
            self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End watching."""
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device)
        else:
            self._stop.set()
            self._watcher.join()
            self._look()


def memory_in_use(device: torch.device) -> int | None:
    """Return bytes allocated on a CUDA device, else bytes of this process that are resident.

    Where the system tells only the highest value so far (macOS), that one; its rise is then a
    lower bound. None where it tells nothing.
    """
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pass
    if sys.platform == "win32":
        return None
    import resource

    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else 1024 * highest


def give_memory_back(device: torch.device) -> None:
    """Return freed memory to the system, so that the next peak is not hidden by an earlier one."""
    gc.collect()
    give_back(device)
    if sys.platform.startswith("linux"):
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except (OSError, AttributeError):  # another C library: nothing was kept there
            return


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Return what of this machine matters for speed, JSON-able, without names of host or user."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    facts: dict[str, Any] = {
        "processor": _processor_name(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": "cpu",
    }
    if hasattr(os, "getloadavg"):
        facts["load_at_start"] = round(os.getloadavg()[0], 2)
    if device.type == "cuda":
        facts["device"] = torch.cuda.get_device_name(device)
        facts["tf32_convolutions"] = torch.backends.cudnn.allow_tf32
    return facts


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
