"""A small MiM-DiT-like network with random weights, for tests of what surrounds the network."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from demoe.model.checkpoint import write_weights
from demoe.model.mimdit.config import NetworkConfig
from demoe.model.mimdit.network import MiMDiTNet

SMALL = NetworkConfig(
    width=8,
    patch=2,
    blocks=2,
    window=8,
    heads=2,
    group_heads=1,
    experts=3,
    rank=4,
    hidden=8,
    time=4,
    tail=4,
)
"""Reads begin on multiples of 16 pixels, and a halo of 32 is exact."""


def small_network(config: NetworkConfig = SMALL, seed: int = 1) -> MiMDiTNet:
    """Return a random network all of whose parts matter."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = MiMDiTNet(config)
        for name, parameter in network.named_parameters():
            if name.endswith((".table", "temperature")):
                torch.nn.init.uniform_(parameter, -2, 2)
            elif "router" in name:  # so that pictures are told apart
                torch.nn.init.normal_(parameter, std=0.3)
            elif "inject" in name or "groups" in name or "branch" in name or "qkv" in name:
                torch.nn.init.normal_(parameter, std=0.5)
            elif "head.narrow" in name or "adapt" in name:  # else zeros
                torch.nn.init.normal_(parameter, std=0.2)
    return network.eval().requires_grad_(False)


def small_weights(path: Path, config: NetworkConfig = SMALL) -> Path:
    """Write such a network."""
    tensors = small_network(config).state_dict()
    write_weights(path, tensors, {"config": json.dumps(config.to_dict())})
    return path
