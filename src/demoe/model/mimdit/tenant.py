"""A MiM-DiT-like network as the rest of the project knows it; see `demoe.model.protocol`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from demoe.choices import Choice
from demoe.errors import WeightsError
from demoe.model.checkpoint import fill
from demoe.model.mimdit.config import NetworkConfig, detect_config, groups_of, without_mixture
from demoe.model.mimdit.flops import flops_per_pixel
from demoe.model.mimdit.groups import ChannelExpert, Group, SqueezeExpert
from demoe.model.mimdit.network import MiMDiTNet
from demoe.model.mimdit.pooled import Pooled
from demoe.model.mimdit.receptive_field import exact_halo
from demoe.model.mixing import spatial
from demoe.model.protocol import Arithmetic, Shapes, Statistics

ROUTED_AT_ONCE = 4
"""Windows that are decided on together; it changes no decision."""

BYTES = 12
"""Bytes a pixel and a number of a token that a tile was seen to take, of 512 pixels a side, with
what is pooled held or not."""

BARE_BYTES = 12
"""The same for a whole picture, at most."""

WIDTH = 96
"""Numbers a token of a network that is trained here."""

_HEAD = 24
"""Numbers of a token that one head attends to."""

SLIM = NetworkConfig(
    width=8, blocks=2, heads=1, group_heads=1, experts=2, rank=4, hidden=8, time=4, tail=2
)
"""A network that costs little more than its reads and writes."""

_DECIDED = "gates"
"""Name of the statistics that are gates."""


class MiMDiT:
    """A MiM-DiT-like network on its device; attributes and methods are those of `Tenant`.

    Gates weigh four kinds of processing, all of which work: kinds of damage they are not.

    Parameters
    ----------
    network : MiMDiTNet
        In evaluation mode.
    """

    decides = True
    keeps_level = False
    dense = True
    arithmetic: Arithmetic | None = None

    def __init__(self, network: MiMDiTNet) -> None:
        config = network.config
        self.network = network
        self.choices: tuple[Choice, ...] = groups_of(config)
        self.layers = config.layers
        self.multiple = config.multiple
        self.halo = exact_halo(config)
        self.flops_per_pixel = flops_per_pixel(config)
        self.bare_bytes = float(BARE_BYTES * config.width)
        self._names = _named_parts(network)

    def facts(self) -> dict[str, Any]:
        """Return the architecture as JSON-able values."""
        return self.network.config.to_dict()

    def design(self) -> str:
        """Describe the architecture in a sentence."""
        config = self.network.config
        mixture = (
            f"one branch of {config.dense} numbers in place of the mixture"
            if config.dense
            else f"{config.groups} groups of {config.experts} sub-experts of rank {config.rank}, "
            f"{config.top_k} at work in each"
        )
        steps = "one step" if config.steps == 1 else f"{config.steps} steps"
        return (
            f"Tokens of {config.patch} x {config.patch} pixels and {config.width} numbers; "
            f"{config.blocks} blocks, windows of {config.window} tokens a side; {mixture}; {steps}."
        )

    def backend_name(self, coarse: bool) -> str:
        """Return what runs the network, in words."""
        return "torch"

    def bytes_per_pixel(self, coarse: bool) -> float:
        """Return the memory that a pixel of a read takes while it is restored."""
        return float(BYTES * self.network.config.width)

    @torch.inference_mode()
    def decide(self, samples: Tensor, *, coarse: bool = False) -> Tensor:
        """Return one decision (layers * G,) on samples that are pooled together."""
        return self.network.decisions(samples, together=True).inter[0].flatten()

    @torch.inference_mode()
    def route(self, windows: Tensor, *, coarse: bool = False) -> Tensor:
        """Return the decisions (N, layers * G) on windows, each by itself."""
        parts = windows.split(ROUTED_AT_ONCE)
        return torch.cat([self.network.decisions(part).inter.flatten(1) for part in parts])

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
        """Find which sub-experts work, matrices and factors, for all steps; see `Tenant`."""
        if weights is None:
            weights = self.route(samples)
        pooled = Pooled(self._names, together=True, every=every)
        self._run(samples, self._gates(weights), pooled)
        return pooled.found

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
        return self._run(x, self._gates(weights), Pooled(self._names, statistics))

    @torch.inference_mode()
    def restore_each(
        self, x: Tensor, statistics: Sequence[Statistics] | None = None
    ) -> tuple[Tensor, Sequence[Statistics]]:
        """Restore pictures by what the network decides, and by each group alone; see `Tenant`."""
        restored, used = [], []
        one_hot = torch.eye(len(self.choices), device=x.device)
        for number in range(len(one_hot) + 1 if len(one_hot) > 1 else 1):
            if statistics is not None:
                held = statistics[number]
                pooled, weights = Pooled(self._names, held, together=True), held[_DECIDED]
            else:
                pooled = Pooled(self._names, together=True)
                weights = one_hot[number - 1] if number else self.decide(x)
            restored.append(self._run(x, self._gates(weights.expand(len(x), -1)), pooled))
            used.append({**pooled.found, _DECIDED: weights})
        return torch.stack(restored), used if statistics is None else statistics

    def sub_gates(self, statistics: Statistics) -> Tensor:
        """Return the probabilities of the sub-experts at work, (layers, G, K); see `Nested`."""
        config = self.network.config
        if config.dense:
            return torch.zeros(config.layers, 1, 0)
        groups = [name for part, name in self._names.items() if isinstance(part, Group)]
        nothing = torch.zeros(1, config.experts)
        found = [
            statistics.get(f"{step}.{name}", nothing)[0].cpu()
            for step in range(config.steps)
            for name in groups
        ]
        return torch.stack(found).reshape(config.layers, config.groups, config.experts)

    def half_error(self) -> float:
        """Return 0: nothing is run in half precision."""
        return 0.0

    def _gates(self, weights: Tensor) -> Tensor:
        """Return weights as gates for places, (N, layers, G, rows, cols).

        Parameters
        ----------
        weights : Tensor
            (N, layers * G), or (N, G) for the same in all layers, both perhaps with (rows, cols)
            after that.
        """
        weights = spatial(weights)
        if weights.shape[1] == len(self.choices) * self.layers:
            size = (len(weights), self.layers, len(self.choices), *weights.shape[2:])
            return weights.reshape(size)
        return self.network.in_layers(weights)

    def _run(self, x: Tensor, gates: Tensor, pooled: Pooled) -> Tensor:
        """Restore pictures with gates for places."""
        padded = self.network.pad(x)
        extent = (padded.shape[2], padded.shape[3])
        restored, _ = self.network.restore(padded, gates, pooled, extent)
        return restored[:, :, : x.shape[2], : x.shape[3]]


def _named_parts(network: MiMDiTNet) -> dict[nn.Module, str]:
    """Return the parts that pool with their names, in the order of the state dict."""
    parts = (ChannelExpert, Group, SqueezeExpert)
    return {module: name for name, module in network.named_modules() if isinstance(module, parts)}


# -- the room, see `demoe.model.protocol.Room` ----------------------------------------------------


def build(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], name: str) -> MiMDiTNet:
    """Build the network that a state dict belongs to, in evaluation mode.

    Raises
    ------
    WeightsError
        If keys are missing or unexpected or tensors have other shapes than the rest implies; the
        message lists them. If what the metadata say does not fit.
    """
    shapes: Shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    config = detect_config(shapes, metadata)
    words = f"a MiM-DiT-like network of width {config.width}"
    return fill(lambda: MiMDiTNet(config), tensors, name, words)


def settle(network: MiMDiTNet, device: torch.device, half_error: Callable[[], float]) -> MiMDiT:
    """Return a network on a device, run by PyTorch."""
    return MiMDiT(network)


def plain(network: MiMDiTNet) -> MiMDiT:
    """Return a copy of a network on the CPU, run by PyTorch's operations in float32."""
    return MiMDiT(copy.deepcopy(network).cpu().float().eval())


