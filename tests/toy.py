"""A network of a family of its own, to see that nothing but `demoe.model.protocol` is relied on.

Each choice sharpens by a strength of its own. What decides is how bright a place is.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from demoe.choices import Choice, from_record, named, to_record
from demoe.model.architectures import ARCHITECTURES
from demoe.model.checkpoint import fill, write_weights
from demoe.model.mixing import keep_top, spatial, spread_gates
from demoe.model.protocol import Architecture

THREE = named(("haze", "rain", "snow"))
TWELVE = named(f"kind_{number}" for number in range(12))


class ToyNet(nn.Module):
    """(N, 3, H, W) to the same: the picture and a share of what it lacks against its mean."""

    def __init__(self, choices: tuple[Choice, ...]) -> None:
        super().__init__()
        self.choices = choices
        self.strength = nn.Parameter(torch.linspace(0.1, 0.5, len(choices)))

    def decide(self, x: torch.Tensor) -> torch.Tensor:
        light = x.mean(dim=(1, 2, 3))[:, None]
        levels = (torch.arange(len(self.choices), device=x.device) + 0.5) / len(self.choices)
        return torch.softmax(-40 * (light - levels).abs(), dim=1)

    def restored(self, x, weights, mean):
        gates = spread_gates(spatial(weights), x.shape[2:], x.shape[2:])
        strength = (gates * self.strength[None, :, None, None]).sum(dim=1, keepdim=True)
        around = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
        return x + strength * (x - around) + 0.01 * strength * (x - mean)

    def forward(self, x, gates=None):
        gates = self.decide(x) if gates is None else gates
        return self.restored(x, keep_top(gates, 1), x.mean(dim=(2, 3), keepdim=True)), gates


class Toy:
    """See `demoe.model.protocol.Tenant`."""

    decides, multiple, halo, keeps_level = True, 8, 8, False
    flops_per_pixel, bare_bytes = 100.0, 100.0
    layers, arithmetic, dense = 1, None, False

    def __init__(self, network: ToyNet) -> None:
        self.network, self.choices = network, network.choices

    def facts(self):
        return {"choices": len(self.choices)}

    def design(self):
        return "A toy."

    def backend_name(self, coarse):
        return "torch"

    def bytes_per_pixel(self, coarse):
        return 100.0

    @torch.inference_mode()
    def decide(self, samples, *, coarse=False):
        return self.network.decide(samples).mean(dim=0)

    @torch.inference_mode()
    def route(self, windows, *, coarse=False):
        return self.network.decide(windows)

    @torch.inference_mode()
    def survey(self, samples, weights, *, top_k=1, every=False, coarse=False):
        return {"mean": samples.mean(dim=(0, 2, 3), keepdim=True)}

    @torch.inference_mode()
    def restore(self, x, weights, statistics=None, *, recurring=False, coarse=False):
        return self.network.restored(x, weights, (statistics or self.survey(x, None))["mean"])

    def restore_each(self, x, statistics=None):
        used = statistics or [self.survey(x, None)] * len(self.choices)
        one_hot = torch.eye(len(self.choices))
        found = [self.restore(x, w[None], one) for w, one in zip(one_hot, used, strict=True)]
        return torch.stack(found), used

    def half_error(self):
        return 0.0


def choices_of(shapes, metadata):
    return from_record(json.loads(metadata["choices"]))


def build(tensors, metadata, name):
    return fill(lambda: ToyNet(choices_of({}, metadata)), tensors, name, "a toy")


def settle(network, device, half_error):
    return Toy(network)


def plain(network):
    return Toy(network)


TOY = Architecture("toy", "Toy", lambda shapes: "strength" in shapes, choices_of, __name__)


def settled(monkeypatch, path: Path, choices: tuple[Choice, ...] = THREE) -> Path:
    """Make the family known for a test, and write weights of it."""
    monkeypatch.setitem(ARCHITECTURES, TOY.name, TOY)
    metadata = {"choices": json.dumps(to_record(choices))}
    write_weights(path, ToyNet(choices).state_dict(), metadata)
    return path
