"""What is pooled over a picture: found on it, or held.

Three things are global in this network: what routers decide on, attention between channels, and
squeeze and excitation. Each comes down to few numbers: gates, a matrix, a vector of factors. Once
they are known for a plane, all that is left looks a bounded way around, and tiles of any size equal
the whole. By the names of the parts that they belong to, and of the step, they are the statistics
of this network.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Pooled:
    """Where the parts of a network take from what is pooled.

    Parameters
    ----------
    names : mapping of nn.Module to str, optional
        Names of the parts; without, each uses what it finds and nothing is kept.
    held : mapping of str to Tensor, optional
        What to use, one for all pictures; without, it is found.
    together : bool
        Whether the pictures of a batch are parts of one, whose tokens count together; else each is
        a picture by itself.
    every : bool
        Whether it is found for groups, too, that have no weight.

    Attributes
    ----------
    found : dict of str to Tensor
        What parts that have a name found.
    step : int
        Which step is on; what is pooled differs between steps.
    """

    def __init__(
        self,
        names: Mapping[nn.Module, str] | None = None,
        held: Mapping[str, Tensor] | None = None,
        *,
        together: bool = False,
        every: bool = False,
    ) -> None:
        self.together, self.every = together, every
        self.found: dict[str, Tensor] = {}
        self.step = 0
        self._names, self._held = names, held

    @property
    def are_held(self) -> bool:
        """Whether nothing is to be found."""
        return self._held is not None

    def of(self, part: nn.Module) -> Tensor:
        """Return what is held for a part."""
        assert self._held is not None
        return self._held[self._name(part)]

    def keep(self, part: nn.Module, value: Tensor) -> Tensor:
        """Remember what a part found, and return it."""
        if self._names is not None:
            self.found[self._name(part)] = value
        return value

    def mean(self, tokens: Tensor) -> Tensor:
        """Return means over tokens: (N, C) of (N, rows, cols, C), or (1, C) together."""
        return tokens.mean(dim=(0, 1, 2))[None] if self.together else tokens.mean(dim=(1, 2))

    def sum(self, values: Tensor) -> Tensor:
        """Return sums (N, ...) that were found for each picture, or (1, ...) together."""
        return values.sum(dim=0, keepdim=True) if self.together else values

    def _name(self, part: nn.Module) -> str:
        assert self._names is not None
        return f"{self.step}.{self._names[part]}"


def described(tokens: Tensor, pooled: Pooled) -> Tensor:
    """Describe pictures for routers: mean and root mean square of all channels.

    Takes (N, rows, cols, C) and returns (N, 2C), or (1, 2C) together. Means alone would not tell
    noise from its absence.
    """
    powers = pooled.mean(tokens.square())
    return torch.cat([pooled.mean(tokens), (powers + 1e-6).sqrt()], dim=1)
