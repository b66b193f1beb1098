"""What the benchmark measures: demoe and its peers on the same picture."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from demoe.bench.measure import (
    Timing,
    give_memory_back,
    machine_facts,
    matrix_product_rate,
    memory_in_use,
    timed,
)
from demoe.bench.peers import (
    MONAI_OVERLAP,
    MONAI_WINDOW,
    Photo,
    bare_alone,
    bare_keeping,
    has_monai,
    in_own_process,
    monai_alone,
    photo,
    whole_side,
)
from demoe.execution.run import run
from demoe.image.lazy_image import LazyImage
from demoe.lazy import Deblurred, deblur
from demoe.model.devices import free_memory
from demoe.model.loading import Model, load_model
from demoe.recipe import Recipe

BARE = "bare network, default allocator"
BARE_KEEPING = "bare network, demoe's allocator settings"
MONAI = "MONAI sliding windows, default allocator"
FILES = "demoe, TIFF to OME-Zarr, one expert"
"""The row that counts: all that a person waits for, with the arithmetic of the bare network."""

KERNELS = "demoe, TIFF to OME-Zarr, one expert, kernels"
"""The same with the blur found and undone, as is the default."""


@dataclass(frozen=True)
class _Job:
    """One row to be: a name, the side of its picture in pixels, and how to measure it."""

    name: str
    side: int | None
    measure: Callable[[int], Timing | None]
    note: str = ""


def expert_recipe(model: str, tile: str | int, device: str) -> Recipe:
    """Return the settings of the rows that do the arithmetic of one expert."""
    first = load_model(model, device).choices[0].name
    return Recipe(model=model, tile=tile, device=device, routing=first, psf=None)


def measure_all(
    recipe: Recipe, size: int, repeats: int, *, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Measure and return all figures, JSON-able.

    Parameters
    ----------
    recipe : Recipe
        From `expert_recipe`.
    size : int
        Side in pixels of the square RGB photo, uint8; a multiple of 16.
    repeats : int
        Runs of each row; medians count.
    say : callable
        Told what is measured next.

    Returns
    -------
    dict
        ``machine``, ``network``, ``settings``, ``matrix_product_gflops`` (before, between and
        after the rows), ``rows`` and ``headline``, the name of the row that counts. Each row has
        ``seconds``, ``median_seconds``, ``megapixels_per_second``, ``gflops``, ``share`` of the
        matrix products right before and after it, ``peak_bytes`` above the idle process, and its
        speed relative to the peers with the C library's default settings, ``times_bare`` and
        ``times_monai``; None where a row could not be measured, and ``note`` says why.

    Raises
    ------
    DemoeError
        If weights, device or tile cannot be used.
    """
    loaded = load_model(recipe.model, recipe.device)  # from here on with demoe's allocator settings
    assert loaded.tenant.backend_name(False) and loaded.calibration  # made when first asked for
    machine = machine_facts(loaded.device)
    flops = loaded.tenant.flops_per_pixel
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
            **loaded.tenant.facts(),
            "design": loaded.tenant.design(),
            "flops_per_pixel": flops,
        },
        "settings": {
            "size": size,
            "repeats": repeats,
            **_tiles(_lazily(picture, recipe)),
            "backend": loaded.tenant.backend_name(True),
            "expert": recipe.routing,
            "monai": {"window": MONAI_WINDOW, "overlap": MONAI_OVERLAP},
        },
        "matrix_product_gflops": rates,
        "headline": FILES,
        "rows": rows,
    }


def _jobs(
    model: Model, recipe: Recipe, picture: Photo, repeats: int, idle: int | None, folder: Path
) -> Iterator[_Job]:
    size, device = len(picture), model.device

    def here(work: Callable[[], object]) -> Timing:
        return timed(work, repeats, device, idle)

    side, note = whole_side(size, model.tenant.bare_bytes, free_memory(device))
    yield _Job(
        BARE,
        side,
        lambda s: in_own_process(bare_alone, model.path, s, repeats, str(device)),
        note,
    )
    monai = has_monai()
    yield _Job(
        MONAI,
        size if monai else None,
        lambda s: in_own_process(monai_alone, model.path, s, repeats, str(device)),
        ""
        if monai
        else 'left out, because MONAI is not installed: pip install "napari-demoe[bench]"',
    )
    yield _Job(
        BARE_KEEPING,
        side,
        lambda s: in_own_process(bare_keeping, model.path, s, repeats, str(device)),
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
    rows = [(FILES, recipe)]
    if model.tools is not None:
        rows.append((KERNELS, recipe.replace(psf="auto")))
    for name, how in rows:
        yield _Job(
            name,
            size,
            lambda _, how=how: here(  # type: ignore[misc]  # as above
                lambda: run(source, folder / f"{next(numbers)}.ome.zarr", how)
            ),
        )


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
            *("peak_bytes", "times_bare", "times_monai"),
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
    """Fill in how much faster than the peers each row is, in pixels a second."""
    speeds = {row["name"]: row["megapixels_per_second"] for row in rows}
    for key, peer in (("times_bare", BARE), ("times_monai", MONAI)):
        for row in rows:
            if speeds[peer] and speeds[row["name"]]:
                row[key] = speeds[row["name"]] / speeds[peer]
