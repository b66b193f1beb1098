"""Pooling held fixed: what makes a network that looks at everything look only near by.

Every block weighs its channels by an attention that comes from pooling over the picture
(arXiv 2204.04676, section 3.2), so a tile is not the picture that it is cut from. Once each
attention is known for a plane, the network is a chain of convolutions, and tiles of any size
equal the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from demoe.model.blocks import NAFBlock, RunBlock, as_it_is
from demoe.model.network import DeMoENet

Attention = Mapping[str, Tensor]
"""Channel attention (1, C, 1, 1) of blocks, by the names of the blocks in their network."""


def hold(network: DeMoENet, attention: Attention | None) -> RunBlock:
    """Return how to run blocks with a given attention; None stands for their own pooling."""
    if attention is None:
        return as_it_is
    known = {block: attention.get(name) for name, block in _blocks(network)}

    def run(block: NAFBlock, x: Tensor) -> Tensor:
        held = known[block]
        if held is None:
            raise KeyError("this block's attention was not collected")
        return block.finish(x, block.gated(x), held)

    return run


def collect(
    network: DeMoENet,
    x: Tensor,
    mixing: Callable[[Tensor, Tensor], Tensor] | None,
    *,
    every: bool = False,
) -> tuple[dict[str, Tensor], Tensor]:
    """Find the attention of a network's blocks for a plane, and the router's one decision on it.

    Parameters
    ----------
    network : DeMoENet
        In evaluation mode.
    x : Tensor
        (N, 3, H, W) in [0, 1]: the plane (N = 1), or samples of it, which are pooled together.
    mixing : callable, optional
        Gives the mixing weights (N, E, 1, 1), or (N, E, rows, cols) over cells of
        ``config.multiple`` pixels, for the deepest features and that decision. By default nothing
        but the encoder is run.
    every : bool
        Find the attention of experts without weight, too.

    Returns
    -------
    attention : dict of str to Tensor
        Of all blocks that ran.
    gates : Tensor
        (E,) probabilities.
    """
    attention: dict[str, Tensor] = {}
    run = _collector(network, attention)
    padded = network.pad(x)
    features, skips = network.encode(padded, run)
    gates = network.mlp_branch.together(features)
    if mixing is not None:
        weights = mixing(features, gates)
        if every:  # so little of an expert changes no number that matters, but makes it run
            weights = weights.clamp_min(1e-9)
        network.decode(features, skips, weights, (padded.shape[2], padded.shape[3]), run)
    return attention, gates


def _collector(network: DeMoENet, into: dict[str, Tensor]) -> RunBlock:
    names = {block: name for name, block in _blocks(network)}

    def run(block: NAFBlock, x: Tensor) -> Tensor:
        gated = block.gated(x)
        attention = block.attend(gated.mean(dim=(0, 2, 3), keepdim=True))
        into[names[block]] = attention
        return block.finish(x, gated, attention)

    return run


def _blocks(network: torch.nn.Module) -> list[tuple[str, NAFBlock]]:
    return [(name, m) for name, m in network.named_modules() if isinstance(m, NAFBlock)]
