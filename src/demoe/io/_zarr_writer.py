"""OME-Zarr 0.5 out: what makes an image of its stored pixels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.core.sync import sync

from demoe.errors import OutputError
from demoe.image.lazy_image import LazyImage
from demoe.io._levels import PYRAMID_TOP, level_shapes, make_levels
from demoe.io._shards import CHUNK, Shards, order_of
from demoe.io._spread import Spread
from demoe.io.atomic import remove

if TYPE_CHECKING:
    import dask.array as da

    from demoe.choices import Choice

SETTLE_SECONDS = 60


def check_zarr(path: Path, image: LazyImage) -> None:
    """Refuse what OME-Zarr cannot hold, before anything is computed."""
    if image.is_rgb and "C" in image.axes:
        raise OutputError(
            f"{path} cannot hold both channels and RGB samples (axes {image.axes}), because "
            "OME-Zarr has one channel axis; use .ome.tif."
        )


def write_zarr(
    root: Path,
    image: LazyImage,
    *,
    experts: LazyImage | None,
    choices: Sequence[Choice] = (),
    gates: da.Array | None,
    cells: Mapping[str, LazyImage],
    provenance: dict[str, Any] | None,
    spread: Spread,
    tell: Callable[[int, int], None],
) -> None:
    """Make an OME-Zarr 0.5 image of its full size: all that is missing beside it.

    Parameters
    ----------
    root : Path
        A folder whose array "0" holds the pixels; all else in it is removed.
    image : LazyImage
        What the pixels are of. They are stored as TCZYX (those it has); RGB samples are stored as
        channels, and the attribute "demoe" remembers the image's own axes.
    experts : LazyImage, optional
        Expert map; its scale along Y and X is that of a routing cell. Becomes labels/expert_map.
    choices : sequence of Choice, optional
        What the values 1, 2 ... of the expert map mean; colours and names of the label image.
    gates : dask array, optional
        Expert weights, stored as they are in demoe/gates.
    cells : mapping of str to LazyImage
        Other maps, each stored in demoe/NAME with its axes.
    provenance : dict, optional
        What JSON can hold; stored in the attribute "demoe".
    spread : Spread
        Makes the shards of smaller levels.
    tell : callable
        Told how many of how many are made.

    Raises
    ------
    LostTile
        If pixels are lost or damaged.
    """
    with nothing_runs_on():
        for other in root.iterdir():
            if other.name != "0":
                remove(other)
        group = _write_root(root, image, provenance, spread, tell)
        if experts is not None:
            _write_experts(group, image, experts, choices)
        if gates is not None:
            _write_cells(group, "gates", gates, None)
        for name, one in cells.items():
            _write_cells(group, name, one.data, one.axes)


@contextmanager
def nothing_runs_on() -> Iterator[None]:
    """Wait, after a failure, for the chunks that zarr still writes in the background.

    They would bring the folder back after it was removed.
    """

    async def wait() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=SETTLE_SECONDS)

    try:
        yield
    except BaseException:
        sync(wait())
        raise


def _write_root(
    folder: Path,
    image: LazyImage,
    provenance: dict[str, Any] | None,
    spread: Spread,
    tell: Callable[[int, int], None],
) -> zarr.Group:
    from demoe.io import _zarr_metadata as metadata

    shapes = zarr_shapes(image)
    steps = _steps(image)
    # Before the levels: what the format does not allow shows before anything is made.
    pyramid = metadata.multiscale(image, steps, dict.fromkeys(steps, 0.0), len(shapes))
    levels = make_levels(folder, image, shapes, spread, tell)
    channels = metadata.omero(image, _ranges(image, levels[-1]))
    root = zarr.create_group(folder, zarr_format=3)
    root.attrs["ome"] = metadata.of_image(pyramid, channels)
    root.attrs["demoe"] = {**(provenance or {}), "axes": image.axes}
    return root


def zarr_shapes(image: LazyImage) -> list[tuple[int, int]]:
    """Return rows and columns of the levels that an image gets."""
    return level_shapes(*image.plane_shape, largest=PYRAMID_TOP)


def _stored_letters(image: LazyImage) -> str:
    return order_of(image.axes).replace("S", "C")


def _steps(image: LazyImage) -> dict[str, float]:
    return {letter: image.scale.get(letter, 1.0) for letter in _stored_letters(image)}


def _ranges(image: LazyImage, coarsest: Shards) -> list[tuple[float, float]]:
    """Find from where to where to show each stored channel; nothing for channels without names.

    Integers have the range of their type, floats that of what the last level stores, read plane
    by plane. Red, green and blue share one range, or colours would change.
    """
    if not (image.is_rgb or image.channel_names):
        return []
    channel = _stored_letters(image).find("C")
    count = coarsest.shape[channel] if channel >= 0 else 1
    if image.dtype.kind != "f":
        limits = np.iinfo(image.dtype)
        return [(limits.min, limits.max)] * count
    lows, highs = np.full(count, np.inf), np.full(count, -np.inf)
    for plane in product(*map(range, coarsest.shape[:-2])):
        values = coarsest.read(tuple(slice(n, n + 1) for n in plane) + coarsest.plane)
        values = values[np.isfinite(values)]
        number = plane[channel] if channel >= 0 else 0
        lows[number] = min(lows[number], values.min(initial=np.inf))
        highs[number] = max(highs[number], values.max(initial=-np.inf))
    if image.is_rgb:
        lows[:3], highs[:3] = lows[:3].min(), highs[:3].max()
    return [
        (low, high) if low < high else (low, low + 1) if low == high else (0.0, 1.0)
        for low, high in zip(lows.tolist(), highs.tolist(), strict=True)
    ]


def _write_experts(
    root: zarr.Group, image: LazyImage, experts: LazyImage, choices: Sequence[Choice]
) -> None:
    """Store the expert map as a label image with as many levels as the image, as the format asks.

    A cell covers many pixels: its centre, where a viewer puts it, is half a cell less half a pixel
    from the centre of the image's first pixel.
    """
    from demoe.io import _zarr_metadata as metadata

    levels = len(zarr_shapes(image))
    labels = root.create_group("labels")
    labels.attrs["ome"] = metadata.of_labels("expert_map")
    group = labels.create_group("expert_map")
    letters = _stored_letters(experts)
    values = experts.data.transpose([experts.axes.index(letter) for letter in letters]).compute()
    for level in range(levels):
        chunks = tuple(
            min(CHUNK, length) if letter in "YX" else 1
            for letter, length in zip(letters, values.shape, strict=True)
        )
        array = group.create_array(
            str(level),
            shape=values.shape,
            chunks=chunks,
            dtype=values.dtype,
            dimension_names=list(letters.lower()),
        )
        array[...] = values
        values = values[..., ::2, ::2]
    cells, pixels = _steps(experts), _steps(image)
    shift = {
        letter: (cells[letter] - pixels[letter]) / 2 if letter in "YX" else 0.0 for letter in cells
    }
    named = experts.with_data(experts.data, units=image.units, name="expert_map")
    group.attrs["ome"] = metadata.of_label_image(
        metadata.multiscale(named, cells, shift, levels), choices
    )


def _write_cells(root: zarr.Group, name: str, values: da.Array, axes: str | None) -> None:
    """Store a map in few files: by planes, and parts of large ones."""
    planes = values.ndim - (2 if axes else 3)
    chunks = tuple(1 if n < planes else min(CHUNK, length) for n, length in enumerate(values.shape))
    array = root.require_group("demoe").create_array(
        name,
        shape=values.shape,
        chunks=chunks,
        dtype=values.dtype,
        dimension_names=axes and list(axes.lower()),
    )
    corners = (range(0, n, side) for n, side in zip(values.shape, chunks, strict=True))
    for corner in product(*corners):
        where = tuple(slice(low, low + side) for low, side in zip(corner, chunks, strict=True))
        array[where] = values[where].compute()
