"""What the benchmark measures: the bare network and demoe around it, on the same picture."""

from __future__ import annotations

import itertools
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray

from demoe.gates import one_hot
from demoe.image import LazyImage
from demoe.lazy import Deblurred, deblur
from demoe.measure import (
    Timing,
    free_memory,
    give_memory_back,
    machine_facts,
    matrix_product_rate,
    memory_in_use,
    timed,
)
from demoe.model.checkpoint import build_network, read_state_dict
from demoe.model.flops import flops_per_pixel
from demoe.model.loading import Model, load_model
from demoe.model.network import DeMoENet
from demoe.recipe import TASKS, Recipe
from demoe.run import run
from demoe.sample_images import load_sample

EXPERT = TASKS[0]
"""The expert that all rows of equal arithmetic run."""

BARE = "bare network, default allocator"
BARE_KEEPING = "bare network, demoe's allocator settings"

WHOLE_BYTES = 96
"""Most bytes a pixel and a channel of the first level that the bare network was seen to take."""

SMALLEST_WHOLE = 256
"""Side in pixels below which the bare network is not measured on less than the picture."""

Photo = NDArray[np.uint8]


@dataclass(frozen=True)
class _Job:
    """One row to be: a name, the side of its picture in pixels, and how to measure it."""

    name: str
    side: int | None
    measure: Callable[[int], Timing | None]
    note: str = ""


