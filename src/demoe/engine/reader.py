"""Pixels of an image: as they are, and as networks want them."""

from __future__ import annotations

from typing import Any

import numpy as np
from dask.local import get_sync
from numpy.typing import NDArray

from demoe.engine.memory import Memory
from demoe.errors import ImageError
from demoe.image.intensity import IntensityScale, resolve_intensity
from demoe.image.lazy_image import LazyImage
from demoe.plan.tiling import Box, Plane
from demoe.routing.router import Pixels


class PlaneReader:
    """Reads rectangles of the planes of an image.

    Parameters
    ----------
    image : LazyImage
        The source.
    intensity : str or (float, float)
        As in a recipe.
    memory : Memory
        Keeps the intensity scale.
    """

    def __init__(
        self, image: LazyImage, intensity: str | tuple[float, float], memory: Memory
    ) -> None:
        self.image = image
        self._intensity = intensity
        self._memory = memory

    @property
    def scale(self) -> IntensityScale:
        """How pixel values become [0, 1]; decided once an image, from a fixed sample of it."""
        memory = self._memory
        with memory.lock:
            if memory.scale is None:
                memory.scale = resolve_intensity(self.image, self._intensity)
            return memory.scale

    def values(self, plane: Plane, box: Box) -> NDArray[Any]:
        """Read a rectangle of a plane: (rows, cols, S), dtype of the image."""
        # In the image's own axes: to turn all of it first would cost as much as it has blocks.
        axes = self.image.axes
        index = dict(zip("TCZ", plane, strict=True)) | dict(zip("YX", box.slices, strict=True))
        lazy = self.image.data[tuple(index.get(letter, slice(None)) for letter in axes)]
        # In this thread: this already runs inside a task, and tasks are what runs in parallel.
        values: NDArray[Any] = np.asarray(lazy.compute(scheduler=get_sync))
        if axes.index("Y") > axes.index("X"):
            values = values.swapaxes(0, 1)
        if not self.image.is_rgb:
            values = values[..., None]
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            y, x, _ = np.argwhere(~np.isfinite(values))[0]
            raise ImageError(
                f"{self.image.source or self.image.name} holds a value that is not finite at row "
                f"{box.top + y}, column {box.left + x} of plane T, C, Z = {plane}; replace such "
                "values first, for example with numpy.nan_to_num."
            )
        return values

    def pixels(self, plane: Plane, box: Box) -> Pixels:
        """Read a rectangle as networks want it: (rows, cols, 1 or 3), [0, 1]; alpha is left out."""
        return self.scale.normalise(self.values(plane, box)[..., :3])
