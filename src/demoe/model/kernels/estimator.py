"""Which kernel blurred a place: guesses by the spectrum, judged by what undoing them does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from demoe.model.kernels.blind import LEAST_SIDE, track_of
from demoe.model.kernels.deconvolution import STRENGTHS, Setting
from demoe.model.kernels.families import Kernel, round_kernels, straight_kernels
from demoe.model.kernels.judge import STRENGTH, TRIED, Judge, Trials, Try
from demoe.model.kernels.light import LUMA
from demoe.model.kernels.spectrum import CLIP, pooled, rough_scores, window_scores

CAREFUL = 0.9
"""A Gaussian of a measurement counts as so much of what was found: objects that are smooth
themselves make it look larger, and too large a kernel invents rings."""

_STRAIGHT = 2  # guesses among straight motions
_STRENGTHENED = 3  # so many of all guesses are tried at other strengths
_OF_PLACE = {"disc": 8, "gaussian": 8, "motion": 24}  # the likeliest of each family, and
_OF_WINDOW = 3  # of each window, are scored by all frequencies
_ODD = 0.5  # a window counts this much against a straight motion, at most

Gray = NDArray[np.float32]

Way = tuple[Kernel, Setting]
"""A kernel, and how it is undone."""


@dataclass(frozen=True)
class Estimate:
    """What was found out about the blur of a place.

    Attributes
    ----------
    kernel : Kernel
        The kernel.
    setting : Setting
        How it is undone.
    gain : float
        By how many dB that is expected to help.
    """

    kernel: Kernel
    setting: Setting
    gain: float

    def is_near(self, other: Estimate) -> bool:
        """Tell whether two are much the same, of all of a place or of parts."""
        return self.setting.parts is other.setting.parts and self.kernel.is_near(other.kernel)


def gray_of(pixels: NDArray[np.float32]) -> Gray:
    """Return the luma (H, W) of a picture (H, W, 1 or 3)."""
    if pixels.shape[2] == 1:
        return np.ascontiguousarray(pixels[..., 0])
    return pixels @ np.array(LUMA, dtype=np.float32)


def _middle_of(gray: Gray) -> Gray:
    """Return the middle of a place: of what is around a window, the window."""
    starts = [max(0, (side - TRIED) // 2) for side in gray.shape]
    top, left = starts
    return np.ascontiguousarray(gray[top : top + TRIED, left : left + TRIED])


class Place:
    """A part of a picture whose kernel is asked for.

    Parameters
    ----------
    gray : ndarray of float32
        (H, W), luma of display values in [0, 1].
    among : sequence of Kernel, optional
        Straight kernels beside which others are scored, where no guesses are asked for; by default
        those that may have blurred it.
    middle : bool
        Whether its middle alone shall be undone, and the rest only helps to tell how.
    extent : ndarray of float32, optional
        (H, W), how much of each pixel is blurred, 0 to 1: the kernel of that is asked for. By
        default all of it is.

    Attributes
    ----------
    among : tuple of Kernel
        Straight kernels beside which others are scored.
    parts : bool
        Whether only parts of it are blurred.
    trials : Trials
        Kernels tried on it, or on its middle.
    """

    def __init__(
        self,
        gray: Gray,
        among: Sequence[Kernel] | None = None,
        middle: bool = False,
        extent: Gray | None = None,
    ) -> None:
        self.gray, self._extent, self.parts = gray, extent, extent is not None
        # What is sharp would speak for no blur at all.
        self._heard = gray if extent is None else gray.mean() + extent * (gray - gray.mean())
        self.among = tuple(among or _likely(self._heard))
        self._straight = window_scores(self._heard, self.among)
        tried = [_middle_of(one) if middle and one is not None else one for one in (gray, extent)]
        assert tried[0] is not None
        self.trials = Trials(tried[0], min(gray.shape), tried[1])

    def guesses(self) -> list[tuple[Kernel, float]]:
        """Return straight kernels that may have blurred it, some of each family, with scores."""
        motions = [k for k in self._ranked(_ODD) if k.family == "motion"]
        return self.scored([*self._round_ones(), *_apart(motions, _STRAIGHT)])

    @property
    def contrast(self) -> float:
        """How much neighbouring pixels differ in the mean: what a search has to go by."""
        return float(sum(np.abs(np.diff(self.gray, axis=axis)).mean() for axis in (0, 1)))

    def tracks(self) -> list[Try]:
        """Return motions of any shape, of display values and of light: what takes longest.

        None of a place that is too small to tell.
        """
        if min(self.gray.shape) < LEAST_SIDE:
            return []
        kernels = [track_of(self.gray, linear, self._extent) for linear in (False, True)]
        return [
            (kernel, score, Setting(linear, STRENGTH, self.parts))
            for (kernel, score), linear in zip(self.scored(kernels), (False, True), strict=True)
        ]

    def round_guesses(self) -> list[tuple[Kernel, float]]:
        """Return those of them that are no motion, without looking for any."""
        return self.scored(self._round_ones())

    def _round_ones(self) -> list[Kernel]:
        """Return the likeliest kernel of each kind that is no motion."""
        ranked = self._ranked(CLIP)
        return [next(k for k in ranked if k.family == family) for family in ("disc", "gaussian")]

    def _ranked(self, odd: float) -> list[Kernel]:
        """Return straight kernels, what explains the place best first."""
        return [self.among[i] for i in pooled(self._straight, odd).argsort()]

    def likeliest(self, count: int) -> list[Kernel]:
        """Return the straight kernels that explain it best, and the best one of each window."""
        order = [*pooled(self._straight).argsort()[:count], *self._straight.argmin(axis=1)]
        return [self.among[i] for i in dict.fromkeys(order)]

    def scored(self, kernels: Sequence[Kernel]) -> list[tuple[Kernel, float]]:
        """Return kernels with scores among each other and all straight ones."""
        if not kernels:
            return []
        both = np.concatenate([self._straight, window_scores(self._heard, kernels)], axis=1)
        return list(zip(kernels, pooled(both)[-len(kernels) :].tolist(), strict=True))

    def judged(self, tries: Sequence[Try], judge: Judge) -> list[Estimate]:
        """Return what is tried with the gain that is expected of it, the largest first."""
        gains = judge.gains(self.trials.measured(tries)).tolist()
        estimates = [
            Estimate(kernel, setting, gain)
            for (kernel, _, setting), gain in zip(tries, gains, strict=True)
        ]
        return sorted(estimates, key=lambda one: -one.gain)

    def best(self, tries: Sequence[Try], judge: Judge) -> Estimate:
        """Return what gains most, the likeliest tried at other strengths, too."""
        likeliest = self.judged(tries, judge)[:_STRENGTHENED]
        scores = {kernel: score for kernel, score, _ in tries}
        least = min(scores.values())

        def again(one: Estimate, strength: float) -> Estimate:
            setting = replace(one.setting, strength=strength)
            measured = self.trials.measured([(one.kernel, scores[one.kernel], setting)], least)
            return replace(one, setting=setting, gain=float(judge.gains(measured)[0]))

        return max((_climbed(one, again) for one in likeliest), key=lambda one: one.gain)


def _likely(gray: Gray) -> list[Kernel]:
    """Return straight kernels of each family, among which is what explains a place best."""
    straight, rough = straight_kernels(), rough_scores(gray)
    found = [straight[i] for i in np.unique(np.argsort(rough, axis=1)[:, :_OF_WINDOW])]
    for odd in (CLIP, _ODD):
        ranked = [straight[i] for i in pooled(rough, odd).argsort()]
        for family, count in _OF_PLACE.items():
            found += [kernel for kernel in ranked if kernel.family == family][:count]
    motions = [kernel for kernel in ranked if kernel.family == "motion"]
    return list(dict.fromkeys([*found, *_apart(motions, _STRAIGHT)]))


def _climbed(one: Estimate, again: Callable[[Estimate, float], Estimate]) -> Estimate:
    """Go on from one strength to the next while that promises more, to the one side or the other.

    Parameters
    ----------
    one : Estimate
        Where it begins, at one of `STRENGTHS`.
    again : callable
        Judges the same at another strength.
    """
    start = STRENGTHS.index(one.setting.strength)
    for side in (STRENGTHS[start + 1 :], STRENGTHS[:start][::-1]):
        best = one
        for strength in side:
            found = again(best, strength)
            if found.gain <= best.gain:
                break
            best = found
        if best is not one:
            return best
    return one


def both_ways(guesses: Sequence[tuple[Kernel, float]], parts: bool = False) -> list[Try]:
    """Let kernels be tried on display values and on light, in parts of a place or all over."""
    settings = [Setting(linear, STRENGTH, parts) for linear in (False, True)]
    return [(kernel, score, setting) for kernel, score in guesses for setting in settings]


def _apart(kernels: Sequence[Kernel], count: int) -> list[Kernel]:
    """Return the first kernels that are no neighbours of each other."""
    found: list[Kernel] = []
    for kernel in kernels:
        if len(found) < count and not any(kernel.is_like(other) for other in found):
            found.append(kernel)
    return found


def round_scores(gray: Gray) -> NDArray[np.float64]:
    """Score `round_kernels` on a place of a measurement; the smallest explains it best."""
    return pooled(window_scores(gray, round_kernels()))


def careful(kernel: Kernel) -> Kernel:
    """Return a kernel of a measurement, a Gaussian somewhat smaller than it was found."""
    if kernel.family != "gaussian":
        return kernel
    return replace(kernel, size=CAREFUL * kernel.size)
