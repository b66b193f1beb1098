"""What a run costs beside reading and the network: milliseconds a tile, for more and more tiles.

    python benchmarks/bookkeeping.py [--read] [TILES ...]

Tiles are small (64 pixels a side) and made up by whoever should compute them, so that what is
measured is bookkeeping: finding the next tile, keeping it, noting it and what was read for it,
packing shards, and putting the output together. It should not depend on how many tiles there are.
With --read, tiles are read from a source of as many blocks as tiles, and cut, scaled and checked as
ever; only the network is left out. Processor time is shown beside the time that passed: on a
machine that others use too, it is the one to compare.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from stand_in import FIELDS, peak_megabytes, slope, take_the_place_of_the_network

import demoe
from demoe.engine.reader import Read
from demoe.engine.work import PlaneWork
from demoe.execution import pool

TILE = 64


def measure(tiles: int) -> dict[str, Any]:
    side = TILE * round(tiles**0.5)
    image = slope(side, side, "uint8", TILE)
    at: dict[str, tuple[float, float]] = {}

    def progress(done: int, total: int, message: str) -> None:
        phase = "compute" if message == "tiles" else "write"
        now = (time.perf_counter(), time.process_time())
        at.setdefault(phase, now)
        at["end of " + phase] = now

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.ome.zarr"
        began = time.perf_counter(), time.process_time()
        report = demoe.run(image, target, tile=TILE, halo=16, progress=progress, **FIELDS)
        at["end"] = time.perf_counter(), time.process_time()
        files = sum(1 for path in target.rglob("*") if path.is_file())

    def per_tile(first: tuple[float, float], last: tuple[float, float]) -> list[float]:
        return [round(1000 * (b - a) / report.tiles, 3) for a, b in zip(first, last, strict=True)]

    return {
        "tiles": report.tiles,
        "files": files,
        "ms a tile [passed, processor]": {
            "all": per_tile(began, at["end"]),
            "compute and keep": per_tile(at["compute"], at["end of compute"]),
            "write": per_tile(at["end of compute"], at["end"]),
        },
        "peak MB": peak_megabytes(),
    }


def make_up(work: PlaneWork, index: tuple[int, ...], made: object = None) -> Any:
    """Take the place of `demoe.execution.tile.compute_tile`."""
    core = work.plan.tile_at(*index).core
    values = np.full(core.shape, sum(index) % 256, np.uint8)
    return values, [], [Read((0, 0, 0), core, bytes(16))]


def main() -> None:
    words = sys.argv[1:]
    if reading := "--read" in words:
        words.remove("--read")
        take_the_place_of_the_network()
    else:
        pool.compute_tile = make_up
    for tiles in map(int, words or ("10000", "100000")):
        print(json.dumps({"with reading": reading, **measure(tiles)}), flush=True)


if __name__ == "__main__":
    main()
