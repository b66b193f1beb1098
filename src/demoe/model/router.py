"""The router: which expert a picture, or a place in it, needs (arXiv 2508.06228, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Router(nn.Module):
    """Classify the deepest features into expert probabilities."""

    def __init__(self, channels: int, experts: int, width: int = 256, hidden: int = 128) -> None:
        super().__init__()
        self.conv_bottleneck = nn.Sequential(
            nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.1)
        )
        self.attention = nn.Sequential(nn.Conv2d(width, 1, 1), nn.Sigmoid())
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(hidden, experts),
        )

    def attend(self, features: Tensor) -> Tensor:
        """Reduce features (N, C, h, w) to what is pooled: (N, width, h, w)."""
        y: Tensor = self.conv_bottleneck(features)
        weight: Tensor = self.attention(y)
        return y * weight

    def logits(self, features: Tensor) -> Tensor:
        """Return unnormalised scores (N, E) for features (N, C, h, w)."""
        scores: Tensor = self.classifier(self.attend(features))
        return scores

    def together(self, features: Tensor) -> Tensor:
        """Return one decision (E,) on features (N, C, h, w) of samples of the same picture."""
        pooled = self.attend(features).mean(dim=(0, 2, 3))[None]
        # The head after pooling and flattening.
        return torch.softmax(self.classifier[2:](pooled).float(), dim=1)[0]

    def forward(self, features: Tensor) -> Tensor:
        """Return probabilities (N, E) for features (N, C, h, w)."""
        return torch.softmax(self.logits(features).float(), dim=1)

    def local(
        self, features: Tensor, window: tuple[int, int], tops: Sequence[int], lefts: Sequence[int]
    ) -> Tensor:
        """Return probabilities (N, E, rows, cols), one decision a window.

        Parameters
        ----------
        features : Tensor
            (N, C, h, w), at the deepest level.
        window : (int, int)
            Rows and columns that are pooled for one decision.
        tops, lefts : sequence of int
            First rows and first columns of the windows; every pair of them is one.
        """
        # A rectangular mean separates into rows and columns.
        pooled = F.avg_pool2d(self.attend(features), (window[0], 1), 1)[:, :, list(tops)]
        pooled = F.avg_pool2d(pooled, (1, window[1]), 1)[:, :, :, list(lefts)]
        n, width, rows, cols = pooled.shape
        flat = pooled.permute(0, 2, 3, 1).reshape(-1, width)
        # The head after pooling and flattening, which have been done per window.
        scores = self.classifier[2:](flat).reshape(n, rows, cols, -1).permute(0, 3, 1, 2)
        return torch.softmax(scores.float(), dim=1)
