"""The network as PyTorch runs it, with pooling found or held fixed.

What is pooled is the channel attention (1, C, 1, 1) of each block (see `demoe.model.nafnet`);
attentions by the names of their blocks are its statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from demoe.model.demoe.network import DeMoENet
from demoe.model.nafnet import RunBlock, as_it_is, held_at, pooled_together

if TYPE_CHECKING:
    from demoe.model.protocol import Statistics


class EagerBackend:
    """Runs a network as PyTorch does, operation by operation, on its device."""

    name = "torch"

    def __init__(self, network: DeMoENet) -> None:
        self.network = network

    def features(self, padded: Tensor, *, together: bool, recurring: bool = False) -> Tensor:
        """Return the deepest features, of samples pooled together or of pictures each by itself."""
        run = _runner(self.network, None)[0] if together else as_it_is
        return self.network.encode(padded, run)[0]

    def restore(
        self,
        padded: Tensor,
        weights: Tensor,
        statistics: Statistics | None,
        recurring: bool = False,
    ) -> tuple[Tensor, Statistics]:
        """Return the restored samples and the attention of all blocks that ran."""
        run, used = _runner(self.network, statistics)
        features, skips = self.network.encode(padded, run)
        size = (padded.shape[2], padded.shape[3])
        return self.network.decode(features, skips, weights, size, run) + padded, used

    def survey(self, padded: Tensor, weights: Tensor) -> Statistics:
        """Return the attention of all blocks that run."""
        return self.restore(padded, weights, None)[1]

    def restore_each(
        self, padded: Tensor, statistics: Sequence[Statistics] | None
    ) -> tuple[Tensor, list[Statistics]]:
        """Restore pictures (N, 3, H, W) by each expert alone: (E, N, 3, H, W), encoding once."""
        one_hot = torch.eye(self.network.choice_count, device=padded.device)[:, None, :, None, None]
        size = (padded.shape[2], padded.shape[3])
        run, encoding = _runner(self.network, statistics[0] if statistics else None)
        features, skips = self.network.encode(padded, run)
        restored: list[Tensor] = []
        used: list[Statistics] = []
        for number, weights in enumerate(one_hot.expand(-1, len(padded), -1, -1, -1)):
            run, decoding = _runner(self.network, statistics[number] if statistics else None)
            restored.append(self.network.decode(features, skips, weights, size, run) + padded)
            used.append({**encoding, **decoding})
        return torch.stack(restored), used


def _runner(network: DeMoENet, attention: Statistics | None) -> tuple[RunBlock, Statistics]:
    """Return how to run blocks, and the attention that they use: given, or found while they run."""
    if attention is None:
        return pooled_together(network)
    return held_at(network, lambda name, x: attention[name].to(x.device)), attention
