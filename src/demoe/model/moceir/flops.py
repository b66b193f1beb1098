"""How much arithmetic a network does, counted from its architecture.

Convolutions and products of matrices that run over the picture, two operations a multiply-add.
Norms, gates, Fourier transforms and what follows a global pooling are left out.
"""

from __future__ import annotations

from demoe.model.moceir.config import NetworkConfig


def flops_per_pixel(config: NetworkConfig, expert: int) -> float:
    """Return floating point operations for one pixel of a picture that is seen as a whole.

    Parameters
    ----------
    config : NetworkConfig
        The architecture.
    expert : int
        Which one works in all layers, from 0. For the published MoCE-IR-S, 1.26 million
        operations with the cheapest and 1.42 million with the costliest.
    """
    return shared_flops(config) + sum(layer[expert] for layer in expert_flops(config))


def shared_flops(config: NetworkConfig) -> float:
    """Return what of it no expert does."""
    return 2 * _macs(config, held=False)


def expert_flops(config: NetworkConfig) -> list[list[float]]:
    """Return what experts do of it in each layer, in the order in which they run: (layers, E)."""
    found = []
    levels = reversed(range(len(config.decoder_blocks)))
    for level, count, ranks in zip(levels, config.decoder_blocks, config.ranks, strict=True):
        c = config.channels[level]
        costs = [2 * (3 * c * r + 4 * r * r + (9 + 2 * 49) * r) / 4.0**level for r in ranks]
        found += [costs] * count
    return found


def held_flops(config: NetworkConfig) -> float:
    """Return operations for a pixel of a tile whose matrices are held: no query runs, no expert."""
    return 2 * _macs(config, held=True)


def _macs(config: NetworkConfig, *, held: bool) -> float:
    """Return multiply-adds a pixel of the picture, without what experts do."""
    channels = config.channels
    deepest = len(channels) - 1

    def encoders(level: int, count: int) -> float:
        c = channels[level]
        return count * (_attention(c, config.heads[level], held) + _feed_forward(config, c))

    total = 9 * 3 * config.width * 2.0  # the first and the last convolution
    total += encoders(0, config.refinement_blocks)
    total += encoders(deepest, config.latent_blocks) / 4.0**deepest
    for level, count in enumerate(config.encoder_blocks):
        c = channels[level]
        total += (encoders(level, count) + 9 * c * (c // 2)) / 4.0**level
    for level, count in enumerate(reversed(config.decoder_blocks)):
        c, deeper, heads = channels[level], channels[level + 1], config.heads[level]
        block = c * c + _attention(c, heads, held) + _feed_forward(config, c)
        block += c * c + 49 * c + c * c  # values, and what mixes them
        if not held:
            # What experts are asked, keys, what all answers go through, queries, what compares.
            block += c * c + (c * c + 49 * c) + c * c + (c * c + 9 * c) + c * c // heads
        total += (count * block + c * deeper) / 4.0**level
        total += 9 * deeper * 2 * deeper / 4.0 ** (level + 1)  # where pixels are fewer
    if not held:
        total += 9 * channels[deepest] / 4.0**deepest  # what routers hear of fine structure
    return total


def _attention(channels: int, heads: int, held: bool) -> float:
    """Values and the matrix that mixes them; and, unless held, what it is found by."""
    once = channels**2 + 9 * channels
    return once + channels**2 if held else 3 * once + channels**2 + channels**2 // heads


def _feed_forward(config: NetworkConfig, channels: int) -> float:
    hidden = int(channels * config.expansion)
    return 3 * channels * hidden + 2 * 9 * hidden
