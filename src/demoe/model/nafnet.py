"""NAFNet's block, which several architectures are made of (arXiv 2204.04676), and how it is run.

Every block weighs its channels by an attention that comes from pooling over the picture
(section 3.2 there), so a tile is not the picture that it is cut from. Once each attention is known
for a plane, a network of such blocks is a chain of convolutions, and tiles of any size equal the
whole.
"""

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


def run_chain(blocks: Iterable[nn.Module], x: Tensor, run: RunBlock = as_it_is) -> Tensor:
    """Run blocks one after another."""
    for block in blocks:
        x = run(block, x)  # type: ignore[arg-type]  # torch's lists hold any module
    return x


def pad_to(x: Tensor, multiple: int) -> Tensor:
    """Add zeros at the bottom and right of pictures, up to multiples of so many pixels."""
    return F.pad(x, (0, -x.shape[3] % multiple, 0, -x.shape[2] % multiple))


# -- pooling, found or held fixed -----------------------------------------------------------------

AttentionOf = Callable[[str, Tensor], Tensor]
"""Takes the name of a block and its input (N, C, H, W); returns the attention that it is to use,
(N or 1, C, 1, 1) or (N or 1, C, H, W)."""


def named_blocks(network: nn.Module) -> list[tuple[str, NAFBlock]]:
    """Return the blocks of a network with their names, in the order of its state dict."""
    return [(name, m) for name, m in network.named_modules() if isinstance(m, NAFBlock)]


def pooled_together(network: nn.Module) -> tuple[RunBlock, dict[str, Tensor]]:
    """Return how to run blocks that pool over all pictures of a batch together, as over one.

    And where the attention (1, C, 1, 1) of each block goes once it ran, by its name.
    """
    names = {block: name for name, block in named_blocks(network)}
    found: dict[str, Tensor] = {}

    def run(block: NAFBlock, x: Tensor) -> Tensor:
        gated = block.gated(x)
        own = block.attend(gated.mean(dim=(0, 2, 3), keepdim=True))
        found[names[block]] = own
        return block.finish(x, gated, own)

    return run, found


def held_at(network: nn.Module, attention: AttentionOf) -> RunBlock:
    """Return how to run blocks that pool nothing, their attention being given."""
    names = {block: name for name, block in named_blocks(network)}

    def run(block: NAFBlock, x: Tensor) -> Tensor:
        return block.finish(x, block.gated(x), attention(names[block], x))

    return run
