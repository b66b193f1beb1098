"""Planes whose blur is known: windows at fixed places, each undone by itself, blended.

Windows depend on the plane alone, so that tiles of any size give the same, to the last bit that
blending leaves.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from demoe.choices import Choice
from demoe.engine.memory import Memory
from demoe.engine.reader import PlaneReader
from demoe.plan.tiling import Box, Plane, TilePlan
from demoe.routing.gates import Gates

if TYPE_CHECKING:
    from demoe.model.kernels.deconvolution import Deconvolver, Setting

WINDOW, OVERLAP = 256, 32
"""Side in pixels of a window, and how much of it its neighbour covers, too."""


SAMPLES, SAMPLE = 2, 384
"""Places along each axis on which it is chosen how a plane is deconvolved; their side in pixels."""


class PlaneDeconvolver:
    """Computes tiles of an image whose PSF is known; stands in for `Restorer`.

    Parameters
    ----------
    reader : PlaneReader
        Its pixels.
    plan : TilePlan
        How planes are cut.
    psf : ndarray
        See `demoe.model.kernels.psf.make_psf`.
    memory : Memory
        Keeps how each plane is deconvolved.
    """

    def __init__(
        self,
        reader: PlaneReader,
        plan: TilePlan,
        psf: NDArray[np.float64],
        memory: Memory,
    ) -> None:
        self._reader, self._plan = reader, plan
        self._psf, self._memory = psf, memory

    def tile(self, plane: Plane, row: int, col: int) -> NDArray[Any]:
        """Return the restored core of a tile: (rows, cols, S), dtype of the image."""
        core = self._plan.tile_at(row, col).core
        kept = self._reader.values(plane, core)
        samples = min(kept.shape[2], 3)  # an alpha channel passes by
        total = np.zeros((*core.shape, samples), np.float32)
        weights = np.zeros((*core.shape, 1), np.float32)
        setting = self._setting(plane)
        for window, weight in self._windows(core):
            size = (self._plan.height, self._plan.width)
            read = window.grown(self._deconvolver.margin, *size)
            restored = self._deconvolver.restore(self._reader.pixels(plane, read), setting)
            shared = window.common(core)
            part = weight[shared.within(window)][..., None]
            total[shared.within(core)] += part * restored[shared.within(read)]
            weights[shared.within(core)] += part
        done = self._reader.scale.restore(total / weights, self._reader.image.dtype)
        return np.concatenate([done, kept[..., samples:]], axis=2)

    @cached_property
    def _deconvolver(self) -> Deconvolver:
        from demoe.model.kernels.deconvolution import Deconvolver

        image = self._reader.image
        return Deconvolver(self._psf, photo=image.is_rgb and image.dtype == np.uint8)

    def _setting(self, plane: Plane) -> Setting:
        """Return how a plane is deconvolved, chosen once on places that stand for it."""

        def choose() -> Setting:
            sides = (self._plan.height, self._plan.width)
            tops, lefts = (_spread_starts(length) for length in sides)
            boxes = [
                Box(top, left, min(top + SAMPLE, sides[0]), min(left + SAMPLE, sides[1]))
                for top in tops
                for left in lefts
            ]
            return self._deconvolver.choose([self._reader.pixels(plane, box) for box in boxes])

        found: Setting = self._memory.once("setting", plane, choose)
        return found

    def _windows(self, core: Box) -> Iterator[tuple[Box, NDArray[np.float32]]]:
        """Give the windows that a core touches, always in one order, with their weights."""
        sides = (self._plan.height, self._plan.width)
        bounds = ((core.top, core.bottom), (core.left, core.right))
        rows, cols = (
            list(_along(start, stop, length))
            for (start, stop), length in zip(bounds, sides, strict=True)
        )
        for top, bottom, down in rows:
            for left, right, across in cols:
                yield Box(top, left, bottom, right), np.outer(down, across)


def _along(start: int, stop: int, length: int) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """Give first pixel, end and weights of the windows along an axis that touch a stretch."""
    step = WINDOW - OVERLAP
    first = max(0, (start - WINDOW) // step + 1)
    for begin in range(first * step, min(stop, length), step):
        end = min(begin + WINDOW, length)
        if end <= start or (begin and end - begin <= OVERLAP):
            continue  # the window before covers that
        ramp = (np.arange(begin, end) - begin + 0.5) / OVERLAP
        back = (end - np.arange(begin, end) - 0.5) / OVERLAP
        weight = np.ones(end - begin)
        if begin:
            weight = np.minimum(weight, ramp)
        if end < length:
            weight = np.minimum(weight, back)
        yield begin, end, weight.astype(np.float32)


def _spread_starts(length: int) -> list[int]:
    """Return where the samples begin that are spread over a length, all of it where it is short."""
    room = max(0, length - SAMPLE)
    count = min(SAMPLES, -(-length // SAMPLE))
    return [(2 * i + 1) * room // (2 * count) for i in range(count)]


class NoMaps:
    """What becomes of cells where no network works; stands in for `CellMaps`."""

    def __init__(self, choices: tuple[Choice, ...]) -> None:
        self._count = len(choices)

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
        """Return no cell."""
        return []

    def note_failed(self, plane: Plane, cell: tuple[int, int]) -> None:
        """Nothing can fail here."""
