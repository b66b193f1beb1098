"""The numbers that fix a network's architecture, and how they show in a state dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from demoe.choices import BLURS, MOST, Choice, from_record, named
from demoe.errors import WeightsError
from demoe.limits import parse_json
from demoe.model.keys import Keys
from demoe.model.unet import check_levels


@dataclass(frozen=True)
class NetworkConfig:
    """Architecture of one DeMoE network (arXiv 2508.06228, section 3).

    Parameters
    ----------
    width : int
        Channels at full resolution; they double with every level.
    encoder_blocks, decoder_blocks : tuple of int
        Blocks a level, from full resolution down and from the deepest level up.
    middle_blocks : int
        Blocks at the deepest level.
    experts : int
        Experts in each mixture-of-experts block.
    router_width, router_hidden : int
        Channels of the router's bottleneck and of its hidden layer.
    keeps_level : bool
        Whether the restored picture gets the local mean of what came in; the published network's
        does not.
    """

    width: int = 32
    encoder_blocks: tuple[int, ...] = (2, 2, 2, 2)
    middle_blocks: int = 2
    decoder_blocks: tuple[int, ...] = (2, 2, 2, 2)
    experts: int = 5
    router_width: int = 256
    router_hidden: int = 128
    keeps_level: bool = False

    def __post_init__(self) -> None:
        """Reject what no network can be built from."""
        check_levels(self.encoder_blocks, self.decoder_blocks)

    @property
    def levels(self) -> int:
        """Number of halvings from the image to the deepest features."""
        return len(self.encoder_blocks)

    @property
    def multiple(self) -> int:
        """Side in pixels of the grid that image sides are padded to: 2 to the number of levels."""
        return int(2**self.levels)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able values."""
        return {
            "width": self.width,
            "encoder_blocks": list(self.encoder_blocks),
            "middle_blocks": self.middle_blocks,
            "decoder_blocks": list(self.decoder_blocks),
            "experts": self.experts,
            "keeps_level": self.keeps_level,
        }


def is_demoe(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell by its keys whether a state dict is of this family, be it complete or not."""
    return any(key.startswith("mlp_branch.") for key in shapes)


def choices_of(
    shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]
) -> tuple[Choice, ...]:
    """Return what the experts of a network are for.

    As the file's metadata say under ``choices`` (JSON, see `demoe.choices.to_record`), or else
    `default_choices`.

    Raises
    ------
    WeightsError
        If the metadata name another number of choices than there are experts.
    """
    experts = detect_config(shapes).experts
    if experts > MOST:
        raise WeightsError(f"These weights have {experts} experts, but at most {MOST} can be told.")
    if "choices" in metadata:
        try:
            found = from_record(parse_json(metadata["choices"]))
        except ValueError as error:
            raise WeightsError(f"These weights name their experts wrongly: {error}.") from None
        if len(found) != experts:
            raise WeightsError(
                f"These weights name {len(found)} choices, but have {experts} experts."
            )
        return found
    return default_choices(experts)


def default_choices(experts: int) -> tuple[Choice, ...]:
    """Return what experts are for where nobody says: five are the published tasks."""
    return BLURS if experts == len(BLURS) else named(f"expert_{n + 1}" for n in range(experts))


def detect_config(shapes: Mapping[str, tuple[int, ...]]) -> NetworkConfig:
    """Read the architecture off the names and shapes of a state dict.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Tensor shapes by their state-dict keys, without ``module.`` prefixes.

    Raises
    ------
    WeightsError
        If the keys are not those of this family of networks.
    """
    keys = Keys(shapes, "DeMoE", "weights trained with `demoe train` or the released DeMoE.pt")
    count = keys.count
    levels = count(r"downs\.(\d)\.")
    experts = count(r"experts\.\d\.experts\.(\d{1,2})\.")
    for found, what in ((levels, "downs.*"), (experts, "experts.*")):
        if not found:
            raise keys.missing(what)
    keys.size("ending.weight")
    return NetworkConfig(
        width=keys.size("intro.weight"),
        encoder_blocks=tuple(
            count(rf"encoders\.{level}\.modules_list\.(\d{{1,3}})\.") for level in range(levels)
        ),
        middle_blocks=count(r"middle_blks\.modules_list\.(\d{1,3})\."),
        decoder_blocks=tuple(
            count(rf"decoders\.{level}\.modules_list\.(\d{{1,3}})\.") for level in range(levels)
        ),
        experts=experts,
        router_width=keys.size("mlp_branch.conv_bottleneck.0.weight"),
        router_hidden=keys.size("mlp_branch.classifier.2.weight"),
        keeps_level="keeps_level" in shapes,
    )
