"""What is remembered of a piece of work in a process; it only saves time.

Copies of the same work share it: on a cluster every task brings one of its own.
"""

from __future__ import annotations

import functools
import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from demoe.image.intensity import IntensityScale
from demoe.plan.tiling import Box, Plane
from demoe.wanted import check

_REMEMBERED = {
    "decision": 64,
    "statistics": 64,
    "kernel": 4096,
    "block": 4096,  # of at most 50 kB each
    "window": 16,  # of at most 3 MB each
    "ceiling": 1,
    "found": 4096,
}

_TOLD = frozenset({"decision", "statistics", "kernel", "block"})
"""What is small, takes long to find, and is told to other processes."""


@dataclass(frozen=True)
class Found:
    """What was found in one process and is told to others.

    Attributes
    ----------
    values : dict
        By kind and key.
    reads : dict
        What was read of the image for it: a digest of each rectangle.
    """

    values: dict[tuple[str, Any], Any]
    reads: dict[tuple[Plane, Box], bytes]


class Memory:
    """What the copies of one piece of work have found out so far.

    Attributes
    ----------
    scale : IntensityScale or None
        How pixel values become [0, 1].
    failed : dict
        Cells whose restoration was not plausible, by plane.
    too_large : float
        Pixels of the smallest read for which the device had too little memory.
    device : str
        Where to go on when the recipe's device is too small.
    reads : dict or None
        What was read of the image since it was last taken, by plane and rectangle: a digest of
        each. None where nobody asked for it.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.scale: IntensityScale | None = None
        self.failed: dict[Plane, set[tuple[int, int]]] = {}
        self.too_large = math.inf
        self.device = ""
        self.reads: dict[tuple[Plane, Box], bytes] | None = None
        self._kept: dict[str, OrderedDict[Any, Any]] = {kind: OrderedDict() for kind in _REMEMBERED}
        self._told: dict[tuple[str, Any], Any] | None = None

    def once(self, kind: str, key: Any, make: Callable[[], Any]) -> Any:
        """Return what was computed under a key, computing it at the first call."""
        with self.lock:
            kept = self._kept[kind]
            if key not in kept:
                check()  # what was found so far stays, and is not sought again
                kept[key] = make()
                while len(kept) > _REMEMBERED[kind]:
                    kept.popitem(last=False)
            kept.move_to_end(key)
            if self._told is not None and kind in _TOLD:
                self._told[kind, key] = kept[key]
            return kept[key]

    def found(self, key: Any, find: Callable[[], object]) -> Found:
        """Return what something finds out or knows that others can be told.

        The first time, it is read what that takes; later calls with the same key give the same.
        """

        def collect() -> Found:
            earlier, self.reads = self.reads, {}
            self._told = {}
            try:
                find()
                return Found(self._told, self.reads)
            finally:
                if earlier is not None:
                    earlier |= self.reads
                self.reads, self._told = earlier, None

        found: Found = self.once("found", key, collect)
        return found

    def learn(self, found: Found) -> None:
        """Know what was found elsewhere; what was read for it counts as read here."""
        with self.lock:
            new = [(kind, key) for kind, key in found.values if key not in self._kept[kind]]
            for kind, key in new:
                self.once(kind, key, functools.partial(found.values.get, (kind, key)))
            if new and self.reads is not None:
                self.reads |= found.reads

    def note_reads(self) -> None:
        """From now on, note what is read of the image."""
        with self.lock:
            if self.reads is None:
                self.reads = {}

    def take_reads(self) -> dict[tuple[Plane, Box], bytes]:
        """Return what was read since the last call, and go on noting."""
        with self.lock:
            taken, self.reads = self.reads or {}, {}
            return taken

    def failed_in(self, plane: Plane) -> set[tuple[int, int]]:
        """Return the cells of a plane found so far whose restoration was not plausible."""
        with self.lock:
            return self.failed.setdefault(plane, set())

    def failed_among(self, plane: Plane, rows: range, cols: range) -> list[tuple[int, int]]:
        """Return those among some cells, in order."""
        failed = list(self.failed_in(plane))
        return sorted(cell for cell in failed if cell[0] in rows and cell[1] in cols)

    def take_from(self, other: Memory) -> None:
        """Know all that another knows, but for what failed."""
        with other.lock:
            self.scale, self.too_large, self.device = other.scale, other.too_large, other.device
            self._kept = {kind: kept.copy() for kind, kept in other._kept.items()}


@functools.lru_cache(maxsize=16)
def memory_of(_identity: str) -> Memory:
    """Return the memory of a piece of work in this process."""
    return Memory()
