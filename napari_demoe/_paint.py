"""What labels and shapes that a person drew say about the routing cells of an image.

Everything happens at the resolution of cells, so that an image of any size costs little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from demoe.choices import Choice, words_of
from demoe.errors import AxesError, ImageError, RecipeError
from napari_demoe._layers import is_shapes
from napari_demoe._maps import cells_to_image_order
from napari_demoe._words import finest

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Layer, Shapes

TASK = "task"
"""The feature of a shape that names its expert."""

ROUNDING = 1e-6
"""What may be left of a rotation that two layers have in common, relative to the largest step."""

FAR = 1e6
"""Cells beyond the border up to which a shape keeps its form."""


def cells_of_layer(
    layer: Labels | Shapes,
    image: Image,
    axes: str,
    region: Sequence[slice],
    pitch: int,
    expert: int,
    choices: Sequence[Choice],
) -> Any:
    """Return what labels or shapes say about an image's routing cells.

    Parameters and errors are those of `cells_of_labels` and `cells_of_shapes`; an `ImageError`
    tells of a layer that is painted, but not on the centre of any cell.
    """
    if is_shapes(layer):
        cells = cells_of_shapes(layer, image, axes, region, pitch, expert, choices)
        painted = layer.nshapes > 0
    else:
        cells = cells_of_labels(layer, image, axes, region, pitch)
        painted = isinstance(cells, np.ndarray) and np.any(finest(layer))
    if painted and not cells.any():
        raise ImageError(
            f"What is painted on {layer.name!r} holds no centre of a cell of {image.name!r}; "
            f"paint on the image, and larger than a cell ({pitch} by {pitch} pixels)."
        )
    return cells


def cells_of_labels(
    labels: Labels, image: Image, axes: str, region: Sequence[slice], pitch: int
) -> Any:
    """Take the labels that lie under the centres of an image's routing cells.

    Parameters
    ----------
    labels : Labels
        At any resolution and place, turned and sheared as it may be; it may have fewer axes than
        the image. Lazy data stay lazy.
    image : Image
        The image.
    axes : str
        Letters of its data's axes.
    region : sequence of slice
        The part of the image, one slice an axis.
    pitch : int
        Pixels a side of a cell.

    Returns
    -------
    ndarray or dask array of int
        Planes of the image first, then rows and columns of cells; 0 where the labels do not reach.

    Raises
    ------
    AxesError
        If the labels have more axes than the image.
    """
    spatial = axes.removesuffix("S")
    _check_axes(labels, image)
    matrix, origin = _between(image, labels)
    # Along axes that run alike, the labels' places vary with one axis of the image alone.
    used = np.abs(matrix) > ROUNDING * np.abs(matrix).max()
    centres = [_centres(a, part, pitch) for a, part in zip(spatial, region, strict=False)]
    grid = np.meshgrid(*centres, indexing="ij", sparse=True)
    values = finest(labels)
    places, inside = [], np.ones([1] * len(grid), bool)
    for axis, length in enumerate(values.shape):
        place = np.full([1] * len(grid), origin[axis])
        for j in np.flatnonzero(used[axis]):
            place = place + matrix[axis, j] * grid[j]
        at = np.floor(np.round(place, 6) + 0.5).astype(int)
        inside = inside & (at >= 0) & (at < length)
        places.append(np.clip(at, 0, length - 1))
    if isinstance(values, np.ndarray):
        found = values[tuple(places)]
    else:
        found = da.asarray(values).vindex[tuple(np.broadcast_arrays(*places))]
    return cells_to_image_order(np.broadcast_to(found * inside, [len(c) for c in centres]), axes)


def cells_of_shapes(
    shapes: Shapes,
    image: Image,
    axes: str,
    region: Sequence[slice],
    pitch: int,
    expert: int,
    choices: Sequence[Choice],
) -> np.ndarray:
    """Draw regions into an image's routing cells; a cell is in if its centre is.

    Parameters
    ----------
    shapes : Shapes
        Drawn anywhere in the world. Their feature "task" names an expert by its name, its words or
        its number. Shapes that lack an axis of the image count all along it.
    image, axes, region, pitch
        As for `cells_of_labels`.
    expert : int
        Its number, for shapes without a task.
    choices : sequence of Choice
        Those of the network.

    Returns
    -------
    ndarray of uint8
        Planes of the image first, then rows and columns of cells; 0 where there is no shape.

    Raises
    ------
    AxesError
        If the shapes have more axes than the image.
    RecipeError
        If a shape's task is none.
    """
    from napari.layers import Shapes

    spatial = axes.removesuffix("S")
    _check_axes(shapes, image)
    matrix, origin = _between(shapes, image)
    parts = dict(zip(spatial, region, strict=False))
    cells = np.zeros([len(_centres(a, part, pitch)) for a, part in parts.items()], np.uint8)
    tasks = _tasks(shapes, expert, choices)
    drawn: dict[tuple[int | None, ...], list[int]] = {}  # which shapes lie in which planes
    outlines = []
    for number, vertices in enumerate(shapes.data):
        place = dict(zip(spatial, (vertices @ matrix.T + origin).T, strict=True))
        outlines.append(np.stack([_in_cells(place[a], parts[a], pitch) for a in "YX"], axis=1))
        plane = tuple(
            round(float(place[a][0])) - parts[a].start if matrix[j].any() else None
            for j, a in enumerate(spatial)
            if a not in "YX"
        )
        drawn.setdefault(plane, []).append(number)
    shown = cells_to_image_order(cells, axes)  # a view
    for plane, numbers in drawn.items():
        index = tuple(slice(None) if at is None else at for at in plane)
        if any(
            at is not None and not 0 <= at < n for at, n in zip(plane, shown.shape, strict=False)
        ):
            continue
        alone = Shapes(
            [outlines[i] for i in numbers],
            shape_type=[shapes.shape_type[i] for i in numbers],
            z_index=[shapes.z_index[i] for i in numbers],
        )
        found = alone.to_labels(shown.shape[-2:])
        shown[index] = np.array([0, *(tasks[i] for i in numbers)], np.uint8)[found]
    return shown


def name_regions(shapes: Shapes, expert: int, before: int, choices: Sequence[Choice]) -> None:
    """Give the shapes that are drawn next, and those that are selected, an expert.

    Shapes drawn so far keep what they had: without a task, the expert that was chosen `before`.
    """
    words = words_of(choices)
    if TASK not in shapes.features:
        shapes.features = shapes.features.assign(**{TASK: words[before]})
    shapes.current_properties = {
        **shapes.current_properties,
        TASK: np.array([words[expert]]),
    }


def _tasks(shapes: Shapes, expert: int, choices: Sequence[Choice]) -> list[int]:
    """Return the number of each shape's expert."""
    if TASK not in shapes.features:
        return [expert] * shapes.nshapes
    known: dict[str, int] = {}
    for number, choice in enumerate(choices, start=1):
        known |= {choice.words: number, choice.name: number, str(number): number}
    tasks = []
    for number, given in enumerate(shapes.features[TASK]):
        text = str(given).strip().lower().removesuffix(".0")
        if text not in known and text not in ("", "nan", "none", "0"):
            raise RecipeError(
                f"Shape {number} of {shapes.name!r} has the task {given!r}; use one of "
                f"{', '.join(choice.name for choice in choices)}, or leave it empty."
            )
        tasks.append(known.get(text, expert))
    return tasks


