"""Sharp crops in memory, and random batches of them."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from demoe.errors import ImageError
from demoe.training.blur.degradations import MARGIN
from demoe.training.random import Draw

MIRRORED = 0.2
"""Share of training crops whose surroundings are their own mirror image."""


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
        """Side of the largest crop."""
        return int(self.images.shape[1])

    def every(self, n: int, *, but: bool = False) -> SharpImages:
        """Return every n-th image alone, or all but these."""
        part = copy.copy(self)
        chosen = torch.arange(len(self.images), device=self.images.device) % n == 0
        part.images = self.images[~chosen if but else chosen]
        return part

    def batch(
        self, count: int, crop: int, draw: Draw, *, augment: bool = True, relit: bool = True
    ) -> Tensor:
        """Return (count, 3, crop + 2 MARGIN, same) floats in [0, 1], cut and varied at random.

        The margin that blurring needs is the picture's own, or its mirror image where a crop is
        too large for that, and now and then elsewhere: most published blurred pictures were made
        like that. Variations are turns, mirror images and swapped colours and,
        with ``relit``, other brightness and contrast.
        """
        room = self.largest_crop - crop
        if room < 0:
            raise ImageError(
                f"Crops of {crop} px do not fit images of {self.largest_crop} px; "
                f"at most {self.largest_crop} px do."
            )
        cut = []
        for _ in range(count):
            image = self.images[draw.integer(0, len(self.images))]
            mirror = room < 2 * MARGIN or (augment and crop > MARGIN and draw.chance(MIRRORED))
            border = 0 if mirror else 2 * MARGIN
            top, left = (draw.integer(0, room - border + 1) for _ in range(2))
            side = crop + border
            one = image[top : top + side, left : left + side].permute(2, 0, 1).float() / 255
            one = _varied(one, draw, relit) if augment else one
            cut.append(F.pad(one[None], (MARGIN,) * 4, mode="reflect")[0] if mirror else one)
        return torch.stack(cut)


def _varied(image: Tensor, draw: Draw, relit: bool) -> Tensor:
    """Flip, turn, recolour and, if wanted, darken or invert an image (3, h, w)."""
    image = torch.rot90(image, draw.integer(0, 4), dims=(1, 2))
    if draw.chance(0.5):
        image = image.flip(2)
    if draw.chance(0.3):
        image = image[torch.randperm(3, generator=draw.generator).to(image.device)]
    if draw.chance(0.2):
        image = image.mean(dim=0, keepdim=True).expand(3, -1, -1)
    if not relit:
        return image
    if draw.chance(0.4):
        image = image * draw.uniform(0.3, 1.0)
    if draw.chance(0.1):
        image = 1 - image
    if draw.chance(0.12):
        # Little contrast on any ground, down to almost none: flat areas must stay what they are.
        share = draw.log_uniform(0.02, 0.6)
        image = image * share + draw.uniform(0, 1 - share)
    return image
