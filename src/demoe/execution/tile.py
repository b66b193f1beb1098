"""One tile of a run, computed here or in another process."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from demoe.engine.reader import Read
from demoe.engine.work import PlaneWork
from demoe.execution.store import Index
from demoe.lazy import failed_cells, restore_block


def compute_tile(work: PlaneWork, index: Index) -> tuple[NDArray[Any], list[Index], list[Read]]:
    """Return a block, cells of the expert map in which the network failed, and what was read.

    That includes what was read for other tiles, since they share what follows from it. No graph is
    asked: to find a tile in one takes a time by all of its tiles.
    """
    work.memory.note_reads()
    values = restore_block(work, index)
    reads = [Read(*place, digest) for place, digest in work.memory.take_reads().items()]
    return values, failed_cells(work, index), reads
