"""The detector of blur: learnt on places of which it is known what is blurred."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from demoe.choices import TASKS
from demoe.model.kernels.detector import GRID, Detector
from demoe.model.kernels.estimator import gray_of
from demoe.training.kernels.fitting import fit
from demoe.training.kernels.places import SHARP, Place

SHARES = {
    TASKS.index("local_motion"): 0.62,
    TASKS.index("defocus"): 0.05,
    TASKS.index("global_motion"): 0.06,
    TASKS.index("synth_global_motion"): 0.06,
    TASKS.index("low_light"): 0.05,
    SHARP: 0.16,
}
"""How often each task is drawn for the detector: mostly what is blurred in parts."""

CROP, BATCH = 256, 8
_TEXTURE = 0.03  # standard deviation of a place of the grid from which on it counts fully
_PLAIN = 0.1  # so much more than nothing a place without any counts


@dataclass(frozen=True)
class Scene:
    """What the detector learns of a place.

    Attributes
    ----------
    gray, extent : ndarray of uint8
        (H, W), its luma and how much of each pixel is blurred, both from 0 to 255.
    """

    gray: NDArray[np.uint8]
    extent: NDArray[np.uint8]


def scenes_of(places: Iterable[Place]) -> list[Scene]:
    """Return what the detector learns of places, small enough that thousands fit in memory."""
    return [Scene(_bytes(gray_of(one.blurred)), _bytes(one.extent)) for one in places]


def _bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.asarray(np.rint(255 * values.clip(0, 1)), np.uint8)


def learn_detector(
    scenes: Sequence[Scene], seconds: float, seed: int, report: Callable[[str], None]
) -> Detector:
    """Fit a detector for some time.

    Parameters
    ----------
    scenes : sequence of Scene
        What it is learnt on, some thousand.
    seconds : float
        For how long.
    seed : int
        Where randomness begins.
    report : callable
        Gets a line now and then.
    """
    torch.manual_seed(seed)
    rng, detector = np.random.default_rng(seed), Detector()

    def lesson() -> tuple[Tensor, float]:
        gray, extent = _batch(scenes, rng)
        loss = _loss(detector(gray), gray, extent)
        return loss, float(loss.detach())

    def tell(step: int, spent: float, loss: float) -> None:
        report(f"step {step}, {spent:.0%}: loss {loss:.3f}")

    fit(detector, seconds, lesson, tell)
    return detector


def told_right(detector: Detector, scenes: Sequence[Scene]) -> float:
    """Return the share of what a detector tells right, what has texture counting more."""
    right, total = 0.0, 0.0
    with torch.inference_mode():
        for scene in scenes:
            gray, extent = (_stacked([values]) for values in (scene.gray, scene.extent))
            wanted = _coarse(extent)
            told, weight = detector(gray) > 0, _weights(gray)
            right += float(((told == (wanted > 0.5)) * weight).sum())
            total += float(weight.sum())
    return right / total


def _loss(logits: Tensor, gray: Tensor, extent: Tensor) -> Tensor:
    wrong = F.binary_cross_entropy_with_logits(logits, _coarse(extent), reduction="none")
    weight = _weights(gray)
    return (wrong * weight).sum() / weight.sum()


def _coarse(extent: Tensor) -> Tensor:
    return F.avg_pool2d(extent, GRID)


def _weights(gray: Tensor) -> Tensor:
    """Return what each place of the grid counts: what is plain looks the same, blurred or not."""
    mean = F.avg_pool2d(gray, GRID)
    deviation = (F.avg_pool2d(gray.square(), GRID) - mean.square()).clamp_min(0).sqrt()
    return _PLAIN + (deviation / _TEXTURE).clamp_max(1)


def _batch(scenes: Sequence[Scene], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Cut crops of some scenes, flipped and turned by chance."""
    grays: list[NDArray[np.uint8]] = []
    extents: list[NDArray[np.uint8]] = []
    for number in rng.integers(len(scenes), size=BATCH):
        scene = scenes[number]
        top, left = (int(rng.integers(side - CROP + 1)) for side in scene.extent.shape)
        part = slice(top, top + CROP), slice(left, left + CROP)
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        for values, into in ((scene.gray, grays), (scene.extent, extents)):
            cut = np.rot90(values[part], turns)
            into.append(cut[:, ::-1] if flip else cut)
    return _stacked(grays), _stacked(extents)


def _stacked(pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Return pictures (N, 1, H, W) in [0, 1]."""
    return torch.from_numpy(np.stack(pictures)[:, None].astype(np.float32) / 255)
