"""Memory and files of a run on a very wide image, with a stand-in for the network.

    python benchmarks/wide.py [COLUMNS ROWS] [SUFFIX ...]

By default 1,000,000 x 2,048 pixels of 16 bits, into .ome.zarr and into .ome.tif. Prints, for each
format, the most memory that the process had, the part of that which it had before the run began
(Python, PyTorch and the weights), and the files and bytes on the disk: the most while it ran, and
what it left.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from stand_in import FIELDS, peak_megabytes, slope, take_the_place_of_the_network

import demoe

TILE = 1024


def on_disk(folder: Path) -> tuple[int, int]:
    """Count files and bytes in a folder, while others write there."""
    files = size = 0
    for place in folder.rglob("*"):
        try:
            if place.is_file():
                files, size = files + 1, size + place.stat().st_size
        except OSError:
            pass
    return files, size


def measure(columns: int, rows: int, suffix: str) -> dict[str, Any]:
    take_the_place_of_the_network()
    image = slope(rows, columns, "uint16", TILE)
    demoe.load_model("default", "cpu")
    before = peak_megabytes()
    most = [0, 0]
    ended = threading.Event()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def watch() -> None:
            while not ended.wait(5):
                most[:] = map(max, most, on_disk(folder))

        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.perf_counter(), time.process_time()
        try:
            target = folder / f"out{suffix}"
            report = demoe.run(image, target, tile=TILE, halo=32, intensity="full", **FIELDS)
        finally:
            ended.set()
            watcher.join()
        took = time.perf_counter() - began[0], time.process_time() - began[1]
        left = on_disk(folder)
        most[:] = map(max, most, left)
    return {
        "pixels": f"{columns} x {rows} uint16",
        "output": suffix,
        "peak MB": peak_megabytes(),
        "of that before the run MB": before,
        "raw MB": columns * rows * 2 // 10**6,
        "files [most, left]": [most[0], left[0]],
        "MB on the disk [most, left]": [most[1] // 10**6, left[1] // 10**6],
        "seconds [passed, processor]": [round(seconds, 1) for seconds in took],
        "tiles": report.tiles,
    }


def main() -> None:
    words = sys.argv[1:]
    size = [words.pop(0), words.pop(0)] if words and words[0].isdigit() else ["1000000", "2048"]
    suffixes = words or [".ome.zarr", ".ome.tif"]
    if len(suffixes) == 1:
        print(json.dumps(measure(int(size[0]), int(size[1]), suffixes[0]), indent=2))
        return
    for suffix in suffixes:  # each in a process of its own, since a peak stays
        subprocess.run([sys.executable, __file__, *size, suffix], check=True)


if __name__ == "__main__":
    main()
