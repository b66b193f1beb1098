"""Checks that the guard stays silent where a network does its work.

``python -m demoe.training.guard_check --pack PACK`` prints how near changes come to their bounds on
images that were held out of training, blurred in every way that training knows.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from demoe.guard import STATISTICS, Bounds, implausible_cells, measure_changes, shares
from demoe.model.loading import Model, load_model
from demoe.recipe import TASKS
from demoe.training.commands import load_held_out
from demoe.training.data import SharpImages
from demoe.training.degradations import degrade
from demoe.training.random import Draw

PITCHES = (16, 64)


@dataclass
class Silence:
    """What `check` found.

    Attributes
    ----------
    cells, alarms : int
        Cells that were looked at, and those that were found implausible.
    worst : dict
        The largest share of a bound that any cell reached, by statistic and pitch.
    """

    cells: int = 0
    alarms: int = 0
    worst: dict[tuple[str, int], float] = field(default_factory=dict)

    def add(self, before: Tensor, after: Tensor, bounds: Bounds) -> None:
        """Look at images (N, 3, H, W) and what a network made of them."""
        for x, y in zip(before, after, strict=True):
            values = [t.permute(1, 2, 0).cpu().numpy() for t in (x, y)]
            for pitch in PITCHES:
                bad = implausible_cells(values[0], values[1], pitch, bounds)
                self.cells += bad.size
                self.alarms += int(bad.sum())
                found = shares(measure_changes(values[0], values[1], pitch), bounds)
                for name in STATISTICS:
                    key = (name, pitch)
                    self.worst[key] = max(self.worst.get(key, 0.0), float(found[name].max()))

    def table(self) -> str:
        """Return the figures as a Markdown table."""
        lines = [f"{self.alarms} of {self.cells} cells are called implausible.", ""]
        lines += ["| largest share of its bound | " + " | ".join(f"{p} px" for p in PITCHES) + " |"]
        lines += ["|---|" + "---:|" * len(PITCHES)]
        for name in STATISTICS:
            worst = " | ".join(f"{self.worst[name, pitch]:.2f}" for pitch in PITCHES)
            lines.append(f"| {name} | {worst} |")
        return "\n".join(lines)


@torch.inference_mode()
def check(
    model: Model, images: SharpImages, *, per_task: int, crop: int = 128, seed: int = 1
) -> Silence:
    """Blur images in every way, restore them by every expert and by the router's choice.

    Parameters
    ----------
    model : Model
        The network, with its calibration.
    images : SharpImages
        Held out of training.
    per_task, crop, seed : int
        Images a task, their side in pixels, and the seed of what is done to them.
    """
    found, draw = Silence(), Draw(seed)
    for task in range(-1, len(TASKS)):
        sharp = images.batch(per_task, crop, draw, augment=False)
        blurred = degrade(sharp, [task] * per_task, draw).image
        for x in blurred.split(1):
            choices = [model.network(x)[1], *torch.eye(len(TASKS)).split(1)]
            for gates in choices:
                found.add(x, model.network(x, gates.to(x.device))[0], model.calibration.guard)
    return found


def main() -> None:
    """Check weights on a pack, or on drawn images alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--pack", type=Path)
    parser.add_argument("--per-task", type=int, default=16)
    arguments = parser.parse_args()
    model = load_model(arguments.model, "cpu")
    print(check(model, load_held_out(arguments.pack, "cpu"), per_task=arguments.per_task).table())


if __name__ == "__main__":
    main()
