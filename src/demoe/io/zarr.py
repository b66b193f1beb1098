"""OME-Zarr 0.4 (zarr v2) and 0.5 (zarr v3) in, and plain zarr arrays; out is in `_zarr_writer`."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import zarr
from zarr.storage import LocalStore

from demoe.errors import AxesError, ImageError
from demoe.image.axes import CANONICAL, guess_axes, to_canonical
from demoe.image.lazy_image import SCALED_AXES, LazyImage, block_shape, is_scale
from demoe.io._series import series_number
from demoe.io._source import FileSource, FileState, file_state, pass_errors_on
from demoe.io._zarr_store import below, open_array, open_node
from demoe.io.names import ZARR_MARKERS, is_url
from demoe.limits import quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Before version 0.3 every image had these five.
_OLD_AXES = ("t", "c", "z", "y", "x")
_LAYOUT = "bioformats2raw.layout"  # of a group whose images are called 0, 1, 2 ...
_LISTED = 4096


@dataclass(frozen=True)
class ZarrSource(FileSource):
    """One zarr array in a folder.

    Attributes
    ----------
    root : str
        The folder that the person named: nothing outside of it is read.
    """

    root: str

    def state(self) -> FileState:
        """Tell one version of the array from the next by its metadata file."""
        return next(
            file_state(Path(self.path) / marker)
            for marker in (*ZARR_MARKERS, "")
            if (Path(self.path) / marker).exists()
        )

    def files(self) -> Iterator[str]:
        """List all files of the array: metadata and chunks."""
        for folder, folders, names in os.walk(self.path):
            folders.sort()
            yield from (os.path.join(folder, name) for name in sorted(names))

    def absent(self) -> int:
        """Count the chunks (of a sharded array the shards) that have no file.

        Raises
        ------
        ImageError
            If there are some, and the array does not say what value they have.
        """
        array = open_array(self.root, self.path)
        sides = array.shards or array.chunks
        grid = [math.ceil(n / side) for n, side in zip(array.shape, sides, strict=True)]
        keys = (re.findall(r"\d+", os.path.relpath(file, self.path)) for file in self.files())
        present = {
            key
            for numbers in keys
            if len(key := tuple(map(int, numbers))) == len(grid)
            and all(at < n for at, n in zip(key, grid, strict=True))
        }
        lacked = math.prod(grid) - len(present)
        if lacked and array.metadata.fill_value is None:
            raise ImageError(
                f"{self.path} lacks {lacked} of {math.prod(grid)} chunks and does not say what "
                "value they have (no fill_value), so complete it first."
            )
        return lacked

    def read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        """Read a box of the array."""
        array = open_array(self.root, self.path)
        if array.shape != self.shape:
            raise ImageError(f"{self.path} has changed since it was opened; open it again.")
        return np.asarray(array[box])


def open_zarr(path: str, axes: str | None, series: int | str, name: str) -> LazyImage:
    """Open an OME-Zarr image at full resolution, or a plain zarr array.

    Parameters
    ----------
    path : str
        An existing folder, or an address: an image, a label image, a group of images
        (bioformats2raw), an array.
    axes : str, optional
        One letter of TCZYXS for each dimension; from the metadata or the shape if left out.
    series : int or str
        Which of several images in the group, by number or name.
    name : str
        Name of the image.

    Returns
    -------
    LazyImage
        Blocks are chunks, or several where chunks are small. An image written by this package
        gets its own axes back, RGB included.

    Raises
    ------
    ImageError
        For a group without an image, and for damaged metadata.
    AxesError
        For axes that are not TCZYX.
    """
    return _open_in(path, path, axes, series, name)


def zarr_series(path: str) -> list[str]:
    """List the images of a zarr group by name; a plain array is one."""
    node = _open_node(path, path)
    if isinstance(node, zarr.Array):
        return [Path(path).stem]
    ome = dict(node.attrs).get("ome", node.attrs)
    if isinstance(ome, Mapping) and "multiscales" not in ome and _LAYOUT in ome:
        numbers = range(_LISTED)
        return [""] * next((n for n in numbers if str(n) not in node), _LISTED)
    found = ome.get("multiscales") if isinstance(ome, Mapping) else None
    if not isinstance(found, list) or not found:
        raise ImageError(f"{path} is a zarr group without an OME-Zarr image (no 'multiscales').")
    return [str(one.get("name", "")) if isinstance(one, Mapping) else "" for one in found]


def coarser_levels(path: str, axes: str) -> list[da.Array]:
    """Open the coarser levels of an image as `open_zarr` opens it.

    Parameters
    ----------
    path : str
        An existing folder.
    axes : str
        Those of the opened image.

    Returns
    -------
    list of dask.array.Array
        With these axes, from fine to coarse; none where they are stored in another way.

    Raises
    ------
    ImageError
        If the metadata are damaged, or point outside of the folder.
    """
    attributes: dict[str, Any] = dict(_open_node(path, path).attrs)
    try:
        ome = attributes.get("ome", attributes)
        multiscale = ome["multiscales"][0]
        entries = [entry["name"] for entry in multiscale["axes"]]
        names = [str(dataset["path"]) for dataset in multiscale["datasets"][1:]]
    except (KeyError, TypeError, IndexError):
        return []
    stored = "".join(map(str, entries)).upper()
    wanted = axes.replace("S", "C")  # colour samples are stored as channels
    if sorted(stored) != sorted(wanted):
        return []
    order = [stored.index(letter) for letter in wanted]
    levels = []
    for name in names:
        place = below(path, name)
        level = pass_errors_on(place, partial(_open_in, path, place, stored, 0, name))
        data = level.data.transpose(order)
        levels.append(data.rechunk({data.ndim - 1: -1}) if "S" in axes else data)
    return levels


def _open_in(root: str, path: str, axes: str | None, series: int | str, name: str) -> LazyImage:
    """Open what lies at `path` within the folder `root` that the person named."""
    node = _open_node(root, path)
    if isinstance(node, zarr.Array):
        return _plain(root, path, node, axes, name)
    attributes = dict(node.attrs)
    ome = attributes.get("ome", attributes)
    if not isinstance(ome, Mapping):
        raise ImageError(f"{path} has damaged OME-Zarr metadata: 'ome' is not an object.")
    if "multiscales" not in ome:
        if _LAYOUT in ome and str(series) in node:
            return _open_in(root, below(path, str(series)), axes, 0, name)
        raise ImageError(
            f"{path} is a zarr group without an OME-Zarr image (no 'multiscales'), so name an "
            "image or an array within it."
        )
    multiscales = ome["multiscales"]
    if not (isinstance(multiscales, list) and all(isinstance(m, Mapping) for m in multiscales)):
        raise ImageError(f"{path} has damaged OME-Zarr metadata: 'multiscales' holds no images.")
    number = series_number(path, series, [str(m.get("name", "")) for m in multiscales])
    try:
        return _multiscale(
            root, path, multiscales[number], ome, attributes.get("demoe"), axes, name
        )
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ImageError(
            f"{path} has damaged OME-Zarr metadata ({type(error).__name__}: {quoted(str(error))})."
        ) from error


def _open_node(root: str, path: str) -> zarr.Group | zarr.Array[Any]:
    try:
        return open_node(root, path)
    except json.JSONDecodeError as error:
        raise ImageError(f"{path} has damaged zarr metadata ({error}).") from error
    except FileNotFoundError as error:
        raise ImageError(
            f"{path} is no zarr: there is no zarr.json, .zarray or .zgroup in it."
        ) from error


def _multiscale(
    root: str,
    path: str,
    multiscale: Mapping[str, Any],
    ome: Mapping[str, Any],
    ours: Any,
    axes: str | None,
    name: str,
) -> LazyImage:
    dataset = multiscale["datasets"][0]
    place = below(path, str(dataset["path"]))
    array = _open_node(root, place)
    if not isinstance(array, zarr.Array):
        raise ImageError(f"{place} is not a zarr array, as {path} says it is.")
    entries = _axis_entries(multiscale.get("axes", _OLD_AXES))
    if len(entries) != len(array.shape):
        raise ImageError(
            f"{path} names {len(entries)} axes, but its array has {len(array.shape)} dimensions."
        )
    letters = axes.upper() if axes else "".join(name.upper() for name, _ in entries)
    if not set(letters) <= set(CANONICAL) or len(letters) != len(entries):
        raise AxesError(
            f"{path} has the axes {', '.join(name for name, _ in entries)}, which are not TCZYX, "
            f"so name {len(entries)} letters with axes=."
        )
    steps = [
        inner * outer
        for inner, outer in zip(
            _scale(dataset, len(entries)), _scale(multiscale, len(entries)), strict=True
        )
    ]
    labels = [str(channel.get("label", "")) for channel in ome.get("omero", {}).get("channels", [])]
    source, data = _lazy(root, place, array)
    image = LazyImage(
        data,
        letters,
        {
            letter: step
            for letter, step in zip(letters, steps, strict=True)
            if letter in SCALED_AXES and is_scale(step)
        },
        {
            letter: unit
            for letter, (_, unit) in zip(letters, entries, strict=True)
            if unit and letter in SCALED_AXES
        },
        name=name,
        source=path,
        origins=(source,),
    )
    own = ours.get("axes") if isinstance(ours, Mapping) and axes is None else None
    if isinstance(own, str):
        image = _own_axes(image, own)
    channels = image.shape[image.axes.index("C")] if "C" in image.axes else 1
    if not image.is_rgb and len(labels) == channels and all(labels):
        image = image.with_data(image.data, channel_names=tuple(labels))
    return image


def _axis_entries(axes: Sequence[Any]) -> list[tuple[str, str]]:
    """Name and unit of each axis; version 0.3 has names only."""
    return [
        (axis, "") if isinstance(axis, str) else (str(axis["name"]), str(axis.get("unit", "")))
        for axis in axes
    ]


def _scale(owner: Mapping[str, Any], ndim: int) -> list[float]:
    for transformation in owner.get("coordinateTransformations", []):
        if transformation["type"] == "scale" and len(transformation["scale"]) == ndim:
            return [float(step) for step in transformation["scale"]]
    return [1.0] * ndim


def _own_axes(image: LazyImage, axes: str) -> LazyImage:
    """Give an image of ours the axes it was written with: RGB was stored as channels."""
    stored = image.axes.replace("C", "S") if "S" in axes else image.axes
    if sorted(stored) != sorted(axes):
        return image  # somebody changed the array since
    canonical = to_canonical(image.data, stored)
    present = [letter for letter in CANONICAL if letter in axes]
    index = tuple(slice(None) if letter in axes else 0 for letter in CANONICAL)
    data = canonical[index].transpose([present.index(letter) for letter in axes])
    if "S" in axes:
        data = data.rechunk({data.ndim - 1: -1})
    return image.with_data(data, axes=axes)


def _plain(root: str, path: str, array: zarr.Array[Any], axes: str | None, name: str) -> LazyImage:
    shape = tuple(int(length) for length in array.shape)
    named = array.metadata.to_dict().get("dimension_names") or array.attrs.get("_ARRAY_DIMENSIONS")
    if axes is None and isinstance(named, Sequence):
        letters = "".join(str(dimension).upper() for dimension in named)
        if len(letters) == len(shape) and set(letters) <= set(CANONICAL):
            axes = letters
    source, data = _lazy(root, path, array)
    letters = axes or guess_axes(shape)
    return LazyImage(data, letters, name=name, source=path, origins=(source,))


def of_array(array: zarr.Array[Any], axes: str | None) -> LazyImage | None:
    """Take an array that is open already as one in a folder; None where it lies elsewhere."""
    if not isinstance(array.store, LocalStore):
        return None
    place = str(Path(array.store.root, array.path))
    source, data = _lazy(place, place, array)
    return LazyImage(data, axes or guess_axes(data.shape), origins=(source,))


def _lazy(root: str, place: str, array: zarr.Array[Any]) -> tuple[FileSource, da.Array]:
    dtype = np.dtype(array.dtype)
    shape = tuple(int(length) for length in array.shape)
    if dtype.kind not in "uif" or dtype.itemsize > 8 or 0 in shape or len(shape) < 2:
        raise ImageError(
            f"{place} is a {dtype} array of shape {shape}, but an image has integers or floats "
            "and at least one row and column."
        )
    native = dtype.newbyteorder("=")
    source: FileSource = ZarrSource(place, shape, native, root)
    if is_url(root):
        from demoe.io._zarr_remote import RemoteSource

        source = RemoteSource(place, shape, native, root)
    return source, source.lazy(block_shape(shape, array.chunks), "zarr")
