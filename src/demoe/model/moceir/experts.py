"""The experts of a decoder block and what chooses among them (arXiv 2411.18466, section 3.2).

Experts differ in what they cost: how many channels they work in and how far they look at once.
What they give is a query: it says how channels are mixed over the whole picture, and never reaches
a place directly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demoe.model.mixing import spread_gates
from demoe.model.moceir.blocks import (
    Attention,
    CrossAttention,
    FeedForward,
    LayerNorm,
    depthwise,
    pointwise,
)
from demoe.model.moceir.matrices import Matrices, mean


class PatchConvolution(nn.Module):
    """Convolve queries with keys, patch by patch, by their Fourier transforms.

    Patches begin at the corner of the picture; within each, the convolution goes round. Beyond
    the picture are zeros.

    Parameters
    ----------
    channels, patch : int
        Channels, and the side of a patch in features.
    """

    def __init__(self, channels: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.q = pointwise(channels, channels)
        self.q_dwconv = depthwise(channels, 3, bias=True)
        self.kv = pointwise(channels, 2 * channels)
        self.kv_dwconv = depthwise(2 * channels, 7, bias=True)
        self.norm = LayerNorm(channels)
        self.proj_out = pointwise(channels, channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        queries = self.q_dwconv(self.q(x))
        keys, values = self.kv_dwconv(self.kv(x)).chunk(2, dim=1)
        y: Tensor = self.proj_out(self.norm(self._convolve(queries, keys)) * values)
        return y

    def _convolve(self, queries: Tensor, keys: Tensor) -> Tensor:
        height, width = queries.shape[2:]
        spectra = [torch.fft.rfft2(self._cut(one).float()) for one in (queries, keys)]
        side = (self.patch, self.patch)
        patches = torch.fft.irfft2(spectra[0] * spectra[1], s=side)
        # (N, C, rows, cols, y, x) back to (N, C, rows, y, cols, x).
        whole: Tensor = patches.transpose(3, 4).flatten(4, 5).flatten(2, 3)
        return whole[:, :, :height, :width].to(queries.dtype)

    def _cut(self, x: Tensor) -> Tensor:
        """Cut (N, C, H, W) into patches (N, C, rows, cols, y, x)."""
        side = self.patch
        padded = F.pad(x, (0, -x.shape[3] % side, 0, -x.shape[2] % side))
        cut: Tensor = padded.unflatten(3, (-1, side)).unflatten(2, (-1, side)).transpose(3, 4)
        return cut


class Expert(nn.Module):
    """An expert: works in ``rank`` channels on what is asked, and weighs it by what is shared."""

    def __init__(self, channels: int, rank: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.ModuleList(
            [pointwise(channels, rank), pointwise(channels, rank), pointwise(rank, channels)]
        )
        self.body = PatchConvolution(rank, patch)

    def forward(self, asked: Tensor, shared: Tensor) -> Tensor:
        """Return the expert's answer (N, C, H, W)."""
        y = self.body(self.proj[0](asked)) * F.silu(self.proj[1](shared))
        answer: Tensor = self.proj[2](y) + asked
        return answer


class Router(nn.Module):
    """Chooses among the experts of one decoder block, for a picture as a whole."""

    def __init__(self, channels: int, deepest: int, experts: int) -> None:
        super().__init__()
        # Index 2 holds the layer in published checkpoints; the others pool and flatten.
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, experts, bias=False)
        )
        self.freq_gate = nn.Linear(deepest, experts, bias=False)
        self.register_buffer("complexity", torch.ones(experts))
        self.complexity: Tensor

    def logits(self, asked: Tensor, frequencies: Tensor, together: bool) -> Tensor:
        """Return scores (N, E); training adds noise to them, use does not."""
        scores: Tensor = self.gate[2](mean(asked, together)) + self.freq_gate(frequencies)
        return scores

    def forward(
        self, asked: Tensor, frequencies: Tensor, together: bool, noise: Tensor | None = None
    ) -> Tensor:
        """Return the probability of each expert (N, E)."""
        scores = self.logits(asked, frequencies, together).float()
        return torch.softmax(scores if noise is None else scores + noise, dim=1)


def likeliest(probabilities: Tensor, top_k: int) -> Tensor:
    """Return gates as published: the largest probabilities (..., E) as they are, 0 for others."""
    best, which = probabilities.topk(top_k, dim=-1)
    return torch.zeros_like(probabilities).scatter(-1, which, best)


