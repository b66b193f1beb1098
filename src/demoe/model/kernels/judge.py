"""How much undoing a kernel will gain, told from what it does: a small network on measurements.

A likelihood of spectra takes strong edges for lines, and a search may end anywhere. A wrong kernel
shows in the picture that it makes: it cannot be blurred back to what was seen, and it rings. So
each guess is tried, measured, and judged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from demoe.model.checkpoint import fill
from demoe.model.kernels.deconvolution import LEAST_NOISE, Deconvolver, Seen, Setting
from demoe.model.kernels.families import Kernel
from demoe.model.kernels.noise import colour_of, noise_of
from demoe.wanted import check

STRENGTH = 0.01
"""How strongly guesses are tried first."""

TRIED = 256
"""Side in pixels of the parts by which what they do is measured."""

BLURRED, LEAST = 0.9, 2000
"""How much of a pixel must be blurred to count, and how many such pixels a part needs."""

PARTS = 2
"""So many of them of a large picture: one alone is a few edges too odd now and then."""

MEASURES = (
    "score",
    "score above the best guess",
    "residual over noise",
    "median residual over noise",
    "sparsity of edges, against before",
    "mean of edges, against before",
    "mean root of edges, against before",
    "overshoot within 7 px over noise",
    "overshoot within 25 px over noise",
    "change over noise",
    "correlation of neighbouring residuals",
    "colour of residuals",
    "width of the kernel, least",
    "width of the kernel, most",
    "area of the kernel",
    "noise",
    "share of white",
    "mean",
    "edges before",
    "sparsity of edges before",
    "disc",
    "gaussian",
    "motion",
    "of any shape",
    "light",
    "side of the place",
    "strength",
    "share that is blurred",
)
"""What a guess is judged by, in order; most as logarithms."""

MEMBERS, HIDDEN = 4, 64

CAUTION = 1.0
"""So many standard deviations of what its networks say are taken off: where they disagree, a guess
is like none that they have seen."""

_INNER = (slice(16, -16), slice(16, -16))  # the border is guessed in part
_WHITE = 0.98

Gray = NDArray[np.float32]
Measured = NDArray[np.float32]

Try = tuple[Kernel, float, Setting]
"""A kernel, its score (`spectrum.pooled`), and how it is tried."""


class Judge(nn.Module):
    """Predicts gains in dB from `MEASURES`: what a few small networks say, with some caution.

    Its training (`demoe.training.kernels`) sets the mean and scale of the measures.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(len(MEASURES)))
        self.register_buffer("scale", torch.ones(len(MEASURES)))
        self.members = nn.ModuleList(_member() for _ in range(MEMBERS))

    def forward(self, measured: Tensor) -> Tensor:
        """Return gains (N,) in dB, from what was measured (N, measures)."""
        at = (measured - self.mean) / self.scale
        found = torch.cat([member(at) for member in self.members], dim=1)
        return found.mean(dim=1) - CAUTION * found.std(dim=1)

    @torch.inference_mode()
    def gains(self, measured: Measured) -> NDArray[np.float32]:
        """Return gains (tries,) in dB, the mean of those of parts (tries, parts, measures)."""
        found = self(torch.from_numpy(measured.reshape(-1, len(MEASURES))))
        gains: NDArray[np.float32] = found.view(measured.shape[:2]).mean(dim=1).numpy()
        return gains


def _member() -> nn.Module:
    return nn.Sequential(
        nn.Linear(len(MEASURES), HIDDEN),
        nn.GELU(),
        nn.Dropout(0.1),
        nn.Linear(HIDDEN, HIDDEN),
        nn.GELU(),
        nn.Dropout(0.1),
        nn.Linear(HIDDEN, 1),
    )


def judge_of(tensors: Mapping[str, Tensor], name: str) -> Judge:
    """Make a judge of its tensors; raises WeightsError if they are not such."""
    return fill(Judge, tensors, name, "a judge of kernels")


class Trials:
    """Kernels tried on a photo, or on the middle of one, each once.

    Parameters
    ----------
    gray : ndarray of float32
        (H, W), luma of display values in [0, 1].
    side : int
        Least side of the place that this is, or whose middle: scores are of all of it.
    extent : ndarray of float32, optional
        (H, W), how much of each pixel is blurred, 0 to 1: only what is counts. By default all.
    """

    def __init__(self, gray: Gray, side: int, extent: Gray | None = None) -> None:
        self._gray, self._side = gray, side
        self._seen = {
            linear: Seen(gray[..., None], linear, True, extent) for linear in (False, True)
        }
        self._parts = _parts_of(gray, extent)
        self._before = [
            _Before(gray[part], None if extent is None else extent[part] >= BLURRED)
            for part in self._parts
        ]
        self._tried: dict[tuple[Kernel, Setting], tuple[Gray, list[list[float]]]] = {}

    def measured(self, tries: Sequence[Try], best: float = math.inf) -> Measured:
        """Try kernels.

        Parameters
        ----------
        tries : sequence of Try
            What is tried.
        best : float
            The best score of others.

        Returns
        -------
        ndarray of float32
            (tries, parts, measures), of small pictures on one part, of others on `PARTS`.
        """
        best = min(best, *(score for _, score, _ in tries))
        return np.array([self._row(one, best) for one in tries], dtype=np.float32)

    def restored(self, kernel: Kernel, setting: Setting) -> Gray:
        """Return what a kernel made of it."""
        return self._of(kernel, setting)[0]

    def _row(self, one: Try, best: float) -> list[list[float]]:
        kernel, score, setting = one
        size = _size(kernel)
        last = [
            *(kernel.family == family for family in ("disc", "gaussian", "motion")),
            kernel.track is not None,
            setting.linear,
            np.log(self._side / 384),
            np.log(setting.strength / STRENGTH),
        ]
        done = zip(self._of(kernel, setting)[1], self._before, strict=True)
        return [
            [score, score - best, *of_part, *size, *before.noise_and_light, *last, before.share]
            for of_part, before in done
        ]

    def _of(self, kernel: Kernel, setting: Setting) -> tuple[Gray, list[list[float]]]:
        if (kernel, setting) not in self._tried:
            check()
            deconvolver = Deconvolver(kernel.values, photo=True)
            solved = deconvolver.solve(self._seen[setting.linear], setting.strength)
            x, again = (a[..., 0] for a in solved)
            x = x.clip(0, 1.2)
            parts = zip(self._before, self._parts, strict=True)
            done = [before.against(x[part], again[part]) for before, part in parts]
            self._tried[kernel, setting] = x, done
        return self._tried[kernel, setting]


