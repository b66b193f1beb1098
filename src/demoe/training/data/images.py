"""The pictures of a training: photographs of a pack and drawn ones, seen and held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from demoe.training.data.crops import SharpImages
from demoe.training.data.pack import load_pack
from demoe.training.data.procedural import procedural_images

PROCEDURAL, PROCEDURAL_HELD_OUT = 450, 60
"""Images made from nothing that join the photographs of a pack, in training and held out of it."""

SIDE = 192
"""Side in pixels of drawn images where there is no pack."""


def load_images(pack: Path | None, device: Any) -> tuple[SharpImages, SharpImages]:
    """Return training and held-out images: a pack's photographs and drawn images.

    The two drawn sets have different seeds, the two photographic ones different source files.
    """
    seen, held_out = _photographs(pack)
    return (
        _with_drawn(seen, PROCEDURAL, 11, device),
        _with_drawn(held_out, PROCEDURAL_HELD_OUT, 99, device),
    )


def load_held_out(pack: Path | None, device: Any) -> SharpImages:
    """Return the second of what `load_images` returns, without making the first."""
    return _with_drawn(_photographs(pack)[1], PROCEDURAL_HELD_OUT, 99, device)


def _photographs(pack: Path | None) -> tuple[Any, Any]:
    """Return a pack's training and held-out images; without a pack, none of the usual size."""
    if pack is None:
        return np.empty((0, SIDE, SIDE, 3), np.uint8), np.empty((0, SIDE, SIDE, 3), np.uint8)
    content = load_pack(pack)
    return content.images[content.train], content.images[content.validation]


def _with_drawn(photographs: Any, count: int, seed: int, device: Any) -> SharpImages:
    drawn = procedural_images(count, photographs.shape[1], seed=seed)
    return SharpImages(np.concatenate([photographs, drawn]), device)
