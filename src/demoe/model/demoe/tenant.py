"""A DeMoE network as the rest of the project knows it; see `demoe.model.protocol`."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor

from demoe.choices import Choice
from demoe.errors import WeightsError
from demoe.model.backends.base import Backend
from demoe.model.backends.choosing import choose_coarse, choose_exact
from demoe.model.backends.half import InHalf, half_error
from demoe.model.checkpoint import fill
from demoe.model.demoe.config import NetworkConfig, choices_of, detect_config
from demoe.model.demoe.eager import EagerBackend
from demoe.model.demoe.flops import flops_per_pixel
from demoe.model.demoe.network import DeMoENet
from demoe.model.demoe.receptive_field import exact_halo
from demoe.model.mixing import keep_top, spatial
from demoe.model.protocol import Shapes, Statistics

ROUTED_AT_ONCE = 4
"""Windows that are decided on together; it changes no decision."""

BYTES = {
    "torch": 64,
    "torch, bfloat16": 56,
    "torch, float16": 64,
    "openvino": 34,
    "openvino, bfloat16": 26,
}
"""Bytes a pixel and a channel of the first level that a tile was seen to take (`demoe bench`)."""

BARE_BYTES = 76
"""The same for the bare module on a whole picture."""

SLIM_WIDTH = 2
"""Channels of a network that costs little more than its reads and writes."""


class DeMoE:
    """A DeMoE network on its device; attributes and methods are those of `Tenant`.

    Parameters
    ----------
    network : DeMoENet
        In evaluation mode.
    backends : callable
        Returns what runs it, given whether results are rounded to 8 bits.
    """

    decides = True
    dense = False
    layers = 1
    arithmetic = None

    def __init__(self, network: DeMoENet, backends: Callable[[bool], Backend]) -> None:
        self.network = network
        self.choices: tuple[Choice, ...] = network.choices
        self.multiple = network.multiple
        self.halo = exact_halo(network.config)
        self.keeps_level = network.config.keeps_level
        self.flops_per_pixel = flops_per_pixel(network.config)
        self.bare_bytes = float(BARE_BYTES * network.config.width)
        self._backend = backends

    def facts(self) -> dict[str, Any]:
        """Return the architecture as JSON-able values."""
        return self.network.config.to_dict()

    def design(self) -> str:
        """Describe the architecture in a sentence."""
        config = self.network.config
        down, up = ("-".join(map(str, n)) for n in (config.encoder_blocks, config.decoder_blocks))
        return (
            f"Width {config.width}; encoder blocks {down}, middle {config.middle_blocks}, decoder "
            f"{up}; {config.experts} experts, one used at each place."
        )

    def backend_name(self, coarse: bool) -> str:
        """Return what runs the network, in words."""
        return self._backend(coarse).name

    def bytes_per_pixel(self, coarse: bool) -> float:
        """Return the memory that a pixel of a read takes while it is restored."""
        return float(BYTES[self.backend_name(coarse)] * self.network.config.width)

    @torch.inference_mode()
    def decide(self, samples: Tensor, *, coarse: bool = False) -> Tensor:
        """Return the router's one decision (E,) on samples that are pooled together."""
        padded = self.network.pad(samples)
        features = self._backend(coarse).features(padded, together=True, recurring=True)
        return self.network.router.together(features)

    @torch.inference_mode()
    def route(self, windows: Tensor, *, coarse: bool = False) -> Tensor:
        """Return the router's decisions (N, E) on windows, each by itself."""
        backend, padded, found = self._backend(coarse), self.network.pad(windows), []
        for part in padded.split(ROUTED_AT_ONCE):
            # Always as many, since the backend prepares for one size.
            missing = (ROUTED_AT_ONCE - len(part)) * (len(padded) > len(part))
            filled = torch.cat([part, part.new_zeros(missing, *part.shape[1:])])
            recurring = len(padded) >= ROUTED_AT_ONCE
            features = backend.features(filled, together=False, recurring=recurring)
            found.append(features[: len(part)])
        decisions: Tensor = self.network.router(torch.cat(found))
        return decisions

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
        """Find the channel attention of all blocks; see `Tenant`."""
        padded, backend = self.network.pad(samples), self._backend(coarse)
        if weights is None:
            features = backend.features(padded, together=True, recurring=True)
            weights = keep_top(self.network.router(features), top_k)
        weights = spatial(weights)
        wanted = (weights.amax(dim=(0, 2, 3), keepdim=True) > 0) | every
        # So little of an expert is rounded away beside the others, but makes it run in each sample.
        weights = torch.where(wanted, weights.clamp_min(1e-30), weights)
        return backend.survey(padded, weights)

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
        backend, padded = self._backend(coarse), self.network.pad(x)
        restored = backend.restore(padded, spatial(weights), statistics, recurring)[0]
        return self.network.finish(restored[:, :, : x.shape[2], : x.shape[3]], x)

    @torch.inference_mode()
    def restore_each(
        self, x: Tensor, statistics: Sequence[Statistics] | None = None
    ) -> tuple[Tensor, Sequence[Statistics]]:
        """Restore pictures by each expert alone; see `Tenant`."""
        found, used = EagerBackend(self.network).restore_each(self.network.pad(x), statistics)
        restored = [self.network.finish(one[:, :, : x.shape[2], : x.shape[3]], x) for one in found]
        return torch.stack(restored), used

    def half_error(self) -> float:
        """Measure what half precision changes on a CPU, in 8-bit steps."""
        exact = EagerBackend(self.network)
        half = InHalf(exact, torch.bfloat16)
        return half_error(exact, half, len(self.choices), torch.device("cpu"))


