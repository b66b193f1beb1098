"""Winding motions: the ways that explain the power spectra of a picture's windows best.

As in `demoe.model.kernels.spectrum`, the spectrum seen is compared with that of a scene behind a
kernel and noise. Here the kernel is a smooth way of its own, improved step by step from several
beginnings, and the scene is looser: of each window, its spectrum may fall as it likes, and lean to
some directions. What is far brighter than expected, such as the few straight edges of a house,
counts by its logarithm.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from demoe.model.kernels.families import DWELLS, ORDERS, Course, Kernel, course_of, legendre
from demoe.model.kernels.spectrum import power_of_windows, used_frequencies
from demoe.wanted import check

_POINTS = 25  # of a way, while it is sought
_SPARSE = 3  # of the frequencies, one of so many is looked at
_FALL = 2.3  # how steeply spectra of scenes fall
_LEAN = 2  # harmonics of the direction by which a scene may lean
_RIDGE = 0.001  # for scenes that do not lean
_BRIGHT = 1.0  # logarithm above which brightness counts linearly
_ODD = 0.5  # a window counts this much against a way, at most
_WINDING, _UNEVEN = 5e-4, 3e-3  # for ways that wind little, at even speed

_FIRST, _THEN = 10, 25  # steps of all, and of those that are
_KEPT = 6  # best after the first
_RATE, _RATE_OF_DWELL = 0.6, 0.1
_DRAWN = 8  # beginnings that wind by chance
_WIND = (0.35, 0.2)  # how much, of second and third order, against their length
_ALIKE = 0.9  # cosine of kernels that are one guess


def courses(gray: NDArray[np.float32], beginnings: Sequence[Kernel], count: int) -> list[Kernel]:
    """Return winding motions that may have blurred a picture.

    Parameters
    ----------
    gray : ndarray of float32
        (H, W), luma of display values in [0, 1].
    beginnings : sequence of Kernel
        Motions that are roughly alike.
    count : int
        How many are returned at most, the best first, no two of them alike.
    """
    if not beginnings:
        return []
    with torch.inference_mode(False), torch.enable_grad():
        search = _Search(gray)
        ways = search.improved(_Ways.of(beginnings).with_some_drawn(), _FIRST, settle=False)
        ways = search.improved(ways.first(_KEPT), _THEN, settle=True)
    found: list[Kernel] = []
    for kernel in ways.kernels():
        if len(found) < count and not any(_are_alike(kernel, other) for other in found):
            found.append(kernel)
    return found


@dataclass(frozen=True)
class _Ways:
    """Coefficients of courses: places (ways, 2, orders), dwells (ways, dwells)."""

    places: Tensor
    dwells: Tensor

    @classmethod
    def of(cls, kernels: Sequence[Kernel]) -> _Ways:
        made = [course_of(kernel) for kernel in kernels]
        places = torch.tensor([[course.down, course.right] for course in made])
        return cls(places, torch.tensor([course.dwell for course in made]))

    def with_some_drawn(self) -> _Ways:
        """Add some that wind more, always the same."""
        rng = np.random.default_rng(0)
        of = rng.integers(len(self.places), size=_DRAWN)
        drawn = self.places[of]
        length = drawn[:, :, 0].norm(dim=1)[:, None, None]
        wind = torch.from_numpy(rng.normal(size=(_DRAWN, 2, len(_WIND)))).float()
        drawn[:, :, 1 : 1 + len(_WIND)] += length * wind * torch.tensor(_WIND)
        return _Ways(torch.cat([self.places, drawn]), torch.cat([self.dwells, self.dwells[of]]))

    def first(self, count: int) -> _Ways:
        return _Ways(self.places[:count], self.dwells[:count])

    def kernels(self) -> list[Kernel]:
        return [
            Course(tuple(down), tuple(right), tuple(dwell)).kernel
            for (down, right), dwell in zip(self.places.tolist(), self.dwells.tolist(), strict=True)
        ]


class _Search:
    """Improves ways that may have blurred a picture."""

    def __init__(self, gray: NDArray[np.float32]) -> None:
        seen, noise = power_of_windows(gray)
        self._seen, self._noise = seen[:, _these()].clamp_min(1e-12).log(), noise.log()
        self._above = (seen - noise).clamp_min(0).sum(dim=1).log()
        self._best: Tensor | None = None  # scores of the best beginning in each window
        self._scenes: Tensor | None = None

    def improved(self, ways: _Ways, steps: int, *, settle: bool) -> _Ways:
        """Return ways after some steps of descent (Adam), the best of each, the best first.

        Parameters
        ----------
        ways : _Ways
            Where to begin.
        steps : int
            How many.
        settle : bool
            Whether steps become shorter.
        """
        places, dwells = (one.clone().requires_grad_() for one in (ways.places, ways.dwells))
        groups = [{"params": [places], "lr": _RATE}, {"params": [dwells], "lr": _RATE_OF_DWELL}]
        optimizer = torch.optim.Adam(groups, betas=(0.8, 0.95))
        rates = [group["lr"] for group in optimizer.param_groups]
        scenes: Tensor | None = None
        best = _Ways(places.detach().clone(), dwells.detach().clone())
        least = torch.full((len(places),), math.inf)
        for step in range(steps):
            check()
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * (1 - 0.9 * step / steps if settle else 1)
            costs, scenes = self._costs(places, dwells, scenes)
            with torch.no_grad():
                better = costs < least
                least = torch.where(better, costs, least)
                best.places[better], best.dwells[better] = places[better], dwells[better]
            optimizer.zero_grad()
            costs.sum().backward()
            optimizer.step()
        order = least.argsort()
        return _Ways(best.places[order], best.dwells[order])

    def _costs(
        self, places: Tensor, dwells: Tensor, scenes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return what speaks against ways (ways,), and the scenes that go with them."""
        behind = _power(places, dwells).clamp_min(1e-9).log() + _scene()
        refinements = 1
        if scenes is None:
            refinements = 4
            level = self._above - behind.detach().exp().sum(dim=1, keepdim=True).log()
            scenes = F.pad(level[..., None], (0, len(_leaning()) - 1))
        for _ in range(refinements):
            scenes = self._refined(behind.detach()[:, None], scenes)
        scores = _badness(self._seen - self._expected(behind[:, None], scenes)[0]).mean(dim=2)
        scores = scores + 0.5 * (scenes.square() * _ridge()).sum(dim=2)
        if self._best is None:
            self._best = scores.detach().amin(dim=0)
        more = scores - self._best
        odd = _ODD * (1 - (-more.clamp_min(0) / _ODD).exp())
        cost = torch.where(more < 0, more, odd).mean(dim=1)
        span = (1 + places.detach()[:, :, 0].square().sum(dim=1)).sqrt()
        winding = places[:, :, 1:].square().sum(dim=(1, 2)) / span
        uneven = dwells.square().sum(dim=1)
        return cost + _WINDING * winding + _UNEVEN * uneven, scenes

    def _expected(self, behind: Tensor, scenes: Tensor) -> tuple[Tensor, Tensor]:
        """Return logarithms (ways, windows, frequencies) of what is seen, and of it the signal."""
        signal = scenes @ _leaning() + behind
        return torch.logaddexp(signal, self._noise.expand_as(signal)), signal

    @torch.no_grad()
    def _refined(self, behind: Tensor, scenes: Tensor) -> Tensor:
        """Fit scenes (ways, windows, terms): a step of reweighted least squares."""
        expected, signal = self._expected(behind, scenes)
        share = (signal - expected).exp()
        count, terms = behind.shape[-1], len(_leaning())
        pull = (share * _slope(self._seen - expected)) @ _leaning().T / count - scenes * _ridge()
        bend = (share.square_() @ _pairs() / count).unflatten(-1, (terms, terms))
        bend = bend + torch.diag(_ridge() + 1e-6)
        step: Tensor = torch.linalg.solve(bend, pull[..., None])[..., 0]
        return scenes + step.clamp(-1, 1)


