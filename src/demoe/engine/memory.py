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
    "extent": 16,  # of at most 1 MB each
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
        self._telling = threading.RLock()
        self.scale: IntensityScale | None = None
        self.failed: dict[Plane, set[tuple[int, int]]] = {}
        self.too_large = math.inf
        self.device = ""
        self.reads: dict[tuple[Plane, Box], bytes] | None = None
        self._kept: dict[str, OrderedDict[Any, Any]] = {kind: OrderedDict() for kind in _REMEMBERED}
        self._told: dict[tuple[str, Any], Any] | None = None
        self._making: dict[tuple[str, Any], threading.RLock] = {}

    def once(self, kind: str, key: Any, make: Callable[[], Any]) -> Any:
        """Return what was computed under a key, computing it at the first call.

        Others that ask for the same meanwhile wait; who asks for something else does not.
        """
        slot = kind, key
        with self.lock:
            if key in self._kept[kind]:
                return self._take(slot)
            making = self._making.setdefault(slot, threading.RLock())
        with making:
            with self.lock:
                if key in self._kept[kind]:  # made while this waited
                    return self._take(slot)
            check()  # what was found so far stays, and is not sought again
            try:
                made = make()
                with self.lock:
                    self._keep(slot, made)
                    return self._take(slot)
            finally:
                with self.lock:
                    self._making.pop(slot, None)

    def _keep(self, slot: tuple[str, Any], made: Any) -> None:
        kind, key = slot
        kept = self._kept[kind]
        kept[key] = made
        while len(kept) > _REMEMBERED[kind]:
            kept.popitem(last=False)

    def _take(self, slot: tuple[str, Any]) -> Any:
        kind, key = slot
        self._kept[kind].move_to_end(key)
        if self._told is not None and kind in _TOLD:
            self._told[slot] = self._kept[kind][key]
        return self._kept[kind][key]

    def found(self, key: Any, find: Callable[[], object]) -> Found:
        """Return what something finds out or knows that others can be told.

        The first time, it is read what that takes; later calls with the same key give the same.
        What is found at the same time for something else may be among it.
        """

        def collect() -> Found:
            with self._telling:
                with self.lock:
                    earlier, self.reads = self.reads, {}
                    self._told = {}
                try:
                    find()
                    with self.lock:
                        return Found(self._told, self.reads)
                finally:
                    with self.lock:
                        if earlier is not None:
                            earlier |= self.reads
                        self.reads, self._told = earlier, None

        found: Found = self.once("found", key, collect)
        return found

    def learn(self, found: Found) -> None:
        """Know what was found elsewhere; what was read for it counts as read here."""
        with self.lock:
            new = [(kind, key) for kind, key in found.values if key not in self._kept[kind]]
            for slot in new:
                self._keep(slot, found.values[slot])
            if new and self.reads is not None:
                self.reads |= found.reads

    def note_reads(self) -> None:
        """From now on, note what is read of the image."""
        with self._telling, self.lock:
            if self.reads is None:
                self.reads = {}

    def take_reads(self) -> dict[tuple[Plane, Box], bytes]:
        """Return what was read since the last call, and go on noting."""
        with self._telling, self.lock:
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
