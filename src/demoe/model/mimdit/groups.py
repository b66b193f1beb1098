"""The mixture: groups of sub-experts, and what weighs groups and chooses among sub-experts.

Two levels, after the idea of MiM-DiT (arXiv 2603.02710). All *groups* work, each one kind of
processing, weighed by gates (Inter). Within a group few *sub-experts* of its kind work, chosen for
the picture as a whole (Intra). Tokens are (N, rows, cols, C).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demoe.model.mimdit.blocks import Deep, FeedForward, WindowAttention, in_windows, plain_norm
from demoe.model.mimdit.config import GROUPS, NetworkConfig, squeezed_to
from demoe.model.mimdit.pooled import Pooled, described


class SpatialExpert(nn.Module):
    """Attention between the tokens of a window, wherever in it they lie."""

    def __init__(self, width: int, rank: int, window: int, heads: int) -> None:
        super().__init__()
        self.window, self.heads = window, heads
        self.qkv = nn.Linear(width, 3 * rank, bias=False)
        self.out = nn.Linear(rank, width, bias=False)

    def forward(self, tokens: Tensor, pooled: Pooled) -> Tensor:
        """Return tokens of the same shape."""
        y: Tensor = self.out(in_windows(self.qkv(tokens), self.window, self.heads, None, False))
        return y


class ChannelExpert(nn.Module):
    """Attention between channels: which ones go together on the whole picture.

    As in Restormer (arXiv 2111.09881, section 3.1). With its matrix held, it looks one token
    around.
    """

    def __init__(self, width: int, rank: int, heads: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Linear(width, 3 * rank, bias=False)
        self.deep = Deep(3 * rank)
        self.out = nn.Linear(rank, width, bias=False)

    def forward(self, tokens: Tensor, pooled: Pooled) -> Tensor:
        """Return tokens of the same shape."""
        rank = self.out.in_features
        if pooled.are_held:
            matrix = pooled.of(self)
            values = self.deep.of(F.linear(tokens, self.qkv.weight[-rank:]), rank)
        else:
            queries, keys, values = self.deep(self.qkv(tokens)).chunk(3, dim=-1)
            matrix = pooled.keep(self, self.matrix(queries, keys, pooled))
        mixed: Tensor = values.flatten(1, 2) @ matrix.to(values.dtype)
        return mixed.reshape(tokens.shape)

    def matrix(self, queries: Tensor, keys: Tensor, pooled: Pooled) -> Tensor:
        """Return what attention and the map after it come to, (N, rank, width)."""
        with torch.autocast(queries.device.type, enabled=False):
            return self._matrix(queries, keys, pooled)

    def _matrix(self, queries: Tensor, keys: Tensor, pooled: Pooled) -> Tensor:
        heads = len(self.temperature)
        # (N, heads, rank / heads, tokens), in full precision: these are sums over a picture.
        q, k = (
            one.float().flatten(1, 2).unflatten(2, (heads, -1)).permute(0, 2, 3, 1)
            for one in (queries, keys)
        )
        products = pooled.sum(q @ k.transpose(2, 3))
        q2, k2 = (pooled.sum((one * one).sum(dim=3)).clamp_min(1e-12).sqrt() for one in (q, k))
        alike = products / (q2[..., :, None] * k2[..., None, :]) * self.temperature
        attention = torch.softmax(alike, dim=3)  # which keys' channels make a query's channel
        out = self.out.weight.T.unflatten(0, (heads, -1))
        found: Tensor = (attention.transpose(2, 3) @ out).flatten(1, 2)
        return found


class WindowExpert(nn.Module):
    """Attention in windows that are shifted in every other block, as in Swin (arXiv 2103.14030)."""

    def __init__(self, width: int, rank: int, window: int, heads: int, shifted: bool) -> None:
        super().__init__()
        self.attention = WindowAttention(width, rank, window, heads, shifted)

    def forward(self, tokens: Tensor, pooled: Pooled) -> Tensor:
        """Return tokens of the same shape."""
        y: Tensor = self.attention(tokens)
        return y


class SqueezeExpert(nn.Module):
    """A convolution of each channel, which is then weighed by what all of the picture shows.

    Squeeze and excitation: arXiv 1709.01507. With its factors held, it looks one token around.
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.narrow = nn.Linear(width, rank, bias=False)
        self.deep = Deep(rank)
        self.squeeze = nn.Linear(rank, squeezed_to(rank))
        self.excite = nn.Linear(squeezed_to(rank), rank)
        self.out = nn.Linear(rank, width, bias=False)

    def forward(self, tokens: Tensor, pooled: Pooled) -> Tensor:
        """Return tokens of the same shape."""
        y: Tensor = F.gelu(self.deep(self.narrow(tokens)))
        if pooled.are_held:
            factors = pooled.of(self)
        else:
            seen = self.squeeze(pooled.mean(y))
            factors = pooled.keep(self, torch.sigmoid(self.excite(F.gelu(seen))))
        y = self.out(y * factors[:, None, None])
        return y


