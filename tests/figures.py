"""Figures of an evaluation that was never made, for tests of what shows them."""

from __future__ import annotations

from demoe.choices import TASKS
from demoe.training.evaluate.scores import PeerScore, Scores, TaskScore


def made_scores() -> Scores:
    """Return figures that follow a simple rule by task; the third task has no single kernel."""
    tasks = {}
    for i, name in enumerate(TASKS):
        similarity = {"ssim": {"blurred": 0.7, "automatic": 0.7 + i / 100, "manual": 0.8}}
        means = {"blurred": 20.5, "automatic": 21.5, "manual": 22.5, "wiener": 23.0 + i}
        peers = None if i == 2 else PeerScore(10 - i, {"psnr": means})
        tasks[name] = TaskScore(
            20.0 + i, 21.0 + 2 * i, 22.0 + 2 * i, 0.01, 0.02 + i / 1000, similarity, peers
        )
    confusion = [
        [8, 0, 0, 0, 2],
        [0, 4, 3, 3, 0],
        [0, 5, 5, 0, 0],
        [1, 0, 1, 8, 0],
        [0, 0, 0, 0, 10],
    ]
    return Scores(tasks, confusion, sharp=41.25, seconds=1.5)
