"""How long and how to train."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from demoe.errors import RecipeError
from demoe.model.protocol import Architecture
from demoe.training.data.crops import SharpImages

LAST_PART = 0.8
"""Point of the schedule from which crops have their last size."""


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how to train.

    Parameters
    ----------
    minutes : float
        Time for the whole schedule; the learning rate follows it down to zero.
    start, stop : float
        Part of the schedule to do in this call, as fractions of ``minutes``; a schedule can be
        run in pieces on a machine that is lent for a short time.
    batch, crop : int
        Images a step and their side in pixels.
    last_crop : int
        Side of the crops in the last fifth of the schedule, fewer a step so that it takes as
        long; 0 for the same side throughout.
    rate : float
        Highest learning rate.
    router_weight : float
        Weight of the router's cross entropy beside the restoration loss.
    sharp_share : float
        Share of images that are sharp already and must stay as they are.
    mixed_share : float
        Share of images that carry two blurs, each in a region that reaches its own expert.
    ema : float
        Share of the smoothed weights that a step keeps, once there have been many.
    seed : int
        Seed of data, degradations and initial weights.
    save_every_s : float
        Seconds between two saves of the state.

    Raises
    ------
    RecipeError
        If a field is out of range.
    """

    minutes: float = 60.0
    start: float = 0.0
    stop: float = 1.0
    batch: int = 10
    crop: int = 128
    last_crop: int = 0
    rate: float = 1e-3
    router_weight: float = 0.1
    sharp_share: float = 0.08
    mixed_share: float = 0.0
    ema: float = 0.999
    seed: int = 0
    save_every_s: float = 180.0

    def __post_init__(self) -> None:
        """Check what would fail late, or never end."""
        if not 0 < self.minutes < math.inf:
            raise RecipeError(f"minutes must be a number above 0, not {self.minutes}.")
        if not 0 <= self.start < self.stop <= 1:
            raise RecipeError(
                f"start and stop must be 0 <= start < stop <= 1, not {self.start} and {self.stop}."
            )
        if self.batch < 2 or self.crop < 16:
            raise RecipeError(
                "A batch needs at least 2 images of at least 16 pixels a side, not "
                f"{self.batch} of {self.crop}."
            )
        if self.last_crop and self.last_crop < self.crop:
            raise RecipeError(
                f"Crops grow: the last ones cannot be {self.last_crop} px where the first are "
                f"{self.crop} px."
            )
        if not 0 <= self.mixed_share <= 1:
            raise RecipeError(f"mixed_share must be from 0 to 1, not {self.mixed_share}.")
        if not 0 < self.rate < math.inf:
            raise RecipeError(f"rate must be a number above 0, not {self.rate}.")

    def shape(self, progress: float) -> tuple[int, int]:
        """Return images a step and their side in pixels, at a point of the schedule."""
        if not self.last_crop or progress < LAST_PART:
            return self.batch, self.crop
        return max(2, round(self.batch * (self.crop / self.last_crop) ** 2)), self.last_crop


def learning_rate(plan: TrainingPlan, progress: float) -> float:
    """Return the rate at a point of the schedule: short warm-up, then half a cosine."""
    warm = min(1.0, progress / 0.01 + 0.02)
    return plan.rate * warm * (0.5 + 0.5 * math.cos(math.pi * min(1.0, progress))) + 1e-7


@dataclass(frozen=True)
class Training:
    """What a training was made with.

    Attributes
    ----------
    architecture : Architecture
        Of the network.
    plan : TrainingPlan
        Its schedule.
    images, held_out : SharpImages
        Images trained on and held out.
    folder : Path
        Where its state is, and its results go.
    pack, init : Path or None
        Data pack, and weights that it began from.
    per_task : int
        Images a task in the evaluation.
    report : callable
        Told a line now and then.
    """

    architecture: Architecture
    plan: TrainingPlan
    images: SharpImages
    held_out: SharpImages
    folder: Path
    pack: Path | None
    init: Path | None
    per_task: int
    report: Callable[[str], None]
