"""The numbers that fix a network's architecture, and how they show in a state dict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from demoe.choices import Choice, named
from demoe.errors import WeightsError
from demoe.limits import parse_json, quoted
from demoe.model.keys import Keys

_LARGEST_WINDOW, _LARGEST_PATCH, _MOST_STEPS = 32, 16, 32

_MOST_EXPERTS = 512
"""Sub-experts of one kind in all blocks, so that a file cannot make anybody build millions."""

GROUPS = {
    "spatial": "attention between places",
    "channel": "attention between channels",
    "window": "attention in shifted windows",
    "se": "squeeze and excitation",
}
"""Kinds of processing that gates weigh, in order, with words for people."""

DENSE = {"dense": "one branch for all"}
"""The same for a network that has one branch in place of the mixture."""


@dataclass(frozen=True)
class NetworkConfig:
    """Architecture of one two-level mixture-of-experts flow transformer.

    A token is a patch of pixels; all sizes but ``patch`` are in tokens.

    Parameters
    ----------
    width : int
        Numbers a token, in both streams.
    patch : int
        Side in pixels of a token, a power of two.
    blocks : int
        Blocks one after another, each with a mixture.
    window : int
        Side of the windows that attention is limited to, a power of two; those of every other
        block are shifted by half of it.
    heads, group_heads : int
        Heads of attention in blocks, and in the sub-experts of groups.
    experts : int
        Sub-experts of a group.
    rank : int
        Numbers a token that a sub-expert works in.
    top_k : int
        Sub-experts at work in a group.
    hidden : int
        Numbers a token within the feed-forward network of a block.
    time : int
        Numbers that stand for the time between the picture that came in (0) and the result (1).
    tail : int
        Channels at full resolution, before the last convolution.
    dense : int
        Numbers a token within one branch that stands in place of the mixture; 0 for the mixture.
    steps : int
        Steps from the picture that came in to the result.
    """

    width: int = 96
    patch: int = 4
    blocks: int = 4
    window: int = 8
    heads: int = 4
    group_heads: int = 2
    experts: int = 4
    rank: int = 48
    top_k: int = 1
    hidden: int = 192
    time: int = 48
    tail: int = 16
    dense: int = 0
    steps: int = 1

    def __post_init__(self) -> None:
        """Reject what no network can be built from."""
        if min(self.blocks, self.experts) < 1 or self.blocks * self.experts > _MOST_EXPERTS:
            raise WeightsError(
                f"A network has 1 to {_MOST_EXPERTS} sub-experts of a kind, not {self.experts} in "
                f"each of {self.blocks} blocks."
            )
        for what, side, most in (
            ("window", self.window, _LARGEST_WINDOW),
            ("patch", self.patch, _LARGEST_PATCH),
        ):
            if not 2 <= side <= most or side & (side - 1):
                raise WeightsError(
                    f"The side of a {what} must be a power of two from 2 to {most}, not {side}."
                )
        for numbers, heads in ((self.width, self.heads), (self.rank, self.group_heads)):
            if heads < 1 or numbers % heads:
                raise WeightsError(f"{numbers} numbers cannot be shared among {heads} heads.")
        if self.time < 2 or self.time % 2:
            raise WeightsError(f"Time needs an even number of numbers, not {self.time}.")
        if not _is_whole(self.top_k) or not 1 <= self.top_k <= self.experts:
            raise WeightsError(
                f"Of {self.experts} sub-experts, 1 to {self.experts} can work at once, not "
                f"{quoted(self.top_k)}."
            )
        if not _is_whole(self.steps) or not 1 <= self.steps <= _MOST_STEPS:
            raise WeightsError(
                f"A result is reached in 1 to {_MOST_STEPS} steps, not {quoted(self.steps)}."
            )

    @property
    def groups(self) -> int:
        """What gates weigh in each layer."""
        return 1 if self.dense else len(GROUPS)

    @property
    def layers(self) -> int:
        """How often the network decides: in each block, at each step."""
        return self.blocks * self.steps

    @property
    def multiple(self) -> int:
        """Side in pixels of a window: the grid that picture sides are padded to."""
        return self.window * self.patch

    def is_shifted(self, block: int) -> bool:
        """Tell whether the windows of a block are shifted."""
        return block % 2 == 1

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able values."""
        fields = asdict(self)
        return {"topk" if name == "top_k" else name: value for name, value in fields.items()}


