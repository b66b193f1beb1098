"""One writer at a time for each output, on this machine and on others that see its folder.

A hidden file beside the output is locked by the operating system: that holds while the process
lives, frozen or not, and ends with it, however it dies. Some shared folders keep such locks to each
machine, or have none. So the file also says who holds it, and is touched every few seconds: a
holder on another machine counts as living until it was silent for a minute, by the folder's clock.
Whoever was frozen for longer finds out that another took over before it gives a name to anything.

The package filelock has both halves, but not together: its system lock knows no heartbeat, and its
lease gives a frozen process's place away on the same machine too.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from demoe.errors import OutputError
from demoe.io.atomic import check_folder, refused

if sys.platform != "win32":
    import fcntl

RENEWED_SECONDS = 5.0
SILENT_SECONDS = 60.0
_BEGINNING_SECONDS = 1.0
_OWNER = ("token", "machine", "host", "process", "began")
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}


@dataclass(eq=False)
class OutputLock:
    """A lock that is held; see `hold`.

    Attributes
    ----------
    target : Path
        The output.
    """

    target: Path
    _descriptor: int
    _place: Path
    _token: str

    def check(self) -> None:
        """Ask whether the lock is still held.

        Raises
        ------
        OutputError
            If another process took over.
        """
        if not self._is_ours():
            raise OutputError(
                f"{self.target} was taken over by another run, or {self._place.name} was removed, "
                "so this run ends without writing it; run only one at a time."
            )

    def renew(self) -> None:
        """Show that this process lives."""
        if self._is_ours():
            with suppress(OSError):
                os.utime(self._place)

    def release(self) -> None:
        """Give the lock back; nothing of it stays."""
        if self._is_ours():
            with suppress(OSError):
                self._place.unlink()  # while it is still held, so that nobody's else is removed
        os.close(self._descriptor)

    def _is_ours(self) -> bool:
        with suppress(OSError):
            return (
                _is_at(self._descriptor, self._place)
                and _owner(self._place).get("token") == self._token
            )
        return True  # the folder cannot be reached: nobody else can write there either


@contextmanager
def hold(target: Path) -> Iterator[OutputLock]:
    """Be the only one who writes an output, and what belongs to it.

    Parameters
    ----------
    target : Path
        The output; its folder must exist.

    Yields
    ------
    OutputLock
        To be checked before anything gets a name.

    Raises
    ------
    OutputError
        If another living process writes there, or the folder cannot be written to.
    """
    check_folder(target)
    place = target.with_name(f".{target.name}.demoe-lock")
    try:
        lock = _acquire(target, place)
    except OSError as error:
        raise refused(target, error) from error
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(RENEWED_SECONDS):
            lock.renew()

    beating = threading.Thread(target=beat, name="demoe-lock", daemon=True)
    beating.start()
    try:
        yield lock
    finally:
        ended.set()
        beating.join()
        lock.release()


def _acquire(target: Path, place: Path) -> OutputLock:
    while True:
        descriptor, created = _open(place)
        try:
            # Whoever made the file comes before one who finds it empty, and lets go.
            held = _lock(descriptor, patience=_BEGINNING_SECONDS if created else 0.0)
            if held is False:
                raise _taken(target, _owner(place))
            if _is_at(descriptor, place):  # else its holder has just removed it
                if not created:
                    _check_silent(target, descriptor, place, reliable=held is True)
                token = uuid.uuid4().hex
                _write_owner(descriptor, token)
                return OutputLock(target, descriptor, place, token)
        except BaseException:
            if created:
                place.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open(place: Path) -> tuple[int, bool]:
    """Open the file, and say whether it was made."""
    while True:
        with suppress(FileExistsError):
            return os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        with suppress(FileNotFoundError):  # removed in between
            return os.open(place, os.O_RDWR), False


def _lock(descriptor: int, patience: float) -> bool | None:
    """Lock by the operating system: True, False where another holds it, None where it cannot."""
    if sys.platform == "win32":
        return None
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return None
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        if time.monotonic() > until:
            return False
        time.sleep(0.05)


def _check_silent(target: Path, descriptor: int, place: Path, *, reliable: bool) -> None:
    """Refuse a file that was left, or is held, by a process that may live.

    With a ``reliable`` lock, one of this machine cannot.
    """
    owner = _owner(place)
    if reliable and owner.get("machine") == _machine():
        return
    with tempfile.TemporaryFile(dir=place.parent) as probe:  # tells the time on the folder's clock
        silent = os.fstat(probe.fileno()).st_mtime - os.fstat(descriptor).st_mtime
    if silent < SILENT_SECONDS:
        raise _taken(target, owner, silent)


def _taken(target: Path, owner: dict[str, str], silent: float | None = None) -> OutputError:
    who = "another process"
    if owner:
        who = f"process {owner['process']} on {owner['host']}, since {owner['began']}"
    after = "" if silent is None else f"; if that one died, this shows {SILENT_SECONDS:.0f} s after"
    return OutputError(
        f"{target} is being written by another run ({who}); wait until it ends, or choose another "
        f"name{after}."
    )


def _owner(place: Path) -> dict[str, str]:
    """Return who holds the file; nothing if it does not say."""
    try:
        with place.open("rb") as file:
            owner = json.loads(file.read(4096))
        return {key: str(owner[key])[:80] for key in _OWNER}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def _write_owner(descriptor: int, token: str) -> None:
    owner = {
        "token": token,
        "machine": _machine(),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "began": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    os.truncate(descriptor, 0)
    os.write(descriptor, json.dumps(owner).encode())
    os.fsync(descriptor)


@lru_cache(maxsize=1)
def _machine() -> str:
    """Name the running system whose locks this process sees; containers on it share it."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()}-{uuid.getnode()}"


def _is_at(descriptor: int, place: Path) -> bool:
    """Whether an open file still has its name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(place))
    return False
