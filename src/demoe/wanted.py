"""Whether anybody still wants what is computed: asked between the steps of what takes long.

Who starts work says in its own thread how to ask; what is deep inside it needs no argument for it,
and without anybody who said so, everything is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from demoe.errors import Cancelled

_is_wanted: ContextVar[Callable[[], bool]] = ContextVar("is_wanted", default=lambda: True)


@contextmanager
def as_long_as(is_wanted: Callable[[], bool]) -> Iterator[None]:
    """Let `check` ask a function, in this thread and in this block."""
    before = _is_wanted.set(is_wanted)
    try:
        yield
    finally:
        _is_wanted.reset(before)


def check() -> None:
    """Raise Cancelled where nobody wants what is computed in this thread any more."""
    if not _is_wanted.get()():
        raise Cancelled("The work was stopped before it was done; what was finished is kept.")
