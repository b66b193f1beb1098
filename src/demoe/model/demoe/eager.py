"""The network as PyTorch runs it, with pooling found or held fixed.

Every block weighs its channels by an attention that comes from pooling over the picture
(arXiv 2204.04676, section 3.2), so a tile is not the picture that it is cut from. Once each
attention is known for a plane, the network is a chain of convolutions, and tiles of any size
equal the whole. Attentions (1, C, 1, 1), by the names of their blocks, are its statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from demoe.model.demoe.blocks import NAFBlock, RunBlock, as_it_is
from demoe.model.demoe.network import DeMoENet

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


def named_blocks(network: DeMoENet) -> list[tuple[str, NAFBlock]]:
    """Return the blocks of a network with their names, in the order of its state dict."""
    return [(name, m) for name, m in network.named_modules() if isinstance(m, NAFBlock)]


def _runner(network: DeMoENet, attention: Statistics | None) -> tuple[RunBlock, Statistics]:
    """Return how to run blocks, and the attention that they use: given, or found while they run."""
    names = {block: name for name, block in named_blocks(network)}
    found: dict[str, Tensor] = {}

    def held(block: NAFBlock, x: Tensor) -> Tensor:
        assert attention is not None
        return block.finish(x, block.gated(x), attention[names[block]].to(x.device))

    def pooled(block: NAFBlock, x: Tensor) -> Tensor:
        gated = block.gated(x)
        own = block.attend(gated.mean(dim=(0, 2, 3), keepdim=True))
        found[names[block]] = own
        return block.finish(x, gated, own)

    return (pooled, found) if attention is None else (held, attention)
