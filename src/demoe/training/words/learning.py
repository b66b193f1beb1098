"""Learn and measure the word classifier: ``python -m demoe.training.words.learning``.

Logistic regressions, one for each output, with a penalty on large weights, fitted by L-BFGS to the
sentences of ``weights/words.txt``. Cross-validation over the lines of that file says how often
answers are right: no line is judged by weights that learnt from it.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demoe.choices import TASKS
from demoe.errors import DemoeError, RecipeError
from demoe.io.atomic import partial_output
from demoe.routing.words.classifier import (
    CLEAR_FROM,
    FOREIGN_FROM,
    OUTPUTS,
    SENTENCES,
    UNCLEAR,
    WEIGHTS,
    Classifier,
    Floats,
    classifier,
    look_up,
    read_lists,
    sigmoid,
    task_from_text,
)
from demoe.routing.words.phrases import Lexicon, Vector, vector
from demoe.training.words.sentences import (
    FOREIGN,
    Example,
    Line,
    Writer,
    examples,
    read_examples,
    read_lines,
)

DECAY = np.array([*[0.05] * len(TASKS), 0.01])
"""Penalty on squared weights, for each output; the foreign ones are few and alike."""

ROUNDS = 60
FOLDS = 5

Judged = tuple[tuple[str, ...], str, float]
"""The kinds that a sentence names, the answer, its confidence."""


def main(argv: Sequence[str] | None = None) -> int:
    """Learn the weights, or measure those that are there; returns 0, or 1 after a complaint."""
    parser = argparse.ArgumentParser(
        prog="python -m demoe.training.words.learning", description=__doc__
    )
    parser.add_argument(
        "--measure", type=Path, metavar="FILE", help="judge lines 'kind | sentence'; learn nothing"
    )
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where the weights are written")
    arguments = parser.parse_args(argv)
    try:
        if arguments.measure:
            print(report(measure(read_examples(_read(arguments.measure)))))
        else:
            text = _read(SENTENCES)
            lines = read_lines(text)
            judged, confidence = cross_validate(text, lines)
            print(f"{FOLDS}-fold cross-validation over {len(lines)} lines\n{report(judged)}")
            save(arguments.out, text, learn(text, lines), confidence)
    except DemoeError as error:
        print(f"demoe: {error}", file=sys.stderr)
        return 1
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"The sentences {path} cannot be read: {error}.") from None


def learn(text: str, lines: Sequence[Line]) -> Classifier:
    """Fit a classifier to some lines of a file like ``words.txt``; its confidence is not set."""
    lexicon = Lexicon(read_lists(text))
    made = examples(text, lines)
    vectors = [vector(example.sentence, lexicon) for example in made]
    keys = _repeated(vectors, made)
    weights = fit(
        Table.of(vectors, keys),
        np.array([[float(name in example.kinds) for name in OUTPUTS] for example in made]),
        np.array([example.weight for example in made]),
    )
    return Classifier(lexicon, keys, weights, np.array([[0.0, 1.0]] * 2))


def _repeated(vectors: Sequence[Vector], made: Sequence[Example]) -> NDArray[np.uint32]:
    """Return, sorted, the features of more than one line: others say nothing about new ones."""
    pairs = {
        (key, example.line if example.line >= 0 else -1 - at)
        for at, ((keys, _), example) in enumerate(zip(vectors, made, strict=True))
        for key in keys.tolist()
    }
    seen = Counter(key for key, _ in pairs)
    return np.array(sorted(key for key, lines in seen.items() if lines > 1), np.uint32)


@dataclass(frozen=True, eq=False)
class Table:
    """Features of sentences as a sparse matrix: columns and values, row after row."""

    columns: NDArray[np.intp]
    values: Floats
    starts: NDArray[np.intp]
    width: int

    @classmethod
    def of(cls, vectors: Sequence[Vector], keys: NDArray[np.uint32]) -> Table:
        """Look up the features of sentences among the known ones."""
        found = [look_up(features, keys) for features in vectors]
        lengths = [len(columns) for columns, _ in found]
        return cls(
            np.concatenate([columns for columns, _ in found]),
            np.concatenate([values for _, values in found]),
            np.cumsum([0, *lengths[:-1]]),
            len(keys) + 1,
        )

    def products(self) -> tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]:
        """Return the products with (width, k) matrices and, transposed, with (rows, k) ones."""
        order = np.argsort(self.columns, kind="stable")
        lengths = np.diff(self.starts, append=len(self.columns))
        rows = np.repeat(np.arange(len(self.starts)), lengths)[order]
        used, first = np.unique(self.columns[order], return_index=True)
        by_row, by_column = self.values[:, None], self.values[order][:, None]

        def forward(weights: Floats) -> Floats:
            return np.add.reduceat(by_row * weights[self.columns], self.starts, axis=0)

        def back(slopes: Floats) -> Floats:
            out = np.zeros((self.width, slopes.shape[1]))
            out[used] = np.add.reduceat(by_column * slopes[rows], first, axis=0)
            return out

        return forward, back


def fit(table: Table, wanted: Floats, counts: Floats, rounds: int = ROUNDS) -> Floats:
    """Fit the weights (width, outputs) that say what is wanted (rows, outputs), by L-BFGS."""
    forward, back = table.products()
    decay = np.tile(DECAY, (table.width, 1))
    decay[0] *= 1e-3

    def loss(at: Floats) -> tuple[float, Floats]:
        scores = forward(at)
        cost = counts[:, None] * (np.logaddexp(0, scores) - wanted * scores)
        slope = back(counts[:, None] * (sigmoid(scores) - wanted)) + decay * at
        return float(cost.sum() + 0.5 * (decay * at * at).sum()), slope

    at = np.zeros((table.width, wanted.shape[1]))
    value, slope = loss(at)
    past: list[tuple[Floats, Floats]] = []
    for _ in range(rounds):
        step = -_uncurved(slope, past)
        length = 1.0 if past else 1 / float(np.abs(slope).sum())
        fall = float((slope * step).sum())
        new, new_slope = loss(at + length * step)
        while new > value + 1e-4 * length * fall and length > 1e-8:
            length /= 2
            new, new_slope = loss(at + length * step)
        past = [*past[-9:], (length * step, new_slope - slope)]
        at, value, slope = at + length * step, new, new_slope
    return at


def _uncurved(slope: Floats, past: Sequence[tuple[Floats, Floats]]) -> Floats:
    """Divide a slope by the curvature that the past steps and their changes of slope show."""
    out, shares = slope.copy(), []
    for step, change in reversed(past):
        shares.append(float((step * out).sum() / (step * change).sum()))
        out -= shares[-1] * change
    if past:
        step, change = past[-1]
        out *= float((step * change).sum() / (change * change).sum())
    for (step, change), share in zip(past, reversed(shares), strict=True):
        out += (share - float((change * out).sum() / (step * change).sum())) * step
    return out


def cross_validate(text: str, lines: Sequence[Line]) -> tuple[list[Judged], Floats]:
    """Judge two sentences of each line by weights from other lines; also return confidences."""
    fold = [zlib.crc32(line.pattern.encode()) % FOLDS for line in lines]
    said: list[tuple[tuple[str, ...], Floats]] = []
    for number in range(FOLDS):
        kept = [line for line, where in zip(lines, fold, strict=True) if where != number]
        left = [line for line, where in zip(lines, fold, strict=True) if where == number]
        model, writer = learn(text, kept), Writer(read_lists(text), "cross-validation")
        for line in left:
            for _ in range(1 if line.kinds == FOREIGN else 2):
                said.append((line.kinds, model.probabilities(writer.say(line.pattern))))
    confidence = calibrate(said)
    blank = Classifier(Lexicon({}), np.zeros(0, np.uint32), np.zeros((1, 1)), confidence)
    judged: list[Judged] = []
    for kinds, says in said:
        answer = blank.answer(says[: len(TASKS)])
        foreign = says[-1] >= FOREIGN_FROM
        judged.append((kinds, "foreign" if foreign else answer.task, answer.confidence))
    return judged, confidence


def calibrate(said: Sequence[tuple[tuple[str, ...], Floats]]) -> Floats:
    """Fit `Classifier.confidence` to sentences, English ones, with what the outputs said."""
    out = []
    for clear in (False, True):
        odds, right = [], []
        for kinds, says in said:
            tasks = says[: len(TASKS)]
            if kinds != FOREIGN and (tasks.max() >= CLEAR_FROM) == clear:
                odds.append(np.log(tasks.max() / (1 - tasks.max())))
                right.append(TASKS[int(tasks.argmax())] in kinds if clear else not kinds)
        x = np.stack([np.ones(len(odds)), np.array(odds)], axis=1)
        line = np.array([0.0, 1.0 if clear else -1.0])
        for _ in range(20):  # Newton's method
            share = sigmoid(x @ line)
            curve = (x * (share * (1 - share))[:, None]).T @ x + 1e-3 * np.eye(2)
            line = line - np.linalg.solve(curve, x.T @ (share - np.array(right)))
        out.append(line)
    return np.stack(out)


def measure(sentences: Sequence[tuple[tuple[str, ...], str]]) -> list[Judged]:
    """Judge sentences by the weights of the package."""
    judged: list[Judged] = []
    for kinds, sentence in sentences:
        try:
            answer = task_from_text(sentence)
            judged.append((kinds, answer.task, answer.confidence))
        except RecipeError:
            judged.append((kinds, "foreign", 1.0))
    return judged


def is_right(kinds: tuple[str, ...], answer: str) -> bool:
    """Tell whether an answer fits a sentence that names these kinds."""
    return answer in kinds if kinds else answer == UNCLEAR


def report(judged: Sequence[Judged]) -> str:
    """Return a table: how many answers are right, by kind, and by stated confidence."""
    rows = []
    for name in ["all", *OUTPUTS[:-1], UNCLEAR, "foreign"]:
        these = [
            is_right(kinds, answer)
            for kinds, answer, _ in judged
            if name in ("all", (kinds or (UNCLEAR,))[0])
        ]
        if these:
            rows.append(
                f"{name:<20} {sum(these):>5} of {len(these):>5} right {np.mean(these):>7.1%}"
            )
    english = [(is_right(k, a), c) for k, a, c in judged if k != FOREIGN and a != "foreign"]
    for low, high in ((0, 0.6), (0.6, 0.8), (0.8, 0.9), (0.9, 0.95), (0.95, 1)):
        inside = [(r, c) for r, c in english if low <= c < high]
        if inside:
            right, stated = np.mean(inside, axis=0)
            rows.append(
                f"confidence {low:.2f}-{high:.2f} {len(inside):>5} answers, stated {stated:.1%}, "
                f"right {right:.1%}"
            )
    return "\n".join(rows)


def save(path: Path, text: str, model: Classifier, confidence: Floats) -> None:
    """Write weights, and which sentences they were learnt from."""
    with partial_output(path, overwrite=True) as partial, partial.open("wb") as file:
        np.savez_compressed(
            file,
            keys=model.keys,
            weights=model.weights.astype(np.float16),
            confidence=confidence,
            sentences=np.uint32(zlib.crc32(text.encode())),
        )
    classifier.cache_clear()


if __name__ == "__main__":
    sys.exit(main())
