"""What a person says is wrong with an image, as expert weights: offline and without torch.

A linear classifier over the features of `demoe.routing.words.phrases`.
``python -m demoe.training.words.learning`` learns its weights from the sentences in
``weights/words.txt``, and measures them on others.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demoe.choices import TASKS
from demoe.errors import RecipeError
from demoe.routing.words.phrases import Lexicon, Vector, vector

UNCLEAR = "unclear"
OUTPUTS = (*TASKS, "foreign")
"""What is decided about a sentence, each by itself: it names this kind; it is not in English."""

LONGEST = 1000
"""Characters of a sentence, at most."""

CLEAR_FROM = 0.4
"""Probability of its strongest kind from which a sentence is clear."""

FOREIGN_FROM = 0.75
"""Probability of being in another language from which a sentence is refused."""

SENTENCES = Path(__file__).parents[2] / "weights" / "words.txt"
WEIGHTS = SENTENCES.with_suffix(".npz")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TextGates:
    """What a sentence says is wrong with an image.

    Parameters
    ----------
    gates : tuple of float
        Five expert weights >= 0 that sum to 1, in the order of ``demoe.TASKS``. A sentence that
        names two kinds shares the weight among them. They are a prior: multiplied with the router's
        gates and divided by the sum, five equal weights leave the choice to the router, and that is
        what an unclear sentence gives.
    task : str
        The kind that the sentence names most clearly, one of ``demoe.TASKS``, or ``"unclear"``.
    confidence : float
        0 to 1: the expected share of right answers among answers with this value, also where the
        answer is ``"unclear"``; estimated by cross-validation on the sentences learnt from.
    """

    gates: tuple[float, ...]
    task: str
    confidence: float

    @property
    def routing(self) -> str:
        """For ``Recipe.routing``: the task, or ``"auto"``, by which the router decides."""
        return "auto" if self.task == UNCLEAR else self.task


def task_from_text(sentence: str) -> TextGates:
    """Return which kind of blur an English sentence names.

    Parameters
    ----------
    sentence : str
        What is wrong, for example "my sample moved during exposure"; 1 to 1000 characters.

    Returns
    -------
    TextGates
        Gates, task and confidence. The task is ``"unclear"`` for a sentence about something else,
        and for one that tells no kind ("it is blurry").

    Raises
    ------
    RecipeError
        If the sentence is no text, is empty or too long, or is not in English.
    """
    if not isinstance(sentence, str):
        raise RecipeError(
            "The description must be a sentence in English, not a value of type "
            f"{type(sentence).__name__}."
        )
    if not sentence.strip():
        raise RecipeError(
            "The description is empty; say in English what is wrong, for example 'my sample moved'."
        )
    if len(sentence) > LONGEST:
        raise RecipeError(
            f"The description has {len(sentence)} characters; say it in one sentence of at most "
            f"{LONGEST}."
        )
    model = classifier()
    says = model.probabilities(sentence)
    if _other_script(sentence) or says[-1] >= FOREIGN_FROM:
        shown = sentence.strip() if len(sentence) <= 60 else sentence.strip()[:60] + "…"
        raise RecipeError(
            f"The description {shown!r} is not in English; say in English what is wrong, for "
            "example 'camera shake'."
        )
    return model.answer(says[: len(TASKS)])


def _other_script(sentence: str) -> bool:
    """Tell whether most letters are none of the Latin alphabet."""
    letters = [c for c in sentence if c.isalpha()]
    latin = sum("LATIN" in unicodedata.name(c, "") for c in letters)
    return latin < len(letters) / 2


@dataclass(frozen=True, eq=False)
class Classifier:
    """Weights on the features of a sentence.

    Parameters
    ----------
    lexicon : Lexicon
        Words that mean much the same.
    keys : ndarray
        uint32 (n,), sorted: the known features.
    weights : ndarray
        (1 + n, outputs): of the constant, and of each feature.
    confidence : ndarray
        (2, 2): offset and slope from the log-odds of the strongest kind to those of being right,
        for an unclear answer and for a clear one.
    """

    lexicon: Lexicon
    keys: NDArray[np.uint32]
    weights: Floats
    confidence: Floats

    def probabilities(self, sentence: str) -> Floats:
        """Return what each output says of a sentence, (outputs,), 0 to 1."""
        at, values = look_up(vector(sentence, self.lexicon), self.keys)
        return sigmoid(values @ self.weights[at])

    def answer(self, says: Floats) -> TextGates:
        """Return the answer that the probabilities (5,) of the kinds give."""
        strongest = float(says.max())
        clear = strongest >= CLEAR_FROM
        offset, slope = self.confidence[int(clear)]
        odds = np.log(strongest / (1 - strongest))
        share = says / says.sum() if clear else np.full(len(TASKS), 1 / len(TASKS))
        return TextGates(
            gates=tuple(share.tolist()),
            task=TASKS[int(says.argmax())] if clear else UNCLEAR,
            confidence=float(sigmoid(offset + slope * odds)),
        )


def look_up(features: Vector, keys: NDArray[np.uint32]) -> tuple[NDArray[np.intp], Floats]:
    """Return the rows of weights for a sentence, the constant's first, and what they count."""
    found, values = features
    at = np.searchsorted(keys, found)
    known = keys[np.minimum(at, len(keys) - 1)] == found
    return np.append(0, at[known] + 1), np.append(1.0, values[known])


def sigmoid(x: Floats) -> Floats:
    """Return the logistic function, kept off 0 and 1."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * np.clip(x, -30, 30)))


def read_lists(text: str) -> dict[str, str]:
    """Return the word lists at the head of a file like ``words.txt``."""
    head = re.split(r"^== ", text, flags=re.MULTILINE)[1]
    rows = (row.partition(":") for row in head.splitlines()[1:] if row.strip())
    return {name: words.strip() for name, _, words in rows}


@cache
def classifier() -> Classifier:
    """Return the classifier that comes with the package."""
    with np.load(WEIGHTS, allow_pickle=False) as stored:
        return Classifier(
            lexicon=Lexicon(read_lists(SENTENCES.read_text(encoding="utf-8"))),
            keys=stored["keys"],
            weights=stored["weights"].astype(np.float64),
            confidence=stored["confidence"],
        )
