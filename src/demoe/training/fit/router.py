"""Train the router alone, to convergence, on features of a finished encoder.

In joint training the router sees small batches of features that still change, and one size of
picture. Here features are computed once and kept, so that batches are large and many degradations
are seen. Some pictures hold two blurs, as the windows of place-by-place routing may do, and are to
be called by the one that covers most of them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from demoe.choices import TASKS
from demoe.model.protocol import Pupil
from demoe.training.blur.composites import blend
from demoe.training.blur.degradations import degrade
from demoe.training.data.crops import SharpImages
from demoe.training.random import Draw

MIXED, LARGE = 0.3, 0.2
"""Shares of pictures that hold two blurs, and of those as large as the images are."""
HELD_BACK = 7
"""Every seventh image is held back: it decides when to stop, and how confident to be."""
PATIENCE = 8
"""Checks without a better loss before it stops."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class _Group:
    """Features (n, C, h, w) of pictures of one size, and their tasks (n,)."""

    features: Tensor
    tasks: Tensor
    whole: bool
    """Whether all of a picture counts, because it may hold several blurs."""


def fit_router(
    network: Pupil,
    images: SharpImages,
    *,
    samples: int = 6000,
    steps: int = 3000,
    crop: int = 128,
    seed: int = 0,
    report: Report = print,
) -> None:
    """Train the router of a network, and scale its confidence to how often it is right.

    Parameters
    ----------
    network : Pupil
        Its encoder stays as it is; left in evaluation mode, without gradients.
    images : SharpImages
        Sharp training images.
    samples : int
        Blurred pictures.
    steps : int
        At most this many steps; it stops early when held-back pictures are no longer told better.
    crop, seed : int
        Side of most pictures in pixels, that of the windows of place-by-place routing; seed of the
        degradations.
    report : callable
        Told a line now and then.
    """
    network.eval().requires_grad_(False)
    multiple = network.multiple
    large = images.largest_crop // multiple * multiple
    small = min(crop, large) // multiple * multiple
    kinds = [(1 - MIXED - LARGE, small, False), (LARGE, large, False), (MIXED, small, True)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            seen, back = (
                [
                    _features(network, part, round(share * count), side, mixed, number + n, pool)
                    for n, (share, side, mixed) in enumerate(kinds)
                ]
                for part, count, number in (
                    (images.every(HELD_BACK, but=True), samples, 77_777 + 10 * seed),
                    (images.every(HELD_BACK), samples // HELD_BACK, 88_888 + 10 * seed),
                )
            )
    finally:
        torch.set_num_threads(threads)
    _learn(network, seen, back, steps, seed, report)
    network.eval().requires_grad_(False)


def _features(
    network: Pupil,
    images: SharpImages,
    count: int,
    side: int,
    mixed: bool,
    seed: int,
    pool: ThreadPoolExecutor,
) -> _Group:
    """Blur pictures and encode them, eight at a time, each eight with a seed of its own."""

    @torch.no_grad()
    def some(start: int) -> tuple[Tensor, Tensor]:
        draw = Draw(seed * 1_000_003 + start)
        tasks = [(start + i) % len(TASKS) for i in range(min(8, count - start))]
        if mixed:
            pictures, tasks = _mixed(images, tasks, side, draw)
        else:
            pictures = degrade(images.batch(len(tasks), side, draw), tasks, draw).image
        features = network.deepest(pictures)
        return features.half(), torch.tensor(tasks, device=features.device)

    parts = list(pool.map(some, range(0, count, 8)))
    features, tasks = (torch.cat(column) for column in zip(*parts, strict=True))
    return _Group(features, tasks, whole=mixed)


def _mixed(
    images: SharpImages, tasks: list[int], side: int, draw: Draw
) -> tuple[Tensor, list[int]]:
    """Blur pictures (N, 3, side, side) in two ways each; the task is the one with more of it."""
    pictures, dominant = [], []
    for task in tasks:
        both = (task, (task + draw.integer(1, len(TASKS))) % len(TASKS))
        made = blend(lambda: images.batch(1, side, draw), both, side, draw)
        pictures.append(made.image)
        dominant.append(int(made.shares.mean(dim=(1, 2)).argmax()))
    return torch.cat(pictures), dominant


def _learn(
    network: Pupil,
    seen: list[_Group],
    back: list[_Group],
    steps: int,
    seed: int,
    report: Report,
) -> None:
    """Fit the router to kept features, keep its best state, and set its confidence."""
    router = network.router.requires_grad_(True)
    optimiser = torch.optim.AdamW(router.parameters(), lr=1e-3, weight_decay=0.02)
    draw = Draw(seed + 5)
    shares = torch.tensor([float(len(g.tasks)) for g in seen])
    best, best_loss, waited = copy.deepcopy(router.state_dict()), math.inf, 0
    every = max(1, steps // 30)
    for step in range(steps):
        for parameters in optimiser.param_groups:
            parameters["lr"] = 1e-3 * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        router.train()
        group = seen[int(torch.multinomial(shares, 1, generator=draw.generator))]
        rows = torch.randint(len(group.tasks), (64,), generator=draw.generator)
        rows = rows.to(group.tasks.device)
        features = group.features[rows].float()
        scores = router.logits(features if group.whole else _part(features, draw))
        loss = F.cross_entropy(scores, group.tasks[rows], label_smoothing=0.05)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step % every == every - 1:
            logits, tasks = _judge(network, back)
            found = float(F.cross_entropy(logits, tasks))
            right = float((logits.argmax(dim=1) == tasks).float().mean())
            report(f"router step {step + 1}: held-back loss {found:.3f}, right {right:.2f}")
            waited += 1
            if found < best_loss:
                best, best_loss, waited = copy.deepcopy(router.state_dict()), found, 0
            if waited >= PATIENCE:
                break
    router.load_state_dict(best)
    _calibrate(network, back, report)


def _part(features: Tensor, draw: Draw) -> Tensor:
    """Return a random part of the features, now and then: no decision may hang on one place."""
    h, w = features.shape[2:]
    if h < 6 or w < 6 or draw.chance(0.5):
        return features
    rows, columns = draw.integer(h // 2, h + 1), draw.integer(w // 2, w + 1)
    top, left = draw.integer(0, h - rows + 1), draw.integer(0, w - columns + 1)
    return features[:, :, top : top + rows, left : left + columns]


@torch.no_grad()
def _judge(network: Pupil, groups: list[_Group]) -> tuple[Tensor, Tensor]:
    """Return the router's scores (n, tasks) in evaluation mode, and the true tasks (n,)."""
    router = network.router.eval()
    logits = [router.logits(part.float()) for group in groups for part in group.features.split(128)]
    return torch.cat(logits), torch.cat([group.tasks for group in groups])


@torch.no_grad()
def _calibrate(network: Pupil, groups: list[_Group], report: Report) -> None:
    """Divide the last layer by the temperature whose confidence fits best (Guo et al. 2017)."""
    logits, tasks = _judge(network, groups)
    temperatures = [0.5 * 1.05**n for n in range(40)]
    losses = [float(F.cross_entropy(logits / t, tasks)) for t in temperatures]
    temperature = temperatures[losses.index(min(losses))]
    network.temper(temperature)
    sure = (logits / temperature).softmax(dim=1).amax(dim=1)
    right = (logits.argmax(dim=1) == tasks).float()
    report(
        f"router: right {float(right.mean()):.2f}, confident {float(sure.mean()):.2f}, "
        f"temperature {temperature:.2f}"
    )