def _parts_of(gray: Gray, extent: Gray | None) -> list[tuple[slice, slice]]:
    """Return the parts by which a picture is judged: opposite corners of what is large.

    Where parts of it are blurred, those in which enough is.
    """
    rows, cols = ([slice(0, TRIED), slice(max(0, side - TRIED), side)] for side in gray.shape)
    parts = list(zip(rows, cols, strict=True))[: PARTS if max(gray.shape) > TRIED else 1]
    if extent is None:
        return parts
    return [part for part in parts if (extent[part][_INNER] >= BLURRED).sum() >= LEAST] or parts


class _Before:
    """What a part was like before anything was tried on it.

    Parameters
    ----------
    gray : ndarray of float32
        (H, W).
    where : ndarray of bool or None
        (H, W), what of it counts; None for all.
    """

    def __init__(self, gray: Gray, where: NDArray[np.bool_] | None) -> None:
        self._gray = gray
        if where is None or where[_INNER].sum() < LEAST:
            where = np.ones(gray.shape, bool)
        self._where = where[_INNER]
        self.share = np.log(float(self._where.mean()))
        self._noise = max(float(noise_of(torch.from_numpy(gray)[None])[0]), LEAST_NOISE[True])
        self._sparsity, self._mean, self._root = self._spread(gray)
        inside = gray[where]
        self._ranges = [_range(gray, side) for side in (7, 25)]
        self.noise_and_light = [
            np.log(self._noise),
            float((inside > _WHITE).mean()),
            float(inside.mean()),
            np.log(self._mean + 1e-4),
            self._sparsity,
        ]

    def against(self, x: Gray, again: Gray) -> list[float]:
        """Measure a picture that was made of it, and what that gives when blurred again."""
        noise, where = self._noise, self._where
        left = (again - self._gray)[_INNER]
        inside = left[where]
        square = float((inside**2).mean())
        sparsity, mean, root = self._spread(x)
        # Where it does not count, nothing is left.
        centred = np.where(where, left - inside.mean(), 0)
        own = float((centred**2).sum()) + 1e-12
        beside = (centred[1:] * centred[:-1]).sum() + (centred[:, 1:] * centred[:, :-1]).sum()
        over = [
            float((np.maximum(low - x, 0) + np.maximum(x - high, 0))[_INNER][where].mean())
            for low, high in self._ranges
        ]
        change = float(np.sqrt(((x - self._gray)[_INNER][where] ** 2).mean()))
        return [
            np.log(np.sqrt(square) / noise + 1e-3),
            np.log(float(np.median(np.abs(inside))) / 0.6745 / noise + 0.1),
            np.log(sparsity / self._sparsity),
            np.log(mean / self._mean),
            np.log(root / self._root),
            *(np.log(one / noise + 0.01) for one in over),
            np.log(change / noise + 0.01),
            float(beside) / 2 / own,
            np.log(colour_of(torch.from_numpy(centred)[None]) + 1e-3),
        ]

    def _spread(self, x: Gray) -> tuple[float, float, float]:
        """Return how evenly edges are spread, their mean, and the mean of their roots."""
        x = x[_INNER]
        edges = np.hypot(np.diff(x, axis=1)[:-1], np.diff(x, axis=0)[:, :-1])
        edges = edges[self._where[:-1, :-1]]
        mean = float(edges.mean()) + 1e-6
        return (
            mean / (float(np.sqrt((edges**2).mean())) + 1e-6),
            mean,
            float(np.sqrt(edges).mean()) + 1e-4,
        )


def _range(gray: Gray, side: int) -> tuple[Gray, Gray]:
    """Return the least and the greatest value around each pixel."""
    padded = np.pad(gray, side // 2, mode="edge")
    return _extreme(padded, side, np.minimum), _extreme(padded, side, np.maximum)


def _extreme(x: Gray, side: int, of_two: np.ufunc) -> Gray:
    """Return the extreme of each square, from those of strips that grow twofold."""
    for _ in range(2):
        length, strip = 1, x.T
        while length < side:
            step = min(length, side - length)
            strip, length = of_two(strip[:-step], strip[step:]), length + step
        x = strip
    return x


def _size(kernel: Kernel) -> list[float]:
    """Return the logarithms of a kernel's least and greatest width and of its area."""
    values = kernel.values
    at = np.arange(len(values)) - len(values) // 2
    down, right = values.sum(axis=1) @ at, values.sum(axis=0) @ at
    yy = values.sum(axis=1) @ at**2 - down**2
    xx = values.sum(axis=0) @ at**2 - right**2
    yx = at @ values @ at - down * right
    widths = np.sqrt(np.linalg.eigvalsh([[yy, yx], [yx, xx]]).clip(1e-4))
    return [*np.log(widths).tolist(), float(-0.5 * np.log((values**2).sum()))]
