"""Pooling held fixed: what makes a network that looks at everything look only near by.

Every block weighs its channels by an attention that comes from pooling over the picture
(arXiv 2204.04676, section 3.2), so a tile is not the picture that it is cut from. Once each
attention is known for a plane, the network is a chain of convolutions, and tiles of any size
equal the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from demoe.model.demoe.blocks import NAFBlock, RunBlock, as_it_is
from demoe.model.demoe.network import DeMoENet

Attention = Mapping[str, Tensor]
"""Channel attention (1, C, 1, 1) of blocks, by the names of the blocks in their network."""


class Backend(Protocol):
    """Runs the two halves of a network.

    ``padded`` is (N, 3, H, W) in [0, 1], sides multiples of ``config.multiple``: a picture (N = 1),
    or samples of one, which are pooled together. A given ``attention`` holds pooling fixed.
    ``recurring`` says that more pictures of the same size are to come.
    """

    name: str

    def features(self, padded: Tensor, *, together: bool, recurring: bool = False) -> Tensor:
        """Return the deepest features, of samples pooled together or of pictures each by itself."""

    def restore(
        self,
        padded: Tensor,
        weights: Tensor,
        attention: Attention | None,
        recurring: bool = False,
    ) -> tuple[Tensor, Attention]:
        """Return the restored samples and the attention of all blocks that ran.

        ``weights`` are the experts', (N, E, 1, 1) or (N, E, rows, cols) over cells of
        ``config.multiple`` pixels.
        """

    def attend(self, padded: Tensor, weights: Tensor) -> Attention:
        """Return the attention of all blocks that run on samples of one size that recurs."""


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
        attention: Attention | None,
        recurring: bool = False,
    ) -> tuple[Tensor, Attention]:
        """Return the restored samples and the attention of all blocks that ran."""
        run, used = _runner(self.network, attention)
        features, skips = self.network.encode(padded, run)
        size = (padded.shape[2], padded.shape[3])
        return self.network.decode(features, skips, weights, size, run) + padded, used

    def attend(self, padded: Tensor, weights: Tensor) -> Attention:
        """Return the attention of all blocks that run."""
        return self.restore(padded, weights, None)[1]


def named_blocks(network: DeMoENet) -> list[tuple[str, NAFBlock]]:
    """Return the blocks of a network with their names, in the order of its state dict."""
    return [(name, m) for name, m in network.named_modules() if isinstance(m, NAFBlock)]


def _runner(network: DeMoENet, attention: Attention | None) -> tuple[RunBlock, Attention]:
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
