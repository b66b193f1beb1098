"""Make the C allocator keep what it frees.

A network's temporaries are large. By default glibc maps and unmaps each of them, and most of the
time on a CPU goes into page faults; told to keep freed memory, the same code runs 3-4 times faster.
One heap for all threads: each heap would keep what its thread once needed, and only the first one
holds blocks of more than 64 MB.
"""

from __future__ import annotations

import ctypes
import functools
import sys

# Parameter numbers of mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_LIMIT = 2**31 - 1


@functools.cache
def share_one_heap() -> bool:
    """Ask glibc to let new threads use the first heap; True where that worked.

    Threads that run already keep the heaps that they have, so it is best asked early.
    """
    return _ask({_M_ARENA_MAX: 1})


@functools.cache
def keep_freed_memory() -> bool:
    """Ask glibc to reuse large blocks instead of returning them; True where that worked."""
    return share_one_heap() and _ask({_M_MMAP_THRESHOLD: _LIMIT, _M_TRIM_THRESHOLD: _LIMIT})


def _ask(wanted: dict[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, e.g. musl
        return False
    return all([mallopt(name, value) for name, value in wanted.items()])
