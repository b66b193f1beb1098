"""A two-level mixture-of-experts flow transformer, after the idea of MiM-DiT (arXiv 2603.02710)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demoe.model.mimdit.blocks import Block, Tail
from demoe.model.mimdit.config import NetworkConfig
from demoe.model.mimdit.groups import Branch, Decision, Mixture, imbalance
from demoe.model.mimdit.pooled import Pooled
from demoe.model.mixing import spread_gates

BALANCE = 0.01
"""Weight of the balance among sub-experts in the loss of a training."""

SLOWEST, FASTEST = 1.0, 1000.0
"""Frequencies of the waves that stand for time, in radians between picture and result."""


@dataclass(frozen=True)
class Decisions:
    """What both levels decided, in all layers: the blocks of the first step, then of the next.

    Attributes
    ----------
    inter : Tensor
        Gates of the groups, (N, layers, G), each layer's summing to 1.
    intra : Tensor
        Gates of the sub-experts within each group, (N, layers, G, K): probabilities of the chosen
        ones, 0 for others.
    """

    inter: Tensor
    intra: Tensor


class MiMDiTNet(nn.Module):
    """One network for several kinds of damage, with experts within experts.

    Two streams of tokens: one is the picture on its way to the result, the other what the damaged
    picture says. A mixture in each block works on the second, which is injected into the first.
    What is found is a velocity: where the picture has to go from here. One step goes all the way.

    Parameters
    ----------
    config : NetworkConfig
        Architecture.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        numbers = 3 * config.patch**2
        self.stem = nn.Conv2d(numbers, config.width, 3, padding=1)
        self.condition = nn.Conv2d(numbers, config.width, 3, padding=1)
        self.time = nn.Sequential(
            nn.Linear(config.time, config.time), nn.SiLU(), nn.Linear(config.time, config.time)
        )
        self.blocks = nn.ModuleList()
        for number in range(config.blocks):
            shifted = config.is_shifted(number)
            block = Block(
                config.width, config.hidden, config.window, config.heads, config.time, shifted
            )
            if config.dense:
                block.branch = Branch(config.width, config.dense)
            else:
                block.mixture = Mixture(config, shifted)
            self.blocks.append(block)
        self.head = Tail(config.width, config.patch, config.tail)

    @property
    def multiple(self) -> int:
        """Side in pixels of the grid that picture sides are padded to."""
        return self.config.multiple

    @property
    def choice_count(self) -> int:
        """Number of groups."""
        return self.config.groups

    def in_steps(self, steps: int) -> MiMDiTNet:
        """Return the same network, with the same tensors, that takes another number of steps."""
        other = copy.copy(self)
        other.config = replace(self.config, steps=steps)
        return other

    def pad(self, x: Tensor) -> Tensor:
        """Repeat the last row and column, up to multiples of ``config.multiple``."""
        m = self.config.multiple
        below, right = -x.shape[2] % m, -x.shape[3] % m
        return F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x

    def moment(self, time: Tensor) -> Tensor:
        """Return what stands for times (N,) in all parts: (N, T)."""
        count = self.config.time // 2
        octaves = torch.arange(count, device=time.device, dtype=torch.float32) / max(1, count - 1)
        waves = time.float()[:, None] * SLOWEST * (FASTEST / SLOWEST) ** octaves
        moment: Tensor = self.time(torch.cat([waves.sin(), waves.cos()], dim=1))
        return moment

    def conditions(
        self,
        y: Tensor,
        moment: Tensor,
        gates: Tensor | None,
        pooled: Pooled,
        noise: Tensor | None = None,
    ) -> Iterator[tuple[Tensor, Decision]]:
        """Give what is injected into each block, and what its mixture decided.

        Parameters
        ----------
        y : Tensor
            Padded pictures (N, 3, H, W).
        moment : Tensor
            What stands for the time.
        gates : Tensor or None
            For each block, (N, blocks, G, 1, 1) or (N, blocks, G, H / P, W / P), used as they are;
            None: routers decide.
        pooled : Pooled
            Where what is pooled comes from.
        noise : Tensor, optional
            (N, blocks, G, K): what is added to the scores of sub-experts, in training.
        """
        tokens = self._tokens(self.condition, y)
        for number, block in enumerate(self.blocks):
            given = None if gates is None else gates[:, number]
            part: Any = block.branch if self.config.dense else block.mixture
            off = None if noise is None else noise[:, number]
            tokens, decision = part(tokens, moment, given, pooled, off)
            yield tokens, decision

    def velocity(
        self,
        x: Tensor,
        y: Tensor,
        time: Tensor,
        gates: Tensor | None = None,
        pooled: Pooled | None = None,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, list[Decision]]:
        """Return where a picture has to go from here, in one unit of time, and what was decided.

        Parameters
        ----------
        x, y : Tensor
            Padded pictures (N, 3, H, W): on its way, and as it came in.
        time : Tensor
            (N,) or (1,), from 0 (x is what came in) to 1 (x is the result).
        gates, pooled, noise
            As in `conditions`.
        """
        moment = self.moment(time)
        tokens = self._tokens(self.stem, x)
        decisions = []
        given = self.conditions(y, moment, gates, pooled or Pooled(), noise)
        for block, (condition, decision) in zip(self.blocks, given, strict=True):
            tokens = block(tokens, condition, moment)
            decisions.append(decision)
        with torch.autocast(x.device.type, enabled=False):  # these are a picture's own values
            v: Tensor = self.head(tokens.float(), x.float())
        return v, decisions

    def restore(
        self,
        y: Tensor,
        gates: Tensor | None,
        pooled: Pooled,
        extent: tuple[float, float],
        noise: Tensor | None = None,
    ) -> tuple[Tensor, list[Decision]]:
        """Go from padded pictures to restored ones in ``config.steps`` steps (Euler).

        Parameters
        ----------
        y : Tensor
            (N, 3, H, W).
        gates : Tensor or None
            (N, layers, G, rows, cols), used as they are.
        pooled : Pooled
            Where what is pooled comes from.
        extent : (float, float)
            Height and width in pixels that the cells of the gates cover.
        noise : Tensor, optional
            (N, layers, G, K): what is added to the scores of sub-experts, in training.
        """
        steps, blocks = self.config.steps, self.config.blocks
        x, decisions = y, []
        for step in range(steps):
            pooled.step = step
            now = slice(step * blocks, (step + 1) * blocks)
            given = None if gates is None else self.over_tokens(gates[:, now], y, extent)
            off = None if noise is None else noise[:, now]
            time = torch.full((1,), step / steps, device=y.device)
            v, decided = self.velocity(x, y, time, given, pooled, off)
            x = x + v / steps
            decisions += decided
        return x, decisions

    def over_tokens(self, gates: Tensor, y: Tensor, extent: tuple[float, float]) -> Tensor:
        """Return gates of blocks (N, blocks, G, rows, cols) for each token of padded pictures."""
        if gates.shape[3:] == (1, 1):
            return gates
        patch = self.config.patch
        size = (y.shape[2] // patch, y.shape[3] // patch)
        covered = (extent[0] / patch, extent[1] / patch)
        spread = spread_gates(gates.flatten(1, 2), size, covered)
        return spread.reshape(*gates.shape[:3], *size)

    def forward(self, x: Tensor, gates: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Restore a batch of pictures, each by itself.

        Parameters
        ----------
        x : Tensor
            (N, 3, H, W), floats in [0, 1].
        gates : Tensor, optional
            Weights of the groups, >= 0, used as they are: (N, layers, G); (N, G) for the same in
            all layers; or with (rows, cols) after that, cells that divide the picture evenly and
            are interpolated in between. By default the routers decide.

        Returns
        -------
        restored : Tensor
            (N, 3, H, W); may leave [0, 1] a little.
        gates : Tensor
            (N, layers, G), each layer's summing to 1; or the gates that were given, for all
            layers. Those of the sub-experts: `decisions`.
        """
        height, width = x.shape[2:]
        given = None
        if gates is not None:
            gates = self.in_layers(gates.to(x.dtype))
            given = gates[..., None, None] if gates.ndim == 3 else gates
        restored, decided = self.restore(self.pad(x), given, Pooled(), (height, width))
        if gates is None:
            gates = torch.stack([one.inter for one in decided], dim=1)
        return restored[:, :, :height, :width], gates

    def decisions(
        self, x: Tensor, gates: Tensor | None = None, *, together: bool = False
    ) -> Decisions:
        """Return what both levels decide on pictures (N, 3, H, W), without restoring them.

        Parameters
        ----------
        x : Tensor
            In [0, 1].
        gates : Tensor, optional
            Gates of the groups, as for the network, that are taken instead.
        together : bool
            Whether they are parts of one picture, which is decided on once.
        """
        y, found = self.pad(x), []
        if gates is not None:
            gates = self.in_layers(gates.to(x.dtype))
            gates = gates[..., None, None] if gates.ndim == 3 else gates
        steps, blocks = self.config.steps, self.config.blocks
        for step in range(steps):
            given = None
            if gates is not None:
                extent = (x.shape[2], x.shape[3])
                now = slice(step * blocks, (step + 1) * blocks)
                given = self.over_tokens(gates[:, now], y, extent)
            moment = self.moment(torch.full((1,), step / steps, device=x.device))
            pooled = Pooled(together=together)
            found += [decision for _, decision in self.conditions(y, moment, given, pooled)]
        return Decisions(
            torch.stack([one.inter for one in found], dim=1),
            torch.stack([one.kept for one in found], dim=1),
        )

    def in_layers(self, gates: Tensor) -> Tensor:
        """Return gates (N, G), also with (rows, cols), as those of all layers, (N, layers, G)."""
        if gates.ndim in (2, 4):
            shape = (-1, self.config.layers, *[-1] * (gates.ndim - 1))
            gates = gates[:, None].expand(shape)
        return gates

    def _tokens(self, stem: nn.Conv2d, x: Tensor) -> Tensor:
        """Return a picture as tokens (N, H / P, W / P, C)."""
        with torch.autocast(x.device.type, enabled=False):  # these are a picture's own values
            y: Tensor = stem(F.pixel_unshuffle(x.float(), self.config.patch))
        return y.permute(0, 2, 3, 1)

    # -- what a training asks for, see `demoe.model.protocol` -------------------------------------

    is_told = False

    def practise(
        self, x: Tensor, told: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Restore pictures (N, 3, H, W) with noise in the routers, whatever is wrong with them.

        Returns them, and what is to be added to the loss: the balance within groups.
        """
        restored, uneven = self.learn(x, generator=generator)
        return restored, BALANCE * uneven

    def offer(self, names: Sequence[str]) -> None:
        """Change nothing: it is not told what to undo."""

    def learn(
        self,
        x: Tensor,
        target: Tensor | None = None,
        time: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Restore pictures (N, 3, H, W) as a training wants it.

        Parameters
        ----------
        x : Tensor
            Damaged pictures in [0, 1].
        target : Tensor, optional
            What they are to become. With it, one step is taken, from where pictures are at a
            ``time`` on their straight way there; a network that takes several steps can learn so.
        time : Tensor, optional
            (N,) in [0, 1).
        generator : torch.Generator, optional
            Draws the noise on the scores of sub-experts, on the CPU; without, there is none.

        Returns
        -------
        restored : Tensor
            (N, 3, H, W).
        imbalance : Tensor
            (): how unevenly sub-experts are used within their groups, 0 if evenly. Its gradient
            reaches their routers alone.
        """
        config, (height, width), y = self.config, x.shape[2:], self.pad(x)
        noise = None
        if generator is not None:
            shape = (len(x), config.layers, config.groups, config.experts)
            noise = torch.randn(shape, generator=generator).to(x.device) / config.experts
        if target is None or time is None:
            restored, decided = self.restore(y, None, Pooled(), (height, width), noise)
        else:
            along = time[:, None, None, None]
            on_its_way = torch.lerp(y, self.pad(target), along)
            v, decided = self.velocity(on_its_way, y, time, noise=noise)
            restored = on_its_way + (1 - along) * v
        uneven = torch.stack([imbalance(decision) for decision in decided]).mean()
        return restored[:, :, :height, :width].float(), uneven
