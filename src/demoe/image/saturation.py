"""Pixels that were too bright for the camera, and the range that it has.

A saturated pixel says "at least this much": no arithmetic knows more, and whoever counts saturated
pixels wants to find them again. A camera of 12 bits writes 0 to 4095 into files of 16 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from demoe.image.intensity import sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demoe.image.lazy_image import LazyImage

CAMERA_BITS = (8, 10, 12, 14, 16)


@dataclass(frozen=True)
class Ceiling:
    """The largest value that a camera writes.

    Attributes
    ----------
    value : int
        Pixels of this value are saturated.
    is_seen : bool
        Whether there are such pixels in the sample, so that larger values cannot be. Of an image
        without them it is not known: its camera may have more bits.
    """

    value: int
    is_seen: bool

    def keep(self, restored: NDArray[Any], source: NDArray[Any]) -> NDArray[Any]:
        """Return restored pixels of which those that were saturated are, and none lies above.

        Parameters
        ----------
        restored, source : ndarray
            Of one shape and integer type.
        """
        kept = np.minimum(restored, self.value) if self.is_seen else restored
        return np.where(source == self.value, source, kept)


def find_ceiling(image: LazyImage) -> Ceiling | None:
    """Find what a camera's largest value is from a sample of an image, the one for intensities.

    Parameters
    ----------
    image : LazyImage
        The image.

    Returns
    -------
    Ceiling or None
        2^n - 1 for the fewest bits of `CAMERA_BITS` that hold the sample; None for types that no
        camera writes (signed integers and floats), or of more bits.
    """
    if image.dtype.kind != "u" or image.dtype.itemsize > 2:
        return None
    brightest = int(sample(image).max(initial=0))
    bits = next(n for n in CAMERA_BITS if brightest < 2**n)
    return Ceiling(2**bits - 1, brightest == 2**bits - 1)
