"""Building blocks: norms, attention over channels, feed-forward networks, changes of level.

They are those of Restormer (arXiv 2111.09881), on which MoCE-IR (arXiv 2411.18466) builds. All
take and return (N, C, H, W) if nothing else is said.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demoe.model.moceir.matrices import Matrices, compare, mean, mix

EPS = 1e-5
"""Added to variances, so that nothing is divided by nothing."""


class _Scale(nn.Module):
    """What a norm learns, under the name that published checkpoints use."""

    def __init__(self, channels: int, centred: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if centred else None


class LayerNorm(nn.Module):
    """Normalise each pixel over its channels; without ``centred``, its mean stays in it."""

    def __init__(self, channels: int, centred: bool = True) -> None:
        super().__init__()
        self.body = _Scale(channels, centred)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised features."""
        weight, bias = self.body.weight, self.body.bias
        if bias is None:
            # Several times as fast as torch's own variance along an axis that is not the last.
            variance = (x - x.mean(dim=1, keepdim=True)).square().mean(dim=1, keepdim=True)
            return x * torch.rsqrt(variance + EPS) * weight[:, None, None]
        y = F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias, EPS)
        return y.permute(0, 3, 1, 2)


def depthwise(channels: int, side: int, bias: bool) -> nn.Conv2d:
    """Return a convolution of each channel by itself."""
    return nn.Conv2d(channels, channels, side, padding=side // 2, groups=channels, bias=bias)


def pointwise(before: int, after: int, bias: bool = False) -> nn.Conv2d:
    """Return a convolution of each pixel by itself."""
    return nn.Conv2d(before, after, 1, bias=bias)


def last(wide: nn.Conv2d, deep: nn.Conv2d, count: int, x: Tensor) -> Tensor:
    """Return the last channels of ``deep(wide(x))``, without computing the others.

    ``wide`` convolves pixels, ``deep`` the channels that it makes, each by itself.
    """
    y = F.conv2d(x, wide.weight[-count:], None if wide.bias is None else wide.bias[-count:])
    bias = None if deep.bias is None else deep.bias[-count:]
    return F.conv2d(y, deep.weight[-count:], bias, padding=deep.padding, groups=count)


class Attention(nn.Module):
    """Attention over channels: which ones go together on the whole picture.

    With its matrix held, it looks one pixel around.
    """

    def __init__(self, channels: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = pointwise(channels, 3 * channels, bias)
        self.qkv_dwconv = depthwise(3 * channels, 3, bias)
        self.project_out = pointwise(channels, channels, bias)

    def forward(self, x: Tensor, matrices: Matrices) -> Tensor:
        """Mix channels by the attention of x to itself."""
        if matrices.are_held:
            matrix = matrices.of(self)
            values = last(self.qkv, self.qkv_dwconv, x.shape[1], x)
        else:
            queries, keys, values = self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
            project, together = self.project_out.weight, matrices.together
            found = compare(queries, keys, self.temperature, project, together)
            matrix = matrices.keep(self, found)
        return mix(values, matrix, self.project_out.bias)


class CrossAttention(nn.Module):
    """Attention over the channels of one picture by queries from another of the same size.

    With its matrices held, it looks three pixels around.
    """

    def __init__(self, channels: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.q = pointwise(channels, channels, bias)
        self.q_dwconv = depthwise(channels, 3, bias)
        self.kv = pointwise(channels, 2 * channels, bias)
        self.kv_dwconv = depthwise(2 * channels, 7, bias)
        self.project_out = pointwise(channels, channels, bias)

    def keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is compared with queries, and what is mixed."""
        keys, values = self.kv_dwconv(self.kv(x)).chunk(2, dim=1)
        return keys, values

    def values(self, x: Tensor) -> Tensor:
        """Return what is mixed alone."""
        return last(self.kv, self.kv_dwconv, x.shape[1], x)

    def matrix(self, asked: Tensor, keys: Tensor, together: bool) -> Tensor:
        """Return the matrix for queries from a picture; see `compare`."""
        queries = self.q_dwconv(self.q(asked))
        return compare(queries, keys, self.temperature, self.project_out.weight, together)

    def mix(self, values: Tensor, matrix: Tensor) -> Tensor:
        """Mix the channels of values."""
        return mix(values, matrix, self.project_out.bias)


class FeedForward(nn.Module):
    """Mix channels pixel by pixel, with a gate that looks one pixel around."""

    def __init__(self, channels: int, expansion: float, bias: bool) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.project_in = pointwise(channels, 2 * hidden, bias)
        self.dwconv = depthwise(2 * hidden, 3, bias)
        self.project_out = pointwise(hidden, channels, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is to be added to x."""
        gate, values = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        y: Tensor = self.project_out(F.gelu(gate) * values)
        return y


class EncoderBlock(nn.Module):
    """Attention, then a feed-forward network, each added to what came in."""

    def __init__(self, channels: int, heads: int, expansion: float, centred: bool) -> None:
        super().__init__()
        self.norms = nn.ModuleList(LayerNorm(channels, centred) for _ in range(2))
        self.mixer = Attention(channels, heads, bias=True)
        self.ffn = FeedForward(channels, expansion, bias=True)

    def forward(self, x: Tensor, matrices: Matrices) -> Tensor:
        """Return features of the same shape."""
        x = x + self.mixer(self.norms[0](x), matrices)
        y: Tensor = x + self.ffn(self.norms[1](x))
        return y


class Blocks(nn.Module):
    """Blocks one after another, under the name that published checkpoints use."""

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(blocks)

    def forward(self, x: Tensor, matrices: Matrices) -> Tensor:
        """Run blocks that need nothing but features."""
        for block in self.layers:
            x = block(x, matrices)
        return x


class Down(nn.Module):
    """To the next level: half the size, twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 2C, H / 2, W / 2)."""
        y: Tensor = self.body(x)
        return y


class Up(nn.Module):
    """To the level before: twice the size, half the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False), nn.PixelShuffle(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C / 2, 2H, 2W)."""
        y: Tensor = self.body(x)
        return y


class HighFrequencies(nn.Module):
    """What the deepest features say of fine structure, for the routers: (N, C, H, W) to (N, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.high_conv = nn.Sequential(_HighPass(channels), nn.GELU())
        self.mlp = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
        )

    def forward(self, x: Tensor, together: bool) -> Tensor:
        """Return (N, C); of parts of one picture the same for all."""
        y: Tensor = self.mlp(mean(self.high_conv(x), together))
        return y


class _HighPass(nn.Module):
    """A convolution of each channel by itself that begins as a Laplacian."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = depthwise(channels, 3, bias=False)
        kernel = torch.full((3, 3), -1.0)
        kernel[1, 1] = 8.0
        with torch.no_grad():
            self.conv.weight.copy_(kernel.expand_as(self.conv.weight))

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        y: Tensor = self.conv(x)
        return y
