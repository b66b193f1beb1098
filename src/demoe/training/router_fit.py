"""Train the router alone, to convergence, on features of a finished encoder.

In joint training the router sees small batches of features that still change, and one size of
picture. Here features are computed once and kept, so that batches are large and many degradations
of several sizes are seen. The largest are windows of the size that place-by-place routing decides
on; some of those hold several blurs, and are to be called by the one that covers most of them.
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

from demoe.model.network import DeMoENet
from demoe.recipe import TASKS
from demoe.training.data import SharpImages
from demoe.training.degradations import degrade
from demoe.training.random import Draw

WINDOW = 256
"""Side in pixels of the windows that place-by-place routing decides on."""
MIXED = 0.4
"""Share of large windows that hold several blurs."""
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
    network: DeMoENet,
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
    network : DeMoENet
        Its encoder stays as it is; left in evaluation mode, without gradients.
    images : SharpImages
        Sharp training images.
    samples : int
        Blurred pictures: three fifths of ``crop`` px, a fifth of the largest crop of ``images``,
        a fifth windows of 256 px put together from several crops.
    steps : int
        At most this many steps; it stops early when held-back pictures are no longer told better.
    crop, seed : int
        Side of most pictures in pixels; seed of the degradations.
    report : callable
        Told a line now and then.
    """
    network.eval().requires_grad_(False)
    multiple = network.config.multiple
    large = images.largest_crop // multiple * multiple
    small = min(crop, large) // multiple * multiple
    kinds = [(0.6, small, 0), (0.2, large, 0), (0.2, large, WINDOW // multiple * multiple)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            seen, back = (
                [
                    _features(network, part, round(share * count), side, window, number + n, pool)
                    for n, (share, side, window) in enumerate(kinds)
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
    network: DeMoENet,
    images: SharpImages,
    count: int,
    side: int,
    window: int,
    seed: int,
    pool: ThreadPoolExecutor,
) -> _Group:
    """Blur pictures and encode them, eight at a time, each eight with a seed of its own."""

    @torch.no_grad()
    def some(start: int) -> tuple[Tensor, Tensor]:
        draw = Draw(seed * 1_000_003 + start)
        tasks = [(start + i) % len(TASKS) for i in range(min(8, count - start))]
        if window:
            pictures, tasks = _windows(images, tasks, side, min(window, 2 * side), draw)
        else:
            pictures = degrade(images.batch(len(tasks), side, draw), tasks, draw).image
        features = network.encode(network.pad(pictures))[0]
        return features.half(), torch.tensor(tasks, device=features.device)

    parts = list(pool.map(some, range(0, count, 8)))
    features, tasks = (torch.cat(column) for column in zip(*parts, strict=True))
    return _Group(features, tasks, whole=window > 0)


def _windows(
    images: SharpImages, tasks: list[int], side: int, window: int, draw: Draw
) -> tuple[Tensor, list[int]]:
    """Cut windows (N, 3, window, window) out of 2 x 2 crops; the task is the one with most area."""
    pictures, dominant = [], []
    for task in tasks:
        four = [task] * 4
        if draw.chance(MIXED):
            four = [t if draw.chance(0.5) else draw.integer(0, len(TASKS)) for t in four]
        parts = degrade(images.batch(4, side, draw), four, draw).image
        whole = torch.cat([torch.cat([*parts[:2]], dim=2), torch.cat([*parts[2:]], dim=2)], dim=1)
        top, left = (draw.integer(0, 2 * side - window + 1) for _ in range(2))
        pictures.append(whole[:, top : top + window, left : left + window])
        area = [0] * len(TASKS)
        for n, t in enumerate(four):
            rows = side - top if n < 2 else top + window - side
            columns = side - left if n % 2 == 0 else left + window - side
            area[t] += max(0, rows) * max(0, columns)
        dominant.append(area.index(max(area)))
    return torch.stack(pictures), dominant


def _learn(
    network: DeMoENet,
    seen: list[_Group],
    back: list[_Group],
    steps: int,
    seed: int,
    report: Report,
) -> None:
    """Fit the router to kept features, keep its best state, and set its confidence."""
    router = network.mlp_branch.requires_grad_(True)
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
def _judge(network: DeMoENet, groups: list[_Group]) -> tuple[Tensor, Tensor]:
    """Return the router's scores (n, tasks) in evaluation mode, and the true tasks (n,)."""
    router = network.mlp_branch.eval()
    logits = [router.logits(part.float()) for group in groups for part in group.features.split(128)]
    return torch.cat(logits), torch.cat([group.tasks for group in groups])


@torch.no_grad()
def _calibrate(network: DeMoENet, groups: list[_Group], report: Report) -> None:
    """Divide the last layer by the temperature whose confidence fits best (Guo et al. 2017)."""
    logits, tasks = _judge(network, groups)
    temperatures = [0.5 * 1.05**n for n in range(40)]
    losses = [float(F.cross_entropy(logits / t, tasks)) for t in temperatures]
    temperature = temperatures[losses.index(min(losses))]
    for parameter in network.mlp_branch.classifier[-1].parameters():
        parameter.div_(temperature)
    sure = (logits / temperature).softmax(dim=1).amax(dim=1)
    right = (logits.argmax(dim=1) == tasks).float()
    report(
        f"router: right {float(right.mean()):.2f}, confident {float(sure.mean()):.2f}, "
        f"temperature {temperature:.2f}"
    )
