"""The judge of kernels: learnt from what guesses gained on places that are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from demoe.model.kernels.deconvolution import STRENGTHS
from demoe.model.kernels.detector import Detector, extent_of, is_in_parts
from demoe.model.kernels.estimator import Place as Looked
from demoe.model.kernels.estimator import both_ways, gray_of
from demoe.model.kernels.judge import PARTS, STRENGTH, Judge
from demoe.training.kernels.places import SHARP, Place

WORST, BEST = -6.0, 8.0
"""Gains in dB are learnt within these bounds: beyond, more makes no difference to a choice."""

SIDES = (384, 384, 320, 256, 192, 128)
"""Sides in pixels of the places that are learnt from, in turn."""

SHARP_COUNTS = 3.0
"""So much more a sharp place counts: there is nothing to gain, and much to lose."""

STEPS, BATCH, RATE, DECAY = 3500, 4096, 3e-3, 1e-3
_BORDER = 16
_LEAST = 1e-7  # error of a sharp place, so that its gains are finite


@dataclass(frozen=True)
class Tried:
    """Guesses tried on places.

    Attributes
    ----------
    measured : ndarray of float32
        (guesses, `PARTS`, measures); of what is one part, it is the same twice.
    gains : ndarray of float32
        (guesses,), in dB.
    place : ndarray of int
        (guesses,): which place each belongs to.
    task : ndarray of int
        (places,).
    """

    measured: NDArray[np.float32]
    gains: NDArray[np.float32]
    place: NDArray[np.int64]
    task: NDArray[np.int64]


def try_guesses(
    places: Iterable[Place], detector: Detector, seed: int, report: Callable[[int], None]
) -> Tried:
    """Measure guesses on places, and what they gain there, each at two strengths.

    Parameters
    ----------
    places : iterable of Place
        Where.
    detector : Detector
        Tells what is blurred of those that are in parts.
    seed : int
        Says which strengths.
    report : callable
        Gets the number of each place that is done.
    """
    rng = np.random.default_rng(seed)
    measured, gains, owner, tasks = [], [], [], []
    for number, place in enumerate(places):
        side = SIDES[number % len(SIDES)]
        gray, sharp = (_middle(gray_of(one), side) for one in (place.blurred, place.sharp))
        before, likely = _error(gray, sharp), detector.likely(gray)
        looks = [Looked(gray)]
        if is_in_parts(likely, gray):
            looks.append(Looked(gray, extent=extent_of(likely)))
        for looked in looks:
            tries = both_ways(looked.guesses(), looked.parts) + looked.tracks()
            others = [one for one in STRENGTHS if one != STRENGTH]
            strengths = rng.choice(others, len(tries)).tolist()
            tries += [
                (kernel, score, replace(setting, strength=strength))
                for (kernel, score, setting), strength in zip(tries, strengths, strict=True)
            ]
            restored = [looked.trials.restored(kernel, setting) for kernel, _, setting in tries]
            found = looked.trials.measured(tries)
            measured.append(np.broadcast_to(found, (len(tries), PARTS, found.shape[2])))
            gains += [10 * np.log10(before / _error(x.clip(0, 1), sharp)) for x in restored]
            owner += [number] * len(restored)
        tasks.append(place.task)
        report(number + 1)
    return Tried(
        np.concatenate(measured),
        np.array(gains, dtype=np.float32),
        np.array(owner),
        np.array(tasks),
    )


def _middle(gray: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    start = (len(gray) - side) // 2
    return np.ascontiguousarray(gray[start : start + side, start : start + side])


def _error(x: NDArray[np.float32], sharp: NDArray[np.float32]) -> float:
    inner = (slice(_BORDER, -_BORDER),) * 2
    return max(float(((x - sharp)[inner] ** 2).mean()), _LEAST)


def learn_judge(tried: Tried, seed: int) -> Judge:
    """Fit a judge to what guesses gained."""
    torch.manual_seed(seed)
    judge = Judge()
    x = torch.from_numpy(tried.measured).flatten(0, 1)
    judge.mean, judge.scale = x.mean(dim=0), x.std(dim=0) + 1e-3
    gains = torch.from_numpy(tried.gains).clamp(WORST, BEST).repeat_interleave(PARTS)
    at = (x - judge.mean) / judge.scale
    sharp = torch.from_numpy(tried.task[tried.place] == SHARP).repeat_interleave(PARTS)
    counts = torch.where(sharp, SHARP_COUNTS, 1.0)
    judge.train()
    for member in judge.members:
        optimizer = torch.optim.AdamW(member.parameters(), RATE, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        for _ in range(STEPS):
            some = torch.randint(len(at), (BATCH,))
            loss = F.huber_loss(member(at[some])[:, 0], gains[some], reduction="none")
            loss = (loss * counts[some]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return judge.eval().requires_grad_(False)


def chosen_gains(judge: Judge, tried: Tried, least: float) -> NDArray[np.float32]:
    """Return what each place gains by the judge's choice; 0 where it expects less than ``least``.

    Returns
    -------
    ndarray of float32
        (places,), in dB.
    """
    expected = judge.gains(tried.measured)
    found = np.zeros(len(tried.task), np.float32)
    for place in range(len(found)):
        own = np.flatnonzero(tried.place == place)
        best = own[expected[own].argmax()]
        if expected[best] > least:
            found[place] = tried.gains[best]
    return found