class Adapter(nn.Module):
    """The experts of a decoder block, and their router."""

    def __init__(
        self, channels: int, deepest: int, ranks: Sequence[int], patches: Sequence[int]
    ) -> None:
        super().__init__()
        self.routing = Router(channels, deepest, len(ranks))
        # One in a list each: published checkpoints count copies that have no effect.
        self.experts = nn.ModuleList(
            nn.ModuleList([Expert(channels, rank, patch)])
            for rank, patch in zip(ranks, patches, strict=True)
        )
        self.proj_out = pointwise(channels, channels)

    def alone(self, expert: int, asked: Tensor, shared: Tensor) -> Tensor:
        """Return what one expert answers (N, C, H, W)."""
        y: Tensor = self.proj_out(self.experts[expert][0](asked, shared))  # type: ignore[index]
        return y

    def forward(self, asked: Tensor, shared: Tensor, gates: Tensor) -> Tensor:
        """Return the sum of the experts' answers, weighed by gates (N, E).

        Experts run on those pictures of the batch alone where they have a weight.
        """
        total = torch.zeros_like(asked)
        for expert in range(gates.shape[1]):
            rows = gates[:, expert].nonzero()[:, 0]
            if len(rows):
                weight = gates[rows, expert, None, None, None].to(asked.dtype)
                part = self.experts[expert][0](asked[rows], shared[rows])  # type: ignore[index]
                total = total.index_add(0, rows, (part * weight).to(total.dtype))
        y: Tensor = self.proj_out(total)
        return y


class DecoderBlock(nn.Module):
    """What all pictures need is shared; an expert says how it is mixed for this one."""

    def __init__(
        self,
        channels: int,
        deepest: int,
        heads: int,
        ranks: Sequence[int],
        patches: Sequence[int],
        top_k: int,
        expansion: float,
        centred: bool,
        bias: bool,
    ) -> None:
        super().__init__()
        self.top_k = top_k
        self.norms = nn.ModuleList(LayerNorm(channels, centred) for _ in range(2))
        self.proj = nn.ModuleList(pointwise(channels, channels, bias=True) for _ in range(2))
        self.shared = Attention(channels, heads, bias)
        self.mixer = CrossAttention(channels, heads, bias)
        self.ffn = FeedForward(channels, expansion, bias)
        self.adapter = Adapter(channels, deepest, ranks, patches)

    def forward(
        self,
        x: Tensor,
        frequencies: Tensor | None,
        gates: Tensor | None,
        matrices: Matrices,
        extent: tuple[float, float],
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return features of the same shape, and what the router decided, or the given gates.

        Parameters
        ----------
        x : Tensor
            (N, C, H, W).
        frequencies : Tensor or None
            What `HighFrequencies` says; needed where the router is to decide.
        gates : Tensor or None
            Weights of the experts: (N, E) for pictures as a whole, whose experts' answers are
            added up to one query, as published; or (N, E, rows, cols) for places, each expert
            having a matrix of its own. With one expert at work both are the same. None: the
            router's ``top_k`` likeliest, for pictures as a whole.
        matrices : Matrices
            Where matrices come from; held ones are those of experts, and need gates for places.
        extent : (float, float)
            Height and width that the cells of the gates cover, in features.
        noise : Tensor, optional
            (N, E): what is added to the router's scores, in training.
        """
        y = self.norms[0](x)
        shared = self.shared(self.proj[0](y), matrices)
        if matrices.are_held:
            assert gates is not None
            values = self.mixer.values(shared)
            by_expert = {e: matrices.of(self.mixer, e) for e in _used(gates)}
            mixed = self._mix_places(values, gates, by_expert, extent)
        else:
            asked = self.proj[1](y)
            keys, values = self.mixer.keys_and_values(shared)

            def matrix(query: Tensor) -> Tensor:
                return self.mixer.matrix(query, keys, matrices.together)

            if gates is None:
                assert frequencies is not None
                gates = self.adapter.routing(asked, frequencies, matrices.together, noise)
                query = self.adapter(asked, shared, likeliest(gates, self.top_k))
                mixed = self.mixer.mix(values, matrix(query))
            elif gates.ndim == 2:
                mixed = self.mixer.mix(values, matrix(self.adapter(asked, shared, gates)))
            else:
                by_expert = {
                    e: matrices.keep(self.mixer, matrix(self.adapter.alone(e, asked, shared)), e)
                    for e in (range(gates.shape[1]) if matrices.every else _used(gates))
                }
                mixed = self._mix_places(values, gates, by_expert, extent)
        x = x + mixed
        return x + self.ffn(self.norms[1](x)), gates

    def _mix_places(
        self,
        values: Tensor,
        gates: Tensor,
        matrices: Mapping[int, Tensor],
        extent: tuple[float, float],
    ) -> Tensor:
        """Mix channels at each place by the matrices of the experts that work there."""
        weights = spread_gates(gates, (values.shape[2], values.shape[3]), extent)
        total = torch.zeros_like(values)
        for expert in _used(gates):
            part = self.mixer.mix(values, matrices[expert])
            total = total + part * weights[:, expert : expert + 1]
        return total


def _used(gates: Tensor) -> list[int]:
    """Return the experts that have a weight anywhere, for gates (N, E, rows, cols)."""
    return [n for n, most in enumerate(gates.amax(dim=(0, 2, 3)).tolist()) if most > 0]
