"""Places that stand for a plane."""

from __future__ import annotations

import numpy as np

from demoe.image.lazy_image import LazyImage
from demoe.plan.tiling import Box, TilePlan
from demoe.plan.windows import spread_starts

SAMPLES, SAMPLE = 2, 384
"""Places along each axis that stand for a plane; their side in pixels."""


def is_photo(image: LazyImage) -> bool:
    """Tell pictures with display values from measurements: one channel, or more than 8 bits."""
    return bool(image.is_rgb and image.dtype == np.uint8)


def sample_boxes(plan: TilePlan) -> list[Box]:
    """Return the places that stand for a plane."""
    tops, lefts = (spread_starts(side, SAMPLE, SAMPLES) for side in (plan.height, plan.width))
    return [
        Box(top, left, min(top + SAMPLE, plan.height), min(left + SAMPLE, plan.width))
        for top in tops
        for left in lefts
    ]
