"""A small MoCE-IR network with random weights, for tests of what surrounds the network."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from demoe.model.checkpoint import write_weights
from demoe.model.moceir.config import NetworkConfig
from demoe.model.moceir.network import MoCEIRNet

COSTS = ((0.25, 1.0), (0.5, 1.0))
"""Complexity of the two experts in each of the two layers."""

SMALL = NetworkConfig(
    width=4,
    encoder_blocks=(1, 1),
    latent_blocks=1,
    decoder_blocks=(1, 1),
    refinement_blocks=1,
    heads=(1, 1, 2),
    ranks=((2, 3), (2, 3)),
    patches=(2, 4),
)
"""Two levels, so that a halo of 44 pixels is exact."""


def small_network(config: NetworkConfig = SMALL, seed: int = 0) -> MoCEIRNet:
    """Return a random network all of whose parts matter."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = MoCEIRNet(config)
        for name, parameter in network.named_parameters():
            if name.endswith("temperature"):
                torch.nn.init.uniform_(parameter, 1, 5)
            elif "gate" in name:  # so that pictures are told apart
                torch.nn.init.normal_(parameter, std=30.0)
            elif ".experts." in name or "adapter.proj_out" in name:  # and experts
                torch.nn.init.normal_(parameter)
    return network.eval().requires_grad_(False)


def small_weights(path: Path) -> Path:
    """Write such a network whose routers tell dark places from bright ones, each in its own way."""
    network = small_network()
    torch.manual_seed(0)
    shades = torch.tensor([0.05, 0.8])[:, None, None, None]
    dark_and_bright = shades * (0.5 + torch.rand(2, 1, 32, 32)).expand(-1, 3, -1, -1)
    for number, (layer, costs) in enumerate(zip(network.layers(), COSTS, strict=True)):
        router = layer.adapter.routing
        router.complexity.copy_(torch.tensor(costs))
        router.freq_gate.weight.zero_()
        seen = []
        hook = router.gate[2].register_forward_hook(lambda _, given, __, s=seen: s.append(given[0]))
        network(dark_and_bright)
        hook.remove()
        # Scores of +2 and -2 for the cheap expert, or the other way round in the second layer.
        weights = torch.linalg.lstsq(seen[0], torch.tensor([2.0, -2.0])[:, None]).solution[:, 0]
        router.gate[2].weight[0] = weights * (-1) ** number
        router.gate[2].weight[1] = -router.gate[2].weight[0]
    write_weights(path, network.state_dict(), {"config": json.dumps(SMALL.to_dict())})
    return path
