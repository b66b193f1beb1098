"""Building blocks: the NAFNet block and the mixture of experts (arXiv 2204.04676, 2508.06228)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LayerNorm2d(nn.Module):
    """Normalise each pixel over its channels: (N, C, H, W) to the same shape."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised features, in the memory layout of channels last."""
        y = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return y.permute(0, 3, 1, 2)


def simple_gate(x: Tensor) -> Tensor:
    """Multiply the first half of the channels with the second: (N, 2C, H, W) to (N, C, H, W)."""
    a, b = x.chunk(2, dim=1)
    return a * b


class NAFBlock(nn.Module):
    """Block of NAFNet, free of activations: (N, C, H, W) to the same shape (arXiv 2204.04676).

    Its channel attention is the one step that looks at the whole picture: everything is pooled.
    Given from outside, it leaves a block that looks one pixel around.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        # Index 1 holds the convolution in published checkpoints; index 0 pools.
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))
        self.conv4 = nn.Conv2d(channels, wide, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.norm1 = LayerNorm2d(channels)
        self.norm2 = LayerNorm2d(channels)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def attend(self, pooled: Tensor) -> Tensor:
        """Return the channel attention (N, C, 1, 1) for pooled features (N, C, 1, 1)."""
        attention: Tensor = self.sca[1](pooled)
        return attention

    def gated(self, x: Tensor) -> Tensor:
        """Return the features (N, C, H, W) that are pooled and then weighed by the attention."""
        return simple_gate(self.conv2(self.conv1(self.norm1(x))))

    def finish(self, x: Tensor, gated: Tensor, attention: Tensor) -> Tensor:
        """Return the block's output, from its input, ``gated(input)`` and the attention."""
        x = x + self.conv3(gated * attention) * self.beta
        y: Tensor = self.conv5(simple_gate(self.conv4(self.norm2(x))))
        return x + y * self.gamma

    def forward(self, x: Tensor) -> Tensor:
        """Mix space and channels, then channels alone, each added to what came in."""
        gated = self.gated(x)
        return self.finish(x, gated, self.sca(gated))


RunBlock = Callable[[NAFBlock, Tensor], Tensor]
"""How a block is run: as it is, or with its channel attention held fixed."""


def as_it_is(block: NAFBlock, x: Tensor) -> Tensor:
    """Run a block with its own pooling."""
    y: Tensor = block(x)
    return y


class BlockChain(nn.Module):
    """Blocks one after another, under the name that published checkpoints use."""

    def __init__(self, blocks: Iterable[NAFBlock]) -> None:
        super().__init__()
        self.modules_list = nn.ModuleList(blocks)

    def forward(self, x: Tensor, run: RunBlock = as_it_is) -> Tensor:
        """Run the blocks in order."""
        for block in self.modules_list:
            x = run(block, x)  # type: ignore[arg-type]  # torch's lists hold any module
        return x


class ExpertMixture(nn.Module):
    """Weighted sum of experts; an expert without weight anywhere is not run."""

    def __init__(self, channels: int, experts: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(NAFBlock(channels) for _ in range(experts))

    def forward(self, x: Tensor, weights: Tensor, run: RunBlock = as_it_is) -> Tensor:
        """Mix the experts' outputs.

        Parameters
        ----------
        x : Tensor
            Features (N, C, H, W).
        weights : Tensor
            (N, E, 1, 1) or (N, E, H, W), >= 0, summing to 1 over E.
        run : callable
            How experts are run.
        """
        out = torch.zeros_like(x)
        used = weights.detach().flatten(2).amax(dim=2) > 0
        expert: NAFBlock
        for index, expert in enumerate(self.experts):  # type: ignore[assignment]  # as above
            rows = used[:, index]
            if rows.all():
                out = out + run(expert, x) * weights[:, index : index + 1].to(x.dtype)
            elif rows.any():
                chosen = rows.nonzero()[:, 0]
                part = run(expert, x[chosen]) * weights[chosen, index : index + 1].to(x.dtype)
                out = out.index_add(0, chosen, part.to(out.dtype))
        return out
