"""How far a network looks, computed from its architecture."""

from __future__ import annotations

from demoe.model import unet
from demoe.model.demoe.config import NetworkConfig
from demoe.model.level import REACH


def encoder_reach(config: NetworkConfig) -> int:
    """Return how many pixels beyond its own cell a deepest feature depends on."""
    return unet.encoder_reach(config.encoder_blocks)


def reach(config: NetworkConfig) -> int:
    """Return how many pixels beyond a core the restored core depends on.

    One expert follows the blocks of each level, and those in the middle.
    """
    beyond = unet.decoder_reach(
        config.middle_blocks + 1,
        [count + 1 for count in reversed(config.decoder_blocks)],
        after=REACH * config.multiple * config.keeps_level,
    )
    return beyond + encoder_reach(config)


def exact_halo(config: NetworkConfig) -> int:
    """Return the smallest halo, a multiple of ``config.multiple``, that covers the reach."""
    return unet.up_to_grid(reach(config), config.multiple)
