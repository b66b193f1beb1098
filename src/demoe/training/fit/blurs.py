"""What a network with an expert for each kind of blur learns from: see `Lessons`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from demoe.choices import TASKS
from demoe.model.protocol import Pupil
from demoe.training.blur.composites import blend
from demoe.training.blur.degradations import degrade
from demoe.training.data.crops import SharpImages
from demoe.training.fit.loss import restoration_loss
from demoe.training.fit.plan import TrainingPlan
from demoe.training.random import Draw

Kinds = tuple[int, ...]
"""What an image carries, as indices into ``TASKS``: nothing if it is sharp, one blur, or two."""

STRAY = 0.1
"""Share of images that reach the router's choice instead of their own kind's expert, in the second
half of the schedule: each expert has to bear what the router mistakes, but more would make all
experts alike."""
CELLS = (16, 32, 64)
"""Pixels a side of the cells in which experts change within an image of several blurs."""


def tasks(plan: TrainingPlan, step: int, batch: int, draw: Draw) -> list[Kinds]:
    """Give every task its equal share, a few images being sharp, and some carrying two blurs."""
    return [_kinds((step * batch + i) % len(TASKS), plan, draw) for i in range(batch)]


def _kinds(task: int, plan: TrainingPlan, draw: Draw) -> Kinds:
    if draw.chance(plan.sharp_share):
        return ()
    if plan.mixed_share and draw.chance(plan.mixed_share):
        return task, (task + draw.integer(1, len(TASKS))) % len(TASKS)
    return (task,)


@dataclass(frozen=True)
class Examples:
    """What a step learns from.

    Attributes
    ----------
    image, target : Tensor
        (N, 3, side, side) in [0, 1].
    shares : Tensor
        (N, 5, rows, cols): how much of each cell every task has to do with; 0 in sharp images.
    """

    image: Tensor
    target: Tensor
    shares: Tensor


def examples(images: SharpImages, tasks: list[Kinds], crop: int, draw: Draw) -> Examples:
    """Blur images, each in its own way, those with several blurs last."""
    plain = [kinds[0] if kinds else -1 for kinds in tasks if len(kinds) < 2]
    several = [kinds for kinds in tasks if len(kinds) > 1]
    found = []
    if plain:
        data = degrade(images.batch(len(plain), crop, draw), plain, draw)
        shares = F.one_hot(data.task + 1, len(TASKS) + 1)[:, 1:, None, None].to(data.image)
        found.append(Examples(data.image, data.target, shares))
    cells = -(-crop // CELLS[draw.integer(0, len(CELLS))]) if several else 1
    for kinds in several:
        made = blend(lambda: images.batch(1, crop, draw), kinds, crop, draw)
        shares = F.adaptive_avg_pool2d(made.shares[None], cells)
        found.append(Examples(made.image, made.target, shares))
    return Examples(
        torch.cat([part.image for part in found]),
        torch.cat([part.target for part in found]),
        torch.cat([part.shares.expand(-1, -1, cells, cells) for part in found]),
    )


def losses(
    network: Pupil, examples: Examples, progress: float, plan: TrainingPlan, draw: Draw
) -> tuple[Tensor, float]:
    """Return the loss of one batch, and the share of single blurs that the router gets right."""
    image, shares, experts = examples.image, examples.shares, network.choice_count
    whole = shares.mean(dim=(2, 3))
    known = whole.amax(dim=1) > 0

    def choose(scores: Tensor) -> Tensor:
        gates = F.one_hot(shares.argmax(dim=1), experts).permute(0, 3, 1, 2)
        # Sharp images may reach any expert, and so may, later on, what the router mistakes.
        stray = draw.uniform_(len(image)).to(image.device) < (STRAY if progress > 0.5 else 0.0)
        wild = torch.randint(experts, (len(image),), generator=draw.generator).to(image.device)
        chosen = F.one_hot(torch.where(known, scores.argmax(dim=1), wild), experts)
        return torch.where((stray | ~known)[:, None, None, None], chosen[:, :, None, None], gates)

    restored, scores = network.learn(image, choose)
    loss = restoration_loss(restored, examples.target)
    if known.any():
        loss = loss + plan.router_weight * F.cross_entropy(scores[known], whole[known])
    single = whole.amax(dim=1) == 1
    hits = (scores.argmax(dim=1) == whole.argmax(dim=1))[single]
    return loss, float(hits.float().mean()) if single.any() else 1.0


class Blurs:
    """Networks learn to undo five kinds of blur, and to tell them apart; a `Lessons`.

    They are a `Pupil` each.
    """

    figure = "router"

    def begin(self, network: Pupil) -> None:
        """Let the router keep its statistics: those of small batches mislead it."""
        network.router.eval()

    tasks = staticmethod(tasks)
    examples = staticmethod(examples)
    losses = staticmethod(losses)
