"""OME-Zarr 0.5 out: full size block by block, then a pyramid from what is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import zarr
from zarr.codecs import ZstdCodec
from zarr.core.sync import sync

from demoe.errors import OutputError
from demoe.image.axes import CANONICAL, plane_axes
from demoe.image.lazy_image import LazyImage
from demoe.io._bands import PYRAMID_TOP, Band, Progress, coarsen, iter_bands, level_shapes

if TYPE_CHECKING:
    from demoe.choices import Choice

CHUNK = 512
SETTLE_SECONDS = 60


def check_zarr(path: Path, image: LazyImage) -> None:
    """Refuse what OME-Zarr cannot hold, before anything is computed."""
    if image.is_rgb and "C" in image.axes:
        raise OutputError(
            f"{path} cannot hold both channels and RGB samples (axes {image.axes}), because "
            "OME-Zarr has one channel axis; use .ome.tif."
        )


def write_zarr(
    target: Path,
    image: LazyImage,
    *,
    experts: LazyImage | None,
    choices: Sequence[Choice] = (),
    gates: da.Array | None,
    cells: Mapping[str, LazyImage],
    provenance: dict[str, Any] | None,
    progress: Progress | None,
) -> None:
    """Write an OME-Zarr 0.5 image, block by block.

    Parameters
    ----------
    target : Path
        A folder that does not exist yet.
    image : LazyImage
        Stored as TCZYX (those it has), chunks of 1 x 1 x 1 x 512 x 512; RGB samples are stored as
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
    progress : callable, optional
        Told about each block that was computed.
    """
    with _nothing_runs_on():
        root = _write_root(target, image, provenance, progress)
        if experts is not None:
            _write_experts(root, image, experts, choices)
        if gates is not None:
            _write_cells(root, "gates", gates, None)
        for name, one in cells.items():
            _write_cells(root, name, one.data, one.axes)


@contextmanager
def _nothing_runs_on() -> Iterator[None]:
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
    target: Path,
    image: LazyImage,
    provenance: dict[str, Any] | None,
    progress: Progress | None,
) -> zarr.Group:
    from demoe.io import _zarr_metadata as metadata

    root = zarr.create_group(target, zarr_format=3)
    shapes = level_shapes(*image.plane_shape, largest=PYRAMID_TOP)
    steps = _steps(image)
    # Before the pixels: what the format does not allow shows before anything is computed.
    pyramid = metadata.multiscale(image, steps, dict.fromkeys(steps, 0.0), len(shapes))
    arrays = [_create_level(root, image, level, shape) for level, shape in enumerate(shapes)]
    for band in iter_bands(image, CHUNK, progress):
        _store(arrays[0], image, band)
    for finer, coarser in pairwise(arrays):
        _halve(finer, coarser)
    channels = metadata.omero(image, _ranges(image, arrays[-1]))
    root.attrs["ome"] = metadata.of_image(pyramid, channels)
    root.attrs["demoe"] = {**(provenance or {}), "axes": image.axes}
    return root


def _stored_letters(image: LazyImage) -> str:
    letters = image.axes.replace("S", "C")
    return "".join(letter for letter in CANONICAL if letter in letters)


def _create_level(
    root: zarr.Group, image: LazyImage, level: int, plane: tuple[int, int]
) -> zarr.Array[Any]:
    letters = _stored_letters(image)
    lengths = dict(zip(image.axes, image.shape, strict=True))
    lengths["Y"], lengths["X"] = plane
    if image.is_rgb:
        lengths["C"] = lengths["S"]
    shape = tuple(lengths[letter] for letter in letters)
    chunks = tuple(
        min(CHUNK, length) if letter in "YX" else 1
        for letter, length in zip(letters, shape, strict=True)
    )
    return root.create_array(
        str(level),
        shape=shape,
        chunks=chunks,
        dtype=image.dtype,
        # With a checksum, or a chunk that is cut short or damaged would read as noise.
        compressors=ZstdCodec(level=3, checksum=True),
        dimension_names=list(letters.lower()),
    )


def _store(array: zarr.Array[Any], image: LazyImage, band: Band) -> None:
    index: dict[str, Any] = dict(zip(plane_axes(image.axes), band.plane, strict=True))
    index["Y"] = slice(band.top, band.top + band.pixels.shape[0])
    letters = _stored_letters(image)
    where: Any = tuple(index.get(letter, slice(None)) for letter in letters)
    array[where] = np.moveaxis(band.pixels, -1, 0) if image.is_rgb else band.pixels[..., 0]


def _halve(finer: zarr.Array[Any], coarser: zarr.Array[Any]) -> None:
    for plane in product(*map(range, finer.shape[:-2])):
        for top in range(0, coarser.shape[-2], CHUNK):
            above: Any = (*plane, slice(2 * top, 2 * (top + CHUNK)))
            below: Any = (*plane, slice(top, top + CHUNK))
            coarser[below] = coarsen(np.asarray(finer[above])[..., None])[..., 0]


def _steps(image: LazyImage) -> dict[str, float]:
    return {letter: image.scale.get(letter, 1.0) for letter in _stored_letters(image)}


def _ranges(image: LazyImage, coarsest: zarr.Array[Any]) -> list[tuple[float, float]]:
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
        values = np.asarray(coarsest[plane])
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

    levels = len(level_shapes(*image.plane_shape, largest=PYRAMID_TOP))
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
    chunks = tuple(int(length) for length in values.chunksize)
    array = root.require_group("demoe").create_array(
        name,
        shape=values.shape,
        chunks=chunks,
        dtype=values.dtype,
        dimension_names=axes and list(axes.lower()),
    )
    for number in np.ndindex(*values.numblocks):
        corner = [sum(sizes[:at]) for sizes, at in zip(values.chunks, number, strict=True)]
        block = values.blocks[number].compute()
        where = tuple(
            slice(low, low + length) for low, length in zip(corner, block.shape, strict=True)
        )
        array[where] = block
