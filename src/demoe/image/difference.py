"""Pixel by pixel, what one image is more than another, computed for what is looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Index = int | slice


class ArrayLike(Protocol):
    """What numpy, dask and zarr arrays have in common."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a value."""

    def __getitem__(self, index: Any) -> Any:
        """Return a part."""


class Part:
    """A regular part of an array, read when it is indexed: every so many pixels from a place on.

    Parameters
    ----------
    array : array-like
        numpy, dask or zarr array, or anything with shape, dtype and indices of int and slice.
    start, step : sequence of int
        First index and distance along each axis.
    shape : sequence of int
        Lengths; all of it has to lie in the array.
    """

    def __init__(
        self, array: ArrayLike, start: Sequence[int], step: Sequence[int], shape: Sequence[int]
    ) -> None:
        for first, stride, length, whole in zip(start, step, shape, array.shape, strict=True):
            if first < 0 or stride < 1 or length < 1 or first + stride * (length - 1) >= whole:
                raise IndexError(
                    f"A part from {tuple(start)} in steps of {tuple(step)} with the shape "
                    f"{tuple(shape)} does not lie in an array of {tuple(array.shape)}."
                )
        self._array, self._start, self._step = array, tuple(start), tuple(step)
        self.shape = tuple(shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a value."""
        return self._array.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, index: Any) -> Any:
        """Read what an index of ints and slices with positive steps takes."""
        taken: list[Index] = []
        for item, first, stride, length in zip(
            full_index(index, self.shape), self._start, self._step, self.shape, strict=True
        ):
            if isinstance(item, slice):
                low, high, by = item.indices(length)
                count = len(range(low, high, by))
                stop = first + stride * (low + by * (count - 1)) + 1 if count else first
                taken.append(slice(first + stride * low if count else first, stop, stride * by))
            else:
                taken.append(first + stride * range(length)[item])
        return self._array[tuple(taken)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read all of it."""
        return np.asarray(self[...], dtype)


class Difference:
    """One array less another of the same shape, computed where it is indexed.

    Parameters
    ----------
    first, second : array-like
        Images of one shape, of real numbers; see `Part`.
    colour : bool
        Whether the last axis holds colour samples; their mean is compared then, so that the
        difference has a sign and no such axis.

    Attributes
    ----------
    shape : tuple of int
        That of both, less colour samples.
    dtype : dtype
        float32.

    Raises
    ------
    ValueError
        If the shapes differ.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, first: ArrayLike, second: ArrayLike, colour: bool = False) -> None:
        if tuple(first.shape) != tuple(second.shape):
            raise ValueError(
                f"Images of one shape can be compared, not {tuple(first.shape)} and "
                f"{tuple(second.shape)}."
            )
        self.first, self.second, self._colour = first, second, colour
        self.shape = tuple(int(n) for n in first.shape[: -1 if colour else None])

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        """Length of the first axis."""
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        """Compute what an index of ints and slices with positive steps takes."""
        at = full_index(index, self.shape)
        more, less = (_values(array[at], self._colour) for array in (self.first, self.second))
        return np.asarray(np.subtract(more, less), np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Compute all of it."""
        return np.asarray(self[...], dtype)


def full_index(index: Any, shape: Sequence[int]) -> tuple[Index, ...]:
    """Write an index of ints, slices and ``...`` with one item an axis.

    Raises
    ------
    IndexError
        For other items, steps below 1, and more items than axes.
    """
    items = list(index) if isinstance(index, tuple) else [index]
    if any(item is Ellipsis for item in items):
        at = next(i for i, item in enumerate(items) if item is Ellipsis)
        items[at : at + 1] = [slice(None)] * (len(shape) - len(items) + 1)
    items += [slice(None)] * (len(shape) - len(items))
    found: list[Index] = []
    for item in items:
        if isinstance(item, slice):
            if item.step is not None and item.step < 1:
                raise IndexError(f"A step has to be 1 or more, not {item.step}.")
            found.append(item)
        elif hasattr(item, "__index__"):
            found.append(int(item))
        else:
            raise IndexError(f"Only ints and slices can be taken, not {item!r}.")
    if len(found) > len(shape):
        raise IndexError(f"{len(found)} indices are too many for {len(shape)} axes.")
    return tuple(found)


def _values(part: Any, colour: bool) -> NDArray[Any]:
    """Return pixels in a type in which they can be subtracted."""
    values = np.asarray(part)
    wide = np.result_type(values.dtype, np.float32)
    return values.mean(axis=-1, dtype=wide) if colour else values.astype(wide, copy=False)
