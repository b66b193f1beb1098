"""Building blocks of the backbone: attention in windows, feed-forward networks, blocks, the tail.

Tokens are (N, rows, cols, C). Beyond the picture are zeros, for windows as for convolutions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def plain_norm(tokens: Tensor) -> Tensor:
    """Normalise each token over its numbers; nothing is learnt."""
    return F.layer_norm(tokens, tokens.shape[-1:])


class Deep(nn.Conv2d):
    """A convolution 3 x 3 of each number by itself, of tokens (N, rows, cols, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens of the same shape."""
        return self.of(tokens, tokens.shape[-1])

    def of(self, tokens: Tensor, count: int) -> Tensor:
        """Convolve the last ``count`` numbers, which are all that is given."""
        y = F.conv2d(tokens.permute(0, 3, 1, 2), self.weight[-count:], padding=1, groups=count)
        return y.permute(0, 2, 3, 1)


def in_windows(qkv: Tensor, window: int, heads: int, bias: Tensor | None, shifted: bool) -> Tensor:
    """Attend within windows whose origins lie on the picture's window grid.

    Parameters
    ----------
    qkv : Tensor
        (N, rows, cols, 3C): queries, keys and values; rows and cols are multiples of ``window``.
    window, heads : int
        Side of a window in tokens, and heads that share the C numbers.
    bias : Tensor, optional
        (heads, window², window²), added to what is compared.
    shifted : bool
        Whether windows begin half a window before the picture. What lies beyond is zeros.

    Returns
    -------
    Tensor
        (N, rows, cols, C).
    """
    count, rows, cols, channels = qkv.shape
    margin = window // 2 if shifted else 0
    if margin:
        qkv = F.pad(qkv, (0, 0, margin, margin, margin, margin))
    down, across = (rows + 2 * margin) // window, (cols + 2 * margin) // window
    # (N, down, y, across, x, 3, heads, C / heads) to 3 x (N, down, across, heads, tokens, ...).
    cut = qkv.reshape(count, down, window, across, window, 3, heads, -1)
    cut = cut.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(
        3, -1, heads, window**2, channels // 3 // heads
    )
    mask = None if bias is None else bias[None].to(cut.dtype)
    y = F.scaled_dot_product_attention(cut[0], cut[1], cut[2], attn_mask=mask)
    y = y.reshape(count, down, across, heads, window, window, -1).permute(0, 1, 4, 2, 5, 3, 6)
    y = y.reshape(count, down * window, across * window, channels // 3)
    return y[:, margin : margin + rows, margin : margin + cols]


def bias_of(table: Tensor) -> Tensor:
    """Return what relative positions add: (heads, 2 W - 1, 2 W - 1) to (heads, W², W²)."""
    window = (table.shape[1] + 1) // 2
    # Entry [a, i] of the unfolded table is the one of distance a - (W - 1 - i).
    apart = table.unfold(1, window, 1).unfold(2, window, 1).flip(3, 4)
    return apart.reshape(len(table), window**2, window**2)


class WindowAttention(nn.Module):
    """Attention within windows, which knows how far apart two tokens are.

    Parameters
    ----------
    width, inner : int
        Numbers a token, outside and within.
    window, heads : int
        Side of windows in tokens, and heads.
    shifted : bool
        Whether windows are shifted by half a window.
    """

    def __init__(self, width: int, inner: int, window: int, heads: int, shifted: bool) -> None:
        super().__init__()
        self.window, self.heads, self.shifted = window, heads, shifted
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)
        self.table = nn.Parameter(torch.zeros(heads, 2 * window - 1, 2 * window - 1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens of the same shape."""
        bias = bias_of(self.table)
        y: Tensor = self.out(
            in_windows(self.qkv(tokens), self.window, self.heads, bias, self.shifted)
        )
        return y


class FeedForward(nn.Module):
    """Mix the numbers of each token, and look one token around in between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.wide = nn.Linear(width, hidden, bias=False)
        self.deep = Deep(hidden)
        self.narrow = nn.Linear(hidden, width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens of the same shape."""
        y: Tensor = self.narrow(F.gelu(self.deep(self.wide(tokens))))
        return y


class Block(nn.Module):
    """A block of the stream that becomes the result: attention, what is injected, feed-forward.

    Time scales and shifts what attention and feed-forward network see, and weighs what they give
    (adaptive norms as in DiT, arXiv 2212.09748). What comes from the other stream passes a linear
    map that begins as zeros, so that a block without training does not hear of it.
    """

    def __init__(
        self, width: int, hidden: int, window: int, heads: int, time: int, shifted: bool
    ) -> None:
        super().__init__()
        self.adapt = nn.Linear(time, 6 * width)
        self.attention = WindowAttention(width, width, window, heads, shifted)
        self.inject = nn.Linear(width, width, bias=False)
        self.feed = FeedForward(width, hidden)
        with torch.no_grad():
            self.inject.weight.zero_()
            self.adapt.weight.zero_()  # time begins without a say
            scale_shift_weight = self.adapt.bias.view(2, 3, width)
            scale_shift_weight.zero_()[:, 2] = 1

    def forward(self, tokens: Tensor, condition: Tensor, time: Tensor) -> Tensor:
        """Return tokens of the same shape.

        Parameters
        ----------
        tokens, condition : Tensor
            (N, rows, cols, C): this stream and the other.
        time : Tensor
            (N, T) or (1, T).
        """
        scale, shift, weight, scale2, shift2, weight2 = self.adapt(F.silu(time))[
            :, None, None
        ].chunk(6, dim=-1)
        y = self.attention(plain_norm(tokens) * (1 + scale) + shift)
        tokens = tokens + weight * y + self.inject(condition)
        y = self.feed(plain_norm(tokens) * (1 + scale2) + shift2)
        tokens = tokens + weight2 * y
        return tokens


class Tail(nn.Module):
    """From tokens back to pixels, with what is finer than a token seen once more.

    The last convolution begins as zeros, so that a network without training changes nothing.
    """

    def __init__(self, width: int, patch: int, channels: int) -> None:
        super().__init__()
        self.spread = nn.Linear(width, channels * patch**2)
        self.fine = nn.Conv2d(3, channels, 3, padding=1)
        self.mix = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.narrow = nn.Conv2d(channels, 3, 3, padding=1)
        self.patch = patch
        for parameter in self.narrow.parameters():
            torch.nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor, x: Tensor) -> Tensor:
        """Return (N, 3, H, W) from tokens (N, H / P, W / P, C) and pictures of that size."""
        coarse = self.spread(plain_norm(tokens)).permute(0, 3, 1, 2)
        features = torch.cat([F.pixel_shuffle(coarse, self.patch), self.fine(x)], dim=1)
        y: Tensor = self.narrow(F.gelu(self.mix(F.gelu(features))))
        return y
