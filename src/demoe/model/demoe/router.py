"""The router: which expert a picture, or a place in it, needs (arXiv 2508.06228, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
