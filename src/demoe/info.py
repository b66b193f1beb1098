"""What a run on an image would take, without reading its pixels."""

from __future__ import annotations

import math
import os
import time
from typing import Any

import torch

from demoe.io import open_image
from demoe.lazy import make_plan, resolve_routing
from demoe.model.flops import flops_per_pixel
from demoe.model.loading import load_model
from demoe.planes import make_runner
from demoe.recipe import Recipe

# Both measured on CPUs with `demoe bench`; the estimate is meant to be right within a factor of 2.
_SHARE_OF_PEAK = 0.2
_BYTES_PER_CHANNEL = 90


def describe(path: str | os.PathLike[str], axes: str | None, recipe: Recipe) -> dict[str, Any]:
    """Return JSON-able facts about an image and a run on it.

    Axes, size and dtype are read from the file; tiles follow from the recipe; memory and time are
    estimates for this machine.
    """
    image = open_image(path, axes)
    model = load_model(recipe.model, recipe.device)
    plan = make_plan(image, recipe, make_runner(model, recipe).halo, model.multiple)
    read = plan.tile_at(plan.shape[0] // 2, plan.shape[1] // 2).read.shape
    tiles = image.n_planes * math.prod(plan.shape)
    operations = tiles * math.prod(read) * flops_per_pixel(model.config)
    seconds = operations / (_SHARE_OF_PEAK * _matrix_rate(model.device))
    units = {k: f"{v:g} {image.units.get(k, 'pixel')}" for k, v in image.scale.items()}
    return {
        "image": str(path),
        "axes": image.axes,
        "shape": list(image.shape),
        "dtype": str(image.dtype),
        "size": f"{math.prod(image.shape) * image.dtype.itemsize / 1e6:.1f} MB",
        "step": units,
        "channels": list(image.channel_names),
        "planes": image.n_planes,
        "routing": resolve_routing(recipe, plan),
        "tiles": tiles,
        "tile": list(plan.core_shape),
        "halo": plan.halo,
        "model": f"{model.name}, width {model.config.width}",
        "device": str(model.device),
        "memory": f"about {math.prod(read) * model.config.width * _BYTES_PER_CHANNEL / 1e9:.1f} GB",
        "time": f"about {_duration(seconds)}",
    }


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
    return f"{max(1, seconds):.0f} seconds"
