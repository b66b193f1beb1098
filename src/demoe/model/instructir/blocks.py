"""The block that an instruction acts through (arXiv 2401.16468, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from demoe.model.nafnet import NAFBlock, RunBlock, as_it_is


class InstructionBlock(nn.Module):
    """Lets an instruction weigh the channels of features: (N, C, H, W) to the same shape.

    All that the instruction does is a gate from 0 to 1 for each channel.

    Parameters
    ----------
    channels, text : int
        Channels of the features, and length of an instruction's embedding.
    """

    def __init__(self, channels: int, text: int) -> None:
        super().__init__()
        self.fc = nn.Linear(text, channels)
        self.block = NAFBlock(channels)
        # Not as in a NAFBlock: gamma multiplies what comes in, and beta is added to that.
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def gates(self, embedding: Tensor) -> Tensor:
        """Return the gates (N, C) of instructions with embeddings (N, T)."""
        return torch.sigmoid(self.fc(embedding))

    def forward(self, x: Tensor, gate: Tensor, run: RunBlock = as_it_is) -> Tensor:
        """Add to the features what the gate, (N, C, 1, 1) or (N, C, H, W), lets through."""
        told = (x * self.gamma + self.beta) * gate
        return run(self.block, told) + x
