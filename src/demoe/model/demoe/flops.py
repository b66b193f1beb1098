"""How much arithmetic a network does, counted from its architecture."""

from __future__ import annotations

from demoe.model.demoe.config import NetworkConfig


def flops_per_pixel(config: NetworkConfig) -> float:
    """Return floating point operations for one pixel of the picture.

    Convolutions that run over the picture, two operations a multiply-add, one expert in every
    mixture, the router's convolutions once. What follows a global pooling costs the same for any
    picture and is left out, and so are additions, norms and gates.

    Parameters
    ----------
    config : NetworkConfig
        The architecture; 331 thousand operations a pixel for the published one (arXiv 2508.06228,
        10.84 GMAC for 256 x 256).
    """
    width = config.width
    macs = 2.0 * 3 * 9 * width  # the first and the last convolution
    for level, (down, up) in enumerate(
        zip(config.encoder_blocks, reversed(config.decoder_blocks), strict=True)
    ):
        channels = width * 2**level
        blocks = down + up + 1  # one expert follows the decoder's blocks
        macs += blocks * _block(channels) / 4**level
        # To the next level 2 x 2 at stride 2, and back 1 x 1: both count where pixels are fewer.
        macs += (4 * channels * 2 * channels + 2 * channels * 4 * channels) / 4 ** (level + 1)
    deepest = width * config.multiple
    macs += (config.middle_blocks + 1) * _block(deepest) / config.multiple**2
    macs += (deepest * config.router_width + config.router_width) / config.multiple**2
    return 2 * macs


def _block(channels: int) -> int:
    """Return multiply-adds of a NAFBlock for one pixel of its level: 1 x 1 and 3 x 3 depthwise."""
    return 6 * channels**2 + 9 * 2 * channels
