"""Networks to train: from nothing, or from one that undoes blur and is made of the same blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from demoe.choices import DAMAGES
from demoe.errors import WeightsError
from demoe.model.instructir.config import STORED, NetworkConfig, detect_config
from demoe.model.instructir.network import InstructIRNet

TEXT_LENGTH = 32
"""Numbers in an instruction of a compact network."""

_EXPERTS = re.compile(r"experts\.([1-9])\.experts\.0\.(.+)")
_CHAIN = re.compile(r"(.+)\.modules_list\.(\d+)\.(.+)")


def untrained(config: NetworkConfig) -> InstructIRNet:
    """Return an untrained network that leaves pictures alone, told by directions at right angles.

    What directions they are makes no difference: layers that read them are learnt.
    """
    network = InstructIRNet(config)
    for parameter in network.ending.parameters():
        nn.init.zeros_(parameter)
    network.get_buffer(STORED).copy_(_directions(config.text))
    network.choices = DAMAGES
    return network


def completed(network: InstructIRNet) -> InstructIRNet:
    """Let a network know all of `DAMAGES` by name again, of which it may offer some alone.

    Those that it does not know get the directions that they have in an `untrained` network.
    """
    told = _directions(network.config.text).to(network.stored)
    for choice, direction in zip(network.choices, network.stored, strict=True):
        told[DAMAGES.index(choice)] = direction
    network.config = replace(network.config, instructions=len(DAMAGES))
    network.register_buffer(STORED, told)
    network.choices = DAMAGES
    return network


def _directions(length: int) -> Tensor:
    """Return directions (kinds, length) at right angles, one for each of `DAMAGES`."""
    generator = torch.Generator().manual_seed(length)
    drawn = torch.randn(length, len(DAMAGES), generator=generator)
    directions: Tensor = torch.linalg.qr(drawn).Q.T
    return directions


def compact(width: int) -> InstructIRNet:
    """Return an untrained network with few blocks where pixels are many."""
    kinds = len(DAMAGES)
    return untrained(
        NetworkConfig(width, (0, 1, 2, 2), 2, (1, 1, 1, 1), TEXT_LENGTH, instructions=kinds)
    )


def adopted(tensors: Mapping[str, Tensor], name: str) -> InstructIRNet:
    """Return a network that begins as a DeMoE network whose first expert works everywhere.

    Both are made of NAFNet's blocks. Instruction blocks are new, and change nothing at first. The
    expert between encoder and decoder, the largest of all, is left out.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        State dict of the DeMoE network.
    name : str
        Where it is from, for messages.

    Raises
    ------
    WeightsError
        If it is none.
    """
    found: dict[str, Tensor] = {}
    blocks: dict[str, int] = {}
    for key in tensors:
        if match := _CHAIN.fullmatch(key):
            blocks[match[1]] = max(blocks.get(match[1], 0), int(match[2]) + 1)
    for key, value in tensors.items():
        if match := _EXPERTS.fullmatch(key):
            # It becomes the last block of a level of the decoder.
            chain = f"decoders.{int(match[1]) - 1}"
            found[f"{chain}.{blocks.get(chain, 0)}.{match[2]}"] = value
        elif match := _CHAIN.fullmatch(key):
            found[f"{match[1]}.{match[2]}.{match[3]}"] = value
        elif key.startswith(("intro.", "ending.", "downs.", "ups.")):
            found[key] = value
    shapes = {key: tuple(value.shape) for key, value in found.items()}
    shapes["enc_cond.0.fc.weight"] = (0, TEXT_LENGTH)
    config = detect_config(shapes)
    network = untrained(
        NetworkConfig(
            config.width,
            config.encoder_blocks,
            config.middle_blocks,
            config.decoder_blocks,
            TEXT_LENGTH,
            instructions=len(DAMAGES),
        )
    )
    own = network.state_dict()
    fitting = all(key in own and own[key].shape == value.shape for key, value in found.items())
    if not blocks or not fitting:
        raise WeightsError(f"{name} is no DeMoE network that an InstructIR network can begin as.")
    network.load_state_dict(found, strict=False)
    return network
