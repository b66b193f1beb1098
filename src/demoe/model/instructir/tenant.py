"""An InstructIR network as the rest of the project knows it; see `demoe.model.protocol`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from demoe.choices import DAMAGES, MOST, Choice, more, names_of
from demoe.errors import RecipeError, WeightsError
from demoe.model.checkpoint import fill, read_state_dict
from demoe.model.instructir.beginning import adopted, compact, completed
from demoe.model.instructir.blocks import InstructionBlock
from demoe.model.instructir.config import (
    PUBLISHED,
    STORED,
    TEXT,
    choices_of,
    detect_config,
    is_head,
)
from demoe.model.instructir.head import HeadAlone, TextHead, build_head, make_head
from demoe.model.instructir.network import InstructIRNet
from demoe.model.instructir.receptive_field import exact_halo, flops_per_pixel
from demoe.model.instructir.words import WORDS, make_words
from demoe.model.mixing import Blend, spatial
from demoe.model.nafnet import held_at, pooled_together
from demoe.model.protocol import Companion, Statistics

DIRECTIONS = Path(__file__).parents[2] / "weights" / "instructir.safetensors"
"""The embeddings of the published network's seven instructions, from its text head."""

BYTES = 64
"""Bytes a pixel and a channel of the first level that a tile was seen to take, with two
instructions in it; with one, 39."""

BARE_BYTES = 34
"""The same for the bare module on a whole picture."""

NAME = "torch"


