"""Tiny networks with random weights, for tests of what surrounds the network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from demoe.choices import TASKS
from demoe.model.checkpoint import write_weights
from demoe.model.demoe.config import NetworkConfig
from demoe.model.demoe.network import DeMoENet
from demoe.routing.gates import one_hot

CONFIG = NetworkConfig(4, (1, 1, 1, 1), 1, (1, 1, 1, 1), router_width=16, router_hidden=8)

SHALLOW = NetworkConfig(4, (1, 1), 1, (1, 1), router_width=16, router_hidden=8)
"""Two levels: a halo of 24 pixels on a grid of 4 keeps tiles small and yet exact."""


def tiny_network(seed: int = 0, config: NetworkConfig = CONFIG) -> DeMoENet:
    """Return a network whose branches all have an effect, and whose router sees differences."""
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    network = DeMoENet(config)
    for name, parameter in network.named_parameters():
        if name.endswith(("beta", "gamma")):  # zeros at first: a block would change nothing
            torch.nn.init.normal_(parameter, std=0.1)
    network.train()
    with torch.no_grad():
        for _ in range(20):  # let the router's norms learn what is usual
            shades = torch.rand(8, 3, 1, 1) + 0.5 * torch.randn(8, 3, 64, 64) * torch.rand(
                8, 1, 1, 1
            )
            features = network.encode(shades)[0]
            network.mlp_branch(features)
        network.mlp_branch.classifier[-1].weight.mul_(10)
    torch.random.set_rng_state(state)
    return network.eval().requires_grad_(False)


def alone(task: str) -> np.ndarray:
    """Return the gates (5,) of one task's expert alone."""
    return one_hot(TASKS.index(task) + 1, len(TASKS))


def tiny_weights(path: Path, seed: int = 0, config: NetworkConfig = CONFIG) -> Path:
    """Write such a network to ``path`` and return it."""
    metadata = {"config": json.dumps(config.to_dict())}
    write_weights(path, tiny_network(seed, config).state_dict(), metadata)
    return path
