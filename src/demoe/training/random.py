"""Seeded draws, on the CPU whatever the device, so that a seed means the same everywhere."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Draw:
    """A generator with the few distributions that the degradations need."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return one number, uniform in [low, high)."""
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def log_uniform(self, low: float, high: float) -> float:
        """Return one number whose logarithm is uniform."""
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def integer(self, low: int, high: int) -> int:
        """Return one integer of low .. high - 1."""
        return int(torch.randint(low, high, (), generator=self.generator))

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self.uniform() < probability

    def uniform_(self, *shape: int) -> Tensor:
        """Return a tensor of uniform numbers in [0, 1)."""
        return torch.rand(shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        """Return a tensor of standard normal numbers."""
        return torch.randn(shape, generator=self.generator)
