"""Matrices that mix channels: found on a picture, or held.

An attention over channels (arXiv 2111.09881, section 3.1) compares queries and keys by sums over
all pixels, and so do the experts of this network, whose answers are queries. What comes out is one
matrix (C, C) a step, and all that follows is local. Once each is known for a plane, the network is
a chain of convolutions in which no query, key, router or expert has to run, and tiles of any size
equal the whole. Matrices, by the names of their steps, are the statistics of this network.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Matrices:
    """Where the steps of a network take their matrices from.

    Parameters
    ----------
    names : mapping of nn.Module to str, optional
        Names of the steps; without, each step uses what it finds and nothing is kept.
    held : mapping of str to Tensor, optional
        Matrices (1, C, C) to use; without, they are found.
    together : bool
        Whether the pictures of a batch are parts of one, whose pixels count together; else each is
        a picture by itself.
    every : bool
        Whether matrices are found for experts, too, that have no weight.

    Attributes
    ----------
    found : dict of str to Tensor
        What steps that have a name found: (N, C, C), or (1, C, C) together.
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
        self._names, self._held = names, held

    @property
    def are_held(self) -> bool:
        """Whether nothing is to be found."""
        return self._held is not None

    def of(self, step: nn.Module, expert: int | None = None) -> Tensor:
        """Return the held matrix of a step, for an expert's queries where there are experts."""
        assert self._held is not None
        return self._held[self._name(step, expert)]

    def keep(self, step: nn.Module, matrix: Tensor, expert: int | None = None) -> Tensor:
        """Remember what a step found, and return it."""
        if self._names is not None:
            self.found[self._name(step, expert)] = matrix
        return matrix

    def _name(self, step: nn.Module, expert: int | None) -> str:
        assert self._names is not None
        return self._names[step] + ("" if expert is None else f".{expert}")


def mean(x: Tensor, together: bool) -> Tensor:
    """Return means over pixels: (N, C) of pictures (N, C, H, W), equal if they count together."""
    if not together:
        return x.mean(dim=(2, 3))
    return x.mean(dim=(0, 2, 3))[None].expand(len(x), -1)


def compare(
    queries: Tensor, keys: Tensor, temperature: Tensor, project: Tensor, together: bool
) -> Tensor:
    """Return the matrix that an attention over channels and its projection come to.

    Parameters
    ----------
    queries, keys : Tensor
        (N, C, H, W).
    temperature : Tensor
        (heads, 1, 1).
    project : Tensor
        Weights (C, C, 1, 1) of the convolution that follows.
    together : bool
        Whether pixels of all pictures are summed up.

    Returns
    -------
    Tensor
        (N, C, C), or (1, C, C) together.
    """
    count, channels = queries.shape[:2]
    heads = len(temperature)
    q, k = (one.reshape(count, heads, channels // heads, -1) for one in (queries, keys))
    products, q2, k2 = q @ k.transpose(-2, -1), (q * q).sum(dim=-1), (k * k).sum(dim=-1)
    if together:
        products, q2, k2 = (one.sum(dim=0, keepdim=True) for one in (products, q2, k2))
    lengths = q2.sqrt().clamp_min(1e-12)[..., :, None] * k2.sqrt().clamp_min(1e-12)[..., None, :]
    attention = torch.softmax(products / lengths * temperature, dim=-1)
    # What a head gives goes to all channels: (C, C / heads) of each, side by side.
    out = project.reshape(channels, heads, channels // heads).transpose(0, 1)
    folded = (out @ attention).permute(0, 2, 1, 3)
    return folded.reshape(len(folded), channels, channels)


def mix(values: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """Mix the channels of values (N, C, H, W) by a matrix (1, C, C) or (N, C, C)."""
    if len(matrix) == 1:
        return F.conv2d(values, matrix[0, :, :, None, None], bias)
    mixed = (matrix @ values.flatten(2)).reshape(values.shape)
    return mixed if bias is None else mixed + bias[:, None, None]
