"""What a person waits for in napari: the first tile, the view, another view, a cancelled run.

``xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/viewer.py [--calls] [SIDE ...]`` opens
a real window on planes of noise in a temporary zarr, of 20 planes up to 20,000 pixels a side,
deblurs what is looked at until its maps are shown, pans and scrubs, and stops.

Blocks of the window are told apart. *Longest block*: a timer asks every 5 ms; its longest silence,
whoever made it. *Ours*: every function of the plugin and of the arrays that it shows is timed where
napari or Qt calls it in the window's thread; the longest call, by the clock and in processor time
of that thread, which counts nothing that others on the machine take. What napari needs in it to put
a layer into its list and window is not counted: *a layer*, the longest of these. ``--calls`` lists
our slowest functions, and where the window's thread was while the timer was silent. Memory is that
of the whole process, above the window's.
"""

from __future__ import annotations

import argparse
import collections
import functools
import importlib
import inspect
import pkgutil
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import napari
import numpy as np
import zarr
from napari.components import LayerList
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

import demoe
import demoe.live
import napari_demoe
from demoe.bench.measure import memory_in_use
from demoe.model.devices import choose_device
from napari_demoe import deblur_layer

BLOCK = 2048

PATIENCE_SECONDS = 1800

LATE_SECONDS = 0.05
"""A timer that is silent for longer makes the window feel stuck."""


class Calls:
    """Times the outermost calls of our functions in the window's thread.

    Attributes
    ----------
    slowest : dict
        By function: seconds by the clock and of the processor of its slowest call, how many there
        were, and the seconds of all.
    layers : list of (float, float)
        The same two for each layer that napari added in these calls, which do not count them.
    """

    def __init__(self) -> None:
        self.slowest: dict[str, list[float]] = {}
        self.layers: list[tuple[float, float]] = []
        self._inside = False
        self._theirs = np.zeros(2)
        self._watch_napari()

    def _watch_napari(self) -> None:
        insert = LayerList.insert

        @functools.wraps(insert)
        def timed(*args: Any) -> None:
            began = _now()
            insert(*args)
            if self._inside:
                took = _now() - began
                self._theirs += took
                self.layers.append((took[0], took[1]))

        LayerList.insert = timed  # type: ignore[method-assign]

    def watch(self, package: ModuleType) -> None:
        """Time the functions and methods of a package's modules."""
        for found in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{found.name}")
            for _, cls in inspect.getmembers(module, inspect.isclass):
                if cls.__module__ == module.__name__ and not issubclass(cls, tuple):
                    for name, function in list(vars(cls).items()):
                        if isinstance(function, FunctionType):
                            setattr(cls, name, self._timed(function))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isgeneratorfunction(function):
            return function
        main = threading.main_thread()

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._inside or threading.current_thread() is not main:
                return function(*args, **kwargs)
            self._inside = True
            self._theirs = np.zeros(2)
            began = _now()
            try:
                return function(*args, **kwargs)
            finally:
                took = _now() - began - self._theirs
                self._inside = False
                of = self.slowest.setdefault(function.__qualname__, [0.0, 0.0, 0, 0.0])
                of[:] = max(of[0], took[0]), max(of[1], took[1]), of[2] + 1, of[3] + took[0]

        return timed

    def longest(self) -> tuple[str, float, float]:
        """Return the function with the slowest call, and its seconds: clock, processor."""
        name, (clock, processor, _, _) = max(self.slowest.items(), key=lambda item: item[1][0])
        return name, clock, processor

    def table(self) -> str:
        """List the slowest functions."""
        rows = sorted(self.slowest.items(), key=lambda item: -item[1][0])[:8]
        return "\n".join(
            f"    {name}: {_milliseconds(clock, cpu)}, {count:.0f} calls, {total:.2f} s in all"
            for name, (clock, cpu, count, total) in rows
        )


def _now() -> np.ndarray:
    """Return the time by the clock, and that of the processor in this thread."""
    return np.array([time.monotonic(), time.thread_time()])


