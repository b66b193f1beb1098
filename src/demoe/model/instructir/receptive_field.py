"""How far a network looks and what it costs, computed from its architecture."""

from __future__ import annotations

from demoe.model import unet
from demoe.model.instructir.config import NetworkConfig


def _blocks(config: NetworkConfig) -> tuple[list[int], list[int]]:
    """Return the blocks of each level from full resolution down: on the way down, and up.

    An instruction block, which holds one of the others, follows those of each level.
    """
    down = [count + 1 for count in config.encoder_blocks]
    return down, [count + 1 for count in reversed(config.decoder_blocks)]


def reach(config: NetworkConfig) -> int:
    """Return how many pixels beyond a core the restored core depends on."""
    down, up = _blocks(config)
    return unet.decoder_reach(config.middle_blocks, up) + unet.encoder_reach(down)


def exact_halo(config: NetworkConfig) -> int:
    """Return the smallest halo, a multiple of ``config.multiple``, within which all is as it was.

    That is the reach, and what the outermost half cell of a read needs, where weights of choices
    have no neighbour to go over to. Those act from the first instruction block on.
    """
    before = 1 + config.encoder_blocks[0]
    beyond = reach(config) - before + config.multiple // 2
    return unet.up_to_grid(max(reach(config), beyond), config.multiple)


def flops_per_pixel(config: NetworkConfig) -> float:
    """Return floating point operations for one pixel of the picture; see `unet.macs_per_pixel`.

    493 thousand for the published one (16.16 GMAC for 256 x 256).
    """
    blocks = [down + up for down, up in zip(*_blocks(config), strict=True)]
    return 2 * unet.macs_per_pixel(config.width, blocks, config.middle_blocks)
