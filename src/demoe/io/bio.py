"""Microscopes' own formats (CZI, ND2, LIF, DV and more), read by `bioio` where it is installed."""

from __future__ import annotations

import logging
import math
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from inspect import signature
from itertools import accumulate, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from dask.local import get_sync
from dask.optimization import cull

from demoe.errors import ImageError
from demoe.image.lazy_image import SCALED_AXES, LazyImage, is_scale
from demoe.io._series import series_number
from demoe.io._source import FileSource, FileState, decoded, file_state
from demoe.limits import check_block, quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGE_PLANE = 64 * 2**20
"""Bytes of a plane above which readers that can do so are asked for parts of it."""

_PART = 1024
_AXES = "TCZYXS"
_OWN_NAME = re.compile(r"(Channel|Image):\d+(:\d+)?")  # what bioio says where the file is silent
_COMPANIONS = {".vsi": "_{}_", ".sldy": "{}.dir"}  # folders in which these keep pixels


@dataclass(frozen=True)
class BioSource(FileSource):
    """One scene of a file that a plugin of bioio reads.

    Attributes
    ----------
    scene : int
        Its number in the file.
    axes : str
        Letters of the axes, of TCZYXS; those that are missing have length 1.
    """

    scene: int
    axes: str

    def files(self) -> Iterator[str]:
        """List the file, and those in the folder that belongs to it."""
        yield self.path
        place = Path(self.path)
        pattern = _COMPANIONS.get(place.suffix.lower())
        if pattern is not None:
            beside = place.with_name(pattern.format(place.stem))
            yield from sorted(str(file) for file in beside.rglob("*") if file.is_file())

    def read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        """Read a box of the scene."""
        opened = _opened(file_state(self.path), self.scene)
        if (opened.axes, opened.shape, opened.dtype) != (self.axes, self.shape, self.dtype):
            raise ImageError(f"{self.path} has changed since it was opened; open it again.")
        given = dict(zip(self.axes, box, strict=True))
        whole = {letter: given.get(letter, slice(0, 1)) for letter in opened.order}
        pixels = opened.read(whole)
        return pixels.reshape([part.stop - part.start for part in box])


def suffixes() -> frozenset[str]:
    """Return the suffixes that the installed plugins of bioio read, in lower case."""
    return frozenset(_plugins())


@cache
def _plugins() -> Mapping[str, Any]:
    from bioio.plugins import get_plugins

    found: Mapping[str, Any] = get_plugins(use_cache=True)
    return found


def scenes(path: str) -> list[str]:
    """List the images of a file by name; "" for those without one.

    Parameters
    ----------
    path : str
        An existing file.
    """
    return [name if not _OWN_NAME.fullmatch(name) else "" for name in _image(path).scenes]


def open_bio(path: str, axes: str | None, wanted: int | str, name: str) -> LazyImage:
    """Open one scene of a file without reading pixels.

    Parameters
    ----------
    path : str
        An existing file whose suffix is one of `suffixes`.
    axes : str, optional
        One letter of TCZYXS for each dimension that is longer than 1, and Y and X; as bioio names
        them if left out.
    wanted : int or str
        Which scene, by number or name.
    name : str
        Name of the image.

    Returns
    -------
    LazyImage
        Blocks are those of the plugin, mostly planes; of large planes parts, where the plugin
        reads parts. Lengths are in micrometres and times in seconds, unless the plugin says others.

    Raises
    ------
    ImageError
        For a file that the plugin does not read, of an unknown kind of pixels, and for a mosaic
        that bioio cannot put together.
    AxesError
        For axes that do not fit.
    """
    scene = series_number(path, wanted, scenes(path))
    opened = _opened(file_state(path), scene)
    source = BioSource(path, opened.shape, opened.dtype, scene, opened.axes)
    chunks = dict(zip(opened.order, opened.block, strict=True))
    data = source.lazy(tuple(chunks[letter] for letter in opened.axes), "bioio")
    scale, units = _scale(opened.image)
    return LazyImage(
        data,
        axes or opened.axes,
        {letter: size for letter, size in scale.items() if letter in opened.axes},
        units,
        _channels(opened),
        name,
        path,
        (source,),
    )


