"""The MoCE-IR network: a Restormer-like U-Net whose decoder chooses experts (arXiv 2411.18466)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demoe.model.moceir.balance import imbalance
from demoe.model.moceir.blocks import (
    Blocks,
    Down,
    EncoderBlock,
    HighFrequencies,
    Up,
    pointwise,
)
from demoe.model.moceir.config import NetworkConfig
from demoe.model.moceir.experts import DecoderBlock, likeliest
from demoe.model.moceir.matrices import Matrices

BALANCE = 0.05
"""Weight of the balance among experts in the loss of a training."""


class _Patches(nn.Module):
    """The first convolution, under the name that published checkpoints use."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, 3, padding=1, bias=False)


class MoCEIRNet(nn.Module):
    """One network for several kinds of damage, with experts of growing cost.

    Attribute names follow the keys of published checkpoints, so that state dicts load as they are.
    Every decoder block, a *layer* here, chooses an expert for the picture as a whole.

    Parameters
    ----------
    config : NetworkConfig
        Architecture.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        channels, heads = config.channels, config.heads
        *levels, deepest = channels

        def encoders(level: int, count: int) -> Blocks:
            return Blocks(
                EncoderBlock(channels[level], heads[level], config.expansion, config.centred)
                for _ in range(count)
            )

        def decoders(level: int, count: int, ranks: tuple[int, ...]) -> Blocks:
            return Blocks(
                DecoderBlock(
                    channels[level],
                    deepest,
                    heads[level],
                    ranks,
                    config.patches,
                    config.top_k,
                    config.expansion,
                    config.centred,
                    config.decoder_bias,
                )
                for _ in range(count)
            )

        self.patch_embed = _Patches(config.width)
        self.freq_embed = HighFrequencies(deepest)
        self.enc = nn.ModuleList(
            nn.ModuleList([encoders(level, count), Down(channels[level])])
            for level, count in enumerate(config.encoder_blocks)
        )
        self.latent = encoders(len(levels), config.latent_blocks)
        self.dec = nn.ModuleList(
            nn.ModuleList(
                [
                    Up(channels[level + 1]),
                    pointwise(channels[level + 1], channels[level], config.decoder_bias),
                    decoders(level, count, ranks),
                ]
            )
            for level, count, ranks in zip(
                reversed(range(len(levels))), config.decoder_blocks, config.ranks, strict=True
            )
        )
        self.refinement = encoders(0, config.refinement_blocks)
        self.output = nn.Conv2d(config.width, 3, 3, padding=1, bias=config.decoder_bias)

    @property
    def multiple(self) -> int:
        """Side in pixels of the grid that picture sides are padded to."""
        return self.config.multiple

    @property
    def complexity(self) -> Tensor:
        """How many parameters experts have, as a share of the largest: (layers, E)."""
        found = torch.stack([layer.adapter.routing.complexity for layer in self.layers()])
        return found / found.amax(dim=1, keepdim=True)

    def layers(self) -> list[DecoderBlock]:
        """Return the decoder blocks in the order in which they run."""
        return [module for module in self.modules() if isinstance(module, DecoderBlock)]

    def pad(self, x: Tensor) -> Tensor:
        """Add zeros at the bottom and right, up to multiples of ``config.multiple``."""
        m = self.config.multiple
        return F.pad(x, (0, -x.shape[3] % m, 0, -x.shape[2] % m))

    def encode(self, x: Tensor, matrices: Matrices) -> tuple[Tensor, list[Tensor]]:
        """Return the deepest features and the skips, for a padded picture (N, 3, H, W)."""
        features = self.patch_embed.proj(x)
        skips = []
        levels: Any = self.enc  # pairs; torch's lists hold any module
        for blocks, down in levels:
            features = blocks(features, matrices)
            skips.append(features)
            features = down(features)
        deepest: Tensor = self.latent(features, matrices)
        return deepest, skips

    def decode(
        self,
        features: Tensor,
        skips: list[Tensor],
        gates: Tensor | None,
        size: tuple[int, int],
        matrices: Matrices,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return features at full resolution, and what all layers decided, (N, layers, E).

        Parameters
        ----------
        features, skips : Tensor, list of Tensor
            What ``encode`` returned.
        gates : Tensor, optional
            (N, layers, E) or (N, layers, E, rows, cols) over a picture of ``size`` pixels; see
            `DecoderBlock`; returned as they are. By default routers decide, and probabilities of
            all experts are returned.
        size : (int, int)
            Height and width of the picture that gates divide.
        matrices : Matrices
            Where matrices come from.
        noise : Tensor, optional
            (N, layers, E): what is added to the routers' scores, in training.
        """
        jitter = iter(noise.unbind(dim=1)) if noise is not None else None
        given = iter(gates.unbind(dim=1)) if gates is not None else None
        # With matrices held, no router decides.
        frequencies = None if given else self.freq_embed(features, matrices.together)
        used, stride = [], self.config.multiple
        levels: Any = self.dec
        for (up, reduce, blocks), skip in zip(levels, reversed(skips), strict=True):
            stride //= 2
            features = reduce(torch.cat([up(features), skip], dim=1))
            extent = (size[0] / stride, size[1] / stride)
            for block in blocks.layers:
                weights = next(given) if given else None
                off = next(jitter) if jitter else None
                features, own = block(features, frequencies, weights, matrices, extent, off)
                used.append(own)
        return features, torch.stack(used, dim=1)

    def finish(self, features: Tensor, padded: Tensor, matrices: Matrices) -> Tensor:
        """Return the restored picture, from what ``decode`` returned and the padded picture."""
        restored: Tensor = self.output(self.refinement(features, matrices)) + padded
        return restored

    def forward(self, x: Tensor, gates: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Restore a batch of pictures, each by itself.

        Parameters
        ----------
        x : Tensor
            (N, 3, H, W), floats in [0, 1].
        gates : Tensor, optional
            Weights of the experts, >= 0, used as they are: (N, layers, E); (N, E) for the same in
            all layers; or with (rows, cols) after that, cells that divide the picture evenly and
            are interpolated in between. By default the routers decide.

        Returns
        -------
        restored : Tensor
            (N, 3, H, W); may leave [0, 1] a little.
        gates : Tensor
            (N, layers, E): probabilities of the ``top_k`` chosen experts, 0 for the others; or the
            gates that were given, for all layers.
        """
        height, width = x.shape[2:]
        if gates is not None:
            gates = self.in_layers(gates.to(x.dtype))
        padded, matrices = self.pad(x), Matrices()
        features, skips = self.encode(padded, matrices)
        features, decided = self.decode(features, skips, gates, (height, width), matrices)
        restored = self.finish(features, padded, matrices)[:, :, :height, :width]
        return restored, likeliest(decided, self.config.top_k) if gates is None else decided

    def in_layers(self, gates: Tensor) -> Tensor:
        """Return gates (N, E), also with (rows, cols), as those of all layers, (N, layers, E)."""
        if gates.ndim in (2, 4):
            shape = (-1, self.config.layers, *[-1] * (gates.ndim - 1))
            gates = gates[:, None].expand(shape)
        return gates

    # -- what a training asks for, see `demoe.model.protocol.Apprentice` --------------------------

    is_told = False

    def practise(
        self, x: Tensor, told: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Restore pictures with noise in the routers, whatever is wrong with them.

        Experts get no share of the work by themselves: with one at work, the restored picture does
        not depend on how probable it was. So their balance is a part of the loss.
        """
        padded, matrices = self.pad(x), Matrices()
        shape = (len(x), self.config.layers, self.config.experts)
        noise = torch.randn(shape, generator=generator).to(x.device) / self.config.experts
        features, skips = self.encode(padded, matrices)
        size = (padded.shape[2], padded.shape[3])
        features, decided = self.decode(features, skips, None, size, matrices, noise)
        restored = self.finish(features, padded, matrices).float()
        balance = imbalance(decided, noise, self.complexity, self.config.top_k)
        return restored[:, :, : x.shape[2], : x.shape[3]], BALANCE * balance

    def offer(self, names: Sequence[str]) -> None:
        """Change nothing: it is not told what to undo."""
