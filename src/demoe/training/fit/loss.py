"""How far restored pictures are from what they should be."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LEVEL_WEIGHT, FREQUENCY_WEIGHT = 3.0, 0.5
"""Weights of the two smaller terms of the loss."""


def restoration_loss(restored: Tensor, target: Tensor) -> Tensor:
    """Return how far images (N, 3, H, W) are from their targets, in three terms.

    The mean over images of log10 of the mean squared error (NAFNet's PSNR loss); the error of
    local means, so that no picture gets brighter or darker; and the mean size of the error's
    Fourier coefficients (as Cho et al., ICCV 2021), which counts fine detail as much as coarse.
    The constant (33 dB) keeps images that are nearly right from outweighing all others: without
    it a network learns above all to leave sharp and dark images alone.
    """
    error = restored - target
    squared = (error.square().mean(dim=(1, 2, 3)) + 5e-4).log10().mean()
    means = F.avg_pool2d(error, min(32, *error.shape[2:])).abs().mean()
    waves = torch.fft.rfft2(error, norm="ortho").abs().mean()
    loss: Tensor = squared + LEVEL_WEIGHT * means + FREQUENCY_WEIGHT * waves
    return loss
