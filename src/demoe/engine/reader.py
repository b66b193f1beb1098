"""Pixels of an image: as they are, and as networks want them."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
from dask.local import get_sync
from numpy.typing import NDArray

from demoe.engine.memory import Memory
from demoe.errors import ImageError
from demoe.image.intensity import IntensityScale, resolve_intensity
from demoe.image.lazy_image import LazyImage
from demoe.image.saturation import Ceiling, find_ceiling
from demoe.plan.tiling import Box, Plane
from demoe.routing.router import Pixels


class Read(NamedTuple):
    """What was read of an image.

    Attributes
    ----------
    plane : (int, int, int)
        Index along T, C, Z.
    box : Box
        The rectangle; `SCALE` stands for the sample that decides the intensity scale.
    digest : bytes
        16 bytes that tell its pixels from others.
    """

    plane: Plane
    box: Box
    digest: bytes


SCALE = Box(0, 0, 0, 0)


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
    noted : bool
        Whether what is read is noted in the memory, if that is asked to note it.
    """

    def __init__(
        self,
        image: LazyImage,
        intensity: str | tuple[float, float],
        memory: Memory,
        noted: bool = False,
    ) -> None:
        self.image = image
        self._intensity = intensity
        self._memory = memory
        self._noted = noted

    @property
    def scale(self) -> IntensityScale:
        """How pixel values become [0, 1]; decided once an image, from a fixed sample of it."""
        memory = self._memory
        with memory.lock:
            if memory.scale is None:
                memory.scale = resolve_intensity(self.image, self._intensity)
                self._note((0, 0, 0), SCALE, _digest_of(memory.scale))
            return memory.scale

    @property
    def ceiling(self) -> Ceiling | None:
        """The largest value of its camera; decided once an image, from the same sample."""
        found: Ceiling | None = self._memory.once("ceiling", (), lambda: find_ceiling(self.image))
        return found

    def values(self, plane: Plane, box: Box) -> NDArray[Any]:
        """Read a rectangle of a plane: (rows, cols, S), dtype of the image."""
        values = self._read(plane, box)
        if self._noted and self._memory.reads is not None:
            self._note(plane, box, _digest(values))
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            y, x, _ = np.argwhere(~np.isfinite(values))[0]
            raise ImageError(
                f"{self.image.source or self.image.name} holds a value that is not finite at row "
                f"{box.top + y}, column {box.left + x} of plane T, C, Z = {plane}; replace such "
                "values first, for example with numpy.nan_to_num."
            )
        return values

    def still_gives(self, read: Read) -> bool:
        """Whether the image still holds what was read of it."""
        if read.box == SCALE:
            return _digest_of(resolve_intensity(self.image, self._intensity)) == read.digest
        return _digest(self._read(read.plane, read.box)) == read.digest

    def _note(self, plane: Plane, box: Box, digest: bytes) -> None:
        with self._memory.lock:
            if self._noted and self._memory.reads is not None:
                self._memory.reads[plane, box] = digest

    def _read(self, plane: Plane, box: Box) -> NDArray[Any]:
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
        return values

    def pixels(self, plane: Plane, box: Box) -> Pixels:
        """Read a rectangle as networks want it: (rows, cols, 1 or 3), [0, 1]; alpha is left out."""
        return self.scale.normalise(self.values(plane, box)[..., :3])


def _digest(values: NDArray[Any]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=16).digest()


def _digest_of(scale: IntensityScale) -> bytes:
    return _digest(np.array([scale.low, scale.high]))
