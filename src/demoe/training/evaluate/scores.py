"""What an evaluation found, and its tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from demoe.choices import TASKS

MOTION = (1, 2, 3)
"""Tasks that a person would all call motion blur."""

Means = dict[str, float]
"""A measure, averaged over images, by what it was taken of: blurred, automatic, manual, a peer."""


Confusion = list[list[int]]
"""Counts by true task (row) and choice (column)."""


@dataclass(frozen=True)
class PeerScore:
    """Figures of classical methods and of the network on the same images.

    Attributes
    ----------
    images : int
        How many of the task's images were blurred by one kernel, which the methods need.
    measures : dict of str to dict
        By measure (``psnr`` in dB and others), then by method.
    """

    images: int
    measures: dict[str, Means]


@dataclass(frozen=True)
class TaskScore:
    """Mean figures of one task; PSNR in dB.

    Attributes
    ----------
    blurred, automatic, manual : float
        PSNR of the input, and of the output with the router's and with the true task's expert.
    drift, drift_from_truth : float
        Relative change of an image's mean intensity against its input, and against the truth.
    similarity : dict of str to dict
        Other measures (``ssim``, ``lpips``) of the same three.
    peers : PeerScore or None
        None where classical methods were not run, or no image has a single kernel.
    """

    blurred: float
    automatic: float
    manual: float
    drift: float
    drift_from_truth: float
    similarity: dict[str, Means] = field(default_factory=dict)
    peers: PeerScore | None = None

    @property
    def gain(self) -> float:
        """PSNR gained over the blurred input with automatic routing."""
        return self.automatic - self.blurred


@dataclass(frozen=True)
class Scores:
    """What ``evaluate`` found.

    Attributes
    ----------
    tasks : dict of str to TaskScore
        By task name.
    confusion : list of list of int
        Images by true task (row) and the router's choice (column).
    sharp : float
        PSNR between input and output for images that are sharp already.
    seconds : float
        A megapixel in the bare network, automatic routing; the median over its runs.
    """

    tasks: dict[str, TaskScore]
    confusion: Confusion
    sharp: float
    seconds: float = field(default=0.0, compare=False)

    @property
    def mean_gain(self) -> float:
        """PSNR gained over the blurred input, mean over the tasks."""
        return sum(score.gain for score in self.tasks.values()) / len(self.tasks)

    @property
    def accuracy(self) -> float:
        """Share of images for which the router chose the true task."""
        return accuracy(self.confusion)

    @property
    def accuracy_motion_as_one(self) -> float:
        """The same with the three kinds of motion counted as one."""
        return accuracy_motion_as_one(self.confusion)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able values."""
        return {
            "tasks": {name: asdict(s) | {"gain": s.gain} for name, s in self.tasks.items()},
            "mean_gain": self.mean_gain,
            "accuracy": self.accuracy,
            "accuracy_motion_as_one": self.accuracy_motion_as_one,
            "confusion": self.confusion,
            "sharp": self.sharp,
            "seconds_a_megapixel": self.seconds,
        }

    def table(self) -> str:
        """Return the main figures as a Markdown table with a line on router and sharp input."""
        head = ("task", "blurred", "automatic", "gain", "manual", "drift", "drift from truth")
        rows = [
            (
                name,
                _decibel(s.blurred),
                _decibel(s.automatic),
                f"{s.gain:+.2f} dB",
                _decibel(s.manual),
                f"{100 * s.drift:.2f} %",
                f"{100 * s.drift_from_truth:.2f} %",
            )
            for name, s in self.tasks.items()
        ]
        rows.append(("mean", "", "", f"{self.mean_gain:+.2f} dB", "", "", ""))
        router = (
            f"Router: {100 * self.accuracy:.0f} % of five, {100 * self.accuracy_motion_as_one:.0f} "
            f"% with motion as one. Sharp input kept to {self.sharp:.1f} dB."
        )
        return f"{markdown(head, rows)}\n\n{router}"

    def details(self) -> str:
        """Return further tables: other measures, classical methods, the router's confusion."""
        parts = [*self._similarity_tables(), *self._peer_tables()]
        parts.append(confusion_table(self.confusion))
        return "\n\n".join(parts)

    def _similarity_tables(self) -> Iterable[str]:
        names = {name: None for score in self.tasks.values() for name in score.similarity}
        for name in names:
            rows = [
                (task, *(f"{value:.3f}" for value in score.similarity[name].values()))
                for task, score in self.tasks.items()
            ]
            yield markdown((name.upper(), "blurred", "automatic", "manual"), rows)

    def _peer_tables(self) -> Iterable[str]:
        with_peers = {task: s.peers for task, s in self.tasks.items() if s.peers}
        if not with_peers:
            return
        some = next(iter(with_peers.values()))
        for measure, means in some.measures.items():
            digits = 2 if measure == "psnr" else 3
            head = (measure.upper(), "images", *(method.replace("_", " ") for method in means))
            rows = []
            for task in self.tasks:
                if peers := with_peers.get(task):
                    cells = [f"{value:.{digits}f}" for value in peers.measures[measure].values()]
                    rows.append((task, str(peers.images), *cells))
                else:
                    rows.append((task, "0", *[""] * len(means)))
            yield markdown(head, rows)
        yield (
            "Wiener and Richardson-Lucy are told the true kernel, and whether it acted on light. "
            "Images that no single kernel has blurred (a moving object, a rolling camera) have "
            "none to tell and are left out of these tables, for the network too."
        )


def accuracy(confusion: Confusion) -> float:
    """Return the share of right choices."""
    right = sum(confusion[i][i] for i in range(len(TASKS)))
    return right / max(1, sum(map(sum, confusion)))


def accuracy_motion_as_one(confusion: Confusion) -> float:
    """Return the share of right choices with the three kinds of motion counted as one."""
    right = sum(
        n
        for true, row in enumerate(confusion)
        for chosen, n in enumerate(row)
        if true == chosen or (true in MOTION and chosen in MOTION)
    )
    return right / max(1, sum(map(sum, confusion)))


def confusion_table(confusion: Confusion) -> str:
    """Return counts by true task (row) and choice (column) as a Markdown table."""
    rows = [(TASKS[true], *(str(n) for n in counts)) for true, counts in enumerate(confusion)]
    return markdown(("true \\ chosen", *TASKS), rows)


def compare(scores: Mapping[str, Scores]) -> str:
    """Return the gains of several networks side by side as a Markdown table."""
    head = ("gain", *(f"{name}{kind}" for name in scores for kind in ("", ", manual")))
    rows = []
    for task in TASKS:
        found = [s.tasks[task] for s in scores.values()]
        gains = [gain for s in found for gain in (s.gain, s.manual - s.blurred)]
        rows.append((task, *(f"{gain:+.2f} dB" for gain in gains)))
    accuracy = [f"{100 * s.accuracy:.0f} %" for s in scores.values()]
    rows.append(("router right", *(cell for one in accuracy for cell in (one, ""))))
    return markdown(head, rows)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are aligned to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    lines += [("| " + " | ".join(row) + " |").replace("|  |", "| |") for row in rows]
    return "\n".join(lines).replace("|  |", "| |")


def _decibel(value: float) -> str:
    return f"{value:.2f} dB"
