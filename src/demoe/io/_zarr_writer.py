"""OME-Zarr 0.5 out: full size block by block, then a pyramid from what is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr
from zarr.codecs import ZstdCodec
from zarr.core.sync import sync

from demoe.colours import EXPERT_COLOURS
from demoe.errors import OutputError
from demoe.image.axes import CANONICAL, plane_axes
from demoe.image.lazy_image import LazyImage
from demoe.io._bands import PYRAMID_TOP, Band, Progress, coarsen, iter_bands, level_shapes
from demoe.recipe import TASKS

CHUNK = 512
VERSION = "0.5"
SETTLE_SECONDS = 60
_TYPES = {"T": "time", "C": "channel", "Z": "space", "Y": "space", "X": "space"}
_RGB = (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"), ("alpha", "FFFFFF"))


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
    gates: da.Array | None,
    confidence: LazyImage | None,
    painted: LazyImage | None,
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
    gates : dask array, optional
        Expert weights, stored as they are in demoe/gates.
    confidence : LazyImage, optional
        How sure the choice of experts is, stored in demoe/confidence with the axes of the map.
    painted : LazyImage, optional
        A person's choices, stored in demoe/painted with the axes of the map.
    provenance : dict, optional
        What JSON can hold; stored in the attribute "demoe".
    progress : callable, optional
        Told about each block that was computed.
    """
    with _nothing_runs_on():
        root = _write_root(target, image, experts, provenance, progress)
        if gates is not None:
            _write_cells(root, "gates", gates, None)
        for name, cells in (("confidence", confidence), ("painted", painted)):
            if cells is not None:
                _write_cells(root, name, cells.data, cells.axes)


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
    experts: LazyImage | None,
    provenance: dict[str, Any] | None,
    progress: Progress | None,
) -> zarr.Group:
    root = zarr.create_group(target, zarr_format=3)
    shapes = level_shapes(*image.plane_shape, largest=PYRAMID_TOP)
    arrays = [_create_level(root, image, level, shape) for level, shape in enumerate(shapes)]
    for band in iter_bands(image, CHUNK, progress):
        _store(arrays[0], image, band)
    for finer, coarser in pairwise(arrays):
        _halve(finer, coarser)
    steps = _steps(image)
    omero = _omero(image)
    root.attrs["ome"] = {
        "version": VERSION,
        "multiscales": [_multiscale(image, steps, dict.fromkeys(steps, 0.0), len(shapes))],
        **({"omero": omero} if omero else {}),
    }
    root.attrs["demoe"] = {**(provenance or {}), "axes": image.axes}
    if experts is not None:
        _write_experts(root, image, experts, len(shapes))
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


def _multiscale(
    image: LazyImage, steps: dict[str, float], shift: dict[str, float], levels: int
) -> dict[str, Any]:
    """Describe the levels; `shift` is where the first cell's centre lies, in physical units.

    The centre of a halved pixel lies half a pixel further than that of the first it covers.
    """
    axes = []
    for letter in steps:
        axis = {"name": letter.lower(), "type": _TYPES[letter]}
        unit = image.units.get(letter, "pixel")
        if unit != "pixel":
            axis["unit"] = unit
        axes.append(axis)
    datasets = []
    for level in range(levels):
        factors = {letter: 2**level if letter in "YX" else 1 for letter in steps}
        scale = [step * factors[letter] for letter, step in steps.items()]
        centre = [
            shift[letter] + (factors[letter] - 1) / 2 * step for letter, step in steps.items()
        ]
        transformations: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        if any(centre):
            transformations.append({"type": "translation", "translation": centre})
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
    return {"name": image.name, "axes": axes, "datasets": datasets}


def _omero(image: LazyImage) -> dict[str, Any]:
    """Say how to show channels: RGB in its colours, others white and by name."""
    if image.is_rgb:
        channels = [
            {"label": label, "color": colour, "active": label != "alpha"}
            for label, colour in _RGB[: image.shape[-1]]
        ]
    else:
        channels = [
            {"label": label, "color": "FFFFFF", "active": True} for label in image.channel_names
        ]
    if image.dtype.kind == "u":
        top = int(np.iinfo(image.dtype).max)
        for channel in channels:
            channel["window"] = {"min": 0, "max": top, "start": 0, "end": top}
    return {"channels": channels} if channels else {}


def _write_experts(root: zarr.Group, image: LazyImage, experts: LazyImage, levels: int) -> None:
    """Store the expert map as a label image with as many levels as the image, as the format asks.

    A cell covers many pixels: its centre, where a viewer puts it, is half a cell less half a pixel
    from the centre of the image's first pixel.
    """
    labels = root.create_group("labels")
    labels.attrs["ome"] = {"version": VERSION, "labels": ["expert_map"]}
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
    group.attrs["ome"] = {
        "version": VERSION,
        "multiscales": [_multiscale(named, cells, shift, levels)],
        "image-label": {
            "version": VERSION,
            "source": {"image": "../../"},
            "colors": [
                {"label-value": number, "rgba": [*colour, 255]}
                for number, colour in EXPERT_COLOURS.items()
            ],
            "properties": [
                {"label-value": number, "expert": task}
                for number, task in enumerate(TASKS, start=1)
            ],
        },
    }


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
