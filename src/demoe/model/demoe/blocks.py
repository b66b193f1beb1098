"""Chains of NAFNet's blocks, and the mixture of experts (arXiv 2508.06228)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from demoe.model.nafnet import NAFBlock, RunBlock, as_it_is, run_chain


class BlockChain(nn.Module):
    """Blocks one after another, under the name that published checkpoints use."""

    def __init__(self, blocks: Iterable[NAFBlock]) -> None:
        super().__init__()
        self.modules_list = nn.ModuleList(blocks)

    def forward(self, x: Tensor, run: RunBlock = as_it_is) -> Tensor:
        """Run the blocks in order."""
        return run_chain(self.modules_list, x, run)


class ExpertMixture(nn.Module):
    """Weighted sum of experts; an expert without weight anywhere is not run."""

    def __init__(self, channels: int, experts: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(NAFBlock(channels) for _ in range(experts))

    def forward(self, x: Tensor, weights: Tensor, run: RunBlock = as_it_is) -> Tensor:
        """Mix the experts' outputs.

        Parameters
        ----------
        x : Tensor
            Features (N, C, H, W).
        weights : Tensor
            (N, E, 1, 1) or (N, E, H, W), >= 0, summing to 1 over E.
        run : callable
            How experts are run.
        """
        out = torch.zeros_like(x)
        used = weights.detach().flatten(2).amax(dim=2) > 0
        expert: NAFBlock
        for index, expert in enumerate(self.experts):  # type: ignore[assignment]  # as above
            rows = used[:, index]
            if rows.all():
                out = out + run(expert, x) * weights[:, index : index + 1].to(x.dtype)
            elif rows.any():
                chosen = rows.nonzero()[:, 0]
                part = run(expert, x[chosen]) * weights[chosen, index : index + 1].to(x.dtype)
                out = out.index_add(0, chosen, part.to(out.dtype))
        return out
