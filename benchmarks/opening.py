"""What does it take to open an image of 100 GB?

``python benchmarks/opening.py`` makes files that claim that much and hold next to nothing, opens
each in a process of its own, and prints the time and the memory that opening took, beside those of
loading the modules, which the first image of a process waits for as well. On Linux it also says for
how long a process that could run had to wait for a core: what is left of the time is the disk's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile
import zarr

SIDE, TILE = 224_000, 512  # 100 GB of uint16
PLANES, PLANE = 12_000, 2048

PROBE = """
import json, resource, sys, time
import demoe
def waited():
    try:
        with open("/proc/self/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except OSError:
        return float("nan")
def spent():
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return time.perf_counter(), time.process_time(), waited(), memory
start = spent()
import demoe.io.tiff, demoe.io.zarr
loaded = spent()
image = demoe.open_image(sys.argv[1])
opened = spent()
rows = [[b - a for a, b in zip(*pair)] for pair in ((start, loaded), (loaded, opened))]
print(json.dumps([image.axes, image.shape, str(image.dtype), *rows]))
"""


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print("| file | image | size | opening | processor | waiting for it | memory | (modules) |")
    print("|---" * 8 + "|")
    with tempfile.TemporaryDirectory() as folder:
        for make in (one_plane, many_planes, tiles, ome_zarr):
            path = make(Path(folder))
            done = subprocess.run(
                [sys.executable, "-c", PROBE, str(path)], capture_output=True, text=True, check=True
            )
            axes, shape, dtype, modules, opening = json.loads(done.stdout)
            size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize / 1e9
            print(
                f"| {make.__name__.replace('_', ' ')} | {axes} {' x '.join(map(str, shape))} "
                f"| {size:.0f} GB | {opening[0]:.2f} s | {opening[1]:.2f} s | {opening[2]:.2f} s "
                f"| {opening[3]:.0f} MB | {modules[1]:.1f} s, {modules[3]:.0f} MB |",
                flush=True,
            )


def one_plane(folder: Path) -> Path:
    path = folder / "plane.tif"
    tifffile.imwrite(path, shape=(SIDE, SIDE), dtype="uint16", bigtiff=True, photometric=1)
    return path


def many_planes(folder: Path) -> Path:
    """An OME-TIFF whose pages are chained one after the other."""
    path = folder / "planes.ome.tif"
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as file:
        usual = {"photometric": 1, "metadata": {"axes": "TYX"}}
        file.write(shape=(PLANES, PLANE, PLANE), dtype="uint16", **usual)
    return path


def tiles(folder: Path) -> Path:
    """Tiles, all of which are left out."""
    path = folder / "tiles.tif"
    count = (-(-SIDE // TILE)) ** 2
    usual = {"tile": (TILE, TILE), "compression": "zlib", "bigtiff": True, "photometric": 1}
    empty = (b"" for _ in range(count))
    tifffile.imwrite(path, empty, shape=(SIDE, SIDE), dtype="uint16", **usual)
    return path


def ome_zarr(folder: Path) -> Path:
    path = folder / "image.ome.zarr"
    group = zarr.open_group(path, mode="w")
    scale = [{"type": "scale", "scale": [0.2, 0.1, 0.1]}]
    space = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"name": "a", "axes": space, "datasets": datasets}],
    }
    group.create_array("0", shape=(12_000, 2048, 2048), chunks=(1, 512, 512), dtype="uint16")
    return path


if __name__ == "__main__":
    main()
