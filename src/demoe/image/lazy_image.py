"""LazyImage: dask data that knows its axes, its physical scale and its channels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import dask.array as da
import numpy as np

from demoe.errors import AxesError, ImageError
from demoe.image.axes import check_axes, guess_axes, plane_axes, to_canonical
from demoe.limits import quoted

if TYPE_CHECKING:
    import zarr
    from numpy.typing import ArrayLike

SCALED_AXES = "TZYX"

# Full names as in OME-NGFF and UDUNITS-2; the keys are what files and people write, lower case.
_UNIT_NAMES = {
    "angstrom": ("angstrom", "å", "\\u00c5"),
    "nanometer": ("nm", "nanometer", "nanometers", "nanometre", "nanometres"),
    "micrometer": (
        *("um", "\u00b5m", "\u03bcm", "\\u00b5m", "\\u03bcm", "micron", "microns", "micro"),
        *("micrometer", "micrometers", "micrometre", "micrometres"),
    ),
    "millimeter": ("mm", "millimeter", "millimeters", "millimetre", "millimetres"),
    "centimeter": ("cm", "centimeter", "centimeters", "centimetre", "centimetres"),
    "meter": ("m", "meter", "meters", "metre", "metres"),
    "inch": ("in", "inch", "inches"),
    "nanosecond": ("ns", "nanosecond", "nanoseconds"),
    "microsecond": ("us", "\u00b5s", "\u03bcs", "microsecond", "microseconds"),
    "millisecond": ("ms", "msec", "millisecond", "milliseconds"),
    "second": ("s", "sec", "second", "seconds"),
    "minute": ("min", "minute", "minutes"),
    "hour": ("h", "hour", "hours"),
    "day": ("d", "day", "days"),
    "pixel": ("pixel", "pixels", "px", "frame", "frames", ""),
}
_SCALES = (1e-30, 1e30)
_UNITS = {spelling: name for name, spellings in _UNIT_NAMES.items() for spelling in spellings}


def unit_name(unit: str) -> str:
    """Spell a unit in full.

    Parameters
    ----------
    unit : str
        For example "um", "µm", "micron", "sec".

    Returns
    -------
    str
        The OME-NGFF name, for example "micrometer" or "second"; an unknown unit is returned as it
        is, and an empty one is "pixel".
    """
    return _UNITS.get(unit.strip().lower(), unit.strip())


def is_scale(size: float) -> bool:
    """Whether a number can be the size of a pixel: above 0, and not beyond what can be used."""
    return _SCALES[0] <= size <= _SCALES[1]


BLOCK_SIDE = 512
"""Least side in pixels of a block that dask handles, where chunks are smaller."""

_PIXELS = 16
"""Least side of a chunk along an axis of pixels, rather than of planes or samples."""


class Origin(Protocol):
    """Files that pixels come from."""

    def stamp(self) -> str:
        """Tell one version of the files from the next by their sizes and times; cheap."""

    def absent(self) -> int:
        """Count the blocks that are not in the files and read as a fill value."""


@dataclass(frozen=True, eq=False)
class LazyImage:
    """An image of any size that is read only where it is computed.

    Attributes
    ----------
    data : dask.array.Array
        Pixels in the file's own axis order; integers or floats of at most 64 bits, native byte
        order.
    axes : str
        One letter of TCZYXS for each dimension of `data`; S (RGB or RGBA samples) is last.
    scale : Mapping of str to float
        Physical size of one step along T, Z, Y, X; an axis left out has 1.0.
    units : Mapping of str to str
        Full names ("micrometer", "second") for T, Z, Y, X; an axis left out is in "pixel".
    channel_names : tuple of str
        One name for each entry of axis C, or none at all.
    name : str
        A short name, such as the file's without its suffix.
    source : str, optional
        The path that the image came from.
    origins : tuple of Origin
        The files that the pixels are read from; none for arrays.
    """

    data: da.Array
    axes: str
    scale: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    channel_names: tuple[str, ...] = ()
    name: str = "image"
    source: str | None = None
    origins: tuple[Origin, ...] = ()

    def __post_init__(self) -> None:
        """Check the pixels, the axes and the metadata against each other."""
        where = self.source or self.name
        _check_pixels(self.data.shape, self.data.dtype, where)
        axes = check_axes(self.axes, self.data.shape)
        channels = self.data.shape[axes.index("C")] if "C" in axes else 1
        names = tuple(str(name) for name in self.channel_names)
        if names and len(names) != channels:
            raise ImageError(
                f"{where} has {channels} channels but {len(names)} channel names; "
                "give one for each, or none."
            )
        object.__setattr__(self, "axes", axes)
        object.__setattr__(self, "channel_names", names)
        object.__setattr__(self, "scale", _check_scale(self.scale, axes, where))
        object.__setattr__(
            self, "units", {k: unit_name(v) for k, v in self.units.items() if k in axes}
        )
        if not self.data.dtype.isnative:  # torch cannot take swapped bytes
            native = self.data.dtype.newbyteorder("=")
            object.__setattr__(self, "data", self.data.astype(native))

    @classmethod
    def from_array(
        cls,
        array: da.Array | zarr.Array[Any] | ArrayLike,
        axes: str | None = None,
        *,
        scale: Mapping[str, float] | None = None,
        units: Mapping[str, str] | None = None,
        channel_names: Sequence[str] = (),
        name: str = "image",
    ) -> LazyImage:
        """Wrap an array in memory, a dask array or a zarr array.

        Parameters
        ----------
        array : array-like
            numpy, dask or zarr array, or nested sequences; integers or floats.
        axes : str, optional
            One letter of TCZYXS for each dimension; guessed from the shape if left out, see
            `demoe.image.axes.guess_axes`.
        scale, units, channel_names, name
            As the attributes of this class.

        Returns
        -------
        LazyImage
            Nothing is read or copied.

        Raises
        ------
        ImageError
            For bool, complex, text or object data, for less than two dimensions and for no pixels.
        AxesError
            For axes that do not fit, and for five or more dimensions without axes.
        """
        data = _as_dask(array, name)
        if axes is None:
            axes = guess_axes(data.shape)
        return cls(data, axes, scale or {}, units or {}, tuple(channel_names), name)

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes, in the order of `axes`."""
        return tuple(int(length) for length in self.data.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel value."""
        dtype: np.dtype[Any] = self.data.dtype
        return dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.axes)

    @property
    def is_rgb(self) -> bool:
        """Whether the image has colour samples (axis S)."""
        return "S" in self.axes

    @property
    def canonical(self) -> da.Array:
        """The data as TCZYXS; missing axes have length 1."""
        return to_canonical(self.data, self.axes)

    @property
    def plane_shape(self) -> tuple[int, int]:
        """Rows and columns of a plane."""
        return self._length("Y"), self._length("X")

    @property
    def plane_lengths(self) -> tuple[int, ...]:
        """Lengths of the axes that are neither Y, X nor S, in the image's order."""
        return tuple(n for a, n in zip(self.axes, self.shape, strict=True) if a not in "YXS")

    @property
    def n_planes(self) -> int:
        """Number of YX planes, T times C times Z."""
        return math.prod(self._length(letter) for letter in "TCZ")

    def with_data(self, data: da.Array, **changes: Any) -> LazyImage:
        """Give the same image other pixels.

        Parameters
        ----------
        data : dask.array.Array
            Shape as `axes` (of the image, or of `changes`) ask for; any accepted dtype.
        **changes
            Other attributes to change.

        Returns
        -------
        LazyImage
            A new image; metadata that is not in `changes` is kept.
        """
        return replace(self, data=data, **changes)

    def of_cells(self, values: da.Array | ArrayLike, pitch: tuple[int, int]) -> LazyImage:
        """Describe a map over routing cells of this image, such as its expert map.

        Parameters
        ----------
        values : array
            Plane axes in the image's order, then rows and columns of cells.
        pitch : (int, int)
            Rows and columns of pixels that a cell covers.
        """
        cell = dict(zip("YX", pitch, strict=True))
        return LazyImage.from_array(
            values,
            plane_axes(self.axes) + "YX",
            scale={
                a: self.scale.get(a, 1.0) * cell.get(a, 1) for a in SCALED_AXES if a in self.axes
            },
            units=self.units,
            channel_names=self.channel_names,
            name=f"{self.name} experts",
        )

    def _length(self, letter: str) -> int:
        return int(self.data.shape[self.axes.index(letter)]) if letter in self.axes else 1


def _check_pixels(shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> None:
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise ImageError(
            f"{where} holds {dtype} values, but an image is made of integers or floats of at most "
            "64 bits."
        )
    if len(shape) < 2:
        raise ImageError(
            f"{where} has {len(shape)} dimension(s), but an image has at least two, rows and "
            "columns."
        )
    if any(not length >= 1 for length in shape):  # also true for dask's unknown lengths, NaN
        raise ImageError(
            f"{where} has the shape {' x '.join(str(n) for n in shape)}, but every axis must have "
            "a known length of at least one."
        )


def _check_scale(scale: Mapping[str, float], axes: str, where: str) -> dict[str, float]:
    checked = {}
    for letter, size in scale.items():
        if letter not in SCALED_AXES:
            raise AxesError(
                f"{where} has a scale along '{letter}', but only {', '.join(SCALED_AXES)} have one."
            )
        if not is_scale(size):
            raise ImageError(
                f"{where} has the scale {quoted(size)} along {letter}, but a scale is a number "
                f"from {_SCALES[0]} to {_SCALES[1]}."
            )
        if letter in axes:
            checked[letter] = float(size)
    return checked


def block_shape(shape: Sequence[int], chunks: Sequence[int]) -> tuple[int, ...]:
    """Return the sides of blocks for dask: chunks of a file, several where they are small.

    No more is read for it, since dask hands the part that is wanted on to the file. Sides of few
    steps, such as planes and samples, stay.
    """
    return tuple(
        min(int(length), int(chunk) * max(1, BLOCK_SIDE // int(chunk)))
        if chunk >= _PIXELS
        else int(chunk)
        for length, chunk in zip(shape, chunks, strict=True)
    )


def _as_dask(array: Any, name: str) -> da.Array:
    if isinstance(array, da.Array):
        return array
    if not (hasattr(array, "shape") and hasattr(array, "dtype")):
        try:
            array = np.asarray(array)
        except ValueError:
            raise ImageError(
                f"{name} is a {type(array).__name__} that does not form a regular array of numbers."
            ) from None
    # Before dask sees it: from_array would hash the content of what cannot be used anyway.
    dtype = np.dtype(array.dtype)
    _check_pixels(tuple(array.shape), dtype, name)
    chunks = getattr(array, "chunks", None)
    # What is not in memory goes into each task: as a task of its own, it makes each look at a part
    # of the image list all blocks.
    lazy: da.Array = da.from_array(
        array,
        chunks=block_shape(array.shape, chunks) if chunks else "auto",
        inline_array=not isinstance(array, np.ndarray),
    )
    return lazy
