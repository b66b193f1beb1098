"""How much arithmetic a network does, counted from its architecture."""

from __future__ import annotations

from demoe.model.demoe.config import NetworkConfig
from demoe.model.unet import macs_per_pixel


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
    # One expert follows the decoder's blocks of each level, and those in the middle.
    blocks = [
        down + up + 1
        for down, up in zip(config.encoder_blocks, reversed(config.decoder_blocks), strict=True)
    ]
    macs = macs_per_pixel(config.width, blocks, config.middle_blocks + 1)
    deepest = config.width * config.multiple
    macs += (deepest * config.router_width + config.router_width) / config.multiple**2
    return 2 * macs
