"""How far a network looks once its matrices are held, computed from its architecture."""

from __future__ import annotations

from demoe.model.moceir.config import NetworkConfig

_ENCODER_BLOCK = 2
"""Features that an encoder block looks around: one for values, one for the gate after them."""

_DECODER_BLOCK = 5
"""The same for a decoder block: one for what is shared, three for what is mixed, one after it."""


def reach(config: NetworkConfig) -> int:
    """Return how many pixels beyond a core the restored core depends on.

    A feature is 1, 2, 4 ... pixels wide. For a core whose edges lie on multiples of
    ``config.multiple``, features of all levels end where the core ends, so the steps just add up.
    """
    beyond = 1 + _ENCODER_BLOCK * config.refinement_blocks  # and the last convolution
    for level, blocks in enumerate(reversed(config.decoder_blocks)):
        beyond += _DECODER_BLOCK * blocks * 2**level
        # Features of this level are needed up to a whole one of the next, which looks around it.
        cell = 2 ** (level + 1)
        beyond = -(-beyond // cell) * cell + cell
    beyond += _ENCODER_BLOCK * config.latent_blocks * config.multiple
    for level, blocks in enumerate(config.encoder_blocks):
        beyond += (_ENCODER_BLOCK * blocks + 1) * 2**level  # the one halves the size
    return beyond + 1  # the first convolution


def exact_halo(config: NetworkConfig) -> int:
    """Return the smallest halo, a multiple of ``config.multiple``, that covers the reach."""
    return -(-reach(config) // config.multiple) * config.multiple
