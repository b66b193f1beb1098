"""What tiles took on this machine, kept from earlier runs, to say beforehand what the next takes.

A small file in the cache holds the last runs of each kind. It only makes estimates better: where it
is lost, damaged or cannot be written, nothing else is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from demoe.errors import DemoeError
from demoe.io.atomic import write_text
from demoe.limits import parse_json
from demoe.model.zoo import cache_dir

RUNS = 8
"""So many runs of a kind count; older ones are forgotten."""

_KINDS = 64
_FILE = "speeds.json"
_MOST_BYTES = 2**20

_COUNTS = ("top_k", "pooling", "skip_flat", "photometry", "precision", "smoothing", "agreement")
"""Fields of a recipe that change what a pixel takes."""


def note(provenance: Mapping[str, Any], tiles: int, seconds: float) -> None:
    """Keep what a run took on this machine.

    Parameters
    ----------
    provenance : mapping
        How it was done, as of `demoe.Deblurred`.
    tiles : int
        Tiles that were computed.
    seconds : float
        Time that they took together.
    """
    pixels = tiles * pixels_read(provenance)
    if pixels <= 0 or not 0 < seconds < math.inf:
        return
    kept, kind = _kept(), _kind(provenance)
    runs = [*kept.pop(kind, []), [pixels, round(seconds, 3)]]
    kept[kind] = runs[-RUNS:]  # last, so that the first is the one that was not used for longest
    text = json.dumps(dict(list(kept.items())[-_KINDS:]), indent=1)
    with suppress(OSError, DemoeError):
        cache_dir().mkdir(parents=True, exist_ok=True)
        write_text(_path(), text)


def seconds_per_pixel(provenance: Mapping[str, Any]) -> float | None:
    """Return what a pixel that is read took in runs of this kind; None before the first one."""
    runs = _kept().get(_kind(provenance))
    if not runs:
        return None
    return math.fsum(run[1] for run in runs) / math.fsum(run[0] for run in runs)


def pixels_read(provenance: Mapping[str, Any]) -> int:
    """Return the pixels that are read for a tile, those around it included."""
    tiles, source = provenance["tiles"], provenance["source"]
    lengths = dict(zip(source["axes"], source["shape"], strict=True))
    sides = zip(tiles["core"], (lengths["Y"], lengths["X"]), strict=True)
    return math.prod(min(side + 2 * tiles["halo"], length) for side, length in sides)


def _kind(provenance: Mapping[str, Any]) -> str:
    """Name all that a pixel's time depends on."""
    recipe, source = provenance["recipe"], provenance["source"]
    psf = recipe["psf"] if recipe["psf"] in (None, "auto") else "known"
    decided = provenance["routing"] in ("local", "image")
    parts = {
        "weights": provenance["weights"]["sha256"][:16],
        "device": provenance["device"],
        "backend": provenance["backend"],
        "routing": provenance["routing"] if decided else "named",
        "psf": psf,
        "image": source["dtype"] + (" colour" if "S" in source["axes"] else ""),
        **{name: recipe[name] for name in _COUNTS},
    }
    return json.dumps(parts, sort_keys=True)


def _path() -> Path:
    return cache_dir() / _FILE


def _kept() -> dict[str, list[list[float]]]:
    """Return the runs that are kept, by kind; what is damaged counts as nothing."""
    try:
        path = _path()
        if path.stat().st_size > _MOST_BYTES:
            return {}
        found = parse_json(path.read_text(encoding="utf-8"))
        return {str(kind): [_run(run) for run in runs] for kind, runs in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _run(values: Any) -> list[float]:
    pixels, seconds = (float(value) for value in values)
    if not (0 < pixels < math.inf and 0 < seconds < math.inf):
        raise ValueError("no run took so long")
    return [pixels, seconds]
