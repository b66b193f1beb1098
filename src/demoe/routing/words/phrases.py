"""What a sentence consists of, as numbers: words, their neighbours, their letters, their senses.

Words that mean much the same (car, dancer, dog: a thing) also count as one, and what follows a
"not" counts as something else than without it. `demoe.routing.words.classifier` puts weights on
these features.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

Vector = tuple[NDArray[np.uint32], NDArray[np.float64]]
"""Keys of features, each once, and how much each counts."""

GROUPS = {
    "language": 1.0,
    "letters": 0.5,
    "word": 1.0,
    "pair": 0.7,
    "sense": 1.0,
    "together": 0.7,
    "near": 0.7,
    "mixed": 0.3,
}
"""Length of the vector that the features of a group make, however many they are."""

LANGUAGES = ("ENGLISH", "FOREIGN")
"""Lists of small words: they tell the language and nothing else."""

REACH = 6
"""Words after a "not" that it holds for, at most."""

_NOT = """
not no never neither nor none nothing nobody without cannot hardly isnt wasnt arent werent dont
didnt doesnt cant couldnt wont wouldnt hasnt havent aint
"""
_NOT_ENDS = ", . ; : ! ? - but however although though while whereas and"
_POLITE = """
please pls plz kindly thanks thank hi hello hey dear sir madam could would can may might you i'd
like to want need help us my our your the a an this that these those very really so just quite
somehow maybe perhaps probably think guess seems seem sorry
"""
NOT, NOT_ENDS, POLITE = (frozenset(words.split()) for words in (_NOT, _NOT_ENDS, _POLITE))
"""Words that deny what follows; where that ends; words that say little, so only letters count."""

_AS_ONE = (
    ("\N{RIGHT SINGLE QUOTATION MARK}", "'"),
    ("n't", " not"),
    ("out of focus", "outoffocus"),
    ("out-of-focus", "outoffocus"),
    ("rather than", "not"),
    ("instead of", "not"),
)


class Lexicon:
    """Lists of words that mean much the same.

    Parameters
    ----------
    lists : mapping
        Name of a list to its words, spaces between; a star stands for any ending.
    """

    def __init__(self, lists: Mapping[str, str]) -> None:
        self._whole: dict[str, list[str]] = {}
        self._begun: dict[str, list[str]] = {}
        for name, words in lists.items():
            for word in words.split():
                listed = self._begun if word.endswith("*") else self._whole
                listed.setdefault(word.rstrip("*"), []).append(name)

    def names(self, word: str) -> list[str]:
        """Return the lists that a word is on."""
        found = list(self._whole.get(word, ()))
        for length in range(2, len(word) + 1):
            found += self._begun.get(word[:length], ())
        return list(dict.fromkeys(found))


def tokens(sentence: str) -> list[str]:
    """Return the words and punctuation of a sentence in small letters, accents kept."""
    text = unicodedata.normalize("NFKC", sentence).lower().replace("_", " ")
    for old, new in _AS_ONE:
        text = text.replace(old, new)
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*|[.,;:!?]|(?<=\s)-(?=\s)", text)


def features(sentence: str, lexicon: Lexicon) -> Iterator[tuple[str, str]]:
    """Yield (group, feature) of a sentence, repeated ones included."""
    words: list[str] = []
    senses: list[list[str]] = []
    denied = 0
    for token in tokens(sentence):
        if token in NOT:
            denied = REACH
            words.append("not")
            senses.append(["NOT"])
            continue
        if token in NOT_ENDS:
            denied = 0
        if not token[0].isalnum():
            continue
        listed = lexicon.names(token)
        yield from (("language", name) for name in listed if name in LANGUAGES)
        if any("LATIN" in unicodedata.name(c, "") for c in token if not c.isascii()):
            yield "language", "accents"
        if not denied:
            padded = f"<{token}>"
            for n in (3, 4, 5):
                yield from (("letters", padded[i : i + n]) for i in range(len(padded) - n + 1))
        if token not in POLITE:
            mark = "!" if denied else ""
            words.append(mark + token)
            senses.append([mark + n for n in listed if n not in LANGUAGES] or [mark + "OTHER"])
            denied = max(0, denied - 1)
    yield from _of_words(words, senses)


def _of_words(words: list[str], senses: list[list[str]]) -> Iterator[tuple[str, str]]:
    yield from (("word", word) for word in words)
    for left, right in zip(["^", *words], [*words, "$"], strict=True):
        yield "pair", f"{left} {right}"
    for at, (word, here) in enumerate(zip(words, senses, strict=True)):
        yield from (("sense", sense) for sense in here)
        for further, (other, there) in enumerate(
            zip(words[at + 1 :], senses[at + 1 :], strict=True), start=1
        ):
            for left in here:
                for right in there:
                    yield "together", "+".join(sorted((left, right)))
                    if further <= 3:
                        yield "near", f"{left}>{right}"
            if further == 1:
                yield from (("mixed", f"{word} {right}") for right in there)
                yield from (("mixed", f"{left} {other}") for left in here)


def vector(sentence: str, lexicon: Lexicon) -> Vector:
    """Return the features of a sentence as keys, uint32 (n,), and values, (n,)."""
    groups: dict[str, dict[str, None]] = {}
    for group, feature in features(sentence, lexicon):
        groups.setdefault(group, {})[feature] = None
    keys, values = [], []
    for group, found in groups.items():
        keys += [zlib.crc32(f"{group}:{feature}".encode()) for feature in found]
        values += [GROUPS[group] / np.sqrt(len(found))] * len(found)
    return np.array(keys, np.uint32), np.array(values, np.float64)
