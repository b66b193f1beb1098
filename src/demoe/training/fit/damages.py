"""What networks for several kinds of damage learn from: see `Lessons`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from demoe.model.protocol import Apprentice
from demoe.training.damage.damages import KINDS, ORDER, Damaged, Wrong, damage
from demoe.training.data.crops import SharpImages
from demoe.training.evaluate.metrics import psnr
from demoe.training.fit.loss import restoration_loss
from demoe.training.fit.plan import TrainingPlan
from demoe.training.random import Draw

MISTOLD = 0.1
"""Share of images whose network is told to undo something else, and is to leave them alone."""


class Damages:
    """Networks learn to undo damage; a `Lessons`.

    They are an `Apprentice` each. Of the plan's shares, ``sharp_share`` of the images have nothing
    wrong, and ``mixed_share`` carry damage of two kinds.

    Parameters
    ----------
    kinds : sequence of str
        Kinds of damage that are learnt, each in its equal share.
    told : bool
        Whether the network is told what to undo; else all is to be undone, always.
    """

    figure = "gain"

    def __init__(self, kinds: Sequence[str] = KINDS, *, told: bool) -> None:
        self.kinds, self.told = tuple(kinds), told

    def begin(self, network: Apprentice) -> None:
        """Nothing is to be prepared."""

    def tasks(self, plan: TrainingPlan, step: int, batch: int, draw: Draw) -> list[Wrong]:
        """Give every kind its equal share."""
        count = len(self.kinds)
        return [self._wrong((step * batch + n) % count, plan, draw) for n in range(batch)]

    def _wrong(self, number: int, plan: TrainingPlan, draw: Draw) -> Wrong:
        kind = self.kinds[number]
        other = self.kinds[(number + draw.integer(1, len(self.kinds))) % len(self.kinds)]
        if draw.chance(plan.sharp_share):
            return Wrong((), (kind,) if self.told else ())
        if self.told and draw.chance(MISTOLD):
            return Wrong((kind,), (other,))
        if draw.chance(plan.mixed_share):
            both = tuple(one for one in ORDER if one in (kind, other))
            # Undone are both, or the one that happened last: what came before it is still there.
            return Wrong(both, both[1:] if self.told and draw.chance(0.5) else both)
        return Wrong((kind,), (kind,))

    def examples(self, images: SharpImages, tasks: list[Wrong], crop: int, draw: Draw) -> Damaged:
        """Damage images as they are lit: how bright they are to be must show."""
        return damage(images.batch(len(tasks), crop, draw, relit=False), tasks, draw)

    def losses(
        self,
        network: Apprentice,
        examples: Damaged,
        progress: float,
        plan: TrainingPlan,
        draw: Draw,
    ) -> tuple[Tensor, float]:
        """Return the loss of one batch, and what its damaged images gain, in dB."""
        restored, more = network.practise(examples.image, examples.told, draw.generator)
        loss = restoration_loss(restored, examples.target) + more
        with torch.no_grad():
            gained = psnr(restored, examples.target) - psnr(examples.image, examples.target)
            wrong = (examples.image != examples.target).flatten(1).any(dim=1)
        return loss, float(gained[wrong].mean()) if wrong.any() else 0.0
