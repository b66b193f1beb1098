"""Teach a network to be told in words: sentences for each kind of damage, and how they are learnt.

A line of ``weights/instructions.txt`` stands for many sentences: ``(a|b)`` is one or the other.
Lines with ``*`` are noun phrases, and are asked for in many ways; two of different kinds are also
asked for together. Every fifth line of a kind is held out: how many sentences made of those are
understood is what a person may expect who speaks like the writer of the lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from demoe.model.protocol import Hearer
from demoe.training.words.sentences import Writer

Report = Callable[[str], None]

LINES = Path(__file__).parents[2] / "weights" / "instructions.txt"

HELD_OUT = 5
"""One line of so many is not learnt from."""

VARIANTS = 16
"""Sentences that are drawn of a line, at most."""

TOGETHER = 400
"""Sentences that ask for two things."""

STEPS, RATE, DECAY = 150, 0.1, 0.02


ASKING = """
remove {P} | please remove {P} | get rid of {P} | take away {P} | fix {P} | correct {P} | clean {P}
reduce {P} | can you remove {P} | could you please get rid of {P} | i want to get rid of {P} | {P}
there is {P} in my photo | no more {P} | i dislike {P} | eliminate {P} | deal with {P} | undo {P}
repair {P} | the problem is {P} | because of {P} | it is spoilt by {P} | help with {P}
my image suffers from {P} | please do something about {P} | too much of {P} | the picture has {P}
what can be done about {P}
"""
BEFORE = (
    "please | hi, | hello, | hey | could you | can you | i think | sorry, | help: | unfortunately"
)
AFTER = """
please | thanks | thank you | now | fast | in the photo | in this image | of this picture | !!
"""
JOINED = "{A} and {B} | {A}, and also {B} | both {A} and {B} | {A} as well as {B} | {A} plus {B}"


def read_lines(text: str) -> dict[str, list[str]]:
    """Return the lines of each kind in a text like that of `LINES`."""
    found: dict[str, list[str]] = {}
    for section in text.split("\n== ")[1:]:
        kind, *lines = section.splitlines()
        found[kind] = [line for line in lines if line]
    return found


@dataclass(frozen=True)
class Said:
    """A sentence, and the kinds that it asks for."""

    sentence: str
    kinds: tuple[str, ...]


def sentences(*, held_out: bool, seed: int = 0) -> list[Said]:
    """Return sentences to learn from, or to measure with: of other lines, each once."""
    writer = Writer({}, f"{seed} {held_out}")
    made: list[Said] = []
    nouns: dict[str, list[str]] = {}
    for kind, lines in read_lines(LINES.read_text(encoding="utf-8")).items():
        for number, line in enumerate(lines):
            if (number % HELD_OUT == HELD_OUT - 1) != held_out:
                continue
            pattern = line.removeprefix("* ")
            said = [writer.say(pattern) for _ in range(VARIANTS)]
            if line.startswith("* "):
                nouns.setdefault(kind, []).extend(dict.fromkeys(said))
                said = [writer.one_of(ASKING).format(P=one) for one in said]
            made += [Said(_dressed(one, writer), (kind,)) for one in dict.fromkeys(said)]
    names = sorted(nouns)
    for _ in range(TOGETHER // (HELD_OUT if held_out else 1)):
        two = writer.random.sample(names, 2)
        a, b = (writer.random.choice(nouns[name]) for name in two)
        both = writer.one_of(JOINED).format(A=a, B=b)
        made.append(Said(_dressed(writer.one_of(ASKING).format(P=both), writer), tuple(two)))
    # Other lines may come to say the same; that is not held out.
    learnt = {one.sentence for one in sentences(held_out=False, seed=seed)} if held_out else set()
    return list({one.sentence: one for one in made if one.sentence not in learnt}.values())


def _dressed(sentence: str, writer: Writer) -> str:
    """Add politeness or a slip of the finger, now and then."""
    if writer.random.random() < 0.2:
        sentence = f"{writer.one_of(BEFORE)} {sentence}"
    if writer.random.random() < 0.2:
        sentence = f"{sentence} {writer.one_of(AFTER)}"
    return writer.slip(sentence) if writer.random.random() < 0.2 else sentence


def _asked(network: Hearer, said: Sequence[Said]) -> Tensor:
    """Return what sentences ask for, (N, E): 0 or 1 for each choice."""
    names = [choice.name for choice in network.choices]
    return torch.tensor([[float(name in one.kinds) for name in names] for one in said])


def teach_words(network: Hearer, *, seed: int = 0, report: Report = print) -> float:
    """Teach a network to understand sentences; return the share of held-out ones that it does.

    It learns to be told by a sentence what it is told by the names of what is asked for, while all
    else stays as it is.

    Parameters
    ----------
    network : Hearer
        Gets new ears.
    seed : int
        Of sentences and first weights.
    report : callable
        Told a line.
    """
    names = {choice.name for choice in network.choices}
    said, others = (
        [one for one in sentences(held_out=held, seed=seed) if names.issuperset(one.kinds)]
        for held in (False, True)
    )
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        ears = network.new_ears()
        network.train()
        optimiser = torch.optim.AdamW(ears, lr=RATE, weight_decay=DECAY)
        asked, texts = _asked(network, said), [one.sentence for one in said]
        for step in range(STEPS):
            for group in optimiser.param_groups:
                group["lr"] = RATE * (1 - step / STEPS)
            heard = network.understand(texts)
            loss = F.binary_cross_entropy_with_logits(heard, asked.to(heard))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    network.eval()
    right = share_understood(network, others)
    report(
        f"words: {len(said):,} sentences learnt, of {len(others):,} held-out ones {right:.1%} are "
        "understood"
    )
    return right


@torch.no_grad()
def share_understood(network: Hearer, said: Sequence[Said]) -> float:
    """Return the share of sentences of which a network hears just what they ask for."""
    heard = network.understand([one.sentence for one in said]).cpu()
    # Something is asked for, however unclearly.
    least = heard.amax(dim=1, keepdim=True).clamp_max(0)
    return float(((heard >= least) == (_asked(network, said) > 0)).all(dim=1).float().mean())
