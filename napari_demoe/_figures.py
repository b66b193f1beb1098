"""Figures of what is looked at: sharpness, brightness, and which experts worked there. No Qt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from demoe.image.difference import ArrayLike
from demoe.image.sharpness import sharpness
from napari_demoe._compare import Pair
from napari_demoe._layers import exactly, ours
from napari_demoe._looking import steps_of
from napari_demoe._maps import cells_to_layer_order, expert_shares

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from demoe.choices import Choice

SIDE = 1024
"""At most so many pixels a side are read, in the middle of the view."""


@dataclass(frozen=True, eq=False)
class View:
    """What is looked at of a result and its source; nothing is read yet.

    Attributes
    ----------
    result, source : array-like
        Pixels of one shape, at the level that the viewer shows.
    box : tuple of int and slice
        The part that is looked at, two slices and colour samples.
    colour : bool
        Whether the last axis holds colour samples.
    coarser : int
        How many pixels of the image one pixel of the level stands for, a side.
    cut : bool
        Whether more is looked at than is read.
    cells : ndarray of int
        The expert map of the part that is looked at; empty where there is none yet.
    choices : tuple of Choice
        What its values mean.
    """

    result: ArrayLike
    source: ArrayLike
    box: tuple[int | slice, ...]
    colour: bool
    coarser: int
    cut: bool
    cells: np.ndarray
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Figures:
    """What was measured in a view.

    Attributes
    ----------
    sharpness, mean : (float, float)
        Of the source and of the result; see `demoe.image.sharpness`.
    most : float
        All but a hundredth of the pixels differ by less.
    shares : tuple of (str, float)
        Part of the cells that each choice got, those with some, the largest first.
    coarser, cut
        As in `View`.
    """

    sharpness: tuple[float, float]
    mean: tuple[float, float]
    most: float
    shares: tuple[tuple[str, float], ...]
    coarser: int
    cut: bool


def looked_at(viewer: ViewerModel, pair: Pair) -> View | None:
    """Return what is looked at of a pair; None in 3-D, and where the result is out of sight.

    The part is the smallest box of pixels around the canvas, also where the layer is rotated.
    """
    layer, dims = pair.result, viewer.dims
    shown = [axis - (dims.ndim - layer.ndim) for axis in dims.displayed]
    if dims.ndisplay != 2 or min(shown) < 0:
        return None
    result, source = pair.levels()[layer.data_level]
    factors = steps_of(layer)
    corners = np.array([layer.world_to_data(c) for c in _canvas_corners(viewer)])
    low, high = (np.rint(end(corners, axis=0)) for end in (np.min, np.max))
    whole = np.asarray((layer.data[0] if layer.multiscale else layer.data).shape[: layer.ndim])
    if any(high[axis] < 0 or low[axis] >= whole[axis] for axis in shown):
        return None
    low, high = (np.clip(ends, 0, whole - 1).astype(int) for ends in (low, high))
    cut, box = False, []
    lengths = result.shape[: layer.ndim]
    firsts, lasts = (ends // factors for ends in (low, high))
    for axis, (first, last, length) in enumerate(zip(firsts, lasts, lengths, strict=True)):
        first, last = int(min(first, length - 1)), int(min(last, length - 1))
        if axis not in shown:
            box.append(first)
            continue
        if last - first >= SIDE:
            first, cut = (first + last + 1 - SIDE) // 2, True
            last = first + SIDE - 1
        box.append(slice(first, last + 1))
    cells, choices = _cells(layer, shown, low, high)
    coarser = round(float(np.max(factors)))
    return View(result, source, tuple(box), layer.rgb, coarser, cut, cells, choices)


def measure(view: View) -> Figures:
    """Read the pixels of a view, and measure; on any thread."""
    source, result = (_gray(view, array) for array in (view.source, view.result))
    count = len(view.choices)
    shares = expert_shares(view.cells, count)[1:] if view.cells.size else []
    named = zip((choice.words for choice in view.choices), shares, strict=False)
    return Figures(
        sharpness=(sharpness(source), sharpness(result)),
        mean=(float(source.mean(dtype=np.float64)), float(result.mean(dtype=np.float64))),
        most=float(np.percentile(np.abs(result - source), 99)),
        shares=tuple(sorted(((w, s) for w, s in named if s), key=lambda each: -each[1])),
        coarser=view.coarser,
        cut=view.cut,
    )


def words(figures: Figures) -> str:
    """Put figures into one line."""
    where = f"In the middle {SIDE} × {SIDE} pixels" if figures.cut else "In view"  # noqa: RUF001
    if figures.coarser > 1:
        where += f", at 1/{figures.coarser} of the size"
    blunt, sharp = figures.sharpness
    parts = []
    if blunt > 0 and sharp >= 0:
        parts.append(f"sharpness {sharp / blunt:.2f} × the source's")  # noqa: RUF001
    before, after = figures.mean
    ratio = f" ({after / before:.3f} ×)" if before > 0 else ""  # noqa: RUF001
    parts.append(f"mean {_number(before)} → {_number(after)}{ratio}")
    if figures.shares:
        parts.append(", ".join(f"{name} {share:.0%}" for name, share in figures.shares))
    return f"{where}: {'; '.join(parts)}"


def _canvas_corners(viewer: ViewerModel) -> list[np.ndarray]:
    """Return the corners of the canvas in the world, in the plane that is shown."""
    camera, (height, width) = viewer.scene.camera, viewer.canvas.size
    middle = np.array(viewer.dims.point, dtype=float)
    shown = list(viewer.dims.displayed)
    middle[shown] = camera.center[-2:]
    half = np.array([height, width]) / (2 * camera.zoom)
    corners = []
    for sides in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        corner = middle.copy()
        corner[shown] += half * sides
        corners.append(corner)
    return corners


def _cells(
    layer: Any, shown: Sequence[int], low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, tuple[Choice, ...]]:
    """Return the expert map between two pixels of the finest level, and what it means."""
    left = ours({"metadata": layer.metadata})
    if left.get("expert_map") is None:
        return np.zeros(0, np.uint8), ()
    axes = left["axes"]
    pitches = dict(zip("YX", left["pitch"], strict=True))
    index: list[int | slice] = []
    for axis, letter in enumerate(axes.removesuffix("S")):
        first, last = (int(ends[axis]) // pitches.get(letter, 1) for ends in (low, high))
        index.append(slice(first, last + 1) if axis in shown else first)
    cells = cells_to_layer_order(np.asarray(left["expert_map"]), axes)[tuple(index)]
    return cells, tuple(left["choices"])


def _gray(view: View, array: ArrayLike) -> np.ndarray:
    values = np.asarray(exactly(array)[view.box], np.float32)
    return values.mean(axis=-1) if view.colour else values


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