def _check_axes(layer: Layer, image: Image) -> None:
    if layer.ndim > image.ndim:
        raise AxesError(
            f"The layer {layer.name!r} has {layer.ndim} axes, but the image {image.name!r} has "
            f"{image.ndim}; use a layer with as many axes or with two."
        )


def _between(first: Layer, second: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Return matrix and origin that lead from one layer's data coordinates to another's.

    Both meet in the world, by their last axes.
    """
    ratio = np.ones(first.ndim)
    for axis in range(1, min(first.ndim, second.ndim) + 1):
        here, there = first.units[-axis], second.units[-axis]
        if here.is_compatible_with(there):
            ratio[-axis] = (1 * here).to(there).magnitude

    def lead(point: np.ndarray) -> np.ndarray:
        return np.asarray(second.world_to_data(ratio * first.data_to_world(point)), float)

    origin = lead(np.zeros(first.ndim))
    return np.stack([lead(e) - origin for e in np.eye(first.ndim)], axis=1), origin


def _centres(letter: str, part: slice, pitch: int) -> np.ndarray:
    """Return where cells, or planes, have their centres along an axis of the data."""
    step = pitch if letter in "YX" else 1
    start = np.arange(part.start, part.stop, step)
    return (start + np.minimum(start + step, part.stop) - 1) / 2


def _in_cells(place: np.ndarray, part: slice, pitch: int) -> np.ndarray:
    """Turn data coordinates into those of cells, the last of which may be cut short."""
    count = len(_centres("Y", part, pitch))
    full = part.start + (count - 1) * pitch
    return (
        np.interp(
            place + 0.5,
            [full - FAR * pitch, full, part.stop, part.stop + FAR * pitch],
            [count - 1 - FAR, count - 1, count, count + FAR],
        )
        - 0.5
    )
