"""The DeMoE network: a NAFNet-style U-Net whose decoder mixes experts (arXiv 2508.06228)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from demoe.model.demoe.blocks import BlockChain, ExpertMixture
from demoe.model.demoe.config import NetworkConfig, default_choices
from demoe.model.demoe.router import Router
from demoe.model.level import keep_level
from demoe.model.mixing import keep_top, spatial, spread_gates
from demoe.model.nafnet import NAFBlock, RunBlock, as_it_is, pad_to

if TYPE_CHECKING:
    from demoe.model.protocol import Choose


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

    Attributes
    ----------
    choices : tuple of Choice
        What each expert is for; a file may say otherwise.
    """

    def __init__(self, config: NetworkConfig, top_k: int = 1) -> None:
        super().__init__()
        self.config = config
        self.top_k = top_k
        self.choices = default_choices(config.experts)
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
        return pad_to(x, self.config.multiple)

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
        mixing = spatial(keep_top(gates.to(x.dtype), self.top_k))
        restored = self.decode(features, skips, mixing, size) + padded
        return self.finish(restored[:, :, : size[0], : size[1]], x), gates

    # -- what a training asks for, see `demoe.model.protocol.Pupil` -----------------------------

    @property
    def choice_count(self) -> int:
        """Number of experts."""
        return self.config.experts

    @property
    def multiple(self) -> int:
        """Side in pixels of the grid that picture sides are padded to."""
        return self.config.multiple

    @property
    def router(self) -> Router:
        """What decides, under the name that published checkpoints use elsewhere."""
        return self.mlp_branch

    def learn(self, x: Tensor, choose: Choose) -> tuple[Tensor, Tensor]:
        """Restore pictures (N, 3, H, W) with the weights chosen for their scores; return both."""
        features, skips = self.encode(self.pad(x))
        scores = self.router.logits(features).float()
        height, width = x.shape[2], x.shape[3]
        weights = choose(scores).to(features.dtype)
        restored = self.decode(features, skips, weights, (height, width)).float()
        return self.finish(restored[:, :, :height, :width] + x, x), scores

    def deepest(self, x: Tensor) -> Tensor:
        """Return the features that the router decides on, for pictures (N, 3, H, W)."""
        return self.encode(self.pad(x))[0]

    def temper(self, temperature: float) -> None:
        """Divide the router's scores by a temperature, for good."""
        with torch.no_grad():
            for parameter in self.router.classifier[-1].parameters():
                parameter.div_(temperature)
