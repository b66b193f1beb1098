"""Measure routing on pictures that carry several blurs, through the public functions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demoe.choices import TASKS
from demoe.engine.runner import TileRunner
from demoe.lazy import deblur
from demoe.model.loading import Model
from demoe.recipe import Recipe
from demoe.samples.picture import psnr
from demoe.training.blur.composites import Composite
from demoe.training.evaluate.grid import Pixels
from demoe.training.evaluate.scores import (
    Confusion,
    accuracy,
    accuracy_motion_as_one,
    confusion_table,
    markdown,
)

ONE_BLUR = 0.75
"""Share of a cell that one blur has at least where a decision counts as right or wrong."""

SOME_BLUR = 0.01
"""Root mean square of what was done to such a cell, in [0, 1]; with less there is nothing to tell.
"""

BLURRED, IMAGE, LOCAL, PAINTED, MEAN = (
    "blurred",
    "one decision",
    "local routing",
    "painted truth",
    "mean of experts",
)

ExpertMap = NDArray[np.uint8]


@dataclass(frozen=True)
class MixedScores:
    """What `measure_mixed` found.

    Attributes
    ----------
    psnr : dict of str to list of float
        In dB, of each picture, by how it was restored.
    confusion : dict of str to list of list of int
        Cells by true task (row) and choice (column), for one decision and for local routing.
    cells : int
        All cells, also those that count in no confusion because they hold several blurs or none.
    """

    psnr: dict[str, list[float]]
    confusion: dict[str, Confusion]
    cells: int

    def mean(self, method: str) -> float:
        """Return the mean PSNR of a method in dB."""
        return statistics.fmean(self.psnr[method])

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able values."""
        return {
            "psnr": self.psnr,
            "mean_psnr": {method: self.mean(method) for method in self.psnr},
            "accuracy": {name: accuracy(found) for name, found in self.confusion.items()},
            "accuracy_motion_as_one": {
                name: accuracy_motion_as_one(found) for name, found in self.confusion.items()
            },
            "confusion": self.confusion,
            "cells": self.cells,
        }

    def table(self) -> str:
        """Return the figures as Markdown."""
        head = ("", "PSNR", "gain", "against one decision", "better than it in", "cells right")
        rows = [self._row(name) for name in self.psnr]
        found = self.confusion[LOCAL]
        words = (
            f"{sum(map(sum, found))} of {self.cells} cells hold one blur to tell; local routing "
            f"is right in {100 * accuracy(found):.0f} % of five, "
            f"{100 * accuracy_motion_as_one(found):.0f} % with motion as one."
        )
        return f"{markdown(head, rows)}\n\n{words}\n\n{confusion_table(found)}"

    def _row(self, name: str) -> tuple[str, ...]:
        gain = against = better = ""
        if name != BLURRED:
            gain = f"{self.mean(name) - self.mean(BLURRED):+.2f} dB"
        if name not in (BLURRED, IMAGE):
            more = np.subtract(self.psnr[name], self.psnr[IMAGE])
            against = f"{more.mean():+.2f}{_standard_error(more)} dB"
            better = f"{(more > 0).sum()} of {more.size} pictures"
        right = self.confusion.get(name)
        share = f"{100 * accuracy(right):.0f} %" if right else ""
        return name, f"{self.mean(name):.2f} dB", gain, against, better, share


def _standard_error(values: NDArray[np.floating]) -> str:
    """Return the standard error of a mean in words; nothing for a single value."""
    return f" ± {values.std(ddof=1) / values.size**0.5:.2f}" if values.size > 1 else ""


@dataclass(frozen=True, eq=False)
class Restored:
    """What became of one composite.

    Attributes
    ----------
    pictures : dict of str to ndarray
        (side, side, 3) uint8, by how it was restored.
    maps : dict of str to ndarray
        (rows, cols) uint8: the expert maps of one decision and of local routing.
    """

    pictures: dict[str, Pixels]
    maps: dict[str, ExpertMap]


def telling_cells(picture: Composite, pitch: int) -> NDArray[np.bool_]:
    """Say in which cells one blur, and enough of it, was at work: there a choice can be judged."""
    one_blur = picture.cells(pitch).max(axis=0) >= ONE_BLUR
    return np.asarray(one_blur & (picture.change(pitch) >= SOME_BLUR))


def restore(model: Model, picture: Composite, recipe: Recipe) -> Restored:
    """Restore a composite by one decision, by one a cell, by the painted truth, by all experts."""
    ways: dict[str, dict[str, Any]] = {
        IMAGE: {"routing": "image"},
        LOCAL: {"routing": "local"},
        PAINTED: {"routing": "local", "expert_map": picture.expert_map(recipe.pitch)},
    }
    results = {
        name: deblur(picture.blurred, "YXS", recipe=recipe, model=model, **way)
        for name, way in ways.items()
    }
    pictures = {name: result.image.compute() for name, result in results.items()}
    equal = np.full(len(TASKS), 1 / len(TASKS), np.float32)
    pixels = picture.blurred.astype(np.float32) / np.float32(255)
    mixed = TileRunner(model, top_k=len(TASKS)).restore(pixels, equal)
    pictures[MEAN] = np.rint(mixed.clip(0, 1) * 255).astype(np.uint8)
    maps = {name: results[name].expert_map.compute() for name in (IMAGE, LOCAL)}
    return Restored(pictures, maps)


def measure_mixed(
    model: Model, pictures: Sequence[Composite], recipe: Recipe
) -> tuple[MixedScores, list[Restored]]:
    """Restore composites in several ways, and count where routing was right.

    Parameters
    ----------
    model : Model
        The network.
    pictures : sequence of Composite
        What to restore.
    recipe : Recipe
        How; its routing is replaced by the ways that are compared.
    """
    pitch = recipe.pitch
    found: dict[str, list[float]] = {}
    confusion = {name: [[0] * len(TASKS) for _ in TASKS] for name in (IMAGE, LOCAL)}
    results, cells = [], 0
    for picture in pictures:
        result = restore(model, picture, recipe)
        results.append(result)
        for name, values in {BLURRED: picture.blurred, **result.pictures}.items():
            found.setdefault(name, []).append(psnr(values, picture.target))
        # Flat or failed cells are not decided.
        telling = telling_cells(picture, pitch) & (result.maps[LOCAL] > 0)
        cells += telling.size
        true = picture.expert_map(pitch)[telling]
        for name, counts in confusion.items():
            for row, column in zip(true, result.maps[name][telling], strict=True):
                counts[row - 1][column - 1] += 1
    return MixedScores(found, confusion, cells), results