def measure_all(
    *,
    size: int,
    repeats: int,
    model: str = "default",
    tile: str | int = "auto",
    device: str = "auto",
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure and return all figures, JSON-able.

    Parameters
    ----------
    size : int
        Side in pixels of the square RGB photo, uint8; a multiple of 16.
    repeats : int
        Runs of each row; medians count.
    model, tile, device
        As in `Recipe`.
    say : callable
        Told what is measured next.

    Returns
    -------
    dict
        ``machine``, ``network``, ``settings``, ``matrix_product_gflops`` (before, between and
        after the rows) and ``rows``. Each row has ``seconds``, ``median_seconds``,
        ``megapixels_per_second``, ``gflops``, ``share`` of the matrix products right before and
        after it, ``peak_bytes`` above the idle process, and its speed relative to the two rows of
        the bare network, ``times_bare`` and ``times_bare_same_allocator``; None where a row could
        not be measured, and ``note`` says why.

    Raises
    ------
    DemoeError
        If weights, device or tile cannot be used.
    """
    recipe = Recipe(model=model, tile=tile, device=device, routing=EXPERT)
    loaded = load_model(recipe.model, recipe.device)  # from here on with demoe's allocator settings
    machine = machine_facts(loaded.device)
    flops = flops_per_pixel(loaded.config)
    picture = photo(size)
    rates = [matrix_product_rate(loaded.device)]
    rows = []
    with tempfile.TemporaryDirectory(prefix="demoe-bench-") as folder:
        give_memory_back(loaded.device)
        idle = memory_in_use(loaded.device)
        for job in _jobs(loaded, recipe, picture, repeats, idle, Path(folder)):
            say(job.name)
            timing = None if job.side is None else job.measure(job.side)
            rates.append(matrix_product_rate(loaded.device))
            note = job.note
            if timing is None and not note:
                note = "its process was ended by the system, probably for lack of memory"
            rows.append(figures(job.name, job.side, timing, flops, (rates[-2], rates[-1]), note))
    _compare(rows)
    return {
        "machine": machine,
        "network": {
            "name": Path(loaded.name).name,  # of a path, no more than the file
            "sha256": loaded.sha256,
            **loaded.config.to_dict(),
            "flops_per_pixel": flops,
        },
        "settings": {
            "size": size,
            "repeats": repeats,
            **_tiles(_lazily(picture, recipe)),
            "expert": EXPERT,
        },
        "matrix_product_gflops": rates,
        "rows": rows,
    }


def _jobs(
    model: Model, recipe: Recipe, picture: Photo, repeats: int, idle: int | None, folder: Path
) -> Iterator[_Job]:
    size, device = len(picture), model.device

    def here(work: Callable[[], object]) -> Timing:
        return timed(work, repeats, device, idle)

    side, note = whole_side(size, model.config.width, free_memory(device))
    yield _Job(
        BARE,
        side,
        lambda s: in_own_process(_bare_alone, model.path, s, repeats, str(device)),
        note,
    )
    yield _Job(
        BARE_KEEPING,
        side,
        lambda s: here(bare_work(model.network, picture[:s, :s], device)),
        note,
    )
    routed = recipe.replace(routing="auto")
    for name, how in (("one expert", recipe), ("routed", routed)):
        yield _Job(
            f"demoe, array to array, {name}",
            size,
            lambda _, how=how: here(lambda: np.asarray(_lazily(picture, how).image)),  # type: ignore[misc]  # mypy infers no type for a default of a lambda
        )
    source = folder / "photo.tif"
    tifffile.imwrite(source, picture, photometric="rgb", tile=(256, 256))
    numbers = itertools.count()
    yield _Job(
        "demoe, TIFF to OME-Zarr, one expert",
        size,
        lambda _: here(lambda: run(source, folder / f"{next(numbers)}.ome.zarr", recipe)),
    )


def photo(side: int) -> Photo:
    """Return a square RGB picture (side, side, 3): a bundled sample, mirrored to any size."""
    sample = np.asarray(load_sample("pagoda_mixed").blurred.data)
    rows, cols = (np.r_[0:n, n - 1 : -1 : -1][np.arange(side) % (2 * n)] for n in sample.shape[:2])
    return np.ascontiguousarray(sample[rows][:, cols])


def whole_side(size: int, width: int, free: int | None) -> tuple[int | None, str]:
    """Choose the picture on which the bare network, which knows no tiles, can run in memory.

    Parameters
    ----------
    size : int
        Side that is wished for, in pixels.
    width : int
        Channels of the network's first level.
    free : int or None
        Bytes that may be taken; three quarters of them are used. None trusts in there being enough.

    Returns
    -------
    side : int or None
        ``size``, or the largest of its halves, quarters, ... that fits; None if none does.
    note : str
        Why it is not ``size``, or nothing.
    """
    need = WHOLE_BYTES * width * size**2
    if free is None or need <= 0.75 * free:
        return size, ""
    why = f"{size} px would take about {need / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
    side = size
    while side // 2 >= SMALLEST_WHOLE:
        side = side // 32 * 16
        if WHOLE_BYTES * width * side**2 <= 0.75 * free:
            return side, f"on {side} px: {why}"
    return None, f"skipped: {why}"


def bare_work(network: DeMoENet, picture: Photo, device: torch.device) -> Callable[[], object]:
    """Return what runs the network once on a whole picture, eagerly, gates fixed to one expert."""
    x = torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)[None]
    x = x.to(device, memory_format=torch.channels_last)
    gates = torch.from_numpy(one_hot(EXPERT))[None].to(device)

    def work() -> object:
        with torch.inference_mode():
            return network(x, gates)

    return work


def in_own_process(function: Callable[..., Timing], *arguments: Any) -> Timing | None:
    """Run a function in a fresh process; None if the system ended it.

    Spawned, because a fork would inherit this process's allocator settings, which cannot be undone.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            return None


def _bare_alone(weights: Path, side: int, repeats: int, device_name: str) -> Timing:
    """Measure the bare network; ``load_model`` is avoided, since it sets the allocator."""
    device = torch.device(device_name)
    network = build_network(read_state_dict(weights)[0]).to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's gap
    torch.mm(*torch.rand(2, 512, 512, device=device))  # its buffers belong to the idle process
    give_memory_back(device)
    idle = memory_in_use(device)
    return timed(bare_work(network, photo(side), device), repeats, device, idle)


def _lazily(picture: Photo, recipe: Recipe) -> Deblurred:
    return deblur(LazyImage.from_array(picture, "YXS"), recipe=recipe)


def _tiles(result: Deblurred) -> dict[str, Any]:
    plan = result.plan
    reads = [plan.tile_at(*place).read.shape for place in np.ndindex(plan.shape)]
    return {
        "tile": list(plan.core_shape),
        "halo": plan.halo,
        "reads_per_pixel": sum(h * w for h, w in reads) / (plan.height * plan.width),
    }


def figures(
    name: str,
    side: int | None,
    timing: Timing | None,
    flops: float,
    rates: tuple[float, float],
    note: str,
) -> dict[str, Any]:
    """Return a row of the result; useful work is delivered pixels times ``flops`` a pixel."""
    row: dict[str, Any] = dict.fromkeys(
        (
            *("seconds", "median_seconds", "megapixels_per_second", "gflops", "share"),
            *("peak_bytes", "times_bare", "times_bare_same_allocator"),
        )
    )
    if timing is not None and side is not None:
        speed = side**2 / timing.median
        row |= {
            "seconds": list(timing.seconds),
            "median_seconds": timing.median,
            "megapixels_per_second": speed / 1e6,
            "gflops": speed * flops / 1e9,
            "share": speed * flops / 1e9 / (sum(rates) / len(rates)),
            "peak_bytes": timing.peak_bytes,
        }
    return {"name": name, "side": side, **row, "note": note}


def _compare(rows: list[dict[str, Any]]) -> None:
    """Fill in how much faster than the bare network each row is, in pixels a second."""
    speeds = {row["name"]: row["megapixels_per_second"] for row in rows}
    for key, peer in (("times_bare", BARE), ("times_bare_same_allocator", BARE_KEEPING)):
        for row in rows:
            if speeds[peer] and speeds[row["name"]]:
                row[key] = speeds[row["name"]] / speeds[peer]