# -- the room, see `demoe.model.protocol.Room` ----------------------------------------------------


def build(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], name: str) -> DeMoENet:
    """Build the network that a state dict belongs to, in evaluation mode.

    Raises
    ------
    WeightsError
        If keys are missing or unexpected or tensors have other shapes than the rest implies; the
        message lists them. If the metadata name another number of choices than there are experts.
    """
    shapes: Shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    config = detect_config(shapes)
    choices = choices_of(shapes, metadata)
    words = f"a DeMoE network of width {config.width}"
    network = fill(lambda: DeMoENet(config), tensors, name, words)
    network.choices = choices
    return network


def settle(network: DeMoENet, device: torch.device, half_error: Callable[[], float]) -> DeMoE:
    """Return a network on a device, run by OpenVINO on a CPU where that is installed."""
    eager = EagerBackend(network)
    experts = network.choice_count

    def graph(half: bool) -> Backend:
        from demoe.model.demoe.graph import OpenVINOBackend

        return OpenVINOBackend(network, half=half)

    @functools.cache
    def backends(coarse: bool) -> Backend:
        if not coarse:
            return choose_exact(eager, graph, experts, device)
        return choose_coarse(backends(False), eager, graph, experts, device, half_error)

    return DeMoE(network, backends)


def plain(network: DeMoENet) -> DeMoE:
    """Return a copy of a network on the CPU, run by PyTorch's operations in float32."""
    network = copy.deepcopy(network).cpu().float().eval()
    eager = EagerBackend(network)
    return DeMoE(network, lambda coarse: eager)


def fresh(width: int = 16) -> DeMoENet:
    """Return an untrained network that begins as the identity and keeps levels.

    It has few blocks where pixels are many, more where they are few: the best use of a short time.
    """
    return untrained(NetworkConfig(width, (0, 1, 2, 4), 2, (1, 1, 1, 0), keeps_level=True))


def untrained(config: NetworkConfig) -> DeMoENet:
    """Return an untrained network that begins as the identity."""
    network = DeMoENet(config)
    for parameter in network.ending.parameters():
        torch.nn.init.zeros_(parameter)
    return network


def pupil(network: DeMoENet) -> DeMoENet:
    """Return a network to be trained further; it keeps levels, since all targets have their own.

    Weights to start from may not have done so.
    """
    begun = DeMoENet(replace(network.config, keeps_level=True))
    begun.load_state_dict(network.state_dict(), strict=False)
    begun.choices = network.choices
    return begun


def adopt(tensors: Mapping[str, Tensor], name: str) -> NoReturn:
    """Refuse: experts for blur are learnt from nothing, or from those of another such network."""
    raise WeightsError(f"{name} is no DeMoE network; one can begin as no other.")


def slim(network: DeMoENet) -> DeMoENet:
    """Return a random network that is as deep, but hardly computes anything."""
    levels = (0,) * network.config.levels
    config = replace(
        network.config,
        width=SLIM_WIDTH,
        encoder_blocks=levels,
        middle_blocks=0,
        decoder_blocks=levels,
        router_width=4,
        router_hidden=4,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DeMoENet(config)