def fresh(width: int = WIDTH, *, dense: bool = False) -> MiMDiTNet:
    """Return an untrained network that begins as the identity.

    Parameters
    ----------
    width : int
        Numbers a token, a multiple of 48. With 96, 1.8 million parameters.
    dense : bool
        Whether one branch with as many parameters stands in place of the mixture, to compare it
        with.

    Raises
    ------
    WeightsError
        If the heads cannot share so many numbers.
    """
    if width < 1 or width % (2 * _HEAD):
        raise WeightsError(f"The width must be a multiple of {2 * _HEAD}, not {width}.")
    config = NetworkConfig(
        width=width,
        heads=width // _HEAD,
        group_heads=width // (2 * _HEAD),
        rank=width // 2,
        hidden=2 * width,
        time=width // 2,
    )
    return MiMDiTNet(without_mixture(config) if dense else config)


def pupil(network: MiMDiTNet) -> MiMDiTNet:
    """Return a network to be trained further."""
    begun = MiMDiTNet(network.config)
    begun.load_state_dict(network.state_dict())
    return begun


def adopt(tensors: Mapping[str, Tensor], name: str) -> NoReturn:
    """Refuse: its blocks are its own."""
    raise WeightsError(f"{name} is no MiM-DiT-like network; one can begin as no other.")


def slim(network: MiMDiTNet) -> MiMDiTNet:
    """Return a random network with as many groups that hardly computes anything."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MiMDiTNet(SLIM).eval()
