"""What a person waits for in napari: the first tile, another view, a cancelled run.

``xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/viewer.py [SIDE ...]`` opens a real
window on planes of noise in a temporary zarr, of 20 planes up to 20,000 pixels a side, presses Run,
pans and scrubs, and stops. Heartbeat: a timer asks every 5 ms; the longest silence is the longest
that the window was blocked, by whomever. Memory is that of the whole process, above the window's.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import napari
import numpy as np
import zarr
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

import demoe
from demoe.bench.measure import memory_in_use
from demoe.model.devices import choose_device
from napari_demoe import deblur_layer

BLOCK = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sides", type=int, nargs="*", default=[1000, 10_000, 200_000])
    print("| pixels | first tile | next view | longest block | memory | cancel |")
    print("|---|---:|---:|---:|---:|---:|")
    for side in parser.parse_args().sides:
        with tempfile.TemporaryDirectory() as folder:
            print(measured(make(Path(folder), side), side), flush=True)


def make(folder: Path, side: int) -> Path:
    """Write an image of which only the parts that are looked at hold anything."""
    shape = (20, side, side) if side <= 20_000 else (side, side)
    chunks = (1,) * (len(shape) - 2) + (min(side, 1024),) * 2
    image = zarr.create_array(
        store=str(folder / "image.zarr"), shape=shape, chunks=chunks, dtype=np.uint16, fill_value=90
    )
    rng = np.random.default_rng(0)
    part = rng.integers(100, 4000, (min(side, BLOCK),) * 2, dtype=np.uint16)
    middle = (side - len(part)) // 2
    for start in {middle, 0}:
        at = (slice(start, start + len(part)),) * 2
        for plane in (9, 10) if len(shape) == 3 else (None,):
            image[at if plane is None else (plane, *at)] = part
    return folder / "image.zarr"


def measured(path: Path, side: int) -> str:
    viewer = napari.Viewer()
    source = demoe.open_image(path)
    levels = [source.data[..., :: 2**n, :: 2**n] for n in range(9) if side >> n > 400]
    # The source is hidden: how it is read is not what is measured.
    layer = viewer.add_image(levels, multiscale=True, contrast_limits=(0, 4000), visible=False)
    viewer.dims.set_current_step(0, 10)
    viewer.camera.center, viewer.camera.zoom = (side / 2, side / 2), 1.0
    beats: list[float] = []
    timer = QTimer()
    timer.timeout.connect(lambda: beats.append(time.monotonic()))
    timer.start(5)
    settle(1.0)
    device = choose_device("cpu")
    before = memory_in_use(device) or 0
    beats.clear()
    began = time.monotonic()
    job = deblur_layer(layer, viewer, routing="defocus", device="cpu", tile=256)
    until(lambda: job.done >= 1)
    first = time.monotonic() - began
    moved = time.monotonic()
    viewer.camera.center = (BLOCK / 2, BLOCK / 2)
    viewer.dims.set_current_step(0, 9)
    run = job._session._runs[job.layer]

    def followed() -> bool:
        view = run.order._view
        return view.plane in ((9,), ()) and view.box.top < BLOCK

    until(followed)
    again = time.monotonic() - moved
    settle(2.0)
    stopped = time.monotonic()
    job.cancel()
    until(lambda: job.state == "paused")
    cancelled = time.monotonic() - stopped
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    block = float(np.diff(beats).max())
    timer.stop()
    viewer.close()
    shape = " x ".join(map(str, source.shape))
    return (
        f"| {shape} | {first:.1f} s | {again:.2f} s | {1000 * block:.0f} ms "
        f"| {most / 1e9:.2f} GB | {cancelled:.2f} s |"
    )


def settle(seconds: float) -> None:
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end)


def until(said) -> None:
    end = time.monotonic() + 120
    while not said():
        if time.monotonic() > end:
            raise SystemExit("It did not happen within two minutes.")
        QApplication.processEvents()
        time.sleep(0.002)


if __name__ == "__main__":
    main()
