"""The DeMoE network: a NAFNet-style U-Net whose decoder mixes experts (arXiv 2508.06228)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demoe.model.demoe.blocks import BlockChain, ExpertMixture, NAFBlock, RunBlock, as_it_is
from demoe.model.demoe.config import NetworkConfig
from demoe.model.demoe.router import Router
from demoe.model.level import keep_level


def keep_top(gates: Tensor, k: int) -> Tensor:
    """Keep the k largest of the gates along axis 1 and scale them to sum 1.

    Parameters
    ----------
    gates : Tensor
        (N, E) or (N, E, h, w), >= 0.
    k : int
        From 1 to E.
    """
    values, indices = gates.topk(k, dim=1)
    kept = torch.zeros_like(gates).scatter(1, indices, values)
    return kept / kept.sum(dim=1, keepdim=True).clamp_min(1e-12)


def spread_gates(gates: Tensor, size: tuple[int, int], extent: tuple[float, float]) -> Tensor:
    """Interpolate gates over the pixels of a feature map.

    Parameters
    ----------
    gates : Tensor
        (N, E, h, w); its cells divide the picture evenly.
    size : (int, int)
        Height and width of the feature map, which begins where the picture begins.
    extent : (float, float)
        Height and width of the picture in pixels of the feature map; what lies beyond
        (padding) takes the nearest cell.
    """
    if gates.shape[2:] == (1, 1):
        return gates
    y, x = (
        (torch.arange(n, device=gates.device, dtype=gates.dtype) + 0.5) * (2 / e) - 1
        for n, e in zip(size, extent, strict=True)
    )
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
    grid = grid.expand(len(gates), *grid.shape)
    return F.grid_sample(gates, grid, padding_mode="border", align_corners=False)


def _in_full(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Run a layer that meets a picture's own values: not in half precision, also with autocast."""
    with torch.autocast(x.device.type, enabled=False):
        y: Tensor = layer(x.to(layer.weight.dtype))
        return y


class DeMoENet(nn.Module):
    """One network for five kinds of blur.

    Attribute names follow the keys of published checkpoints, so that state dicts load as they are.

    Parameters
    ----------
    config : NetworkConfig
        Architecture.
    top_k : int
        Experts mixed at each place; the published network uses 1.
    """

    def __init__(self, config: NetworkConfig, top_k: int = 1) -> None:
        super().__init__()
        self.config = config
        self.top_k = top_k
        width = config.width
        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.encoders = nn.ModuleList()
        self.downs = nn.ModuleList()
        for count in config.encoder_blocks:
            self.encoders.append(BlockChain(NAFBlock(width) for _ in range(count)))
            self.downs.append(nn.Conv2d(width, 2 * width, 2, stride=2))
            width *= 2
        self.mlp_branch = Router(width, config.experts, config.router_width, config.router_hidden)
        self.middle_blks = BlockChain(NAFBlock(width) for _ in range(config.middle_blocks))
        self.experts = nn.ModuleList([ExpertMixture(width, config.experts)])
        self.ups = nn.ModuleList()
        self.decoders = nn.ModuleList()
        for count in config.decoder_blocks:
            self.ups.append(
                nn.Sequential(nn.Conv2d(width, 2 * width, 1, bias=False), nn.PixelShuffle(2))
            )
            width //= 2
            self.decoders.append(BlockChain(NAFBlock(width) for _ in range(count)))
            self.experts.append(ExpertMixture(width, config.experts))
        self.ending = nn.Conv2d(width, 3, 3, padding=1)
        if config.keeps_level:
            # In the state dict, so that a file says by itself what its network does.
            self.register_buffer("keeps_level", torch.ones(1))

    def pad(self, x: Tensor) -> Tensor:
        """Add zeros at the bottom and right, up to multiples of ``config.multiple``."""
        m = self.config.multiple
        return F.pad(x, (0, -x.shape[3] % m, 0, -x.shape[2] % m))

    def encode(self, x: Tensor, run: RunBlock = as_it_is) -> tuple[Tensor, list[Tensor]]:
        """Return the deepest features and the skips, for a padded picture (N, 3, H, W)."""
        features = _in_full(self.intro, x)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            features = encoder(features, run)
            skips.append(features)
            features = down(features)
        return features, skips

    def decode(
        self,
        features: Tensor,
        skips: list[Tensor],
        gates: Tensor,
        size: tuple[int, int],
        run: RunBlock = as_it_is,
    ) -> Tensor:
        """Return the correction to the padded picture.

        Parameters
        ----------
        features, skips : Tensor, list of Tensor
            What ``encode`` returned.
        gates : Tensor
            (N, E, h, w) mixing weights over a picture of ``size`` pixels, used as they are.
        size : (int, int)
            Height and width before padding.
        run : callable
            How blocks are run.
        """
        stride = self.config.multiple

        def mix(mixture: nn.Module, y: Tensor) -> Tensor:
            extent = (size[0] / stride, size[1] / stride)
            mixed: Tensor = mixture(y, spread_gates(gates, (y.shape[2], y.shape[3]), extent), run)
            return mixed

        features = mix(self.experts[0], self.middle_blks(features, run))
        for up, decoder, mixture, skip in zip(
            self.ups, self.decoders, list(self.experts)[1:], reversed(skips), strict=True
        ):
            stride //= 2
            features = mix(mixture, decoder(up(features) + skip, run))
        return _in_full(self.ending, features)

    def finish(self, restored: Tensor, x: Tensor) -> Tensor:
        """Return a restored picture with the level of its source, if the network keeps levels."""
        config = self.config
        return keep_level(restored, x, config.multiple) if config.keeps_level else restored

    def forward(self, x: Tensor, gates: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Restore a batch of pictures.

        Parameters
        ----------
        x : Tensor
            (N, 3, H, W), floats in [0, 1].
        gates : Tensor, optional
            Expert weights, >= 0 and summing to 1: (N, E), or (N, E, h, w) whose cells divide the
            picture evenly and are interpolated in between. By default the router decides.
            The ``top_k`` largest of each are used, scaled to sum 1.

        Returns
        -------
        restored : Tensor
            (N, 3, H, W); may leave [0, 1] a little.
        gates : Tensor
            The router's probabilities (N, E), or the gates that were given.
        """
        size = (x.shape[2], x.shape[3])
        padded = self.pad(x)
        features, skips = self.encode(padded)
        if gates is None:
            gates = self.mlp_branch(features)
        mixing = keep_top(gates.to(x.dtype), self.top_k)
        if mixing.ndim == 2:
            mixing = mixing[:, :, None, None]
        restored = self.decode(features, skips, mixing, size) + padded
        return self.finish(restored[:, :, : size[0], : size[1]], x), gates
