"""Many small pieces of arithmetic, one a core: quicker than each of them on all cores.

Transforms of windows are too short to be shared among threads; waking those costs more than they
save.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

import torch

MOST = 8
"""Pieces at once: each takes some memory."""

_AHEAD = 2  # pieces a thread that are begun before anybody asks for them

Item = TypeVar("Item")
Result = TypeVar("Result")

_within = threading.local()


def each(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Give what a function makes of each item, in order, several being worked on at once.

    As many as torch has threads, `MOST` at most. Few are done ahead of what is asked for. Where
    this is called by one of them, and where there is one thread, one after the other.

    Raises
    ------
    Exception
        What the function raises, at its turn; what was not begun is not begun any more.
    """
    threads = min(MOST, torch.get_num_threads())
    if threads == 1 or getattr(_within, "pool", False):
        yield from map(function, items)
        return
    pool, rest = _pool(threads), iter(items)
    waiting: deque[Future[Result]] = deque()
    try:
        while True:
            room = _AHEAD * threads - len(waiting)
            for item in itertools.islice(rest, room):
                waiting.append(pool.submit(copy_context().run, function, item))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return threads that compute with one core each."""
    own, started = torch.get_num_threads(), threading.Barrier(threads + 1)

    def start() -> None:
        _within.pool = True
        torch.get_num_threads()  # once asked, a thread keeps its own number
        torch.set_num_threads(1)  # counts in this thread, and for those that have not asked yet
        started.wait()

    pool = ThreadPoolExecutor(threads, "demoe-windows", start)
    for _ in range(threads):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(own)  # so that those have as many as before
    return pool
