"""A MoCE-IR network as the rest of the project knows it; see `demoe.model.protocol`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from demoe.choices import Choice
from demoe.errors import WeightsError
from demoe.model.checkpoint import fill
from demoe.model.mixing import keep_top, spatial
from demoe.model.moceir.blocks import Attention, CrossAttention
from demoe.model.moceir.config import NetworkConfig, detect_config, experts_of
from demoe.model.moceir.flops import (
    expert_flops,
    flops_per_pixel,
    held_flops,
    shared_flops,
)
from demoe.model.moceir.matrices import Matrices
from demoe.model.moceir.network import MoCEIRNet
from demoe.model.moceir.receptive_field import exact_halo
from demoe.model.protocol import Arithmetic, Shapes, Statistics

ROUTED_AT_ONCE = 4
"""Windows that are decided on together; it changes no decision."""

BYTES = 115
"""Bytes a pixel and a channel of the first level that a tile was seen to take, of 512 pixels a side
without matrices that are held, or of 256 with them."""

BARE_BYTES = 150
"""The same for a whole picture, at most."""

SLIM = NetworkConfig(
    width=8,
    encoder_blocks=(1, 1, 1),
    latent_blocks=1,
    decoder_blocks=(1, 1, 1),
    refinement_blocks=0,
    heads=(1, 1, 1, 1),
    ranks=((1, 1),) * 3,
    patches=(4, 8),
    expansion=1.0,
)
"""A network that costs little more than its reads and writes."""


COMPACT = NetworkConfig(
    width=12,
    encoder_blocks=(1, 1),
    latent_blocks=2,
    decoder_blocks=(1, 1),
    refinement_blocks=0,
    heads=(1, 2, 4),
    ranks=((8, 12, 16, 20), (4, 6, 8, 10)),
)
"""A network that a CPU trains in an hour; its experts do not differ as much as published ones."""


class MoCEIR:
    """A MoCE-IR network on its device; attributes and methods are those of `Tenant`.

    Each of its layers decides by itself, so that gates are (layers * E). A mixture of experts is
    made at each place, of what each expert alone would make of it; with one expert at work this is
    what the bare network does.

    Parameters
    ----------
    network : MoCEIRNet
        In evaluation mode.
    """

    decides = True
    dense = False
    keeps_level = False

    def __init__(self, network: MoCEIRNet) -> None:
        config = network.config
        self.network = network
        self.choices: tuple[Choice, ...] = experts_of(config)
        self.layers = config.layers
        self.multiple = config.multiple
        self.halo = exact_halo(config)
        self.flops_per_pixel = flops_per_pixel(config, 0)
        self.bare_bytes = float(BARE_BYTES * config.width)
        self._names = _named_steps(network)

    @property
    def arithmetic(self) -> Arithmetic:
        """What the experts cost."""
        config = self.network.config
        return Arithmetic(
            complexity=tuple(map(tuple, self.network.complexity.tolist())),
            choices=tuple(map(tuple, expert_flops(config))),
            rest=shared_flops(config),
            held=held_flops(config),
        )

    def facts(self) -> dict[str, Any]:
        """Return the architecture as JSON-able values."""
        return self.network.config.to_dict()

    def design(self) -> str:
        """Describe the architecture in a sentence."""
        config = self.network.config
        down, up = ("-".join(map(str, n)) for n in (config.encoder_blocks, config.decoder_blocks))
        return (
            f"Width {config.width}; encoder blocks {down}, latent {config.latent_blocks}, decoder "
            f"{up}, refinement {config.refinement_blocks}; {config.experts} experts of growing "
            f"cost, {config.top_k} at work in each of {config.layers} layers."
        )

    def backend_name(self, coarse: bool) -> str:
        """Return what runs the network, in words."""
        return "torch"

    def bytes_per_pixel(self, coarse: bool) -> float:
        """Return the memory that a pixel of a read takes while it is restored."""
        return float(BYTES * self.network.config.width)

    @torch.inference_mode()
    def decide(self, samples: Tensor, *, coarse: bool = False) -> Tensor:
        """Return one decision (layers * E,) on samples that are pooled together."""
        return self._decide(samples, together=True)[0]

    @torch.inference_mode()
    def route(self, windows: Tensor, *, coarse: bool = False) -> Tensor:
        """Return the decisions (N, layers * E) on windows, each by itself."""
        parts = windows.split(ROUTED_AT_ONCE)
        return torch.cat([self._decide(part, together=False) for part in parts])

    @torch.inference_mode()
    def survey(
        self,
        samples: Tensor,
        weights: Tensor | None,
        *,
        top_k: int = 1,
        every: bool = False,
        coarse: bool = False,
    ) -> Statistics:
        """Find the matrices of all steps, in decoder blocks one for each expert; see `Tenant`."""
        if weights is None:
            decided = self._decide(samples, together=False)
            in_layers = decided.unflatten(1, (self.layers, -1)).flatten(0, 1)
            weights = keep_top(in_layers, top_k).unflatten(0, (-1, self.layers))
        matrices = Matrices(self._names, together=True, every=every)
        self._run(samples, self._gates(weights), matrices)
        return matrices.found

    @torch.inference_mode()
    def restore(
        self,
        x: Tensor,
        weights: Tensor,
        statistics: Statistics | None = None,
        *,
        recurring: bool = False,
        coarse: bool = False,
    ) -> Tensor:
        """Return the restored picture; see `Tenant`."""
        return self._run(x, self._gates(weights), Matrices(self._names, statistics))

    @torch.inference_mode()
    def restore_each(
        self, x: Tensor, statistics: Sequence[Statistics] | None = None
    ) -> tuple[Tensor, Sequence[Statistics]]:
        """Restore pictures by the cheapest and the costliest expert, each alone in all layers.

        They stand for all: what an expert changes is how channels are mixed everywhere, and with
        that held, all look equally far. See `Tenant`.
        """
        network, padded = self.network, self.network.pad(x)
        size = (padded.shape[2], padded.shape[3])
        encoding, last = self._matrices(statistics, 0), len(self.choices) - 1
        features, skips = network.encode(padded, encoding)
        restored: list[Tensor] = []
        used: list[Statistics] = []
        one_hot = torch.eye(last + 1, device=x.device)
        for number, expert in enumerate(sorted({0, last})):
            decoding = self._matrices(statistics, number)
            gates = self._gates(one_hot[expert].expand(len(x), -1))
            decoded, _ = network.decode(features, skips, gates, size, decoding)
            whole = network.finish(decoded, padded, decoding)
            restored.append(whole[:, :, : x.shape[2], : x.shape[3]])
            used.append({**encoding.found, **decoding.found})
        return torch.stack(restored), used if statistics is None else statistics

    def half_error(self) -> float:
        """Return 0: nothing is run in half precision, in which sums over a picture overflow."""
        return 0.0

    def _matrices(self, statistics: Sequence[Statistics] | None, number: int) -> Matrices:
        """Return where matrices come from, for one of several restorations."""
        held = None if statistics is None else statistics[number]
        return Matrices(self._names, held, together=True)

    def _gates(self, weights: Tensor) -> Tensor:
        """Return weights as gates for places, (N, layers, E, rows, cols).

        Parameters
        ----------
        weights : Tensor
            (N, layers * E), (N, layers, E), or (N, E) for the same in all layers; the first and
            the last may have (rows, cols) after that.
        """
        if weights.ndim == 3:
            return weights[..., None, None]
        weights = spatial(weights)
        if weights.shape[1] == len(self.choices) * self.layers:
            size = (len(weights), self.layers, len(self.choices), *weights.shape[2:])
            return weights.reshape(size)
        return self.network.in_layers(weights)

    def _decide(self, pictures: Tensor, together: bool) -> Tensor:
        """Return the probability of each expert in each layer, (N, layers * E)."""
        padded, matrices = self.network.pad(pictures), Matrices(together=together)
        size = (padded.shape[2], padded.shape[3])
        features, skips = self.network.encode(padded, matrices)
        return self.network.decode(features, skips, None, size, matrices)[1].flatten(1)

    def _run(self, x: Tensor, gates: Tensor, matrices: Matrices) -> Tensor:
        """Restore pictures with gates for places."""
        padded = self.network.pad(x)
        size = (padded.shape[2], padded.shape[3])
        features, skips = self.network.encode(padded, matrices)
        features, _ = self.network.decode(features, skips, gates, size, matrices)
        restored = self.network.finish(features, padded, matrices)
        return restored[:, :, : x.shape[2], : x.shape[3]]


def _named_steps(network: MoCEIRNet) -> dict[nn.Module, str]:
    """Return the steps that have matrices with their names, in the order of the state dict."""
    steps = (Attention, CrossAttention)
    return {module: name for name, module in network.named_modules() if isinstance(module, steps)}


# -- the room, see `demoe.model.protocol.Room` ----------------------------------------------------


def build(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], name: str) -> MoCEIRNet:
    """Build the network that a state dict belongs to, in evaluation mode.

    Raises
    ------
    WeightsError
        If keys are missing or unexpected or tensors have other shapes than the rest implies; the
        message lists them. If what the metadata say does not fit.
    """
    shapes: Shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    config = detect_config(shapes, metadata)
    words = f"a MoCE-IR network of width {config.width}"
    return fill(lambda: MoCEIRNet(config), tensors, name, words)


def settle(network: MoCEIRNet, device: torch.device, half_error: Callable[[], float]) -> MoCEIR:
    """Return a network on a device, run by PyTorch."""
    return MoCEIR(network)


def plain(network: MoCEIRNet) -> MoCEIR:
    """Return a copy of a network on the CPU, run by PyTorch's operations in float32."""
    return MoCEIR(copy.deepcopy(network).cpu().float().eval())


def fresh(width: int = COMPACT.width) -> MoCEIRNet:
    """Return an untrained network that leaves pictures alone."""
    network = MoCEIRNet(replace(COMPACT, width=width))
    nn.init.zeros_(network.output.weight)
    for layer in network.layers():
        counts = [sum(p.numel() for p in one.parameters()) for one in layer.adapter.experts]
        shares = torch.tensor(counts, dtype=torch.float32) / max(counts)
        layer.adapter.routing.complexity.copy_(shares)
    return network


def pupil(network: MoCEIRNet) -> MoCEIRNet:
    """Return a network to be trained further."""
    return network


def adopt(tensors: Mapping[str, Tensor], name: str) -> NoReturn:
    """Refuse: its blocks are its own."""
    raise WeightsError(f"{name} is no MoCE-IR network; one can begin as no other.")


def slim(network: MoCEIRNet) -> MoCEIRNet:
    """Return a random network with as many levels and experts that hardly computes anything."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MoCEIRNet(SLIM).eval()
