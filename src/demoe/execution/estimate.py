"""What a run on an image would take, without reading its pixels."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from demoe.choices import names_of
from demoe.engine.resolve import make_plan, resolve_routing
from demoe.engine.runner import make_runner, model_for
from demoe.image.lazy_image import LazyImage
from demoe.recipe import Recipe

# Measured on CPUs with `demoe bench`; estimates are meant to be right within a factor of 2.
_SHARE_OF_PEAK = 0.35
_LOCAL_ROUTING = 2.0  # a pass of the encoder more, and two experts where decisions change
_BYTES_OF_PROGRAM = 0.5e9  # torch, the network, a few tiles of pixels


def describe(image: LazyImage, recipe: Recipe) -> dict[str, Any]:
    """Return JSON-able facts about an image and a run on it.

    Axes, size and dtype are the image's; tiles follow from the recipe; memory (bytes, of
    the whole process) and time (seconds) are estimates for this machine.
    """
    model = model_for(recipe)
    runner = make_runner(model, recipe, image.dtype)
    plan = make_plan(image, recipe, runner)
    read = plan.tile_at(plan.shape[0] // 2, plan.shape[1] // 2).read.shape
    tiles = image.n_planes * math.prod(plan.shape)
    operations = tiles * math.prod(read) * model.tenant.flops_per_pixel
    routing = resolve_routing(recipe, plan, model)
    seconds = operations / (_SHARE_OF_PEAK * _matrix_rate(model.device))
    if routing == "local":
        seconds *= _LOCAL_ROUTING
    return {
        "image": image.source or image.name,
        "axes": image.axes,
        "shape": list(image.shape),
        "dtype": str(image.dtype),
        "bytes": math.prod(image.shape) * image.dtype.itemsize,
        "scale": dict(image.scale),
        "units": {letter: image.units.get(letter, "pixel") for letter in image.scale},
        "channels": list(image.channel_names),
        "planes": image.n_planes,
        "routing": routing,
        "tiles": tiles,
        "tile": list(plan.core_shape),
        "halo": plan.halo,
        "model": model.name,
        "architecture": model.architecture.name,
        "choices": list(names_of(model.choices)),
        "device": str(model.device),
        "memory": round(_BYTES_OF_PROGRAM + math.prod(read) * runner.bytes_per_pixel),
        "seconds": round(seconds, 1),
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
        "size": f"{lengths}; {facts['dtype']}, {_amount(facts['bytes'])}",
        "step": ", ".join(steps) or "not stated",
        "channels": ", ".join(facts["channels"]),
        "planes": facts["planes"],
        "model": f"{facts['model']} ({facts['architecture']}), on {facts['device']}",
        "routing": facts["routing"],
        "tiles": f"{facts['tiles']} of {columns} x {rows} pixels, read with {facts['halo']} more "
        "around",
        "memory": f"about {_amount(facts['memory'])}",
        "time": f"about {_duration(facts['seconds'])}",
    }
    return "\n".join(f"{name:<8}  {value}" for name, value in lines.items() if value)


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


def _amount(size: float) -> str:
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} bytes"
