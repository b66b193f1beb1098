"""How much a restoration changes what it was given, cell by cell, and how much is plausible.

Values are in network scale, where the image's usual range is [0, 1]; values beyond it are legal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Cells = NDArray[np.float64]

STATISTICS = ("peak", "rms", "shift")


@dataclass(frozen=True)
class Bound:
    """The largest plausible change: ``floor * amplitude + slope * contrast``.

    Attributes
    ----------
    floor : float
        What a place without any contrast may change.
    slope : float
        How that grows with the contrast.
    """

    floor: float
    slope: float


@dataclass(frozen=True)
class Bounds:
    """What a cell may change.

    Attributes
    ----------
    peak : Bound
        For the largest change of a value; its contrast is the largest range of a channel.
    rms : Bound
        For the root mean square of the change; its contrast is the standard deviation.
    shift : Bound
        For the largest change of a channel's mean; its contrast is the standard deviation.
    """

    peak: Bound
    rms: Bound
    shift: Bound

    @classmethod
    def from_dict(cls, values: Mapping[str, Mapping[str, float]]) -> Self:
        """Undo ``dataclasses.asdict``; KeyError, TypeError or ValueError for anything else."""
        bounds = {
            name: Bound(float(values[name]["floor"]), float(values[name]["slope"]))
            for name in STATISTICS
        }
        for name, bound in bounds.items():
            if not (0 <= bound.floor < np.inf and 0 <= bound.slope < np.inf):
                raise ValueError(f"the bound of {name} is {bound}")
        return cls(**bounds)


@dataclass(frozen=True, eq=False)
class Changes:
    """What became of each cell; arrays (rows, cols).

    Attributes
    ----------
    peak, rms, shift : ndarray
        As in `Bounds`.
    spread, deviation : ndarray
        Contrast of the input: largest range of a channel, and standard deviation within channels.
    amplitude : ndarray
        Largest absolute value of the input, at least 1. Flat areas change by a share of their
        value at the least: the network sees zeros beyond an image's border.
    finite : ndarray of bool
        Whether every new value is finite; values that are not count as unchanged elsewhere.
    """

    peak: Cells
    rms: Cells
    shift: Cells
    spread: Cells
    deviation: Cells
    amplitude: Cells
    finite: NDArray[np.bool_]

    def contrast(self, statistic: str) -> Cells:
        """Return the contrast that a statistic is held against."""
        return self.spread if statistic == "peak" else self.deviation


def measure_changes(
    before: NDArray[Any], after: NDArray[Any], pitch: int, offset: tuple[int, int] = (0, 0)
) -> Changes:
    """Measure what changed in each cell; see `Changes`.

    Parameters
    ----------
    before, after : ndarray of float
        (H, W, S), in network scale: a tile and what the network made of it.
    pitch : int
        Side of a cell in pixels.
    offset : (int, int)
        Rows and columns of the first cell that lie outside the arrays.
    """
    starts = [
        np.array([0, *range(pitch - skipped % pitch, size, pitch)])
        for size, skipped in zip(before.shape[:2], offset, strict=True)
    ]
    bands = np.split(np.arange(len(before)), starts[0][1:])
    # One row of cells after the other: what is passed over several times stays in the cache.
    rows = [_one_row(before[b[0] : b[-1] + 1], after[b[0] : b[-1] + 1], starts[1]) for b in bands]
    return Changes(*(np.stack(values) for values in zip(*rows, strict=True)))


def _one_row(
    before: NDArray[Any], after: NDArray[Any], starts: NDArray[np.int_]
) -> tuple[Cells, ...]:
    """Measure one row of cells, whose first columns are given; the fields of `Changes` in order."""
    widths = np.diff(starts, append=before.shape[1])
    pixels = (len(before) * widths)[:, None]

    def per_cell(values: NDArray[Any], how: np.ufunc) -> Cells:
        """Reduce columns (W, S) to cells (cols, S)."""
        return np.asarray(how.reduceat(values, starts, axis=0), np.float64)

    def mean(values: NDArray[Any]) -> Cells:
        return np.asarray(per_cell(values.sum(axis=0, dtype=np.float64), np.add) / pixels)

    def mean_square(values: NDArray[Any]) -> Cells:
        return np.asarray(per_cell(np.einsum("ijk,ijk->jk", values, values), np.add) / pixels)

    finite = np.isfinite(after)
    change = (after if finite.all() else np.where(finite, after, before)) - before
    high, low = (per_cell(how.reduce(before), how) for how in (np.maximum, np.minimum))
    # From each cell's own middle: far from zero, squares of values would leave no digits.
    middle = ((high + low) / 2).astype(before.dtype).repeat(widths, axis=0)
    aside = before - middle
    variance = mean_square(aside) - mean(aside) ** 2
    most = np.maximum(change.max(axis=0), -change.min(axis=0))
    return (
        per_cell(most, np.maximum).max(axis=1),
        np.sqrt(mean_square(change).mean(axis=1)),
        np.abs(mean(change)).max(axis=1),
        (high - low).max(axis=1),
        np.sqrt(np.maximum(variance, 0).mean(axis=1)),
        np.maximum(1.0, np.maximum(np.abs(high), np.abs(low)).max(axis=1)),
        np.logical_and.reduceat(finite.all(axis=(0, 2)), starts),
    )
