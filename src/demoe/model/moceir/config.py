"""The numbers that fix a network's architecture, and how they show in a state dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from demoe.choices import MOST, Choice, named
from demoe.errors import WeightsError
from demoe.limits import parse_json
from demoe.model.keys import WIDEST, Keys

_SMALLEST_PATCH = 4
"""Side, in features, of the patches of the cheapest expert; it doubles with every other one."""


@dataclass(frozen=True)
class NetworkConfig:
    """Architecture of one MoCE-IR network (arXiv 2411.18466, section 3).

    The default is the published MoCE-IR-S.

    Parameters
    ----------
    width : int
        Channels at full resolution; they double with every level.
    encoder_blocks, decoder_blocks : tuple of int
        Blocks a level, from full resolution down and from the deepest level up.
    latent_blocks, refinement_blocks : int
        Blocks at the deepest level, and after the decoder at full resolution.
    heads : tuple of int
        Heads of the attention at each level, from full resolution down.
    ranks : tuple of tuple of int
        Channels that each expert works in, from the cheapest on, for each level of the decoder.
    patches : tuple of int
        Side, in features, of the patches that each expert convolves within.
    top_k : int
        Experts that work in a decoder block.
    expansion : float
        Channels within a feed-forward network, as a multiple of those around it.
    centred : bool
        Whether norms take the mean away and add a bias.
    decoder_bias : bool
        Whether convolutions of the decoder, but for experts, and the last one add a bias.
    """

    width: int = 32
    encoder_blocks: tuple[int, ...] = (4, 6, 6)
    latent_blocks: int = 8
    decoder_blocks: tuple[int, ...] = (4, 4, 2)
    refinement_blocks: int = 4
    heads: tuple[int, ...] = (1, 2, 4, 8)
    ranks: tuple[tuple[int, ...], ...] = ((16, 32, 64, 128), (8, 16, 32, 64), (4, 8, 16, 32))
    patches: tuple[int, ...] = (4, 8, 16, 32)
    top_k: int = 1
    expansion: float = 2.0
    centred: bool = True
    decoder_bias: bool = False

    def __post_init__(self) -> None:
        """Reject what no network can be built from."""
        downs = len(self.encoder_blocks)
        sizes = (len(self.decoder_blocks), len(self.ranks), len(self.heads) - 1)
        if not downs or any(size != downs for size in sizes) or 0 in self.decoder_blocks:
            raise WeightsError(
                "A network needs as many levels of decoder blocks and of ranks as of encoder "
                "blocks, and heads for one more, each decoder level having a block."
            )
        for channels, heads in zip(self.channels, self.heads, strict=True):
            if heads < 1 or channels % heads:
                raise WeightsError(f"{channels} channels cannot be shared among {heads} heads.")
        if any(len(ranks) != self.experts for ranks in self.ranks):
            raise WeightsError("Every level of the decoder needs the same number of experts.")
        if any(not isinstance(patch, int) or not 1 <= patch <= WIDEST for patch in self.patches):
            raise WeightsError(f"Patches need sides of 1 to {WIDEST} features, not {self.patches}.")
        if not isinstance(self.top_k, int) or not 1 <= self.top_k <= self.experts:
            raise WeightsError(
                f"Of {self.experts} experts, 1 to {self.experts} can work at once, not "
                f"{self.top_k}."
            )

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each level, from full resolution down."""
        return tuple(self.width * 2**level for level in range(len(self.heads)))

    @property
    def experts(self) -> int:
        """Experts in each decoder block."""
        return len(self.patches)

    @property
    def layers(self) -> int:
        """Decoder blocks, each of which decides by itself."""
        return sum(self.decoder_blocks)

    @property
    def multiple(self) -> int:
        """Side in pixels of the grid that image sides are padded to."""
        return int(2 ** len(self.encoder_blocks))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able values."""
        return {
            "width": self.width,
            "encoder_blocks": list(self.encoder_blocks),
            "latent_blocks": self.latent_blocks,
            "decoder_blocks": list(self.decoder_blocks),
            "refinement_blocks": self.refinement_blocks,
            "heads": list(self.heads),
            "ranks": [list(ranks) for ranks in self.ranks],
            "patches": list(self.patches),
            "topk": self.top_k,
            "expansion": self.expansion,
            "centred": self.centred,
            "decoder_bias": self.decoder_bias,
        }


def is_moceir(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell by its keys whether a state dict is of this family, be it complete or not."""
    return any(".adapter.routing." in key for key in shapes)


