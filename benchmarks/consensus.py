"""What it gains to let places and planes decide together.

    python benchmarks/consensus.py [--pack PACK] [--pictures 10] [--frames 5]

Each picture with several blurs (as in `demoe evaluate --mixed`) becomes a short series: the view
moves over it by a few pixels a frame, and every frame has noise of its own. For each setting: how
many cells of the middle frame are called by their blur, and its PSNR.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np

import demoe
from demoe.samples.picture import psnr
from demoe.training.blur.composites import Composite, composites
from demoe.training.data.images import load_held_out
from demoe.training.evaluate.mixed import telling_cells

SIDE, STEP = 640, 6
"""Pixels of a frame's side, and of the way from one to the next."""

SETTINGS = (
    {},
    {"agreement": 1},
    {"agreement": 2},
    {"smoothing": 1},
    {"smoothing": 2},
    {"agreement": 2, "smoothing": 1},
    {"top_k": 2},
    {"top_k": 2, "agreement": 2},
)


def frames(picture: Composite, count: int, rng: np.random.Generator) -> list[Composite]:
    """Return views of a picture, one a few pixels from the next, each with noise of its own."""
    level = np.exp(rng.uniform(np.log(0.5), np.log(5)))
    views = []
    for at in range(0, count * STEP, STEP):
        y = x = slice(at, at + SIDE)
        noisy = picture.blurred[y, x] + level * rng.standard_normal((SIDE, SIDE, 3))
        seen = noisy.clip(0, 255).round().astype(np.uint8)
        views.append(Composite(seen, picture.target[y, x], picture.shares[:, y, x]))
    return views


def right_cells(view: Composite, found: np.ndarray, pitch: int) -> tuple[int, int]:
    """Return how many cells of one blur are called by it, and how many there are."""
    telling = telling_cells(view, pitch)
    return int((view.expert_map(pitch) == found)[telling].sum()), int(telling.sum())


def main() -> None:
    """Print a row a setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pack", type=Path)
    parser.add_argument("--pictures", type=int, default=10)
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--model", default="default")
    given = parser.parse_args()
    model = demoe.load_model(given.model)
    middle, rng = given.frames // 2, np.random.default_rng(0)
    side = SIDE + (given.frames - 1) * STEP
    made = composites(load_held_out(given.pack, model.device), given.pictures, side, seed=1)
    series = [frames(picture, given.frames, rng) for picture in made]
    print(f"{given.pictures} series of {given.frames} frames; the middle frame counts")
    print(f"{'setting':32}  cells right   PSNR, dB")
    for setting in SETTINGS:
        right = cells = 0
        sharpness = []
        for views in series:
            stack = np.stack([view.blurred for view in views])
            done = demoe.deblur(stack, "TYXS", model=model.name, routing="local", **setting)
            found = np.asarray(done.expert_map[middle])
            good, all_of_them = right_cells(views[middle], found, done.work.recipe.pitch)
            right, cells = right + good, cells + all_of_them
            sharpness.append(psnr(np.asarray(done.image[middle]), views[middle].target))
        name = ", ".join(f"{key} {value}" for key, value in setting.items()) or "default"
        print(f"{name:32}  {100 * right / cells:9.1f} %  {statistics.fmean(sharpness):9.2f}")


if __name__ == "__main__":
    main()
