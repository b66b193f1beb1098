"""A small network fitted for some time."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

RATE, DECAY, WARM_UP = 2e-3, 1e-4, 50
_EVERY = 200  # steps between reports


def fit(
    network: nn.Module,
    seconds: float,
    lesson: Callable[[], tuple[Tensor, float]],
    report: Callable[[int, float, float], None],
) -> None:
    """Fit a network, its rate falling with a cosine, and leave it as it is used.

    Parameters
    ----------
    network : nn.Module
        Changed in place.
    seconds : float
        For how long.
    lesson : callable
        Returns the loss of a step, and a figure that is reported.
    report : callable
        Gets step, share of the time that is spent, and the mean figure, now and then.
    """
    network.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
    start, figures = time.monotonic(), list[float]()
    while (spent := (time.monotonic() - start) / seconds) < 1:
        warm = min(1, (len(figures) + 1) / WARM_UP)
        rate = RATE * warm * (0.02 + 0.98 * np.cos(spent * np.pi / 2) ** 2)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, figure = lesson()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        figures.append(figure)
        if len(figures) % _EVERY == 0:
            report(len(figures), spent, float(np.mean(figures[-_EVERY:])))
    network.eval().requires_grad_(False)
