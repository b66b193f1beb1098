"""Signals that ask a process to end, as an exception: files are closed, one sentence is said."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_SIGNALS = ("SIGTERM", "SIGHUP")  # a scheduler's limit or a shutdown; a terminal that closes


class Stopped(BaseException):
    """A signal asked the process to end.

    Attributes
    ----------
    code : int
        Exit code that shells expect: 128 and the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


@contextmanager
def signals_stop() -> Iterator[None]:
    """Raise `Stopped` where such a signal comes, unless it is ignored as by nohup."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in _SIGNALS:
            number = getattr(signal, name, None)  # not all systems have all
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(number)
