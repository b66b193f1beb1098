"""One writer at a time for each output."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demoe.errors import OutputError
from demoe.io import lock
from demoe.io.lock import hold

HOLDER = """
import sys
from pathlib import Path
from demoe.io.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

MANY = """
import os, sys
from pathlib import Path
from demoe.errors import OutputError
from demoe.io.lock import hold
target, inside = Path(sys.argv[1]), sys.argv[1] + ".inside"
held = 0
for _ in range(300):
    try:
        with hold(target) as lock:
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails if another is inside
            lock.check()
            os.unlink(inside)
            held += 1
    except OutputError as error:
        assert "another run" in str(error), error
print(held)
"""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.ome.zarr"


def place(target: Path) -> Path:
    return target.with_name(f".{target.name}.demoe-lock")


@contextmanager
def held_elsewhere(target: Path) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold the lock until the block ends."""
    command = [sys.executable, "-c", HOLDER, str(target)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def is_free(target: Path) -> bool:
    try:
        with hold(target):
            return True
    except OutputError:
        return False


def test_a_lock_leaves_nothing_and_can_be_had_again(target: Path) -> None:
    for _ in range(2):
        with hold(target) as held:
            held.check()
            assert [path.name for path in target.parent.iterdir()] == [place(target).name]
        assert list(target.parent.iterdir()) == []
    with pytest.raises(KeyError), hold(target):
        raise KeyError
    assert list(target.parent.iterdir()) == []


def test_a_second_process_is_told_who_is_first(target: Path) -> None:
    with held_elsewhere(target) as process:
        words = f"being written by another run .process {process.pid} on .*, since 20.*; wait until"
        with pytest.raises(OutputError, match=words), hold(target):
            pass
        process.communicate("")
        assert is_free(target)
    assert list(target.parent.iterdir()) == []


def test_a_process_that_was_killed_holds_nothing(target: Path) -> None:
    with held_elsewhere(target) as process:
        process.kill()
        process.wait()
        assert place(target).exists()
        with hold(target) as held:
            held.check()
    assert list(target.parent.iterdir()) == []


def test_a_frozen_process_still_holds_it(target: Path) -> None:
    with held_elsewhere(target) as process:
        os.kill(process.pid, signal.SIGSTOP)
        long_ago = time.time() - 10 * lock.SILENT_SECONDS
        os.utime(place(target), (long_ago, long_ago))
        assert not is_free(target)
        process.kill()


def test_two_threads_of_a_process_are_two(target: Path) -> None:
    with hold(target):
        assert not is_free(target)
        found: list[bool] = []
        thread = threading.Thread(target=lambda: found.append(is_free(target)))
        thread.start()
        thread.join()
        assert found == [False]
    assert is_free(target)


def test_many_processes_never_hold_it_together(target: Path) -> None:
    commands = [[sys.executable, "-c", MANY, str(target)] for _ in range(4)]
    processes = [subprocess.Popen(c, stdout=subprocess.PIPE, text=True) for c in commands]
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert sum(map(int, said)) > 0
    assert list(target.parent.iterdir()) == []


def left_by_another_machine(target: Path, ago: float) -> None:
    owner = {"token": "t", "machine": "m", "host": "far", "process": 7, "began": "2026-01-01"}
    place(target).write_text(json.dumps(owner))
    when = time.time() - ago
    os.utime(place(target), (when, when))


def test_a_process_on_another_machine_counts_while_it_is_heard_of(target: Path) -> None:
    left_by_another_machine(target, ago=lock.SILENT_SECONDS - 20)
    words = r"process 7 on far, since 2026-01-01\); .* if that one died, this shows 60 s after\."
    with pytest.raises(OutputError, match=words), hold(target):
        pass
    assert json.loads(place(target).read_text())["host"] == "far"  # as it was
    left_by_another_machine(target, ago=lock.SILENT_SECONDS + 1)
    assert is_free(target)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"token": "t"}', bytes(9000)])
def test_a_file_that_says_nothing_counts_for_a_minute(target: Path, content: bytes) -> None:
    place(target).write_bytes(content)
    assert not is_free(target)
    when = time.time() - lock.SILENT_SECONDS - 1
    os.utime(place(target), (when, when))
    assert is_free(target)


def test_where_the_system_has_no_locks_silence_decides(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", without)
    with hold(target) as first:
        assert not is_free(target)
        when = time.time() - lock.SILENT_SECONDS - 1
        os.utime(place(target), (when, when))
        with hold(target) as second:  # the first was frozen for so long
            with pytest.raises(OutputError, match="taken over by another run"):
                first.check()
            first.renew()
            assert not is_free(target)
            second.check()
        assert not place(target).exists()
        with pytest.raises(OutputError, match="taken over by another run"):
            first.check()
    assert list(target.parent.iterdir()) == []


def test_whoever_lost_the_lock_removes_nobody_elses(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hold(target):
        place(target).unlink()
        second = hold(target)
        second.__enter__()
    assert not is_free(target)
    second.__exit__(None, None, None)
    assert list(target.parent.iterdir()) == []


def test_a_holder_shows_that_it_lives(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RENEWED_SECONDS", 0.01)
    with hold(target):
        os.utime(place(target), (1, 1))
        patience = time.monotonic() + 60
        while place(target).stat().st_mtime < 2 and time.monotonic() < patience:
            time.sleep(0.01)
        assert place(target).stat().st_mtime > 2


def test_a_full_disk_is_told_and_leaves_nothing(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OutputError, match="disk is full"), hold(target):
            pass
    assert list(target.parent.iterdir()) == []


def test_a_folder_that_is_read_only_is_told_as_such(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mounted:
        f_flag = os.ST_RDONLY

    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="may not write to the folder"), hold(target):
        pass
    monkeypatch.setattr(os, "statvfs", lambda _: Mounted)
    with pytest.raises(OutputError, match="the disk is read-only; choose another"), hold(target):
        pass
