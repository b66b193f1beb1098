"""Checks that the guard stays silent where a network does its work, and speaks where it fails.

``python -m demoe.training.evaluate.guard_check --pack PACK`` prints how near changes come to their
bounds on images that were held out of training, blurred in every way that training knows. With
``--strange`` it prints what becomes of strange pictures, and of a drawn one when the weights are
damaged; with ``--halo``, the errors that tiling makes on the held-out images, which the halos were
not found on.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demoe.choices import TASKS
from demoe.engine.guard import implausible_cells, shares
from demoe.model.calibration.changes import STATISTICS, Bounds, measure_changes
from demoe.model.calibration.measuring import CELL, cut_of, tiling_errors
from demoe.model.loading import Model, load_model
from demoe.training.blur.degradations import degrade
from demoe.training.data.crops import SharpImages
from demoe.training.data.images import load_held_out
from demoe.training.data.procedural import procedural_images
from demoe.training.random import Draw

PITCHES = (16, 64)

Values = NDArray[np.float32]

DAMAGE = {
    "first convolution": "intro.weight",
    "a step down": "downs.1.weight",
    "a block in the middle": "middle_blks.modules_list.0.conv1.weight",
    "a step up": "ups.3.0.weight",
    "last convolution": "ending.weight",
    "last bias": "ending.bias",
}
"""Weights that are tried a thousand times too large."""


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


def strange_pictures(side: int = 128) -> dict[str, Values]:
    """Return pictures (side, side, 3) that no network was trained on, in network scale."""
    rng = np.random.default_rng(8)
    y, x = np.mgrid[:side, :side]
    image = procedural_images(1, side, seed=5)[0].astype(np.float32) / 255
    hot = image.copy()
    hot[tuple(rng.integers(0, side, (2, 20)))] = 20
    made: dict[str, NDArray[np.floating]] = {
        f"checks of {n} px": ((x // n + y // n) % 2)[..., None] * np.ones(3) for n in range(1, 9)
    }
    made |= {
        "contrast from -5 to 20": image * 25 - 5,
        "saturated": ((image - 0.4) * 4).clip(0, 1),
        "noise": rng.random((side, side, 3)),
        "noise from -5 to 20": rng.random((side, side, 3)) * 25 - 5,
        "single values of 20": hot,
        "nothing but 20": np.full((side, side, 3), 20.0),
        "nothing but -5": np.full((side, side, 3), -5.0),
    }
    return {name: np.asarray(values, np.float32) for name, values in made.items()}


@torch.inference_mode()
def largest_change(model: Model, values: Values, bounds: Bounds) -> tuple[float, float]:
    """Restore one picture by every expert.

    Returns
    -------
    change : float
        The largest change of any value.
    implausible : float
        The largest part of cells of 16 px that an expert fails in.
    """
    x = torch.from_numpy(values).permute(2, 0, 1)[None]
    change = part = 0.0
    for gates in torch.eye(len(TASKS)).split(1):
        after = model.network(x, gates)[0][0].permute(1, 2, 0).numpy()
        change = float(np.maximum(change, np.abs(after - values).max()))  # keeps what is no number
        part = max(part, float(implausible_cells(values, after, CELL, bounds).mean()))
    return change, part


def damaged(model: Model, factors: Mapping[str, float]) -> Model:
    """Return a copy of a model with some weights multiplied."""
    network = copy.deepcopy(model.network)
    with torch.no_grad():
        for name, factor in factors.items():
            network.get_parameter(name).mul_(factor)
    return model.with_network(network)


def strange_table(model: Model) -> str:
    """Return what becomes of strange pictures and of damaged weights, as a Markdown table."""
    bounds, image = model.calibration.guard, procedural_images(2, 128, seed=6)[0]
    tried = [(name, model, values) for name, values in strange_pictures().items()]
    tried += [
        (f"{name} x {factor:g}", damaged(model, {key: factor}), image.astype(np.float32) / 255)
        for factor in (1e3, np.nan)
        for name, key in DAMAGE.items()
        if factor == 1e3 or key == DAMAGE["a block in the middle"]
    ]
    lines = ["| input or damage | values | largest change | cells called implausible |"]
    lines += ["|---|---|---:|---:|"]
    for name, network, values in tried:
        change, part = largest_change(network, values, bounds)
        span = f"{values.min():.3g} to {values.max():.3g}"
        lines.append(f"| {name} | {span} | {change:.3g} | {100 * part:.0f} % |")
    return "\n".join(lines)


def halo_table(model: Model, images: SharpImages, count: int, seed: int = 1) -> str:
    """Return the largest tiling errors on some images, as a Markdown table."""
    plain = model.architecture.room.plain(model.network)
    side = cut_of(plain) + model.halo
    draw = Draw(seed)
    found = np.zeros(model.halo // model.multiple)
    for task in range(-1, len(TASKS)):
        sharp = images.batch(count, side, draw, augment=False)
        for x in degrade(sharp, [task] * count, draw).image:
            errors, _ = tiling_errors(plain, x.permute(1, 2, 0).numpy())
            found = np.maximum(found, errors)
    lines = [
        "| halo | on the pictures of the calibration | on held-out images |",
        "|---:|---:|---:|",
    ]
    for step, (known, error) in enumerate(zip(model.calibration.tiling_errors, found, strict=True)):
        lines.append(f"| {step * model.multiple} | {known:.2g} | {error:.2g} |")
    return "\n".join(lines)


def main() -> None:
    """Check weights on a pack, or on drawn images alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--pack", type=Path)
    parser.add_argument("--per-task", type=int, default=16)
    parser.add_argument("--strange", action="store_true", help="strange pictures instead")
    parser.add_argument("--halo", action="store_true", help="errors of tiling instead")
    arguments = parser.parse_args()
    model = load_model(arguments.model, "cpu")
    if arguments.strange:
        print(strange_table(model))
        return
    images = load_held_out(arguments.pack, "cpu")
    if arguments.halo:
        print(halo_table(model, images, arguments.per_task))
    else:
        print(check(model, images, per_task=arguments.per_task).table())


if __name__ == "__main__":
    main()
