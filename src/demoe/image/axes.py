"""Axis strings and the one canonical order, TCZYXS, and back.

Letters are those of OME: T time, C channel, Z depth, Y rows, X columns, S colour samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import dask.array as da
import numpy as np

from demoe.errors import AxesError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    AnyArray = TypeVar("AnyArray", NDArray[Any], da.Array)

CANONICAL = "TCZYXS"
PLANE_LETTERS = "YXS"
RGB_SAMPLES = (3, 4)


def check_axes(axes: str, shape: tuple[int, ...]) -> str:
    """Validate an axis string against the shape of its array.

    Parameters
    ----------
    axes : str
        One letter of TCZYXS for each dimension, upper or lower case.
    shape : tuple of int
        The shape of the array.

    Returns
    -------
    str
        The same letters in upper case.

    Raises
    ------
    AxesError
        For foreign or repeated letters, a wrong number of them, a missing Y or X, and an S that
        is not last or not 3 or 4 long.
    """
    letters = axes.upper()
    foreign = [letter for letter in letters if letter not in CANONICAL]
    if foreign:
        raise AxesError(
            f"Axes '{axes}' hold '{foreign[0]}', but only the letters {CANONICAL} are known."
        )
    if len(set(letters)) != len(letters):
        raise AxesError(f"Axes '{axes}' repeat a letter, but each may be named once only.")
    if len(letters) != len(shape):
        raise AxesError(
            f"Axes '{axes}' name {len(letters)} dimensions, but the image of shape "
            f"{_size(shape)} has {len(shape)}."
        )
    if "Y" not in letters or "X" not in letters:
        raise AxesError(f"Axes '{axes}' must hold both Y (rows) and X (columns).")
    if "S" in letters:
        if letters[-1] != "S":
            raise AxesError(
                f"Axes '{axes}' must end in S, because colour samples lie along the last axis."
            )
        if shape[-1] not in RGB_SAMPLES:
            raise AxesError(
                f"Axis S of an image of shape {_size(shape)} is {shape[-1]} long, but RGB has 3 "
                "samples and RGBA has 4 (use C for other channels)."
            )
    return letters


def guess_axes(shape: tuple[int, ...]) -> str:
    """Name the axes of an array that does not say what they are.

    Two dimensions are YX. Three are YXS if the last is 3 or 4 and smaller than both others, else
    ZYX. Four are ZYXS if the last is 3 or 4 and smaller than the two before it, else TZYX.

    Parameters
    ----------
    shape : tuple of int
        The shape of the array.

    Returns
    -------
    str
        One letter of TCZYXS for each dimension.

    Raises
    ------
    AxesError
        For fewer than two or more than four dimensions.
    """
    colour = len(shape) > 2 and shape[-1] in RGB_SAMPLES and min(shape[-3:-1]) > shape[-1]
    if len(shape) == 2:
        return "YX"
    if len(shape) == 3:
        return "YXS" if colour else "ZYX"
    if len(shape) == 4:
        return "ZYXS" if colour else "TZYX"
    raise AxesError(
        f"The axes of an image of shape {_size(shape)} cannot be guessed, so name them, for "
        "example axes='TCZYX'."
    )


def to_canonical(array: AnyArray, axes: str) -> AnyArray:
    """Show an array in the canonical order.

    Parameters
    ----------
    array : ndarray or dask array
        Any dtype, one dimension for each letter of `axes`.
    axes : str
        Valid letters, see `check_axes`.

    Returns
    -------
    ndarray or dask array
        A 6-dimensional view, TCZYXS; missing axes have length 1.
    """
    present = "".join(letter for letter in CANONICAL if letter in axes)
    turned: AnyArray = array.transpose([axes.index(letter) for letter in present])
    if isinstance(turned, np.ndarray):
        return _add_axes(turned, present)
    # Indexing with None would list every block; this keeps the graph of any image small.
    view: AnyArray = da.blockwise(
        _add_axes,
        tuple(CANONICAL),
        turned,
        tuple(present),
        new_axes={letter: 1 for letter in CANONICAL if letter not in present},
        present=present,
        dtype=turned.dtype,
        meta=np.empty((0,) * len(CANONICAL), turned.dtype),
    )
    return view


def from_canonical(array: AnyArray, axes: str) -> AnyArray:
    """Undo `to_canonical`.

    Parameters
    ----------
    array : ndarray or dask array
        6-dimensional, TCZYXS; the axes that `axes` does not name have length 1.
    axes : str
        The order wanted.

    Returns
    -------
    ndarray or dask array
        A view with one dimension for each letter of `axes`.

    Raises
    ------
    AxesError
        If an axis longer than 1 would be dropped.
    """
    for letter, length in zip(CANONICAL, array.shape, strict=True):
        if letter not in axes and length != 1:
            raise AxesError(
                f"Axis {letter} is {length} long and cannot be left out of axes '{axes}'."
            )
    present = [letter for letter in CANONICAL if letter in axes]
    dropped = tuple(at for at, letter in enumerate(CANONICAL) if letter not in axes)
    if isinstance(array, np.ndarray):
        kept = array.squeeze(dropped)
    elif dropped:
        kept = da.map_blocks(
            np.squeeze,
            array,
            axis=dropped,
            drop_axis=list(dropped),
            dtype=array.dtype,
            meta=np.empty((0,) * len(present), array.dtype),
        )
    else:
        kept = array
    view: AnyArray = kept.transpose([present.index(letter) for letter in axes])
    return view


def plane_axes(axes: str) -> str:
    """Name the axes along which planes are counted.

    Parameters
    ----------
    axes : str
        Valid letters, see `check_axes`.

    Returns
    -------
    str
        `axes` without Y, X and S, in the same order, for example "TCZ" or "".
    """
    return "".join(letter for letter in axes if letter not in PLANE_LETTERS)


def _add_axes(block: NDArray[Any], present: str) -> NDArray[Any]:
    index = tuple(slice(None) if letter in present else None for letter in CANONICAL)
    view: NDArray[Any] = block[index]
    return view


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in shape) if shape else "()"
