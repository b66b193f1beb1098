"""Planes whose blur is known or was found: windows at fixed places, each undone by itself, blended.

Windows depend on the plane alone, so that tiles of any size give the same, to the last bit that
blending leaves. Where a measurement does not support what came out of a window, its places fall
back to the source: blurred again, it differs from the data by more than the noise explains. That is
so where a given PSF is wrong, or where a window is blurred in parts only. Or by no more than that,
but the difference has structure, which noise has not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from demoe.choices import Choice
from demoe.engine.extents import Extents
from demoe.engine.kernels.solution import Kernels, Solution
from demoe.engine.memory import Memory
from demoe.engine.noise import PlaneNoise
from demoe.engine.parallel import each
from demoe.engine.reader import PlaneReader
from demoe.model.kernels.noise import colour_of, samples_of
from demoe.plan.tiling import Box, Plane, TilePlan, touched
from demoe.plan.windows import blended, windows_touching
from demoe.routing.gates import Gates, spread
from demoe.routing.router import Pixels

PLACE = 64
"""About the side in pixels of a place of a window that falls back by itself."""

SUPPORTED, DENIED = 1.4, 1.8
"""Up to which difference from the data, in units of the noise, a place is kept, and from which on
it is the source; in between, some of both. The median counts, so that a few bright points do not
deny what surrounds them."""

WHITE, COLOURED = 0.3, 0.6
"""The same of the structure in that difference (`colour_of`): of white noise, 0.03 is found."""

AUDIBLE = 0.7, 1.0
"""From which difference on, in units of the noise, its structure begins to count, and counts."""

_MEDIAN = 0.6745  # of the sizes of normal deviates


class Undone(NamedTuple):
    """A rectangle without its blur; ndarrays of float32.

    Attributes
    ----------
    restored, again : ndarray
        (rows, cols, S), and that blurred again, before anything fell back. Where no kernel was
        found, the source.
    gain : ndarray
        (rows, cols, 1): what it is expected to gain, in dB.
    fallen : ndarray
        (rows, cols, 1): how much of what is restored is the source, since the data do not support
        more, 0 to 1.
    """

    restored: Pixels
    again: Pixels
    gain: Pixels
    fallen: Pixels


class PlaneDeconvolver:
    """Computes tiles of an image by undoing its blur; stands in for `Restorer`.

    Parameters
    ----------
    reader : PlaneReader
        Its pixels.
    plan : TilePlan
        How planes are cut.
    kernels : Kernels
        Say how each window is undone.
    pitch : int
        Pixels a side of a routing cell.
    memory : Memory
        Keeps a few windows that neighbouring tiles share, and which cells fell back.
    noise : PlaneNoise, optional
        Says what the data support; without it, nothing falls back.
    extents : Extents, optional
        Tell what is blurred, where parts of a window are; without them, all of it is.
    """

    def __init__(
        self,
        reader: PlaneReader,
        plan: TilePlan,
        kernels: Kernels,
        pitch: int,
        memory: Memory,
        noise: PlaneNoise | None = None,
        extents: Extents | None = None,
    ) -> None:
        self._reader, self._plan = reader, plan
        self._kernels, self._pitch = kernels, pitch
        self._memory, self._noise, self._extents = memory, noise, extents

    def tile(self, plane: Plane, row: int, col: int) -> NDArray[Any]:
        """Return the restored core of a tile: (rows, cols, S), dtype of the image."""
        return self.core(plane, self._plan.tile_at(row, col).core)

    def core(self, plane: Plane, core: Box) -> NDArray[Any]:
        """Return a restored rectangle: (rows, cols, S), dtype of the image."""
        kept = self._reader.values(plane, core)
        samples = min(kept.shape[2], 3)  # an alpha channel passes by
        undone = self.undone(plane, core)
        self.note_fallen(plane, core, undone.fallen[..., 0])
        restored = undone.restored
        done = self._reader.scale.restore(restored, self._reader.image.dtype)
        return np.concatenate([done, kept[..., samples:]], axis=2)

    def undone(self, plane: Plane, box: Box) -> Undone:
        """Return a rectangle without its blur."""
        self._kernels.look_at(plane)
        windows = windows_touching(self._plan, box)
        solutions = list(each(partial(self._kernels.window, plane), windows))
        source = nothing = np.zeros((*box.shape, 1), np.float32)
        if None in solutions:
            source = self._reader.pixels(plane, box)
        if all(solution is None for solution in solutions):
            return Undone(source, source, nothing, nothing)
        samples = 3 if self._reader.image.is_rgb else 1
        totals = Undone(*(np.zeros((*box.shape, n), np.float32) for n in (samples, samples, 1, 1)))
        weights = np.zeros((*box.shape, 1), np.float32)
        undone = each(partial(self._undone, plane), zip(windows, solutions, strict=True))
        for (window, weight), solved in zip(blended(self._plan, box), undone, strict=True):
            shared = window.common(box)
            here, there = shared.within(box), shared.within(window)
            if solved is None:
                parts = Undone(source[here], source[here], nothing[here], nothing[here])
            else:
                parts = Undone(*(values[there] for values in solved))
            part = weight[there][..., None]
            for total, values in zip(totals, parts, strict=True):
                total[here] += part * values
            weights[here] += part
        return Undone(*(total / weights for total in totals))

    def note_fallen(self, plane: Plane, core: Box, fallen: Pixels) -> None:
        """Remember cells that are mostly the source in their middle, from shares (rows, cols).

        The middle counts, because it lies in one tile, however planes are cut.
        """
        if not fallen.any():
            return
        whole = Box(0, 0, self._plan.height, self._plan.width)
        rows, cols = touched(core, self._pitch)
        for row, col in ((row, col) for row in rows for col in cols):
            top, left = row * self._pitch, col * self._pitch
            cell = Box(top, left, top + self._pitch, left + self._pitch).common(whole)
            down, right = (cell.top + cell.bottom) // 2, (cell.left + cell.right) // 2
            is_here = core.top <= down < core.bottom and core.left <= right < core.right
            if is_here and fallen[down - core.top, right - core.left] > 0.5:
                self._memory.failed_in(plane).add((row, col))

    def reach(self, plane: Plane, box: Box) -> int:
        """Return how many pixels around it the widest blur that was found in a rectangle looks."""
        solutions = (self._kernels.window(plane, one) for one in windows_touching(self._plan, box))
        return max((one.deconvolver.reach for one in solutions if one is not None), default=0)

    def blurred(self, plane: Plane, box: Box, result: Callable[[Box], Pixels]) -> Pixels:
        """Return a rectangle of some result blurred by the kernels that were found there.

        Parameters
        ----------
        plane, box : Plane, Box
            Where.
        result : callable
            Returns rectangles (rows, cols, S) of it.
        """
        total: Any = 0.0
        weights = np.zeros((*box.shape, 1), np.float32)
        for window, weight in blended(self._plan, box):
            shared = window.common(box)
            part = weight[shared.within(window)][..., None]
            solution = self._kernels.window(plane, window)
            reach = solution.deconvolver.reach if solution else 0
            read = shared.grown(reach, self._plan.height, self._plan.width)
            sharp = result(read)
            if solution is not None:
                sharp = solution.deconvolver.blur(sharp, solution.setting.linear)
            if not weights.any():
                total = np.zeros((*box.shape, sharp.shape[2]), np.float32)
            total[shared.within(box)] += part * sharp[shared.within(read)]
            weights[shared.within(box)] += part
        blurred: Pixels = total / weights
        return blurred

    def _undone(self, plane: Plane, one: tuple[Box, Solution | None]) -> Undone | None:
        window, solution = one
        if solution is None:
            return None
        found: Undone = self._memory.once(
            "window", (plane, window, solution), lambda: self._solve(plane, window, solution)
        )
        return found

    def _solve(self, plane: Plane, window: Box, solution: Solution) -> Undone:
        gain = np.full((*window.shape, 1), solution.gain, np.float32)
        margin = solution.deconvolver.margin
        read = window.grown(margin, self._plan.height, self._plan.width)
        pixels = self._reader.pixels(plane, read)
        setting = solution.setting
        extent = None
        if setting.parts:
            assert self._extents is not None  # or nobody would have told parts
            extent = self._extents.of(plane, read)
        given = solution.deconvolver.seen(pixels, setting.linear, extent)
        solved = solution.deconvolver.solve(given, setting.strength)
        if extent is not None:
            gain *= extent[window.within(read)][..., None]
        restored, again = (one[window.within(read)] for one in solved)
        if self._noise is None:
            return Undone(restored, again, gain, np.zeros_like(gain))
        seen = pixels[window.within(read)]
        # A little light may have gone to what nobody saw.
        lost = (seen - again).mean(axis=(0, 1))
        restored, again = restored + lost, again + lost
        noise: Pixels = self._noise.variance(plane, seen) ** np.float32(0.5)
        fallen = _fallen((again - seen) / noise)
        return Undone(restored + fallen * (seen - restored), again, gain, fallen)


def _fallen(off: Pixels) -> Pixels:
    """Return how far pixels (rows, cols, 1) fall back, by what is off (rows, cols, S) in noises."""
    sides = off.shape[:2]
    counts = [max(1, round(side / PLACE)) for side in sides]
    rows, cols = (
        [slice(n * side // count, (n + 1) * side // count) for n in range(count)]
        for count, side in zip(counts, sides, strict=True)
    )
    places = [[off[row, col] for col in cols] for row in rows]
    size = np.array([[np.median(np.abs(one)) for one in line] for line in places]) / _MEDIAN
    colour = np.array([[colour_of(samples_of(one)) for one in line] for line in places])
    # What is less than the noise has its structure from rounding and compression.
    heard = _between(size, *AUDIBLE)
    share = np.maximum(_between(size, SUPPORTED, DENIED), heard * _between(colour, WHITE, COLOURED))
    at = [(np.arange(side) + 0.5) * count / side for count, side in zip(counts, sides, strict=True)]
    fallen: Pixels = spread(share[None], *at)[0][..., None]
    return fallen


def _between(values: NDArray[np.float64], low: float, high: float) -> Pixels:
    """Return 0 for values up to one bound, 1 from the other on, and what lies between."""
    return ((values - low) / (high - low)).clip(0, 1).astype(np.float32)


class NoMaps:
    """What becomes of cells where no network works; stands in for `CellMaps`."""

    def __init__(self, choices: tuple[Choice, ...], pitch: int, memory: Memory) -> None:
        self._count, self._pitch, self._memory = len(choices), pitch, memory

    def gates(self, plane: Plane, rows: range, cols: range) -> Gates:
        """Return no weight for any choice."""
        return np.zeros((self._count, len(rows), len(cols)), np.float32)

    def experts(self, plane: Plane, rows: range, cols: range) -> NDArray[np.uint8]:
        """Return 0: none works."""
        return np.zeros((len(rows), len(cols)), np.uint8)

    def confidence(self, plane: Plane, rows: range, cols: range) -> Gates:
        """Return 0: there is nothing to decide."""
        return np.zeros((len(rows), len(cols)), np.float32)

    def failed(self, plane: Plane, core: Box) -> list[tuple[int, int]]:
        """Return cells (row, column) in a computed tile that kept their source."""
        return self._memory.failed_among(plane, *touched(core, self._pitch))

    def note_failed(self, plane: Plane, cell: tuple[int, int]) -> None:
        """Remember a cell that kept its source."""
        self._memory.failed_in(plane).add(cell)
