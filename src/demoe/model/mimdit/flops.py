"""How much arithmetic a network does, counted from its architecture.

Convolutions and products of matrices that run over the picture, two operations a multiply-add.
Norms, gates and what follows a global pooling are left out, as is what shifted windows hold beyond
the picture.
"""

from __future__ import annotations

from demoe.model.mimdit.config import GROUPS, NetworkConfig


def flops_per_pixel(config: NetworkConfig, *, held: bool = False) -> float:
    """Return floating point operations for one pixel of a picture, all steps together.

    Parameters
    ----------
    config : NetworkConfig
        The architecture.
    held : bool
        Whether what is pooled is held, so that no matrix has to be found.
    """
    c, tokens = config.width, config.patch**2
    backbone = _attention(c, c, config.window) + c * c + 2 * c * config.hidden + 9 * config.hidden
    if config.dense:
        mixture: float = 2 * c * config.dense + 9 * config.dense
    else:
        mixture = config.top_k * sum(group_macs(config, held=held).values())
    stems = 2 * 9 * 3 * tokens * c
    tail = c * config.tail + 9 * 3 * config.tail + 9 * 2 * config.tail**2 + 9 * 3 * config.tail
    return config.steps * 2 * ((config.blocks * (backbone + mixture) + stems) / tokens + tail)


def group_macs(config: NetworkConfig, *, held: bool) -> dict[str, float]:
    """Return multiply-adds a token of one sub-expert of each group."""
    c, r = config.width, config.rank
    back = r * c
    asked = 1 if held else 3  # values alone, or queries and keys, too
    channel = asked * (c * r + 9 * r) + back + (0 if held else r * r // config.group_heads)
    costs = (
        _attention(c, r, config.window),
        channel,
        _attention(c, r, config.window),
        c * r + 9 * r + back,
    )
    return dict(zip(GROUPS, costs, strict=True))


def _attention(outside: int, within: int, window: int) -> float:
    """Count queries, keys and values, what compares and what mixes in windows, and back."""
    return 4 * outside * within + 2 * window**2 * within
