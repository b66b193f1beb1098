"""How good a network is: gain over the blurred input for each task, and the router's accuracy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from demoe.model.network import DeMoENet
from demoe.recipe import TASKS
from demoe.training.data import SharpImages
from demoe.training.degradations import degrade
from demoe.training.random import Draw

MOTION = (1, 2, 3)
"""Tasks that a person would all call motion blur."""


def psnr(image: Tensor, target: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB of each image, for a peak of 1."""
    error = (image.clamp(0, 1) - target).square().mean(dim=(1, 2, 3))
    return -10 * error.clamp_min(1e-10).log10()


@dataclass(frozen=True)
class TaskScore:
    """Mean figures of one task; PSNR in dB."""

    blurred: float
    automatic: float
    manual: float
    drift: float

    @property
    def gain(self) -> float:
        """PSNR gained over the blurred input with automatic routing."""
        return self.automatic - self.blurred


@dataclass(frozen=True)
class Scores:
    """What ``evaluate`` found.

    Attributes
    ----------
    tasks : dict of str to TaskScore
        By task name. ``drift`` is the relative change of mean intensity.
    confusion : list of list of int
        Images by true task (row) and the router's choice (column).
    sharp : float
        PSNR between input and output for images that are sharp already.
    """

    tasks: dict[str, TaskScore]
    confusion: list[list[int]]
    sharp: float

    @property
    def mean_gain(self) -> float:
        """PSNR gained over the blurred input, mean over the tasks."""
        return sum(score.gain for score in self.tasks.values()) / len(self.tasks)

    @property
    def accuracy(self) -> float:
        """Share of images for which the router chose the true task."""
        right = sum(self.confusion[i][i] for i in range(len(TASKS)))
        return right / max(1, sum(map(sum, self.confusion)))

    @property
    def accuracy_motion_as_one(self) -> float:
        """The same with the three kinds of motion counted as one."""
        right = sum(
            n
            for true, row in enumerate(self.confusion)
            for chosen, n in enumerate(row)
            if true == chosen or (true in MOTION and chosen in MOTION)
        )
        return right / max(1, sum(map(sum, self.confusion)))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able values."""
        return {
            "tasks": {name: asdict(s) | {"gain": s.gain} for name, s in self.tasks.items()},
            "mean_gain": self.mean_gain,
            "accuracy": self.accuracy,
            "accuracy_motion_as_one": self.accuracy_motion_as_one,
            "confusion": self.confusion,
            "sharp": self.sharp,
        }

    def table(self) -> str:
        """Return the figures as a Markdown table with a line on router and sharp input."""
        lines = [
            "| task | blurred | automatic | gain | manual | drift |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for name, s in self.tasks.items():
            lines.append(
                f"| {name} | {s.blurred:.2f} dB | {s.automatic:.2f} dB | {s.gain:+.2f} dB "
                f"| {s.manual:.2f} dB | {100 * s.drift:.2f} % |"
            )
        lines.append(f"| mean | | | {self.mean_gain:+.2f} dB | | |")
        lines.append("")
        lines.append(
            f"Router: {100 * self.accuracy:.0f} % of five, {100 * self.accuracy_motion_as_one:.0f} "
            f"% with motion as one. Sharp input kept to {self.sharp:.1f} dB."
        )
        return "\n".join(lines)


@torch.inference_mode()
def evaluate(
    network: DeMoENet,
    images: SharpImages,
    *,
    per_task: int = 32,
    crop: int = 128,
    seed: int = 1,
    batch: int = 8,
) -> Scores:
    """Measure a network on images that it was not trained on.

    Parameters
    ----------
    network : DeMoENet
        Put into evaluation mode; its device is used.
    images : SharpImages
        Held-out sharp images.
    per_task, crop, seed, batch : int
        Images a task, their side in pixels, seed of the degradations, images run at once.
    """
    network.eval()
    experts = network.config.experts
    draw = Draw(seed)
    confusion = [[0] * experts for _ in TASKS]
    found: dict[int, list[Tensor]] = {task: [] for task in range(-1, len(TASKS))}
    for start in range(0, per_task, batch):
        count = min(batch, per_task - start)
        for task in found:
            sharp = images.batch(count, crop, draw, augment=False)
            data = degrade(sharp, [task] * count, draw)
            automatic, gates = network(data.image)
            # For sharp images the reference of "left alone" is the input itself.
            reference = data.image if task < 0 else data.target
            rows = [psnr(data.image, data.target), psnr(automatic, reference)]
            if task >= 0:
                one_hot = torch.eye(experts, device=sharp.device)[[task] * count]
                rows.append(psnr(network(data.image, one_hot)[0], data.target))
                for choice in gates.argmax(dim=1).tolist():
                    confusion[task][choice] += 1
            else:
                rows.append(rows[1])
            before = data.image.mean(dim=(1, 2, 3))
            after = automatic.clamp(0, 1).mean(dim=(1, 2, 3))
            rows.append((after - before).abs() / before.clamp_min(1e-3))
            found[task].append(torch.stack(rows).cpu())
    means = {task: torch.cat(parts, dim=1).mean(dim=1).tolist() for task, parts in found.items()}
    return Scores(
        tasks={name: TaskScore(*means[i]) for i, name in enumerate(TASKS)},
        confusion=confusion,
        sharp=means[-1][1],
    )
