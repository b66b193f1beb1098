"""A small sentence encoder that comes in the file of a network: words, their neighbours, letters.

It stands where the published network has a BERT. What a sentence consists of are rows of one table,
found by hashing (Bojanowski et al. 2017, arXiv 1607.04606), so that there is no vocabulary: a word
that was never seen still shares most of its letters with one that was.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demoe.errors import WeightsError

WORDS = "words."
"""Begins its keys in a file."""

LONGEST = 200
"""Words of a sentence that are read, at most."""

UNHEARD = 0.3
"""Share of what a sentence consists of that is not heard in training."""

GROUPS = {"word": 1.0, "pair": 0.7, "letters": 0.7}
"""Length of the vector that each group of what a sentence consists of makes."""

_LETTERS = (3, 4)
"""Lengths of runs of letters that count."""


class WordEncoder(nn.Module):
    """Turns sentences into features (N, K) of length 1: how much each asks for each of K things.

    Parameters
    ----------
    rows, things : int
        Rows of the table, and numbers in each.
    """

    def __init__(self, rows: int, things: int) -> None:
        super().__init__()
        # What was never seen says nothing.
        self.table = nn.Parameter(torch.zeros(rows, things))
        self.bias = nn.Parameter(torch.zeros(things))

    def scores(self, sentences: Sequence[str]) -> Tensor:
        """Return the log-odds (N, K) that sentences ask for each thing."""
        found = [_rows(sentence, len(self.table)) for sentence in sentences]
        sizes = torch.tensor([len(rows) for rows, _ in found])
        rows, shares = (torch.cat([one[n] for one in found]) for n in (0, 1))
        # In training, now and then something is not heard, so that no decision hangs on one word.
        shares = F.dropout(shares, UNHEARD, self.training)
        heard = F.embedding_bag(
            rows.to(self.table.device),
            self.table,
            (sizes.cumsum(0) - sizes).to(self.table.device),
            mode="sum",
            per_sample_weights=shares.to(self.table),
        )
        return heard + self.bias

    def forward(self, sentences: Sequence[str]) -> Tensor:
        """Return the features of sentences; each is read by itself."""
        return F.normalize(self.scores(sentences).sigmoid(), dim=1)


@functools.lru_cache(maxsize=4096)  # a training reads the same ones again and again
def _rows(sentence: str, count: int) -> tuple[Tensor, Tensor]:
    """Return rows of a table, and how much each counts."""
    rows: list[int] = []
    shares: list[float] = []
    for name, parts in features_of(sentence).items():
        rows += [zlib.crc32(f"{name} {part}".encode()) % count for part in parts]
        shares += [GROUPS[name] / math.sqrt(len(parts))] * len(parts)
    return torch.tensor(rows), torch.tensor(shares)


def features_of(sentence: str) -> dict[str, list[str]]:
    """Return what a sentence consists of, in groups that are not empty."""
    plain = unicodedata.normalize("NFKD", sentence).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z0-9]+", plain.replace("'", ""))[:LONGEST]
    groups = {
        "word": words,
        "pair": [f"{a} {b}" for a, b in itertools.pairwise(words)],
        "letters": [run for word in words for run in _runs(f"<{word}>")],
    }
    return {name: parts for name, parts in groups.items() if parts} or {"word": [""]}


def _runs(word: str) -> Iterator[str]:
    for length in _LETTERS:
        for start in range(max(1, len(word) - length + 1)):
            yield word[start : start + length]


def make_words(tensors: Mapping[str, Tensor], name: str) -> WordEncoder:
    """Return an empty encoder of the size that a state dict has.

    Raises
    ------
    WeightsError
        If that is not the state dict of one.
    """
    table = tensors.get("table")
    if table is None or table.ndim != 2:
        raise WeightsError(f"The sentence encoder in {name} is damaged; it needs the matrix table.")
    return WordEncoder(*table.shape)