def without_mixture(config: NetworkConfig) -> NetworkConfig:
    """Return the same with one branch of as many parameters in place of the mixture.

    What it has more or less is at most half of what one more number a token would cost.
    """
    d, r, k, t, h = config.width, config.rank, config.experts, config.time, config.group_heads
    table = (2 * config.window - 1) ** 2 * h
    squeezed = squeezed_to(r)
    group = 4 * d * r  # queries, keys, values, and back
    experts = 3 * group + table + (27 * r + h) + (2 * d * r + 9 * r + 2 * r * squeezed)
    experts += squeezed + r  # biases of what excites
    routers = (2 * d + t + 1) * (k * len(GROUPS) + len(GROUPS))
    hidden = round((k * experts + routers) / (2 * d + 9))
    return replace(config, dense=hidden)


def squeezed_to(rank: int) -> int:
    """Return how many numbers a squeeze leaves of so many channels."""
    return max(1, rank // 4)


def is_mimdit(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell by its keys whether a state dict is of this family, be it complete or not."""
    return any(key.startswith("blocks.") and key.endswith(".inject.weight") for key in shapes)


def choices_of(
    shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]
) -> tuple[Choice, ...]:
    """Return the groups of a network: kinds of processing, not of damage."""
    return groups_of(detect_config(shapes, metadata))


def groups_of(config: NetworkConfig) -> tuple[Choice, ...]:
    """Return the choices of a network of this architecture."""
    words = DENSE if config.dense else GROUPS
    return tuple(replace(one, words=words[one.name]) for one in named(words))


def detect_config(
    shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]
) -> NetworkConfig:
    """Read the architecture off the names and shapes of a state dict.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Tensor shapes by their state-dict keys, without prefixes.
    metadata : mapping of str to str
        Its ``config`` (JSON) may say what shapes do not tell: ``topk`` and ``steps``, which are 1
        otherwise.

    Raises
    ------
    WeightsError
        If the keys are not those of this family of networks.
    """
    keys = Keys(shapes, "MiM-DiT-like", "weights trained with `demoe train --network mimdit`")
    count, size = keys.count, keys.size

    stated = _stated(metadata)
    block = "blocks.0"
    expert = f"{block}.mixture.groups.2.experts.0"  # those that attend in windows
    branch = f"{block}.branch.feed.wide.weight"
    dense = size(branch) if branch in shapes else 0
    group: dict[str, int] = {}
    if not dense:
        group = {
            "group_heads": size(f"{expert}.attention.table"),
            "experts": count(rf"{block}\.mixture\.groups\.0\.experts\.(\d{{1,3}})\."),
            "rank": size(f"{expert}.attention.out.weight", 1),
        }
    return NetworkConfig(
        width=size(f"{block}.inject.weight"),
        patch=math.isqrt(size("stem.weight", 1) // 3),
        blocks=count(r"blocks\.(\d{1,3})\."),
        window=(size(f"{block}.attention.table", 1) + 1) // 2,
        heads=size(f"{block}.attention.table"),
        hidden=size(f"{block}.feed.wide.weight"),
        time=size("time.2.weight"),
        tail=size("head.narrow.weight", 1),
        dense=dense,
        top_k=stated.get("topk", 1),
        steps=stated.get("steps", 1),
        **group,
    )


def _stated(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return what a file says of its own architecture."""
    try:
        stated = parse_json(metadata.get("config", "{}"))
    except ValueError as error:
        raise WeightsError(f"What these weights say of themselves is damaged: {error}.") from None
    if not isinstance(stated, dict):
        raise WeightsError(
            "What these weights say of themselves is damaged: config must be a JSON object."
        )
    return stated


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
