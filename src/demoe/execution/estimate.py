"""What a run on an image would take, without reading its pixels."""

from __future__ import annotations

import functools
import math
import time
from typing import Any

import torch

from demoe.amounts import amount
from demoe.choices import names_of
from demoe.engine.provenance import provenance
from demoe.engine.resolve import resolve
from demoe.engine.runner import make_runner, model_for
from demoe.engine.work import PlaneWork
from demoe.execution.prospect import Estimate, Prospect, asked, blank
from demoe.execution.speeds import pixels_read, seconds_per_pixel
from demoe.image.lazy_image import LazyImage
from demoe.model.devices import list_devices, why_processor
from demoe.recipe import Recipe

# Measured on CPUs with `demoe bench`; estimates are meant to be right within a factor of 2.
_SHARE_OF_PEAK = 0.35
_LOCAL_ROUTING = 1.5  # a survey, and two experts where decisions change: 1.1 to 2.2
_BYTES_OF_PROGRAM = 0.5e9  # torch, the network, a few tiles of pixels

# What finding a blur and undoing it takes, in operations a pixel at the share of the peak above:
# of each sample, and of a photo's fusion besides.
_UNDOING = 19e3
_FUSING = 10e3
_PLACES = 100e9  # operations for the places of a plane
_BYTES_OF_FUSION = 200  # a pixel of a read: four pictures, their weights and what leads to them
_BYTES_OF_WINDOWS = 0.08e9  # those that are kept, and one that is being undone

_BLUR = {
    "": "",
    "psf": "given, and undone",
    "photo": "looked for in places, undone, and fused with what the network makes",
    "measurement": "looked for in places, and undone without the network",
}


def estimate(image: LazyImage, recipe: Recipe) -> Estimate:
    """Say what a run on an image would take; its pixels are not read.

    Raises
    ------
    DemoeError
        If the recipe does not fit image or network, or the network is not here.
    """
    model = model_for(recipe)
    runner = make_runner(model, recipe, image.dtype)
    work = resolve(image, recipe, model)
    made, plan = provenance(work, model), work.plan
    pixels = pixels_read(made)
    rate = seconds_per_pixel(made)
    is_measured = rate is not None
    if rate is None:
        rate = _operations(work, pixels, model.tenant.flops_per_pixel) / pixels
        rate /= _SHARE_OF_PEAK * _matrix_rate(model.device)
    memory = _BYTES_OF_PROGRAM + _blur_memory(work, pixels)
    if work.asks_network:
        memory += pixels * runner.bytes_per_pixel
    sample = image.dtype.itemsize * (3 if image.is_rgb else 1)
    return Estimate(
        plan,
        image.n_planes,
        pixels * rate,
        is_measured,
        round(memory),
        math.prod(plan.core_shape) * sample,
        math.prod(image.shape) * image.dtype.itemsize,
        made,
        _BLUR[work.kernels_from],
    )


def look_ahead(axes: str, shape: tuple[int, ...], dtype: str, recipe: Recipe) -> Prospect:
    """Say what a run on an image of that kind would take, and where it could be computed.

    Raises
    ------
    DemoeError
        As `estimate`.
    """
    found = estimate(blank(axes, shape, dtype), recipe)
    return Prospect(
        found,
        tuple((device.name, device.label) for device in list_devices()),
        why_processor() if recipe.device == "auto" else "",
    )


def describe(image: LazyImage, recipe: Recipe) -> dict[str, Any]:
    """Return JSON-able facts about an image and a run on it.

    Axes, size and dtype are the image's; tiles follow from the recipe; memory (bytes, of
    the whole process) and time (seconds) are estimates for this machine.
    """
    model, found = model_for(recipe), estimate(image, recipe)
    return {
        "image": image.source or image.name,
        "axes": image.axes,
        "shape": list(image.shape),
        "dtype": str(image.dtype),
        "bytes": found.disk,
        "scale": dict(image.scale),
        "units": {letter: image.units.get(letter, "pixel") for letter in image.scale},
        "channels": list(image.channel_names),
        "planes": image.n_planes,
        "routing": found.provenance["routing"],
        "blur": found.blur,
        "tiles": found.tiles,
        "tile": list(found.plan.core_shape),
        "halo": found.plan.halo,
        "model": model.name,
        "architecture": model.architecture.name,
        "choices": list(names_of(model.choices)),
        "device": str(model.device),
        "memory": found.memory,
        "seconds": round(found.tiles * found.seconds, 1),
        "measured": found.is_measured,
    }


def as_text(facts: dict[str, Any]) -> str:
    """Lay out what `describe` returned for people, one fact a line."""
    lengths = ", ".join(
        f"{letter} {n}" for letter, n in zip(facts["axes"], facts["shape"], strict=True)
    )
    steps = [f"{k} {v:g} {facts['units'][k]}" for k, v in facts["scale"].items()]
    rows, columns = facts["tile"]
    lines = {
        "image": facts["image"],
        "size": f"{lengths}; {facts['dtype']}, {amount(facts['bytes'])}",
        "step": ", ".join(steps) or "not stated",
        "channels": ", ".join(facts["channels"]),
        "planes": facts["planes"],
        "model": f"{facts['model']} ({facts['architecture']}), on {facts['device']}",
        "routing": facts["routing"],
        "blur": facts["blur"],
        "tiles": f"{facts['tiles']} of {columns} x {rows} pixels, read with {facts['halo']} more "
        "around",
        "memory": f"about {amount(facts['memory'])}",
        "time": f"about {_duration(facts['seconds'])}"
        + (", as earlier runs on this machine" if facts["measured"] else ""),
    }
    return "\n".join(f"{name:<8}  {value}" for name, value in lines.items() if value)


def _operations(work: PlaneWork, pixels: int, of_network: float) -> float:
    """Return the operations of a tile that reads so many pixels."""
    found = 0.0
    if work.asks_network:
        found = pixels * of_network * (_LOCAL_ROUTING if work.routing == "local" else 1)
    if work.kernels_from:
        samples = 3 if work.image.is_rgb else 1
        each = samples * _UNDOING + (_FUSING if work.kernels_from == "photo" else 0)
        found += pixels * each + _PLACES / math.prod(work.plan.shape)
    return found


def _blur_memory(work: PlaneWork, pixels: int) -> float:
    """Return the bytes that undoing a blur takes beside the network's."""
    if not work.kernels_from:
        return 0.0
    return _BYTES_OF_WINDOWS + (pixels * _BYTES_OF_FUSION if work.kernels_from == "photo" else 0)


@functools.cache
def _matrix_rate(device: torch.device) -> float:
    """Return floating-point operations a second of a large matrix product, measured now."""
    n = 1024
    a = torch.rand(n, n, device=device)
    times = []
    for _ in range(4):
        began = time.perf_counter()
        float((a @ a)[0, 0])  # reading a number waits for the device
        times.append(time.perf_counter() - began)
    return 2 * n**3 / min(times)


def _duration(seconds: float) -> str:
    for size, unit in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds" if seconds >= 1.5 else "a second"


if __name__ == "__main__":
    asked(look_ahead)