class Heart:
    """A timer of the window's thread, and a thread that looks where that is when it is late.

    Attributes
    ----------
    late : dict
        By place in the code, the deepest of napari's, Qt's or ours: seconds that were lost there.
    """

    def __init__(self) -> None:
        self.late: collections.Counter[str] = collections.Counter()
        self.longest = 0.0
        self._last = time.monotonic()
        self._timer = QTimer()
        self._timer.timeout.connect(self._beat)
        self._timer.start(5)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Forget what was."""
        self.late.clear()
        self.longest, self._last = 0.0, time.monotonic()

    def stop(self) -> None:
        """End both."""
        self._timer.stop()
        self._timer.deleteLater()  # in this thread, not in that of who collects garbage
        self._over.set()

    def _beat(self) -> None:
        now = time.monotonic()
        self.longest = max(self.longest, now - self._last)
        self._last = now

    def _look(self) -> None:
        before, main = time.monotonic(), threading.main_thread().ident
        while not self._over.wait(0.01):
            now = time.monotonic()
            if now - self._last > LATE_SECONDS:
                self.late[_place(sys._current_frames().get(main))] += now - before
            before = now

    def table(self) -> str:
        """List where most was lost."""
        return "\n".join(f"    {s:.2f} s late in {at}" for at, s in self.late.most_common(12))


def _place(frame: Any) -> str:
    """Name the outermost of our functions of a stack, and the innermost of ours and napari's."""
    ours = theirs = ""
    while frame is not None:
        module, name = frame.f_globals.get("__name__", ""), frame.f_code.co_qualname
        if module.startswith(("napari", "vispy", "demoe", "magicgui", "superqt", "app_model")):
            theirs = theirs or f"{module}:{name}"
        if module.startswith(("napari_demoe", "demoe.live")) and name != "Calls._timed.timed":
            ours = f"{module}:{name}"
        frame = frame.f_back
    return " from ".join(filter(None, (theirs or "Qt", ours)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sides", type=int, nargs="*", default=[1000, 10_000, 200_000])
    parser.add_argument("--calls", action="store_true", help="list our slowest calls")
    parser.add_argument("--model", default="default", help="the network, by name or file")
    given = parser.parse_args()
    calls = Calls()
    calls.watch(napari_demoe)
    calls.watch(demoe.live)
    print(
        "| pixels | first tile | view | next view | cancel | memory | longest block "
        "| a layer | ours, longest call |\n|---|---:|---:|---:|---:|---:|---:|---:|---|"
    )
    for side in given.sides:
        with tempfile.TemporaryDirectory() as folder:
            row, details = measured(make(Path(folder), side), side, calls, given)
            print(row, flush=True)
            if given.calls:
                print(details, flush=True)


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


def measured(path: Path, side: int, calls: Calls, given: argparse.Namespace) -> tuple[str, str]:
    viewer = napari.Viewer()
    source = demoe.open_image(path)
    levels = [source.data[..., :: 2**n, :: 2**n] for n in range(9) if side >> n > 400]
    # The source is hidden: how it is read is not what is measured.
    layer = viewer.add_image(levels, multiscale=True, contrast_limits=(0, 4000), visible=False)
    viewer.dims.set_current_step(0, 10)
    viewer.scene.camera.center, viewer.scene.camera.zoom = (side / 2, side / 2), 4.0
    heart = Heart()
    settle(1.0)
    device = choose_device("cpu")
    before = memory_in_use(device) or 0
    calls.slowest.clear()
    calls.layers.clear()
    heart.begin()
    began = time.monotonic()
    job = deblur_layer(layer, viewer, model=given.model, scope="view", device="cpu", tile=256)
    until(lambda: job.done >= 1)
    first = time.monotonic() - began
    until(lambda: job.experts is not None)
    seen = time.monotonic() - began
    settle(1.0)
    moved = time.monotonic()
    viewer.scene.camera.center = (BLOCK / 2, BLOCK / 2)
    viewer.dims.set_current_step(0, 9)
    run = job._session.display.runs[job.layer]

    def followed() -> bool:
        view = run.order._view
        return view.plane in ((9,), ()) and view.box.top < BLOCK

    until(followed)
    again = time.monotonic() - moved
    until(lambda: 0 < job.total <= job.done)
    settle(2.0)
    stopped = time.monotonic()
    job.cancel()
    until(lambda: job.state == "paused")
    cancelled = time.monotonic() - stopped
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    name, clock, processor = calls.longest()
    heart.stop()
    viewer.close()
    shape = " x ".join(map(str, source.shape))
    row = (
        f"| {shape} | {first:.1f} s | {seen:.1f} s | {again:.2f} s | {cancelled:.2f} s "
        f"| {most / 1e9:.2f} GB | {1000 * heart.longest:.0f} ms "
        f"| {_milliseconds(*map(max, zip(*calls.layers, strict=True)))} "
        f"| {_milliseconds(clock, processor)}, {name} |"
    )
    return row, f"{calls.table()}\n{heart.table()}"


def _milliseconds(clock: float, processor: float) -> str:
    return f"{1000 * clock:.0f} ms ({1000 * processor:.0f} ms of the processor)"


def settle(seconds: float) -> None:
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end)


def until(said) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not said():
        if time.monotonic() > end:
            raise SystemExit(f"It did not happen within {PATIENCE_SECONDS / 60:.0f} minutes.")
        QApplication.processEvents()
        time.sleep(0.002)


if __name__ == "__main__":
    main()
