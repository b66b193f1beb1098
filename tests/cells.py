"""An image with scale and units, for tests of what writers keep."""

import dask.array as da
import numpy as np

from demoe.image.lazy_image import LazyImage


def build(pixels: np.ndarray, axes: str, chunks: object = "auto") -> LazyImage:
    return LazyImage.from_array(
        da.from_array(pixels, chunks=chunks),
        axes,
        scale={"T": 3, "Z": 2, "Y": 0.25, "X": 0.5},
        units={"T": "s", "Z": "um", "Y": "um", "X": "um"},
        name="cells",
    )
