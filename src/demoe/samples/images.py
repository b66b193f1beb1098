"""The bundled sample pictures, blurred really or damaged by a known amount.

Where they come from and on which licences is in ``data/LICENSES.md``; what is done to them is in
``data/samples.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from io import BytesIO
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from demoe.errors import ImageError
from demoe.image.lazy_image import LazyImage
from demoe.samples.blur import apply_recipe, kernels_of
from demoe.samples.damage import apply_damage


@dataclass(frozen=True, eq=False)
class Sample:
    """A bundled picture.

    Attributes
    ----------
    name : str
        The key for `load_sample`.
    title : str
        A few words for menus and pictures.
    blurred : LazyImage
        The picture to deblur.
    sharp : LazyImage or None
        The picture before it was blurred, of the same shape and dtype; None where the blur is real
        and no sharp picture exists.
    note : str
        One or two sentences: what it shows and how it was blurred.
    kernels : tuple of ndarray
        What blurred it, from left to right; empty where that is not known.
    damage : str
        The kind of damage that it has, as in `demoe.choices.DAMAGES`.
    """

    name: str
    title: str
    blurred: LazyImage
    sharp: LazyImage | None
    note: str
    kernels: tuple[NDArray[np.float64], ...] = ()
    damage: str = "blur"


def sample_names() -> tuple[str, ...]:
    """Names of the bundled samples, in the order in which they are best shown."""
    return tuple(_table())


def sample_damages() -> dict[str, str]:
    """Names of the bundled samples with the kind of damage that each has."""
    return {name: _damage(entry) for name, entry in _table().items()}


def sample_titles() -> dict[str, str]:
    """Names and titles of the bundled samples, without reading any pixels."""
    return {name: entry["title"] for name, entry in _table().items()}


def load_sample(name: str) -> Sample:
    """Read a bundled sample.

    Samples with a known sharp picture are damaged while loading, by a fixed recipe with a fixed
    seed, so that every load gives the same pixels.

    Parameters
    ----------
    name : str
        One of `sample_names`.

    Returns
    -------
    Sample
        uint8 photos (axes YXS or YX) and uint16 fluorescence (axes YX or ZYX).

    Raises
    ------
    ImageError
        No sample has this name.
    """
    table = _table()
    if name not in table:
        raise ImageError(f"there is no sample {name!r}; the samples are {', '.join(table)}")
    entry = table[name]
    axes = entry["axes"]
    pixels = _read(_folder() / entry["file"])
    sharp, kernels = None, []
    if "blur" in entry or "damage" in entry:
        sharp = LazyImage.from_array(pixels, axes, name=f"{name} sharp")
    if "blur" in entry:
        pixels = apply_recipe(pixels, axes, entry["blur"])
        kernels = kernels_of(entry["blur"])
    elif "damage" in entry:
        pixels = apply_damage(pixels, entry["damage"])
    blurred = LazyImage.from_array(pixels, axes, name=name)
    return Sample(
        name, entry["title"], blurred, sharp, entry["note"], tuple(kernels), _damage(entry)
    )


def _damage(entry: dict[str, Any]) -> str:
    return str(entry["damage"]["kind"]) if "damage" in entry else "blur"


def _folder() -> Traversable:
    return resources.files("demoe.samples") / "data"


def _table() -> dict[str, dict[str, Any]]:
    text = (_folder() / "samples.json").read_text(encoding="utf-8")
    table: dict[str, dict[str, Any]] = json.loads(text)
    return table


def _read(file: Traversable) -> NDArray[Any]:
    data = BytesIO(file.read_bytes())
    if file.name.endswith(".tif"):
        return np.asarray(tifffile.imread(data))
    return np.asarray(Image.open(data))
