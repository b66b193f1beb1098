"""How far a network looks once what is pooled is held, computed from its architecture."""

from __future__ import annotations

from demoe.model.mimdit.config import NetworkConfig

_TAIL = 2
"""Pixels that the last two convolutions look around."""


def reach(config: NetworkConfig) -> int:
    """Return how many pixels beyond a core the restored core depends on.

    For a core whose edges lie on multiples of ``config.multiple``. From the end to the beginning:
    what is needed of one part, in tokens beyond the core, says what is needed of the part before.
    A convolution adds a token; windows add what they hold of the window that the edge lies in.
    Several steps add up, since each begins with what the one before has made.
    """
    on_its_way, came_in = 0, 0  # pixels that are needed of both pictures
    for _ in range(config.steps):
        tokens = -(-(on_its_way + _TAIL) // config.patch)
        told = 0  # of what is injected
        for block in reversed(range(config.blocks)):
            shifted = config.is_shifted(block)
            tokens += 1  # the feed-forward network
            told = _mixed(config, max(told, tokens), shifted)
            tokens = _whole_windows(tokens, config.window, shifted)
        fine = on_its_way + _TAIL + 1
        on_its_way = max(fine, config.patch * (tokens + 1))
        came_in = max(came_in, config.patch * (told + 1))
    return max(on_its_way, came_in)


def exact_halo(config: NetworkConfig) -> int:
    """Return the smallest halo, a multiple of ``config.multiple``, that covers the reach."""
    return -(-reach(config) // config.multiple) * config.multiple


def _whole_windows(tokens: int, window: int, shifted: bool) -> int:
    """Return where the windows end that hold so many tokens beyond an edge of the window grid."""
    start = window // 2 if shifted else 0
    return start + -(-(tokens - start) // window) * window


def _mixed(config: NetworkConfig, tokens: int, shifted: bool) -> int:
    """Return what a mixture needs: its groups work side by side."""
    if config.dense:
        return tokens + 1
    return max(
        tokens + 1,  # convolutions of two groups
        _whole_windows(tokens, config.window, False),
        _whole_windows(tokens, config.window, shifted),
    )
