"""A result beside its source: which belongs to which, what they show, how they differ. No Qt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from demoe.image.difference import ArrayLike, Difference, Part
from napari_demoe._layers import GEOMETRY, is_image, ours

if TYPE_CHECKING:
    from napari.components import LayerList
    from napari.layers import Image, Layer

_LOOK = ("contrast_limits", "gamma", "colormap", "interpolation2d", "opacity", "blending")
"""What decides how pixels look."""

_COVERING = ("opaque", "translucent", "translucent_no_depth")
"""Blendings of images that hide what lies below."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A result and the layer that it was made from.

    Attributes
    ----------
    result, source : Image
        Both in one viewer; a preview's result is a part of its source.
    """

    result: Image
    source: Image

    @property
    def start(self) -> tuple[int, ...]:
        """The pixel of the source that the result's first one is, without colour samples."""
        first = self.result.data_to_world((0,) * self.result.ndim)
        return tuple(int(n) for n in np.rint(self.source.world_to_data(first)))

    def levels(self) -> list[tuple[ArrayLike, ArrayLike]]:
        """Return pixels of one shape: each level of the result, and the source at that level.

        Where the source has no such level, every so many of its finest pixels are taken. Nothing
        is read.
        """
        return [(level, self._source_like(level)) for level in _levels(self.result)]

    def _source_like(self, level: ArrayLike) -> ArrayLike:
        samples = 1 if self.result.rgb else 0
        start = (*self.start, *(0,) * samples)
        sources = _levels(self.source)
        if not any(start):
            for each in sources:
                if tuple(each.shape) == tuple(level.shape):
                    return each
        step = [
            _step(whole, part)
            for whole, part in zip(_levels(self.result)[0].shape, level.shape, strict=True)
        ]
        return Part(sources[0], start, step, level.shape)

    def difference(self) -> Difference | list[Difference]:
        """Return the result less its source, for each level if there are several."""
        found = [Difference(more, less, self.result.rgb) for more, less in self.levels()]
        return found if self.result.multiscale else found[0]


def pair_of(result: Layer | None, layers: Iterable[Layer]) -> Pair | None:
    """Return a result and its source, if a layer is one and the source is still there."""
    made_from = None if result is None else ours({"metadata": result.metadata}).get("made_from")
    if made_from is None or not is_image(result):
        return None
    for layer in layers:
        if is_image(layer) and layer.unique_id == made_from:
            return Pair(result, layer)
    return None


def pair_at_hand(layers: LayerList) -> Pair | None:
    """Return what a person most likely wants to compare.

    The selected result, the newest result of the selected source, or the newest result at all:
    the uppermost in the layer list that has its source.
    """
    active = layers.selection.active
    chosen = pair_of(active, layers)
    if chosen is not None:
        return chosen
    pairs = [pair for pair in (pair_of(layer, layers) for layer in layers) if pair is not None]
    of_active = [pair for pair in pairs if pair.source is active]
    return (of_active or pairs or [None])[-1]


class Alike:
    """Shows a source as its result is shown, until `undo`.

    The source becomes visible and takes contrast, colours and blending of the result; images that
    lie between both and would hide it are hidden.

    Parameters
    ----------
    pair : Pair
        What is compared.
    layers : iterable of Layer
        The layer list, the lowest first.
    """

    def __init__(self, pair: Pair, layers: Iterable[Layer]) -> None:
        result, source = pair.result, pair.source
        self._before: list[tuple[Layer, dict[str, Any]]] = [
            (source, {name: getattr(source, name) for name in (*_LOOK, "visible")}),
            (result, {"visible": result.visible}),
        ]
        order = list(layers)
        low, high = sorted((order.index(source), order.index(result)))
        for each in order[low + 1 : high]:
            if is_image(each) and each.visible and str(each.blending) in _COVERING:
                self._before.append((each, {"visible": True}))
                each.visible = False
        for name in _LOOK:
            _set(source, name, getattr(result, name))
        for layer in (source, result):
            _set(layer, "visible", True)

    def undo(self) -> None:
        """Leave all as it was before."""
        for layer, look in self._before:
            for name, value in look.items():
                _set(layer, name, value)


def difference_kwargs(pair: Pair, most: float) -> dict[str, Any]:
    """Describe a difference as keyword arguments of an image layer.

    Parameters
    ----------
    pair : Pair
        What differs.
    most : float
        The contrast range ends at this much more and less; 0 takes a twentieth of the result's.

    Returns
    -------
    dict
        Where the result lies, red where it is brighter than its source and blue where darker.
    """
    from napari.utils.colormaps import Colormap

    result = pair.result
    low, high = result.contrast_limits
    most = most or (high - low) / 20 or 1.0
    place = {key: getattr(result, key) for key in GEOMETRY}
    return {
        **place,
        "name": f"{result.name} difference",
        "rgb": False,
        "multiscale": bool(result.multiscale),
        "cache": False,
        "contrast_limits": (-most, most),
        "colormap": Colormap(
            [[0.15, 0.35, 0.95, 1], [0, 0, 0, 1], [0.95, 0.25, 0.15, 1]], name="less and more"
        ),
        "blending": "translucent_no_depth",
        "interpolation2d": result.interpolation2d,
        "metadata": {"demoe": {"map": "difference"}},
    }


def is_difference(layer: Layer) -> bool:
    """Whether a layer is the difference of a result and its source."""
    return ours({"metadata": layer.metadata}).get("map") == "difference"


def _levels(layer: Image) -> Sequence[ArrayLike]:
    return layer.data if layer.multiscale else [layer.data]


def _step(whole: int, part: int) -> int:
    """Return how many pixels of a level one pixel of a coarser one stands for."""
    if part < 2:
        return 1
    return max(1, min(round(whole / part), (whole - 1) // (part - 1)))


def _set(layer: Layer, name: str, value: Any) -> None:
    now = getattr(layer, name)
    if now is not value and not np.array_equal(now, value):  # each change draws again
        setattr(layer, name, value)