def _badness(left: Tensor) -> Tensor:
    """Return Whittle's score of the logarithm of seen over expected; linear where that is high."""
    top = math.exp(_BRIGHT)
    steep = left.clamp_max(_BRIGHT).exp()
    return torch.where(left < _BRIGHT, steep, top * (1 + left - _BRIGHT)) - left


def _slope(left: Tensor) -> Tensor:
    return left.clamp_max(_BRIGHT).exp() - 1


def _power(places: Tensor, dwells: Tensor) -> Tensor:
    """Return the power (ways, frequencies) that ways leave of a scene."""
    down, right = _frequencies()[:, None]
    orders = _orders()
    way, time = places @ orders, (dwells @ orders[:DWELLS]).softmax(dim=1)[..., None]
    phase = way[:, 0, :, None] * down + way[:, 1, :, None] * right
    real, imaginary = (time * phase.cos()).sum(dim=1), (time * phase.sin()).sum(dim=1)
    power: Tensor = (real.square() + imaginary.square()) * _pixel()
    return power


def _are_alike(one: Kernel, other: Kernel) -> bool:
    return max(one.cosine(other), one.cosine(other.turned)) > _ALIKE


def _constant(make: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Make a tensor once; also where autograd is off, so that it may be used where it is on."""

    @functools.cache
    def made() -> Tensor:
        with torch.inference_mode(False):
            return make()

    return made


@_constant
def _these() -> Tensor:
    return torch.arange(0, used_frequencies().shape[1], _SPARSE)


@_constant
def _frequencies() -> Tensor:
    """Return radians a pixel (2, frequencies) down and right."""
    return 2 * math.pi * used_frequencies()[:, _these()]


@_constant
def _distance() -> Tensor:
    """Return the logarithm of the distance of each frequency from the middle."""
    frequency: Tensor = _frequencies().norm(dim=0) / (2 * math.pi)
    return (frequency + 0.005).log()


@_constant
def _scene() -> Tensor:
    return -_FALL * _distance()


@_constant
def _leaning() -> Tensor:
    """Return terms of the logarithm of a scene's spectrum: (terms, frequencies)."""
    down, right = _frequencies()
    angle = torch.atan2(down, right)
    terms = [torch.ones_like(angle), _distance() - _distance().mean()]
    for harmonic in range(1, _LEAN + 1):
        terms += [(2 * harmonic * angle).cos(), (2 * harmonic * angle).sin()]
    return torch.stack(terms)


@_constant
def _pairs() -> Tensor:
    """Return the products of all terms: (frequencies, terms * terms)."""
    terms = _leaning().T
    return (terms[:, :, None] * terms[:, None]).flatten(1)


@_constant
def _ridge() -> Tensor:
    """Return how strongly each term is held at zero."""
    return _RIDGE * torch.tensor([0.0, 1.0] + [2.0] * (2 * _LEAN))


@_constant
def _pixel() -> Tensor:
    """Return the power that is left where a point is shared by the four pixels around it."""
    sinc = torch.sinc(_frequencies() / (2 * math.pi))
    return (sinc[0] * sinc[1]).square()


@_constant
def _orders() -> Tensor:
    return torch.from_numpy(legendre(_POINTS, ORDERS)).float()
