"""How much faster a run is on more worker processes, each with one thread.

    python benchmarks/workers.py [SIDE] [WORKERS ...]

Deblurs a made-up measurement of SIDE x SIDE pixels (2048) with the bundled weights on one worker
and on two, or on those counts that are given, after a small run that loads the network in each.
Prints the seconds that passed, the processor seconds of all workers and of the process that runs
them, and how much faster it was than with the first count. What processors others use is missing
from the first; where the second stays the same, nothing was lost but to them.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

import demoe
from demoe.execution.pool import processes

TILE = 256
FIELDS: dict[str, Any] = {"tile": TILE, "psf": None, "device": "cpu"}


def make_picture(place: Path, side: int) -> Path:
    """Write spots of several widths with noise, 16 bits."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    waves = sum(np.sin(x / n + n) * np.sin(y / n) for n in (3, 7, 19, 50))
    values = rng.poisson(np.clip(800 + 300 * waves, 1, None))
    tifffile.imwrite(place, values.astype(np.uint16), tile=(TILE, TILE), compression="zlib")
    return place


def measure(source: Path, small: Path, folder: Path, count: int) -> dict[str, Any]:
    with processes(count, threads=1) as client:
        demoe.run(small, folder / "warm.ome.zarr", client=client, overwrite=True, **FIELDS)
        before = sum(client.run(time.process_time).values())
        began, mine = time.perf_counter(), time.process_time()
        report = demoe.run(source, folder / "out.ome.zarr", client=client, overwrite=True, **FIELDS)
        seconds, mine = time.perf_counter() - began, time.process_time() - mine
        theirs = sum(client.run(time.process_time).values()) - before
    return {
        "workers": count,
        "tiles": report.tiles,
        "seconds": round(seconds, 1),
        "processor seconds of workers": round(theirs, 1),
        "of the client": round(mine, 1),
    }


def main() -> None:
    numbers = [int(word) for word in sys.argv[1:]]
    side, counts = (numbers or [2048])[0], numbers[1:] or [1, 2]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = make_picture(folder / "in.tif", side)
        small = make_picture(folder / "small.tif", max(counts) * 2 * TILE)
        first = None
        for count in counts:
            found = measure(source, small, folder, count)
            first = first or found["seconds"]
            print(json.dumps({**found, "times faster": round(first / found["seconds"], 2)}))


if __name__ == "__main__":
    main()
