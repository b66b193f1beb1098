"""The InstructIR image network: a NAFNet-style U-Net that is told what to do (arXiv 2401.16468)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demoe.choices import Choice
from demoe.errors import RecipeError
from demoe.model.instructir.blocks import InstructionBlock
from demoe.model.instructir.config import STORED, NetworkConfig
from demoe.model.instructir.head import TextHead
from demoe.model.instructir.words import WordEncoder
from demoe.model.nafnet import NAFBlock, RunBlock, as_it_is, pad_to, run_chain

OFF = 0.2
"""Length of what is added to embeddings in training, at random; they have the length 1."""

ROWS = 16384
"""Rows of the table of a new sentence encoder."""

CLEAR = 8.0
"""What the score of a class is for its own instruction."""

GateOf = Callable[[InstructionBlock, Tensor], Tensor]
"""Takes an instruction block and its input (N, C, H, W); returns the gate that it is to use,
(N or 1, C, 1, 1) or (N or 1, C, H, W)."""


class InstructIRNet(nn.Module):
    """One network for many degradations; an instruction says which to remove.

    Attribute names follow the keys of published checkpoints, so that state dicts load as they are.

    Parameters
    ----------
    config : NetworkConfig
        Architecture.
    text : TextHead, optional
        What makes embeddings of the features of sentences, where it comes in the same file.
    words : WordEncoder, optional
        What makes features of sentences, likewise.

    Attributes
    ----------
    choices : tuple of Choice
        The instructions that are known by name; a file says which.
    """

    choices: tuple[Choice, ...] = ()

    def __init__(
        self,
        config: NetworkConfig,
        text: TextHead | None = None,
        words: WordEncoder | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.encoders, self.enc_cond, self.downs = (nn.ModuleList() for _ in range(3))
        for count in config.encoder_blocks:
            self.encoders.append(_chain(width, count))
            self.enc_cond.append(InstructionBlock(width, config.text))
            self.downs.append(nn.Conv2d(width, 2 * width, 2, stride=2))
            width *= 2
        self.middle_blks = _chain(width, config.middle_blocks)
        self.ups, self.decoders, self.dec_cond = (nn.ModuleList() for _ in range(3))
        for count in config.decoder_blocks:
            self.ups.append(
                nn.Sequential(nn.Conv2d(width, 2 * width, 1, bias=False), nn.PixelShuffle(2))
            )
            width //= 2
            self.decoders.append(_chain(width, count))
            self.dec_cond.append(InstructionBlock(width, config.text))
        self.ending = nn.Conv2d(width, 3, 3, padding=1)
        if config.instructions:
            self.register_buffer(STORED, torch.zeros(config.instructions, config.text))
        self.text, self.words = text, words

    @property
    def stored(self) -> Tensor:
        """The embeddings (E, T) of the instructions that are known by name."""
        if not self.config.instructions:
            return self.intro.weight.new_zeros(0, self.config.text)
        return self.get_buffer(STORED)

    def pad(self, x: Tensor) -> Tensor:
        """Add zeros at the bottom and right, up to multiples of ``config.multiple``."""
        return pad_to(x, self.config.multiple)

    def correction(self, x: Tensor, gate: GateOf, run: RunBlock = as_it_is) -> Tensor:
        """Return what is to be added to padded pictures (N, 3, H, W).

        Parameters
        ----------
        x : Tensor
            The pictures.
        gate : callable
            The instruction, as the gates of the instruction blocks.
        run : callable
            How the other blocks are run.
        """
        features = self.intro(x)
        skips = []
        for encoder, condition, down in _together(self.encoders, self.enc_cond, self.downs):
            features = run_chain(encoder, features, run)
            features = condition(features, gate(condition, features), run)
            skips.append(features)
            features = down(features)
        features = run_chain(self.middle_blks, features, run)
        for up, decoder, condition in _together(self.ups, self.decoders, self.dec_cond):
            features = run_chain(decoder, up(features) + skips.pop(), run)
            features = condition(features, gate(condition, features), run)
        restored: Tensor = self.ending(features)
        return restored

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Restore pictures as instructions say.

        Parameters
        ----------
        x : Tensor
            (N, 3, H, W), floats in [0, 1], of any size.
        embedding : Tensor
            (N, T), the instruction for each picture, of length 1; or (1, T), for all of them.

        Returns
        -------
        Tensor
            (N, 3, H, W); may leave [0, 1] a little.

        Raises
        ------
        RecipeError
            If the embedding has another shape.
        """
        length = self.config.text
        if embedding.shape not in ((len(x), length), (1, length)):
            raise RecipeError(
                f"The embeddings of instructions must have the shape {(len(x), length)}, one for "
                f"each picture, not {tuple(embedding.shape)}."
            )
        padded = self.pad(x)

        def gate(block: InstructionBlock, _: Tensor) -> Tensor:
            return block.gates(embedding)[:, :, None, None]

        restored = self.correction(padded, gate) + padded
        return restored[:, :, : x.shape[2], : x.shape[3]]

    # -- what a training asks for, see `demoe.model.protocol.Apprentice` --------------------------

    is_told = True

    def practise(
        self, x: Tensor, told: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Restore pictures by instructions (N, kinds) that are a little off, as sentences are.

        Several kinds at once are told by the mean of their embeddings.
        """
        chosen = told / told.sum(dim=1, keepdim=True).clamp_min(1)
        off = torch.randn(len(x), self.config.text, generator=generator).to(x.device)
        off = off * (OFF / math.sqrt(self.config.text))
        embedding = F.normalize(F.normalize(chosen @ self.stored, dim=1) + off, dim=1)
        return self(x, embedding).float(), x.new_zeros(())

    def offer(self, names: Sequence[str]) -> None:
        """Forget the instructions of all other names; see `demoe.model.protocol.Apprentice`."""
        kept = [n for n, choice in enumerate(self.choices) if choice.name in names]
        self.choices = tuple(self.choices[n] for n in kept)
        self.config = replace(self.config, instructions=len(kept))
        self.register_buffer(STORED, self.stored[kept])

    def new_ears(self) -> list[nn.Parameter]:
        """Give it an untrained encoder, and a head; see `demoe.model.protocol.Hearer`.

        The head is not learnt: it puts together what is asked for.
        """
        kinds = len(self.choices)
        self.words, self.text = WordEncoder(ROWS, kinds), TextHead(kinds, self.config.text, kinds)
        with torch.no_grad():
            self.text.fc1.weight.copy_(self.stored.T)
            self.text.fc2.weight.copy_(CLEAR * self.stored)
            self.text.fc1.bias.zero_()
            self.text.fc2.bias.zero_()
        self.to(self.intro.weight.device)
        return list(self.words.parameters())

    def understand(self, sentences: Sequence[str]) -> Tensor:
        """Return the log-odds (N, E) that sentences ask for each choice."""
        assert self.words is not None
        return self.words.scores(sentences)

    def hear(self, sentences: Sequence[str]) -> Tensor:
        """Return the embeddings (N, T) of sentences, read by its own encoder."""
        assert self.words is not None
        assert self.text is not None
        embedding: Tensor = self.text(self.words(sentences))[0]
        return embedding


def _chain(channels: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(NAFBlock(channels) for _ in range(count))


def _together(*lists: nn.ModuleList) -> Iterable[tuple[Any, ...]]:
    # torch knows no types of what its lists hold
    return zip(*lists, strict=True)
