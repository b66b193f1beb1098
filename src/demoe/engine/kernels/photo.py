"""Kernels of photos: guessed, judged, and chosen window by window."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from demoe.engine.extents import Extents
from demoe.engine.kernels.places import SAMPLE, sample_boxes
from demoe.engine.kernels.solution import Solution, values_of
from demoe.engine.memory import Memory
from demoe.engine.parallel import each
from demoe.engine.reader import PlaneReader
from demoe.model.kernels.families import MOTION, SIDE, Kernel
from demoe.plan.tiling import Box, Plane, TilePlan
from demoe.plan.windows import STEP, window_at, window_counts, windows_in

if TYPE_CHECKING:
    from demoe.model.kernels.deconvolution import Setting
    from demoe.model.kernels.estimator import Estimate, Place, Way
    from demoe.model.kernels.judge import Judge, Try

LEAST_GAIN = 0.3
"""Decibels that a kernel must promise to be used."""

ASKED_GAIN = 0.0
"""The same of one that a person asked for."""

AROUND = 64
"""Pixels around a window that help to tell its kernel."""

EVERY_WINDOW = 12
"""Windows of a plane up to which guesses are made on each, not on a few places."""

BETTER = 0.5
"""Decibels by which another kernel must promise more somewhere to be tried window by window."""

MOST_KERNELS = 4
"""Kernels of a plane among which its windows choose."""

MOST_WAYS = 2
"""Of the ways to undo a plane, so many are tried on a window beside what serves all of it."""

MOST_TRACKS = 2
"""Places of a plane on which motions of any shape are sought, which takes longest."""

SURE = 2.0
"""Decibels from which on a lens out of focus is believed without looking for motions, and any blur
without looking for it in parts of a place."""

LIKELIEST = 4
"""Straight kernels of each place beside which the spectrum of a window ranks those of its plane."""

Families = frozenset[str]

Promise = dict["Way", float]
"""What each of some ways to undo a place is expected to gain, in dB."""

_PROMISE = (-2.0, 4.0)  # what a place may say for or against a kernel of the whole plane


@dataclass(frozen=True)
class _OfPlane:
    """What was found on the places that stand for a plane.

    Attributes
    ----------
    solutions : dict of Way to Solution
        How its windows may be undone.
    first : Way or None
        What serves all of it.
    tried : tuple of Way
        What was tried on each place.
    likeliest : tuple of Kernel
        Straight kernels that a place's spectrum speaks for.
    tracks : tuple of Kernel
        Motions of any shape that were found on its places.
    """

    solutions: dict[Way, Solution]
    first: Way | None
    tried: tuple[Way, ...]
    likeliest: tuple[Kernel, ...]
    tracks: tuple[Kernel, ...]

    @property
    def agrees(self) -> bool:
        """Whether all places are undone alike."""
        return list(self.solutions) == [self.first]


class PhotoKernels:
    """Kernels of a photo: found on places that stand for a plane; of several, each window's own.

    Parameters
    ----------
    reader, plan, memory : PlaneReader, TilePlan, Memory
        Its pixels, how planes are cut, and what was found out so far.
    judge : Judge
        Says what kernels are worth.
    extents : Extents or None
        Tell what is blurred, where parts of a place are. Without them, all of it is.
    families : frozenset of str or None
        Those that a person allows in all of the image; None where nobody said anything.
    painted : callable
        Returns the same of a window where somebody painted.
    """

    def __init__(
        self,
        reader: PlaneReader,
        plan: TilePlan,
        judge: Judge,
        extents: Extents | None,
        families: Families | None,
        painted: Callable[[Plane, Box], Families | None],
        memory: Memory,
    ) -> None:
        self._reader, self._plan, self._judge = reader, plan, judge
        self._extents = extents
        self._families, self._painted, self._memory = families, painted, memory
        self.side = SIDE

    def look_at(self, plane: Plane) -> None:
        """Find the kernels that windows of a plane choose from."""
        self._of_plane(plane)

    def window(self, plane: Plane, window: Box) -> Solution | None:
        """Return how a window is undone; None where no kernel promises anything."""
        families = self._painted(plane, window)
        make = self._asked if families is not None else self._best
        found: Solution | None = self._memory.once(
            "kernel", (plane, window, families), lambda: make(plane, window, families)
        )
        return found

    def values(self, plane: Plane, window: Box) -> NDArray[np.float32]:
        """Return the kernel of a window."""
        return values_of(self.window(plane, window))

    def _boxes(self) -> list[Box]:
        """Return the places that guesses are made on: of a small plane, every window."""
        if not self._is_small:
            return sample_boxes(self._plan)
        whole = Box(0, 0, self._plan.height, self._plan.width)
        return [self._around(window) for window in windows_in(self._plan, whole)]

    @property
    def _is_small(self) -> bool:
        """Whether guesses are made on each window: more than one place, but not too many."""
        is_one = max(self._plan.height, self._plan.width) <= SAMPLE
        return not is_one and math.prod(window_counts(self._plan)) <= EVERY_WINDOW

    def _around(self, window: Box) -> Box:
        return window.grown(AROUND, self._plan.height, self._plan.width)

    def _of_plane(self, plane: Plane) -> _OfPlane:
        found: _OfPlane = self._memory.once("kernel", plane, lambda: self._found(plane))
        return found

    def _found(self, plane: Plane) -> _OfPlane:
        boxes = self._boxes()
        places = list(each(partial(self._place, plane, middle=self._is_small), boxes))
        guessed, tracks = self._guessed(places)
        in_parts: dict[Box, Place] = {}
        if self._extents:
            known = zip(boxes, guessed, strict=True)
            unsure = [box for box, guess in known if guess.gain < SURE]
            parted = [box for box in unsure if self._extents.are_parts(plane, box)]
            look = partial(self._place, plane, middle=self._is_small, parts=True)
            in_parts = dict(zip(parted, each(look, parted), strict=True))
            more_guesses, more_tracks = self._guessed(list(in_parts.values()))
            guessed, tracks = guessed + more_guesses, tracks + more_tracks
        apart: list[Estimate] = []
        for one in sorted(guessed, key=lambda one: -one.gain):
            if len(apart) < MOST_KERNELS and not any(one.is_near(other) for other in apart):
                apart.append(one)
        ways = tuple(
            (one.kernel, replace(one.setting, linear=linear))
            for one in apart
            for linear in (False, True)
        )

        def promise(known: tuple[Box, Place]) -> Promise:
            box, place = known
            return self._promise(plane, box, ways, place, in_parts.get(box))

        promises = list(each(promise, zip(boxes, places, strict=True)))
        mean = {
            way: float(np.mean([np.clip(promise[way], *_PROMISE) for promise in promises]))
            for way in promises[0]
        }
        first: Way | None = max(mean, key=mean.__getitem__)
        if first is not None and mean[first] < self._least:
            first = None
        chosen = (_choice(one, first, self._least) for one in promises)
        used = {first, *chosen} - {None}
        ordered = (way for way in promises[0] if way in used)
        solutions = {way: _solution(*way, mean[way]) for way in ordered}
        likeliest = dict.fromkeys(k for place in places for k in place.likeliest(LIKELIEST))
        return _OfPlane(solutions, first, ways, tuple(likeliest), tracks)

    def _guessed(self, places: Sequence[Place]) -> tuple[list[Estimate], tuple[Kernel, ...]]:
        """Return the best guess of each place, and tracks among all guesses."""
        from demoe.model.kernels.estimator import both_ways

        def guess(place: Place) -> tuple[list[Try], Estimate]:
            tries = both_ways(_of(self._families, place), place.parts)
            return tries, place.judged(tries, self._judge)[0]

        begun = list(each(guess, places))
        tries, firsts = [some for some, _ in begun], [first for _, first in begun]
        open_ones = [n for n, first in enumerate(firsts) if self._may_be_motion(first)]
        open_ones.sort(key=lambda n: -places[n].contrast)
        tracks: list[Kernel] = []
        sought = open_ones[:MOST_TRACKS]
        for n, found in zip(sought, each(lambda n: places[n].tracks(), sought), strict=True):
            tracks += [kernel for kernel, _, _ in found]
            tries[n] += found
        known = zip(places, tries, strict=True)
        return list(each(lambda one: one[0].best(one[1], self._judge), known)), tuple(tracks)

    def _may_be_motion(self, guess: Estimate) -> bool:
        """Tell whether motions of any shape are worth the search where this is the best guess."""
        open_to_it = guess.kernel.family in MOTION or guess.gain < SURE
        return open_to_it and _allow_motion(self._families)

    def _promise(
        self,
        plane: Plane,
        box: Box,
        ways: tuple[Way, ...],
        place: Place | None = None,
        parted: Place | None = None,
    ) -> Promise:
        """Return what each of some ways to undo a place is expected to gain."""

        def judge() -> Promise:
            return self._tried(plane, box, place or self._place(plane, box), ways, parted)

        found: Promise = self._memory.once("kernel", (plane, box, ways), judge)
        return found

    def _tried(
        self,
        plane: Plane,
        box: Box,
        place: Place,
        ways: Sequence[Way],
        parted: Place | None = None,
    ) -> Promise:
        """Return what some ways to undo a place promise, or parts of it, which is ``parted``."""
        gains: Promise = {}
        for parts in (False, True):
            some = [way for way in ways if way[1].parts is parts]
            if not some:
                continue
            looked = place
            if parts:
                looked = parted or self._place(plane, box, place.among, parts=True)
            scores = dict(looked.scored(_kernels_of(some)))
            tries = [(kernel, scores[kernel], setting) for kernel, setting in some]
            gains |= {(e.kernel, e.setting): e.gain for e in looked.judged(tries, self._judge)}
        return {way: gains[way] for way in ways}

    def _best(self, plane: Plane, window: Box, families: Families | None) -> Solution | None:
        """Return how a window is best undone, of what was found for its plane."""
        found = self._of_plane(plane)
        if not found.solutions:
            return None
        if found.first is not None and found.agrees and not self._is_small:
            return found.solutions[found.first]
        near = [self._judged(plane, one) for one in self._judged_beside(window)]
        if len({way for way, _ in near}) > 1:
            near = [self._judged(plane, window)]
        way, gain = near[0][0], float(np.mean([gain for _, gain in near]))
        return None if way is None else replace(found.solutions[way], gain=gain)

    def _judged_beside(self, window: Box) -> list[Box]:
        """Return the windows that decide for one if they agree: of a large plane, every second."""
        if self._is_small:
            return [window]
        rows, cols = (
            [at] if at % 2 == 0 or at == count - 1 else [at - 1, at + 1]
            for at, count in zip(
                (window.top // STEP, window.left // STEP), window_counts(self._plan), strict=True
            )
        )
        return [window_at(self._plan, row, col) for row in rows for col in cols]

    def _judged(self, plane: Plane, window: Box) -> tuple[Way | None, float]:
        """Return how a window by itself is best undone, and what that is expected to gain."""
        found: tuple[Way | None, float] = self._memory.once(
            "kernel", (plane, window, "judged"), lambda: self._judge_window(plane, window)
        )
        return found

    def _judge_window(self, plane: Plane, window: Box) -> tuple[Way | None, float]:
        found, box = self._of_plane(plane), self._around(window)
        if self._is_small:  # it was one of the places that stand for the plane
            every = self._promise(plane, box, found.tried)
            promise = {way: every[way] for way in found.solutions}
        else:
            place = self._place(plane, box, found.likeliest)
            score = dict(place.scored(_kernels_of(found.solutions)))
            ranked = sorted(found.solutions, key=lambda way: score[way[0]])[:MOST_WAYS]
            ways = tuple(dict.fromkeys(way for way in (*ranked, found.first) if way))
            promise = self._tried(plane, box, place, ways)
        way = _choice(promise, found.first, self._least)
        return way, 0.0 if way is None else promise[way]

    def _asked(self, plane: Plane, window: Box, families: Families | None) -> Solution | None:
        """Return how a window is undone by a kernel of some families, found there."""
        from demoe.model.kernels.estimator import both_ways

        box = self._around(window)
        tracks = self._of_plane(plane).tracks if _allow_motion(families) else ()

        def ask(place: Place) -> Estimate:
            guesses = [*_of(families, place), *place.scored(tracks)]
            return place.best(both_ways(guesses, place.parts), self._judge)

        places = [self._place(plane, box)]
        if self._extents and self._extents.are_parts(plane, box):
            places.append(self._place(plane, box, parts=True))
        best = max(map(ask, places), key=lambda one: one.gain)
        if best.gain < ASKED_GAIN:
            return None
        return _solution(best.kernel, best.setting, best.gain)

    @property
    def _least(self) -> float:
        """Decibels that a kernel must promise to be used."""
        return LEAST_GAIN if self._families is None else ASKED_GAIN

    def _place(
        self,
        plane: Plane,
        box: Box,
        among: tuple[Kernel, ...] | None = None,
        middle: bool = True,
        parts: bool = False,
    ) -> Place:
        from demoe.model.kernels.estimator import Place, gray_of

        gray = gray_of(self._reader.pixels(plane, box))
        extent = self._extents.of(plane, box) if self._extents and parts else None
        return Place(gray, among, middle, extent)


def _solution(kernel: Kernel, setting: Setting, gain: float) -> Solution:
    from demoe.model.kernels.deconvolution import Deconvolver

    return Solution(Deconvolver(kernel.values, photo=True), setting, gain, kernel)


def _kernels_of(ways: Iterable[Way]) -> tuple[Kernel, ...]:
    """Return the kernels of some ways to undo a place, each once."""
    return tuple(dict.fromkeys(kernel for kernel, _ in ways))


def _allow_motion(families: Families | None) -> bool:
    return families is None or bool(families & MOTION)


def _of(families: Families | None, place: Place) -> list[tuple[Kernel, float]]:
    """Return the guesses of a place that are of some families, with their scores."""
    if not _allow_motion(families):
        return place.round_guesses()
    guesses = place.guesses()
    if families is None:
        return guesses
    return [(kernel, score) for kernel, score in guesses if kernel.family in families]


def _choice(promise: Promise, first: Way | None, least: float) -> Way | None:
    """Choose how to undo a place: as its plane, unless another way promises clearly more there."""
    best = max(promise, key=promise.__getitem__)
    if first is not None and promise[best] < promise[first] + BETTER:
        return first if promise[first] >= 0 else None
    return best if promise[best] >= least else None
