"""What a result says of its making."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from dask.base import tokenize

from demoe.choices import to_record
from demoe.engine.runner import half_will_do
from demoe.engine.work import PlaneWork
from demoe.model.loading import Model


def provenance(work: PlaneWork, model: Model) -> dict[str, Any]:
    """Return how a piece of work is done, JSON-able: versions, source, weights, recipe, tiles."""
    source, recipe, plan, painted = work.image, work.recipe, work.plan, work.painted
    return {
        "software": {
            "napari-demoe": version("napari-demoe"),
            "torch": version("torch"),
            "dask": version("dask"),
            "numpy": version("numpy"),
            "python": platform.python_version(),
        },
        "source": {
            "name": source.name,
            "path": source.source,
            "axes": source.axes,
            "shape": list(source.shape),
            "dtype": str(source.dtype),
        },
        "weights": {
            "name": model.name,
            "sha256": model.sha256,
            "architecture": model.architecture.name,
            "network": model.tenant.facts(),
            "choices": to_record(model.choices),
        },
        "recipe": asdict(recipe),
        "routing": work.routing,
        "painted": None if painted is None else tokenize(painted.cells),
        "tiles": {
            "core": list(plan.core_shape),
            "halo": plan.halo,
            "grid": list(plan.shape),
        },
        "device": str(model.device),
        "backend": model.tenant.backend_name(half_will_do(recipe, source.dtype)),
    }
