"""How far a network looks, computed from its architecture.

Pooling is left out: its reach is the whole read, and holding it fixed is another matter.
"""

from __future__ import annotations

from demoe.model.demoe.config import NetworkConfig
from demoe.model.level import REACH


def encoder_reach(config: NetworkConfig) -> int:
    """Return how many pixels beyond its own cell a deepest feature depends on."""
    reach = 1  # the first convolution
    for level, blocks in enumerate(config.encoder_blocks):
        reach += blocks * 2**level
    return reach


def reach(config: NetworkConfig) -> int:
    """Return how many pixels beyond a core the restored core depends on.

    Every block and expert looks one cell around, where a cell is 1, 2, 4 ... pixels wide. For a
    core whose edges lie on multiples of ``config.multiple``, cells of all levels end where the
    core ends, so the steps just add up.
    """
    beyond = REACH * config.multiple * config.keeps_level + 1  # the last convolution
    for level, blocks in enumerate(reversed(config.decoder_blocks)):
        # One expert follows the blocks of each level. Features of this level are needed up to a
        # whole cell of the next one.
        beyond += (blocks + 1) * 2**level
        cell = 2 ** (level + 1)
        beyond = -(-beyond // cell) * cell
    beyond += (config.middle_blocks + 1) * config.multiple
    return beyond + encoder_reach(config)


def exact_halo(config: NetworkConfig) -> int:
    """Return the smallest halo, a multiple of ``config.multiple``, that covers the reach."""
    return -(-reach(config) // config.multiple) * config.multiple