def choices_of(
    shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]
) -> tuple[Choice, ...]:
    """Return the experts of a network, from the cheapest to the costliest.

    They are no kinds of damage: what tells them apart is how much they compute and how far they
    look at once.
    """
    return experts_of(detect_config(shapes, metadata))


def experts_of(config: NetworkConfig) -> tuple[Choice, ...]:
    """Return the choices of a network of this architecture."""
    count = config.experts
    ends = {1: ", cheapest", count: ", costliest"} if count > 1 else {}
    return tuple(
        replace(one, words=f"expert {number}{ends.get(number, '')}")
        for number, one in enumerate(named(f"expert_{n + 1}" for n in range(count)), start=1)
    )


def detect_config(
    shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]
) -> NetworkConfig:
    """Read the architecture off the names and shapes of a state dict.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Tensor shapes by their state-dict keys, without prefixes.
    metadata : mapping of str to str
        Its ``config`` (JSON) may say what shapes do not tell: ``topk``, which is 1 otherwise, and
        ``patches``, which are 4, 8, 16 ... otherwise, as published.

    Raises
    ------
    WeightsError
        If the keys are not those of this family of networks.
    """
    keys = Keys(shapes, "MoCE-IR", "a published MoCE-IR checkpoint")
    count, size = keys.count, keys.size

    downs = count(r"enc\.(\d)\.1\.")
    experts = count(r"dec\.0\.2\.layers\.0\.adapter\.experts\.(\d{1,3})\.")
    if experts > MOST:
        raise WeightsError(f"These weights have {experts} experts, but at most {MOST} can be told.")
    first = "enc.0.0.layers.0"
    width = size("patch_embed.proj.weight")
    extra = _stated(metadata)
    return NetworkConfig(
        width=width,
        encoder_blocks=tuple(count(rf"enc\.{n}\.0\.layers\.(\d{{1,3}})\.") for n in range(downs)),
        latent_blocks=count(r"latent\.layers\.(\d{1,3})\."),
        decoder_blocks=tuple(count(rf"dec\.{n}\.2\.layers\.(\d{{1,3}})\.") for n in range(downs)),
        refinement_blocks=count(r"refinement\.layers\.(\d{1,3})\."),
        heads=(
            *(size(f"enc.{n}.0.layers.0.mixer.temperature") for n in range(downs)),
            size("latent.layers.0.mixer.temperature"),
        ),
        ranks=tuple(
            tuple(
                size(f"dec.{n}.2.layers.0.adapter.experts.{expert}.0.proj.0.weight")
                for expert in range(experts)
            )
            for n in range(downs)
        ),
        patches=tuple(extra.get("patches", (_SMALLEST_PATCH * 2**n for n in range(experts)))),
        top_k=extra.get("topk", 1),
        expansion=size(f"{first}.ffn.project_out.weight", 1) / width,
        centred=f"{first}.norms.0.body.bias" in shapes,
        decoder_bias="output.bias" in shapes,
    )


def _stated(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return what a file says of its own architecture."""
    try:
        stated = parse_json(metadata.get("config", "{}"))
    except ValueError as error:
        raise WeightsError(f"What these weights say of themselves is damaged: {error}.") from None
    if not isinstance(stated, dict) or not isinstance(stated.get("patches", []), list):
        raise WeightsError(
            "What these weights say of themselves is damaged: config must be a JSON object, with "
            "a list of patches if any."
        )
    return stated