class _Scene:
    """One scene of a file, as its plugin opened it; kept, since opening takes a while.

    Attributes
    ----------
    image : bioio.BioImage
        At this scene.
    order : str
        The axes of the pixels as bioio orders them.
    axes : str
        Those of them that are longer than 1, and Y, X and S.
    shape : tuple of int
        Lengths of `axes`.
    block : tuple of int
        Largest lengths of a block, in `order`.
    """

    def __init__(self, path: str, scene: int) -> None:
        self.image = _image(path)
        self.image.set_scene(scene)
        self.order: str = self.image.dims.order
        lengths = dict(zip(self.order, map(int, self.image.shape), strict=True))
        for letter, length in lengths.items():
            if letter not in _AXES and length > 1:
                raise ImageError(
                    f"{path} holds {length} parts along {quoted(letter)}, which the plugin of "
                    "bioio does not put together into one plane; convert it to .ome.tif."
                )
        self.axes = "".join(a for a, n in lengths.items() if a in "YXS" or n > 1)
        self.shape = tuple(lengths[letter] for letter in self.axes)
        self.dtype: np.dtype[Any] = np.dtype(self.image.dtype).newbyteorder("=")
        self._key = (file_state(path), scene, "bioio")
        self._lock = threading.Lock()
        plane = math.prod(lengths.get(a, 1) for a in "YXS") * self.dtype.itemsize
        self._in_parts = plane > LARGE_PLANE and _reads_parts(self.image)
        if self._in_parts:
            sides = {"Y": _PART, "X": _PART, "S": lengths.get("S", 1)}
            self.block = tuple(min(sides.get(a, 1), n) for a, n in lengths.items())
        else:
            # A mosaic is put together above the plugin; the rest is what the plugin itself has.
            tiled = "M" in self.image.reader.dims.order
            of = self.image if tiled else self.image.reader
            self._data = of.get_image_dask_data(self.order)
            self.block = tuple(max(sizes) for sizes in self._data.chunks)
            check_block(path, self.block, self.dtype.itemsize, "block")
            self._graph = dict(self._data.__dask_graph__())

    def read(self, box: dict[str, slice]) -> NDArray[Any]:
        """Read a box: a slice for each letter of `order`."""
        if self._in_parts:
            with self._lock:
                pixels: NDArray[Any] = self.image.get_image_data(self.order, **box)
            return pixels
        wanted = [box[letter] for letter in self.order]
        out = np.empty([part.stop - part.start for part in wanted], self.dtype)
        ends = [list(accumulate(sizes)) for sizes in self._data.chunks]
        touched = [
            [at for at, end in enumerate(stops) if part.start < end and part.stop > end - size[at]]
            for part, stops, size in zip(wanted, ends, self._data.chunks, strict=True)
        ]
        for place in product(*touched):
            pixels = decoded.get((*self._key, place), partial(self._block, place))
            into, of = [], []
            for part, stops, at, length in zip(wanted, ends, place, pixels.shape, strict=True):
                start = stops[at] - length
                low, high = max(part.start, start), min(part.stop, stops[at])
                into.append(slice(low - part.start, high - part.start))
                of.append(slice(low - start, high - start))
            out[tuple(into)] = pixels[tuple(of)]
        return out

    def _block(self, place: tuple[int, ...]) -> NDArray[Any]:
        key = (self._data.name, *place)
        # Of the graph of all blocks only what this one needs, in this thread: it is part of a task.
        needed, _ = cull(self._graph, [key])
        # An array of resource_backed_dask_array has its file open only while it is computed.
        resource: Any = getattr(self._data, "_context", None)
        with self._lock, resource if getattr(resource, "closed", False) else nullcontext():
            return np.array(get_sync(needed, key))


@lru_cache(maxsize=8)
def _opened(state: FileState, scene: int) -> _Scene:
    return _Scene(state[0], scene)


def _image(path: str) -> Any:
    """Open a file with the first of the plugins for its suffix that reads it."""
    from bioio import BioImage

    refused = []
    for plugin in _plugins().get(Path(path).suffix.lower(), ()):
        reader = plugin.metadata.get_reader()
        words = ""
        for settings in _settings(reader):
            try:
                with _quiet():
                    return BioImage(path, reader=reader, **settings)
            except Exception as error:  # all sorts of things over files that they do not know
                words = " ".join(str(error).rpartition("Reader: ")[2].split())
        refused.append(f"{plugin.entrypoint.name}: {words[:160] or 'no reason'}")
    said = "; ".join(refused)
    raise ImageError(f"{path} cannot be read by the plugins of bioio that are installed ({said}).")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep bioio from telling each try: what it would say is in the error."""
    logger = logging.getLogger("bioio.bio_image")
    logger.addFilter(_nothing)
    try:
        yield
    finally:
        logger.removeFilter(_nothing)


def _nothing(_: logging.LogRecord) -> bool:
    return False


def _settings(reader: Any) -> list[dict[str, Any]]:
    """Return how to open a file: by planes, where plugins take stacks for blocks, or as is."""
    known = signature(reader.__init__).parameters.values()
    chunked = any(one.name == "chunk_dims" or one.kind is one.VAR_KEYWORD for one in known)
    return [{"chunk_dims": ["Y", "X", "S"]}, {}] if chunked else [{}]


def _reads_parts(image: Any) -> bool:
    """Whether a plugin reads parts of planes; one that does not would read the whole file."""
    from bioio_base.reader import Reader

    reader = type(image.reader)
    mine, usual = (getattr(one, "_read_indexed", None) for one in (reader, Reader))
    return mine is not usual and "M" not in image.reader.dims.order


def _scale(image: Any) -> tuple[dict[str, float], dict[str, str]]:
    """Return the size of a pixel and its unit; what the file does not say is left out."""
    try:
        sizes, properties = image.scale, image.dimension_properties
    except Exception:  # damaged or unusual metadata: pixels are worth more than their size
        return {}, {}
    scale, units = {}, {}
    for letter in SCALED_AXES:
        size = getattr(sizes, letter, None)
        if size is not None and is_scale(size):
            scale[letter] = float(size)
            unit = getattr(getattr(properties, letter, None), "unit", None)
            units[letter] = str(unit or ("second" if letter == "T" else "micrometer"))
    return scale, units


def _channels(opened: _Scene) -> tuple[str, ...]:
    try:
        names = [str(name) for name in opened.image.channel_names or ()]
    except Exception:  # as above
        return ()
    channels = opened.shape[opened.axes.index("C")] if "C" in opened.axes else 1
    silent = any(not name or _OWN_NAME.search(name) for name in names)
    return () if silent or len(names) != channels else tuple(names)
