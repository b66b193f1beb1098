"""The same for many things, on several processors: by threads here, or in other ways elsewhere."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

Job = tuple[Any, ...]
Spread = Callable[[Callable[..., Any], Iterable[Job], Callable[[], object]], None]
"""Calls a function with the arguments of each job, in any order, and another after each."""

AT_ONCE = 4
"""Jobs at once at most: each holds some tens of megabytes."""


def threads() -> int:
    """Return how many jobs to do at once on this machine."""
    return min(AT_ONCE, os.cpu_count() or 1)


def over_threads(
    function: Callable[..., Any], jobs: Iterable[Job], after: Callable[[], object] = lambda: None
) -> None:
    """Call a function for each job in a few threads; see `Spread`.

    No more jobs are taken than are worked on. An error ends it, after the jobs at work.
    """
    waiting = iter(jobs)
    with ThreadPoolExecutor(threads(), thread_name_prefix="demoe-write") as pool:
        at_work: set[Future[Any]] = set()
        while True:
            for job in itertools.islice(waiting, threads() - len(at_work)):
                at_work.add(pool.submit(function, *job))
            if not at_work:
                return
            done, at_work = wait(at_work, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                after()


def in_order(function: Callable[..., Any], jobs: Iterable[Job]) -> Iterator[Any]:
    """Call a function for each job in a few threads, and give what it returns in their order.

    To be closed, if it is not exhausted.
    """
    with ThreadPoolExecutor(threads(), thread_name_prefix="demoe-read") as pool:
        ahead: deque[Future[Any]] = deque()
        try:
            for job in jobs:
                ahead.append(pool.submit(function, *job))
                if len(ahead) > 2 * threads():
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
