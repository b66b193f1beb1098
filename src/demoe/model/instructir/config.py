"""The numbers that fix a network's architecture, how they show in a state dict, and its choices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from demoe.choices import INSTRUCTIONS, Choice, from_record
from demoe.errors import WeightsError
from demoe.limits import parse_json
from demoe.model.keys import Keys
from demoe.model.unet import check_levels

STORED = "instructions"
"""Key of the embeddings (E, T) of the instructions that a file knows by name."""

TEXT = "text."
"""Begins the keys of a text head that comes in the same file."""


@dataclass(frozen=True)
class NetworkConfig:
    """Architecture of one InstructIR network (arXiv 2401.16468, section 3).

    The defaults are those of the released one, for seven degradations.

    Parameters
    ----------
    width : int
        Channels at full resolution; they double with every level.
    encoder_blocks, decoder_blocks : tuple of int
        Blocks a level, from full resolution down and from the deepest level up. One instruction
        block follows those of each level.
    middle_blocks : int
        Blocks at the deepest level, which no instruction reaches.
    text : int
        Length of the embedding of an instruction.
    instructions : int
        Instructions whose embeddings are stored with the weights.
    """

    width: int = 32
    encoder_blocks: tuple[int, ...] = (2, 2, 4, 8)
    middle_blocks: int = 4
    decoder_blocks: tuple[int, ...] = (2, 2, 2, 2)
    text: int = 256
    instructions: int = 0

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
            "text": self.text,
            "instructions": self.instructions,
        }


PUBLISHED = NetworkConfig()
"""The released network for seven degradations."""


def is_instructir(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell by its keys whether a state dict is of this family, be it complete or not."""
    return any(key.startswith("enc_cond.") for key in shapes) or is_head(shapes)


def is_head(keys: Iterable[str]) -> bool:
    """Tell by its keys whether a state dict is a text head alone."""
    return set(keys) == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}


def choices_of(
    shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]
) -> tuple[Choice, ...]:
    """Return the instructions that a file knows by name.

    As many as it stores embeddings, named by its metadata under ``choices`` (JSON, see
    `demoe.choices.to_record`). Of a file of the published architecture that stores none, they are
    `demoe.choices.INSTRUCTIONS`; any other without knows none.

    Raises
    ------
    WeightsError
        If the metadata name another number than are stored.
    """
    if is_head(shapes):
        return ()
    config = detect_config(shapes)
    if config == PUBLISHED:
        return INSTRUCTIONS
    if not config.instructions:
        return ()
    try:
        found = from_record(parse_json(metadata.get("choices", "null")))
    except ValueError as error:
        raise WeightsError(f"These weights name their instructions wrongly: {error}.") from None
    if len(found) != config.instructions:
        raise WeightsError(
            f"These weights name {len(found)} instructions, but store {config.instructions}."
        )
    return found


def detect_config(shapes: Mapping[str, tuple[int, ...]]) -> NetworkConfig:
    """Read the architecture off the names and shapes of a state dict.

    Raises
    ------
    WeightsError
        If the keys are not those of this family of networks.
    """
    keys = Keys(shapes, "InstructIR", "the released im_instructir-7d.pt")
    levels = keys.count(r"downs\.(\d)\.")
    if not levels:
        raise keys.missing("downs.*")
    keys.size("ending.weight")
    return NetworkConfig(
        width=keys.size("intro.weight"),
        encoder_blocks=tuple(
            keys.count(rf"encoders\.{level}\.(\d{{1,3}})\.") for level in range(levels)
        ),
        middle_blocks=keys.count(r"middle_blks\.(\d{1,3})\."),
        decoder_blocks=tuple(
            keys.count(rf"decoders\.{level}\.(\d{{1,3}})\.") for level in range(levels)
        ),
        text=keys.size("enc_cond.0.fc.weight", 1),
        instructions=keys.size(STORED) if STORED in keys else 0,
    )
