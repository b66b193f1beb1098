"""How far U-Nets of NAFNet's blocks look and what they cost: integers only.

Pooling is left out: its reach is the whole read, and holding it fixed is another matter. Levels are
counted from full resolution down; every block looks one cell around, where a cell of level l is
2**l pixels wide.
"""

from __future__ import annotations

from collections.abc import Sequence

from demoe.errors import WeightsError


def check_levels(encoder: Sequence[int], decoder: Sequence[int]) -> None:
    """Raise WeightsError unless a network has as many levels on the way up as on the way down."""
    if len(encoder) != len(decoder) or not encoder:
        raise WeightsError(
            f"A network needs as many decoder levels as encoder levels, at least one, "
            f"not {len(encoder)} and {len(decoder)}."
        )


def encoder_reach(blocks: Sequence[int]) -> int:
    """Return how many pixels beyond its own cell a deepest feature depends on.

    ``blocks`` are those of each level on the way down; a 3 x 3 convolution comes before them.
    """
    return int(1 + sum(count * 2**level for level, count in enumerate(blocks)))


def decoder_reach(middle: int, blocks: Sequence[int], after: int = 0) -> int:
    """Return how many pixels beyond a core the deepest features are needed.

    For a core whose edges lie on multiples of the deepest cell, cells of all levels end where the
    core ends, so the steps just add up.

    Parameters
    ----------
    middle : int
        Blocks at the deepest level.
    blocks : sequence of int
        Blocks of each level on the way up; a 3 x 3 convolution follows them.
    after : int
        How far what follows the network looks.
    """
    beyond = after + 1
    for level, count in enumerate(blocks):
        # Features of this level are needed up to a whole cell of the next one.
        beyond += count * 2**level
        cell = 2 ** (level + 1)
        beyond = -(-beyond // cell) * cell
    return int(beyond + middle * 2 ** len(blocks))


def up_to_grid(pixels: int, multiple: int) -> int:
    """Return the smallest multiple that is at least as much."""
    return -(-pixels // multiple) * multiple


def macs_per_pixel(width: int, blocks: Sequence[int], middle: int) -> float:
    """Return multiply-adds of a U-Net for one pixel of the picture.

    Convolutions that run over the picture; what follows a pooling, additions, norms and gates are
    left out.

    Parameters
    ----------
    width : int
        Channels at full resolution; they double with every level.
    blocks : sequence of int
        Blocks of each level, on the way down and up together.
    middle : int
        Blocks at the deepest level.
    """
    macs = 2.0 * 3 * 9 * width  # the first and the last convolution
    for level, count in enumerate(blocks):
        channels = width * 2**level
        macs += count * _block(channels) / 4**level
        # To the next level 2 x 2 at stride 2, and back 1 x 1: both count where pixels are fewer.
        macs += (4 * channels * 2 * channels + 2 * channels * 4 * channels) / 4 ** (level + 1)
    return float(macs + middle * _block(width * 2 ** len(blocks)) / 4 ** len(blocks))


def _block(channels: int) -> int:
    """Return multiply-adds of a NAFBlock for one pixel of its level: 1 x 1 and 3 x 3 depthwise."""
    return 6 * channels**2 + 9 * 2 * channels
