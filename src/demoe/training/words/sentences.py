"""Sentences to learn the word classifier from, made of the lines in ``weights/words.txt``.

A line stands for many sentences: ``(a|b)`` is one or the other, ``{THING}`` a word of a list. Noun
phrases (lines with ``*``) and clauses (``+``) are also joined into longer sentences: contrasts such
as "not A but B", which name one kind, mixtures, which name two, and mere denials, which name none.
Lines with ``~`` say nothing of blur; beside a clause that does, they change nothing.
Everything is drawn with fixed seeds.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log2

from demoe.choices import TASKS
from demoe.routing.words.classifier import UNCLEAR, read_lists

FOREIGN = ("foreign",)

VARIANTS = 8
"""Sentences drawn from a line, at most; half as many more are dressed up."""

BEFORE = """
please, | hi, | hello, | could you please help: | i think | unfortunately | sorry, | it seems | hey,
can you fix this? | please sharpen it, | dear all, | i guess | as you can see | in this image | so
would you mind having a look at this picture? | i would be grateful for some help with this image:
in my photo | well, | it looks like | the problem is that | blurry because | i am afraid
as far as i can tell | for some reason
"""
AFTER = """
please | thanks | thank you | can you fix it? | help! | i think | please sharpen it | sorry | again
can anything be done? | what can i do? | unfortunately | thanks in advance | in this image | !!
and i would like to have it corrected | in my photo | pls fix
"""
NAMING = """
{P} | remove the {P} | the picture suffers from {P} | blur due to {P} | there is {P} | caused by {P}
it is {P} | blurry from {P} | looks like {P} | blurred by {P} | mostly {P} | i see {P} | typical {P}
correct for {P} | a case of {P} | because of {P} | {P} problem | the result of {P}
"""
TELLING = """
{C} | it is blurry because {C} | the problem is that {C} | blurry: {C} | blurred since {C}
{C} so it is blurred | {C} when i took the picture | {C} during the exposure | sorry, {C}
"""
CONTRAST = """
not {N} but {P} | it is not {N}, it is {P} | this isn't {N}, {C} | no {N}, {C} | {C}, not {N}
{P} rather than {N} | {P}, not {N} | {P} instead of {N} | neither {N} nor {M}, but {P}
there is no {N}, only {P} | it wasn't {N}, {C} | not because of {N}, {C} | no {N} and no {M}, {C}
i don't think it is {N}, more like {P} | it is {P}, it is not {N} | that is not {N}: {C}
{C}; there was no {N} | without {N}, {C}
"""
MIXTURE = """
{P} and {Q} | {C} and {D} | {C} and also {Q} | both {P} and {Q} | {P} plus {Q} | {P} as well as {Q}
{P}, {Q} | {C}, {D} | {C} and there is {Q} too | {C}; besides, {D} | not only {P} but also {Q}
"""
BESIDE = """
{F}, {C} | {F}. {C} | {C}; {F} | {F} but {C} | {F}, and {C} | although {F}, {C} | {C}, {F}
{F}. {C}. {G} | {C}. {F}. {G} | {F}, it suffers from {P} | {F}. {G}: {P}
"""
DENIAL = """
no {N} | it is not {N} | there was no {N} | neither {N} nor {M} | not {N} | without {N}
it isn't {N} and it isn't {M} | no {N} and no {M}, i don't know what it is
"""


@dataclass(frozen=True)
class Line:
    """One line of sentences: the kinds it names, its pattern, and how it may be joined."""

    kinds: tuple[str, ...]
    pattern: str
    joins: str  # "*" a noun phrase, "+" a clause, "~" beside the point, "" not joined


@dataclass(frozen=True)
class Example:
    """A sentence, the kinds it names, how much it counts, and its line (-1: joined of several)."""

    sentence: str
    kinds: tuple[str, ...]
    weight: float
    line: int


def read_lines(text: str) -> list[Line]:
    """Return the lines of sentences in a file like ``words.txt``."""
    lines = []
    for section in re.split(r"^== ", text, flags=re.MULTILINE)[2:]:
        heading, *rows = section.splitlines()
        kinds = () if heading == UNCLEAR else tuple(heading.split(" & "))
        for row in map(str.strip, rows):
            if row and not row.startswith("#"):
                joins = row[0] if row[:2] in ("* ", "+ ", "~ ") else ""
                lines.append(Line(kinds, row.removeprefix(joins).strip(), joins))
    return lines


def read_examples(text: str) -> list[tuple[tuple[str, ...], str]]:
    """Return (kinds, sentence) of a file of measuring: ``kind+kind | sentence`` a line."""
    rows = [row for row in text.splitlines() if row.strip() and not row.startswith("#")]
    split = [row.partition("|") for row in rows]
    return [
        (() if kinds.strip() == UNCLEAR else tuple(kinds.strip().split("+")), sentence.strip())
        for kinds, _, sentence in split
    ]


class Writer:
    """Draws sentences of patterns; the same ones for the same seed."""

    def __init__(self, lists: Mapping[str, str], seed: str) -> None:
        self._lists = {n: [w for w in ws.split() if "*" not in w] for n, ws in lists.items()}
        self.random = random.Random(seed)

    def say(self, pattern: str) -> str:
        """Return one sentence of a pattern."""
        while found := re.search(r"\(([^()]*)\)", pattern):
            choice = self.random.choice(found[1].split("|"))
            pattern = pattern[: found.start()] + choice + pattern[found.end() :]
        return " ".join(re.sub(r"\{(\w+)\}", lambda m: self._word(m[1]), pattern).split())

    def _word(self, name: str) -> str:
        """Pick a word of a list, or make one up now and then: most things are on no list."""
        draw = self.random
        if draw.random() < 0.8:
            return str(draw.choice(self._lists[name]))
        syllables = [draw.choice("bcdfglmnprstvz") + draw.choice("aeiou") for _ in range(3)]
        return "".join([*syllables[: draw.randint(2, 3)], draw.choice(["", *"nrlxs"])])

    def one_of(self, frames: str) -> str:
        """Pick one of the frames that a text lists."""
        return self.random.choice(frames_of(frames))

    def dress(self, sentence: str) -> str:
        """Add politeness or a slip of the finger, now and then."""
        if self.random.random() < 0.2:
            sentence = f"{self.one_of(BEFORE)} {sentence}"
        if self.random.random() < 0.15:
            sentence += self.random.choice([" ", ", "]) + self.one_of(AFTER)
        return self.slip(sentence) if self.random.random() < 0.15 else sentence

    def slip(self, sentence: str) -> str:
        """Misspell a word of a sentence, as fingers do."""
        words = sentence.split(" ")
        long = [at for at, word in enumerate(words) if len(word) > 4 and word.isalpha()]
        if not long:
            return sentence
        which = self.random.choice(long)
        word = words[which]
        at = self.random.randrange(1, len(word) - 1)
        before, letter, after = word[:at], word[at], word[at + 1 :]
        swapped = after[0] + letter + after[1:]
        other = self.random.choice("aeioust") + after
        words[which] = before + self.random.choice([after, letter * 2 + after, swapped, other])
        return " ".join(words)


def frames_of(text: str) -> list[str]:
    """Return the frames that a text lists, by lines and bars."""
    return [frame.strip() for frame in re.split(r"[|\n]", text) if frame.strip()]


def examples(text: str, lines: Sequence[Line]) -> list[Example]:
    """Return all sentences to learn from, of some lines of a file like ``words.txt``."""
    lists = read_lists(text)
    made = [
        e for at, line in enumerate(lines) for e in _of_line(Writer(lists, line.pattern), line, at)
    ]
    return made + list(_joined(Writer(lists, "joined"), lines))


def _of_line(writer: Writer, line: Line, at: int) -> list[Example]:
    if line.kinds == FOREIGN:
        return [Example(line.pattern, line.kinds, 1.0, at)]
    said = list(dict.fromkeys(writer.say(line.pattern) for _ in range(VARIANTS)))
    sentences = said + [writer.dress(s) for s in said * (2 if len(said) < 4 else 1)]
    for _ in range(VARIANTS if line.joins in ("*", "+") else 0):
        phrase = writer.say(line.pattern)
        frame = writer.one_of(NAMING if line.joins == "*" else TELLING)
        if "the {P}" in frame:
            phrase = re.sub("^an? ", "", phrase)
        sentences.append(writer.dress(frame.format(P=phrase, C=phrase)))
    weight = (1 + log2(len(said))) / len(sentences)
    return [Example(sentence, line.kinds, weight, at) for sentence in sentences]


def _joined(writer: Writer, lines: Sequence[Line]) -> Iterator[Example]:
    phrases: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        if line.joins:
            phrases.setdefault(((line.kinds or (UNCLEAR,))[0], line.joins), []).append(line.pattern)
    if len(phrases) < 2 * len(TASKS) + 1:
        return

    def fill(frame: str, kind: str, other: str) -> str:
        third = writer.random.choice([task for task in TASKS if task != kind])
        kinds = (kind, kind, other, other, other, third, UNCLEAR, UNCLEAR)
        drawn = {
            name: writer.say(writer.random.choice(phrases[task, joins]))
            for name, task, joins in zip("PCNQDMFG", kinds, "*+**+*~~", strict=True)
        }
        return writer.dress(frame.format(**drawn))

    for kind in TASKS:
        for other in TASKS:
            if other != kind:
                for frame in frames_of(CONTRAST):
                    yield Example(fill(frame, kind, other), (kind,), 0.3, -1)
                # Blur in the dark is what low light means, so a shaking hand adds nothing to it.
                dark = {kind, other} == {"low_light", "global_motion"}
                for frame in frames_of(MIXTURE):
                    kinds = ("low_light",) if dark else (kind, other)
                    yield Example(fill(frame, kind, other), kinds, 0.2, -1)
        for frame in frames_of(DENIAL) * 3:
            yield Example(fill(frame, kind, kind), (), 0.3, -1)
        for frame in frames_of(BESIDE) * 10:
            yield Example(fill(frame, kind, kind), (kind,), 0.3, -1)
    for frame in ["{F}. {G}", "{F}, {G}", "{F} and {G}"] * 50:
        yield Example(fill(frame, TASKS[0], TASKS[1]), (), 0.3, -1)
