"""Blurs that were found, in words and as strokes over the image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from demoe.image.axes import plane_axes
from napari_demoe._layers import GEOMETRY

if TYPE_CHECKING:
    from demoe.engine.kernels.solution import Blur
    from demoe.model.kernels.families import Kernel

MAGNIFIED = 4
"""Blurs are drawn so many times as large as they are."""

ALIGNED = 0.9
"""Length of the mean of directions, 0 to 1, from which on they count as one."""

MOST_GLYPHS = 1000
"""More would make the viewer slow."""


def blur_sizes(
    blurs: Mapping[tuple[int, ...], Sequence[Blur]],
    expert_map: np.ndarray,
    pitch: tuple[int, int],
    count: int,
) -> list[str]:
    """Say how large the blurs are that were found where each expert works.

    Parameters
    ----------
    blurs : mapping
        By index along the plane axes; see `demoe.Deblurred.blurs`.
    expert_map : ndarray of int
        Plane axes of the image in its own order, then rows and columns of routing cells.
    pitch : (int, int)
        Rows and columns of pixels that a cell covers.
    count : int
        Of choices.

    Returns
    -------
    list of str
        For each value of the map, for example "radius 2.0 to 3.5 px" or "11 px at 25°"; of blurs of
        several kinds, the most frequent is told. Empty where none was found.
    """
    found: list[list[Kernel]] = [[] for _ in range(count + 1)]
    for plane, of in blurs.items():
        for blur in of:
            window = blur.window
            middle = (window.top + window.bottom) // 2, (window.left + window.right) // 2
            cell = tuple(n // step for n, step in zip(middle, pitch, strict=True))
            if blur.kernel is not None:
                found[expert_map[(*plane, *cell)]].append(blur.kernel)
    return [_sizes(kernels) for kernels in found]


def _sizes(kernels: Sequence[Kernel]) -> str:
    if not kernels:
        return ""
    ((family, _),) = Counter(kernel.family for kernel in kernels).most_common(1)
    alike = [kernel for kernel in kernels if kernel.family == family]
    digits = 0 if family == "motion" else 1
    least, most = (f"{end(k.size for k in alike):.{digits}f}" for end in (min, max))
    sizes = f"{least} px" if least == most else f"{least} to {most} px"
    if family != "motion":
        return f"{'radius' if family == 'disc' else 'sigma'} {sizes}"
    # Directions are the same after half a turn; doubled, they can be averaged.
    mean = np.mean(np.exp(2j * np.deg2rad([kernel.angle for kernel in alike])))
    if abs(mean) < ALIGNED:
        return f"{sizes} in several directions"
    return f"{sizes} at {np.rad2deg(np.angle(mean)) / 2 % 180:.0f}°"


def glyphs(
    blurs: Mapping[tuple[int, ...], Sequence[Blur]], axes: str
) -> tuple[np.ndarray, list[str]]:
    """Draw the blur of each window, `MAGNIFIED` times, in its middle.

    Parameters
    ----------
    blurs : mapping
        By index along the plane axes; see `demoe.Deblurred.blurs`.
    axes : str
        The image's axes.

    Returns
    -------
    strokes : ndarray
        (strokes, 2, ndim): where each begins and where it leads, in pixels of the image, in the
        order of a layer's axes.
    words : list of str
        What each belongs to.
    """
    spatial = axes.removesuffix("S")
    strokes, words, count = [np.zeros((0, 2, len(spatial)))], [], 0
    for plane, found in blurs.items():
        fixed = dict(zip(plane_axes(axes), plane, strict=True))
        for blur in found:
            if blur.kernel is None or count >= MOST_GLYPHS:
                continue
            count += 1
            outline = MAGNIFIED * blur.kernel.outline
            window = blur.window
            middle = np.array([window.top + window.bottom, window.left + window.right]) / 2 - 0.5
            at = dict(zip("YX", (middle + outline).T, strict=True))
            columns = [at.get(a, np.full(len(outline), fixed.get(a, 0))) for a in spatial]
            points = np.stack(columns, axis=1)
            strokes.append(np.stack([points[:-1], np.diff(points, axis=0)], axis=1))
            words += [blur.words] * (len(points) - 1)
    return np.concatenate(strokes), words


def blur_at(blurs: Sequence[Blur], row: float, col: float) -> str:
    """Return the words for the blur at a pixel: those of the window that has it most inside."""

    def outside(blur: Blur) -> float:
        window = blur.window
        middle = (window.top + window.bottom) / 2, (window.left + window.right) / 2
        return max(abs(row - middle[0]), abs(col - middle[1]))

    return min(blurs, key=outside).words if blurs else ""


def glyphs_kwargs(source: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Describe drawn blurs as keyword arguments of a layer of vectors, hidden at first."""
    return {
        **{key: source[key] for key in GEOMETRY if key in source},
        "name": f"{source['name']} blur ({MAGNIFIED} x)",
        "features": {"blur": list(words)},
        "edge_color": "yellow",
        "edge_width": 2,
        "vector_style": "line",
        "visible": False,
        "metadata": {"demoe": {"map": "blur"}},
    }