class InstructIR:
    """An InstructIR network on its device; attributes and methods are those of `Tenant`.

    Its statistics are the channel attention of all blocks for each instruction by itself, since
    that depends on what the network is told.

    Parameters
    ----------
    network : InstructIRNet
        In evaluation mode.
    choices : tuple of Choice
        The instructions.
    embeddings : Tensor
        (E, T), what the network is told for each of them.
    """

    decides = dense = keeps_level = False
    layers = 1
    arithmetic = None

    def __init__(
        self, network: InstructIRNet, choices: tuple[Choice, ...], embeddings: Tensor
    ) -> None:
        self.network, self.choices, self._embeddings = network, choices, embeddings
        self.multiple = network.config.multiple
        self.halo = exact_halo(network.config)
        self.flops_per_pixel = flops_per_pixel(network.config)
        self.bare_bytes = float(BARE_BYTES * network.config.width)

    def facts(self) -> dict[str, Any]:
        """Return the architecture as JSON-able values."""
        return self.network.config.to_dict()

    def design(self) -> str:
        """Describe the architecture in a sentence."""
        config = self.network.config
        down, up = ("-".join(map(str, n)) for n in (config.encoder_blocks, config.decoder_blocks))
        return (
            f"Width {config.width}; encoder blocks {down}, middle {config.middle_blocks}, decoder "
            f"{up}; told by {len(self.choices)} instructions of {config.text} numbers."
        )

    def backend_name(self, coarse: bool) -> str:
        """Return what runs the network, in words."""
        return NAME

    def bytes_per_pixel(self, coarse: bool) -> float:
        """Return the memory that a pixel of a read takes while it is restored."""
        return float(BYTES * self.network.config.width)

    def decide(self, samples: Tensor, *, coarse: bool = False) -> Tensor:
        """Refuse: a person decides."""
        raise self._undecided()

    def route(self, windows: Tensor, *, coarse: bool = False) -> Tensor:
        """Refuse: a person decides."""
        raise self._undecided()

    @torch.inference_mode()
    def survey(
        self,
        samples: Tensor,
        weights: Tensor | None,
        *,
        top_k: int = 1,
        every: bool = False,
        coarse: bool = False,
    ) -> Statistics:
        """Find the channel attention of all blocks, for each instruction by itself; see `Tenant`.

        The names of statistics begin with the position of the instruction.
        """
        if weights is None:
            raise self._undecided()
        padded, used = self.network.pad(samples), Blend(spatial(weights)).choices
        found: dict[str, Tensor] = {}
        for position in range(len(self.choices)) if every else used:
            own = self._run(padded, self._alone(position), None)[1]
            found |= {_key(position, block): attention for block, attention in own.items()}
        return found

    @torch.inference_mode()
    def restore(
        self,
        x: Tensor,
        weights: Tensor,
        statistics: Statistics | None = None,
        *,
        recurring: bool = False,
        coarse: bool = False,
    ) -> Tensor:
        """Return the restored picture, instructions blended at each place; see `Tenant`.

        What is blended are the gates of the instruction blocks and, where statistics are given,
        the channel attention; so a place that one instruction has to itself is restored as by that
        instruction alone.
        """
        restored, _ = self._run(self.network.pad(x), Blend(spatial(weights)), statistics)
        return restored[:, :, : x.shape[2], : x.shape[3]]

    @torch.inference_mode()
    def restore_each(
        self, x: Tensor, statistics: Sequence[Statistics] | None = None
    ) -> tuple[Tensor, Sequence[Statistics]]:
        """Restore pictures by each instruction alone; see `Tenant`."""
        padded = self.network.pad(x)
        restored: list[Tensor] = []
        used: list[Statistics] = []
        for position in range(len(self.choices)):
            given = statistics[position] if statistics is not None else None
            one, found = self._run(padded, self._alone(position), given)
            restored.append(one[:, :, : x.shape[2], : x.shape[3]])
            used.append(given or {_key(position, block): value for block, value in found.items()})
        return torch.stack(restored), used

    def half_error(self) -> float:
        """Nothing is run in half precision."""
        return 0.0

    def told(self, sentences: Sequence[str], companion: Companion) -> InstructIR:
        """Return the same network with sentences of a person's own as further instructions.

        Parameters
        ----------
        sentences : sequence of str
            In English; each is the name of its choice.
        companion : callable
            Returns the files of the sentence encoder and the text head.

        Raises
        ------
        RecipeError
            If one is empty or known already, or there are more than can be told apart.
        WeightsError
            If what reads sentences is not on this machine, or was not made for this network.
        """
        own = tuple(dict.fromkeys(sentences))
        known = names_of(self.choices)
        if taken := [sentence for sentence in own if sentence in known]:
            raise RecipeError(
                f"{taken[0]!r} is an instruction that the network knows already; set routing to it."
            )
        if len(known) + len(own) > MOST:
            raise RecipeError(
                f"{len(own)} sentences are too many; at most {MOST - len(known)} can be told apart "
                f"beside the {len(known)} instructions that the network knows."
            )
        from demoe.model.instructir.sentences import features_of

        head = self.head(companion)
        with torch.inference_mode():
            if self.network.words is not None:
                # One by one, as the published encoder reads.
                features = torch.cat([self.network.words([one]) for one in own])
            else:
                features = features_of(own, companion).to(self._embeddings.device)
            if features.shape[1] != head.fc1.in_features:
                raise WeightsError(
                    f"The text head of this network reads {head.fc1.in_features} features of a "
                    f"sentence, but the encoder gives {features.shape[1]}; it was not made for it."
                )
            # One by one, so that a sentence's digits do not depend on the others.
            embeddings = torch.cat([head(one)[0] for one in features.split(1)])
        return InstructIR(
            self.network, more(self.choices, own), torch.cat([self._embeddings, embeddings])
        )

    def head(self, companion: Companion) -> TextHead:
        """Return the text head: ``head(features) -> (embedding, logits)``.

        Raises
        ------
        WeightsError
            If it is in another file that is not on this machine, or does not fit.
        """
        if self.network.text is not None:
            return self.network.text
        from demoe.model.instructir.sentences import released_head

        head, wanted = released_head(companion), self.network.config.text
        if head.fc1.out_features != wanted:
            raise WeightsError(
                f"This network is told by embeddings of {wanted} numbers, but the released text "
                f"head gives {head.fc1.out_features}; it was not made for this network."
            )
        return head.to(self._embeddings.device)

    def _alone(self, position: int) -> Blend:
        weights = self._embeddings.new_zeros(1, len(self.choices), 1, 1)
        weights[:, position] = 1
        return Blend(weights)

    def _run(
        self, padded: Tensor, blend: Blend, statistics: Statistics | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return restored pictures, and the attention that was found if none was given."""
        embeddings = self._embeddings[blend.choices]

        def gate(block: InstructionBlock, x: Tensor) -> Tensor:
            return blend(block.gates(embeddings), x)

        def attention(block: str, x: Tensor) -> Tensor:
            assert statistics is not None
            held = [statistics[_key(position, block)] for position in blend.choices]
            return blend(torch.cat(held).flatten(1), x)

        found: dict[str, Tensor] = {}
        if statistics is None:
            run, found = pooled_together(self.network)
        else:
            run = held_at(self.network, attention)
        return self.network.correction(padded, gate, run) + padded, found

    def _undecided(self) -> RecipeError:
        return RecipeError(
            "This network does not decide by itself; set routing to one of its instructions: "
            f"{', '.join(names_of(self.choices))}."
        )


def _key(position: int, block: str) -> str:
    return f"{position}.{block}"


# -- the room, see `demoe.model.protocol.Room` ----------------------------------------------------


def build(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], name: str
) -> InstructIRNet | TextHead:
    """Build the network, or the text head, that a state dict belongs to, in evaluation mode.

    Raises
    ------
    WeightsError
        If keys are missing or unexpected or tensors have other shapes than the rest implies; the
        message lists them. If the metadata name another number of instructions than are stored.
    """
    if is_head(tensors):
        return build_head(tensors, name)
    choices = choices_of({key: tuple(value.shape) for key, value in tensors.items()}, metadata)
    config = detect_config({key: tuple(value.shape) for key, value in tensors.items()})
    if config == PUBLISHED:
        tensors = {**tensors, STORED: read_state_dict(DIRECTIONS)[0][STORED]}
        config = replace(config, instructions=len(choices))

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    head, words = part(TEXT), part(WORDS)
    network = fill(
        lambda: InstructIRNet(
            config,
            make_head(head, name) if head else None,
            make_words(words, name) if words else None,
        ),
        tensors,
        name,
        f"an InstructIR network of width {config.width}",
    )
    network.choices = choices
    return network


def settle(
    network: InstructIRNet | TextHead, device: torch.device, half_error: Callable[[], float]
) -> InstructIR | HeadAlone:
    """Return a network on a device, run by PyTorch's operations in float32."""
    if isinstance(network, TextHead):
        return HeadAlone(network)
    return InstructIR(network, network.choices, network.stored)


def plain(network: InstructIRNet) -> InstructIR:
    """Return a copy of a network on the CPU."""
    network = copy.deepcopy(network).cpu().float().eval()
    # As pictures come; else it is ten times as slow.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # untyped in torch
    return InstructIR(network, network.choices, network.stored)


def fresh(width: int = 16) -> InstructIRNet:
    """Return an untrained network that leaves pictures alone, whatever it is told."""
    return compact(width)


def pupil(network: InstructIRNet | TextHead) -> InstructIRNet:
    """Return a network to be trained further, on what it does not offer as well.

    Raises
    ------
    WeightsError
        If it knows none of what is trained by name, or something else.
    """
    if isinstance(network, TextHead) or not network.choices or {*network.choices} - {*DAMAGES}:
        raise WeightsError(
            "`demoe train` goes on with InstructIR networks that know some of these instructions "
            f"by name, and no others: {', '.join(names_of(DAMAGES))}."
        )
    return completed(network)


def adopt(tensors: Mapping[str, Tensor], name: str) -> InstructIRNet:
    """Return a network that begins as the DeMoE network of a state dict; see `adopted`."""
    return adopted(tensors, name)


def slim(network: InstructIRNet) -> NoReturn:
    """Refuse: what is measured by such a network takes gates, and this one an instruction."""
    raise RecipeError(
        "`demoe bench` measures networks that decide by themselves, and no InstructIR networks."
    )