class Group(nn.Module):
    """Sub-experts of one kind, few of which work, chosen for a picture as a whole (Intra).

    What a sub-expert gives is multiplied by its probability among all, so that the router learns
    from the result. Noise on the scores, in training, lets others have their turn.
    """

    def __init__(
        self, make: Callable[[], nn.Module], count: int, top_k: int, described_by: int
    ) -> None:
        super().__init__()
        self.top_k = top_k
        self.router = nn.Linear(described_by, count)
        self.experts = nn.ModuleList(make() for _ in range(count))

    def forward(
        self,
        tokens: Tensor,
        description: Tensor | None,
        pooled: Pooled,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the chosen sub-experts give, probabilities, and those that were kept.

        Takes (N, rows, cols, C), what routers hear, (N, F) or (1, F), None where gates are held,
        and noise for as many pictures, (N, K); probabilities are of that many.
        """
        if description is None:
            probabilities = kept = pooled.of(self)
        else:
            off = 0.0 if noise is None else noise
            own = torch.softmax(self.router(description).float() + off, dim=1)
            kept = pooled.keep(self, likeliest(own, self.top_k))
            probabilities = own
            if torch.is_grad_enabled():
                # Whoever evens these out changes the router alone, not what it hears.
                scores = self.router(description.detach()).float()
                probabilities = torch.softmax(scores + off, dim=1)
        total = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            rows = kept[:, number].nonzero()[:, 0]
            if not len(rows):
                continue
            weight = kept[rows, number, None, None, None].to(tokens.dtype)
            if len(rows) == len(kept):
                total = total + expert(tokens, pooled) * weight
            else:
                part = expert(tokens[rows], pooled) * weight
                total = total.index_add(0, rows, part.to(total.dtype))
        return total, probabilities, kept


def likeliest(probabilities: Tensor, top_k: int) -> Tensor:
    """Return the largest probabilities (..., K) as they are, 0 for others."""
    best, which = probabilities.topk(top_k, dim=-1)
    return torch.zeros_like(probabilities).scatter(-1, which, best)


@dataclass(frozen=True)
class Decision:
    """What the mixture of one block decided.

    Attributes
    ----------
    inter : Tensor
        Gates of the groups, (N, G); means over the picture of those that were given for places.
    intra : Tensor
        Probabilities of the sub-experts in their groups, (N, G, K); 0 in groups that did not work.
    kept : Tensor
        The same with 0 for those that were not chosen.
    """

    inter: Tensor
    intra: Tensor
    kept: Tensor


class Mixture(nn.Module):
    """All groups, weighed by gates (Inter), added to the stream that is injected."""

    def __init__(self, config: NetworkConfig, shifted: bool) -> None:
        super().__init__()
        width, rank, window = config.width, config.rank, config.window
        heads = config.group_heads
        makes: dict[str, Callable[[], nn.Module]] = {
            "spatial": lambda: SpatialExpert(width, rank, window, heads),
            "channel": lambda: ChannelExpert(width, rank, heads),
            "window": lambda: WindowExpert(width, rank, window, heads, shifted),
            "se": lambda: SqueezeExpert(width, rank),
        }
        heard = 2 * width + config.time
        self.router = nn.Linear(heard, len(GROUPS))
        self.groups = nn.ModuleList(
            Group(makes[name], config.experts, config.top_k, heard) for name in GROUPS
        )

    def decide(self, description: Tensor) -> Tensor:
        """Return the gates of the groups, (N, G), for what routers hear of pictures."""
        return torch.softmax(self.router(description).float(), dim=1)

    def hear(self, tokens: Tensor, time: Tensor, pooled: Pooled) -> Tensor:
        """Return what routers hear: (N, 2C + T), or (1, 2C + T) together."""
        description = described(tokens.float(), pooled)
        rows = max(len(description), len(time))
        return torch.cat([description.expand(rows, -1), time.float().expand(rows, -1)], dim=1)

    def forward(
        self,
        tokens: Tensor,
        time: Tensor,
        gates: Tensor | None,
        pooled: Pooled,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Decision]:
        """Return tokens of the same shape, and what was decided.

        Parameters
        ----------
        tokens : Tensor
            (N, rows, cols, C).
        time : Tensor
            (N, T) or (1, T).
        gates : Tensor or None
            Weights of the groups, (N, G, 1, 1) or for each token (N, G, rows, cols); None: the
            router decides. A group without weight does not work.
        pooled : Pooled
            Where what is pooled comes from; held, it needs gates.
        noise : Tensor, optional
            (N, G, K): what is added to the scores of sub-experts, in training.
        """
        y = plain_norm(tokens)
        heard = None if pooled.are_held else self.hear(y, time, pooled)
        if gates is None:
            assert heard is not None
            inter = self.decide(heard)
            weights = inter[:, :, None, None]
        else:
            inter, weights = gates.mean(dim=(2, 3)), gates
        weights = weights.permute(0, 2, 3, 1).to(tokens.dtype)
        works = weights.detach().amax(dim=(0, 1, 2)).tolist()
        intra, kept = [], []
        total = torch.zeros_like(tokens)
        groups: Any = self.groups  # torch's lists hold any module
        for number, group in enumerate(groups):
            if works[number] <= 0 and not pooled.every:
                nothing = torch.zeros(len(inter), len(group.experts), device=tokens.device)
                intra.append(nothing)
                kept.append(nothing)
                continue
            off = None if noise is None else noise[:, number]
            part, probabilities, chosen = group(y, heard, pooled, off)
            total = total + part * weights[..., number : number + 1]
            intra.append(probabilities.expand(len(inter), -1))
            kept.append(chosen.expand(len(inter), -1))
        decision = Decision(inter, torch.stack(intra, dim=1), torch.stack(kept, dim=1))
        return tokens + total, decision


class Branch(nn.Module):
    """One branch in place of the mixture, to compare it with: nothing is chosen or pooled."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.feed = FeedForward(width, hidden)

    def forward(
        self,
        tokens: Tensor,
        time: Tensor,
        gates: Tensor | None,
        pooled: Pooled,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Decision]:
        """Return tokens of the same shape, and that the one choice was taken; see `Mixture`."""
        rows = 1 if pooled.together else len(tokens)
        all_of_it = torch.ones(rows, 1, device=tokens.device)
        nothing = torch.zeros(rows, 1, 0, device=tokens.device)
        return tokens + self.feed(plain_norm(tokens)), Decision(all_of_it, nothing, nothing)


def imbalance(decision: Decision) -> Tensor:
    """Return how unevenly sub-experts of a group are used, 0 if evenly; a mean over groups.

    Within a group alone: ``K sum_e f_e P_e - 1`` with the share of choices f and the mean
    probability P of each sub-expert (arXiv 2101.03961, equation 4). Groups may differ as they like.
    """
    count = decision.intra.shape[2]
    if not count:
        return decision.inter.new_zeros(())
    chosen = (decision.kept.detach() > 0).float()
    share = chosen.mean(dim=0) / chosen.mean(dim=0).sum(dim=1, keepdim=True).clamp_min(1e-12)
    return (count * (share * decision.intra.mean(dim=0)).sum(dim=1) - 1).mean()
