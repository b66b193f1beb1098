"""What is remembered of a piece of work in a process; it only saves time.

Copies of the same work share it: on a cluster every task brings one of its own.
"""

from __future__ import annotations

import functools
import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from demoe.image.intensity import IntensityScale
from demoe.plan.tiling import Plane

_REMEMBERED = {
    "decision": 64,
    "statistics": 64,
    "kernel": 4096,
    "block": 4096,  # of at most 50 kB each
    "window": 16,  # of at most 3 MB each
}


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
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.scale: IntensityScale | None = None
        self.failed: dict[Plane, set[tuple[int, int]]] = {}
        self.too_large = math.inf
        self.device = ""
        self._kept: dict[str, OrderedDict[Any, Any]] = {kind: OrderedDict() for kind in _REMEMBERED}

    def once(self, kind: str, key: Any, make: Callable[[], Any]) -> Any:
        """Return what was computed under a key, computing it at the first call."""
        with self.lock:
            kept = self._kept[kind]
            if key not in kept:
                kept[key] = make()
                while len(kept) > _REMEMBERED[kind]:
                    kept.popitem(last=False)
            kept.move_to_end(key)
            return kept[key]

    def failed_in(self, plane: Plane) -> set[tuple[int, int]]:
        """Return the cells of a plane found so far whose restoration was not plausible."""
        with self.lock:
            return self.failed.setdefault(plane, set())

    def take_from(self, other: Memory) -> None:
        """Know all that another knows, but for what failed."""
        with other.lock:
            self.scale, self.too_large, self.device = other.scale, other.too_large, other.device
            self._kept = {kind: kept.copy() for kind, kept in other._kept.items()}


@functools.lru_cache(maxsize=16)
def memory_of(_identity: str) -> Memory:
    """Return the memory of a piece of work in this process."""
    return Memory()
