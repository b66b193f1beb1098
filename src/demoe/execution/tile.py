"""One tile of a run, computed here or in another process."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from demoe.engine.reader import Read
from demoe.engine.work import Common, PlaneWork
from demoe.execution.store import Index
from demoe.lazy import failed_cells, restore_block, tile_of


def common_of(work: PlaneWork, index: Index) -> list[Common]:
    """Return what a block depends on that others depend on as well, and that takes long."""
    return work.common(*tile_of(work, index))


def compute_tile(
    work: PlaneWork, index: Index, made: da.Array | None = None
) -> tuple[NDArray[Any], list[Index], list[Read]]:
    """Return a block, cells of the expert map in which the network failed, and what was read.

    That includes what was read for other tiles, since they share what follows from it. ``made`` is
    what a person made of the block. Without it, no graph is asked: to find a block in one takes a
    time by all of its blocks.
    """
    work.memory.note_reads()
    if made is None:
        values = restore_block(work, index)
    else:
        values = np.asarray(made.compute(scheduler="synchronous"))
    reads = [Read(*place, digest) for place, digest in work.memory.take_reads().items()]
    return values, failed_cells(work, index), reads
