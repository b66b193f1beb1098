"""Sharp crops in memory, and random batches of them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demoe.errors import ImageError
from demoe.training.degradations import MARGIN
from demoe.training.random import Draw


class SharpImages:
    """A pool of square sharp images on a device.

    Parameters
    ----------
    images : ndarray
        (n, side, side, 3) uint8, display-referred.
    device : str or torch.device
        Where batches are made.
    """

    def __init__(self, images: NDArray[np.uint8], device: str | torch.device = "cpu") -> None:
        if len(images) < 10:
            raise ImageError(
                f"Training needs at least 10 sharp crops, but there are {len(images)}."
            )
        self.images = torch.from_numpy(images).to(device)

    @property
    def largest_crop(self) -> int:
        """Side of the largest crop that leaves the margin which blurring needs."""
        return int(self.images.shape[1]) - 2 * MARGIN

    def batch(self, count: int, crop: int, draw: Draw, *, augment: bool = True) -> Tensor:
        """Return (count, 3, crop + 2 MARGIN, same) floats in [0, 1], cut and varied at random."""
        side = crop + 2 * MARGIN
        room = self.images.shape[1] - side
        if room < 0:
            raise ImageError(
                f"Crops of {crop} px do not fit images of {self.images.shape[1]} px; "
                f"at most {self.largest_crop} px do."
            )
        cut = []
        for _ in range(count):
            image = self.images[draw.integer(0, len(self.images))]
            top, left = draw.integer(0, room + 1), draw.integer(0, room + 1)
            one = image[top : top + side, left : left + side].permute(2, 0, 1).float() / 255
            cut.append(_varied(one, draw) if augment else one)
        return torch.stack(cut)


def _varied(image: Tensor, draw: Draw) -> Tensor:
    """Flip, turn, recolour, darken or invert an image (3, h, w)."""
    image = torch.rot90(image, draw.integer(0, 4), dims=(1, 2))
    if draw.chance(0.5):
        image = image.flip(2)
    if draw.chance(0.3):
        image = image[torch.randperm(3, generator=draw.generator).to(image.device)]
    if draw.chance(0.2):
        image = image.mean(dim=0, keepdim=True).expand(3, -1, -1)
    if draw.chance(0.4):
        image = image * draw.uniform(0.3, 1.0)
    if draw.chance(0.1):
        image = 1 - image
    return image
