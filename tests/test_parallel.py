"""Pieces of arithmetic side by side, and what they remember together."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from demoe.engine.memory import Memory
from demoe.engine.parallel import each
from demoe.errors import Cancelled
from demoe.plan.tiling import Box
from demoe.wanted import as_long_as, check

PLENTY = 60  # seconds after which a test that waits has failed


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_pieces_are_done_side_by_side_and_come_in_order() -> None:
    both = threading.Barrier(2)

    def meet(n: int) -> int:
        if n < 2:
            both.wait(PLENTY)  # would break if one came after the other
        return n * n

    assert list(each(meet, range(20))) == [n * n for n in range(20)]


@pytest.mark.usefixtures("two_threads")
def test_each_piece_computes_with_one_thread_and_others_keep_theirs() -> None:
    assert list(each(lambda _: torch.get_num_threads(), range(4))) == [1] * 4
    assert torch.get_num_threads() == 2
    found: list[int] = []
    new = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    new.start()
    new.join()
    assert found == [2]


@pytest.mark.usefixtures("two_threads")
def test_pieces_within_pieces_do_not_wait_for_each_other() -> None:
    assert list(each(lambda n: sum(each(abs, range(n))), range(8))) == [
        sum(range(n)) for n in range(8)
    ]


@pytest.mark.usefixtures("two_threads")
def test_a_piece_that_fails_says_so_and_the_rest_is_not_begun() -> None:
    begun: list[int] = []

    def fail(n: int) -> None:
        begun.append(n)
        raise ValueError(f"piece {n}")

    with pytest.raises(ValueError, match="piece 0"):
        list(each(fail, range(1000)))
    assert len(begun) < 100


@pytest.mark.usefixtures("two_threads")
def test_pieces_know_whether_they_are_wanted() -> None:
    with as_long_as(lambda: False), pytest.raises(Cancelled):
        list(each(lambda _: check(), range(3)))


@pytest.mark.usefixtures("two_threads")
def test_what_two_ask_for_is_found_once_and_others_do_not_wait() -> None:
    memory, made = Memory(), []
    other_found = threading.Event()

    def slow() -> str:
        made.append("slow")
        assert other_found.wait(PLENTY)
        return "slow"

    def ask(key: str) -> str:
        if key == "slow":
            return str(memory.once("kernel", key, slow))
        found = str(memory.once("kernel", key, lambda: key))
        other_found.set()
        return found

    assert list(each(ask, ["slow", "quick"])) == ["slow", "quick"]
    assert list(each(ask, ["slow", "slow", "quick"])) == ["slow", "slow", "quick"]
    assert made == ["slow"]


def test_what_failed_is_sought_again() -> None:
    memory = Memory()

    def fail() -> None:
        raise ValueError("not yet")

    with pytest.raises(ValueError, match="not yet"):
        memory.once("kernel", 1, fail)
    assert memory.once("kernel", 1, lambda: "found") == "found"


@pytest.mark.usefixtures("two_threads")
def test_what_is_found_side_by_side_is_told_with_what_was_read_for_it() -> None:
    memory = Memory()
    memory.note_reads()

    def look(n: int) -> int:
        def read() -> int:
            with memory.lock:
                assert memory.reads is not None
                memory.reads[(0, 0, n), Box(0, 0, 8, 8)] = b"digest"
            return n

        return int(memory.once("kernel", n, read))

    found = memory.found("all", lambda: list(each(look, range(6))))
    assert {key for _, key in found.values} == set(range(6))
    assert len(found.reads) == len(memory.take_reads()) == 6
    other = Memory()
    other.learn(found)
    assert other.once("kernel", 3, lambda: "sought again") == 3
