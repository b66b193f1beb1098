"""What the widget says, in words."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from demoe.asked import questions
from demoe.errors import RecipeError
from demoe.recipe import Recipe

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Shapes


def finest(layer: Image | Labels) -> Any:
    """Return a layer's pixels, of a multiscale layer the finest level."""
    return layer.data[0] if layer.multiscale else layer.data


def describe(layer: Image) -> str:
    """Put a layer's size and kind into words."""
    data = finest(layer)
    shape = data.shape[:-1] if layer.rgb else data.shape
    size = " × ".join(str(n) for n in shape)  # noqa: RUF001
    return f"{size} pixels, {'colour' if layer.rgb else 'gray'}, {np.dtype(data.dtype).name}"


def duration(seconds: float) -> str:
    """Put a time into words, for example "40 s" or "3 min"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    hours = seconds / 3600
    if hours < 48:
        return f"{hours:.1f} h" if hours < 10 else f"{hours:.0f} h"
    return f"{hours / 24:.0f} days"


def tiles(count: int) -> str:
    """Count tiles in words."""
    return "1 tile" if count == 1 else f"{count} tiles"


def script(
    recipe: Recipe,
    layer: Image,
    output: str = "",
    painted: Labels | Shapes | None = None,
    psf: str = "",
) -> str:
    """Write the Python lines that do the same run without the viewer.

    Parameters
    ----------
    recipe : Recipe
        The settings.
    layer : Image
        The source; its file is named where the viewer knows it.
    output : str
        For which tiles are kept; by default a name beside the source. Where it is given, tiles
        that are kept are used, and the result is written by `demoe.run`.
    painted : Labels or Shapes, optional
        The expert map to follow.
    psf : str
        The PSF as a person wrote it, so that a file is called by its name.

    Returns
    -------
    str
        Lines that read, deblur and save.
    """
    source, target = _files(layer, output)
    fields = "".join(f", {name}={value!r}" for name, value in _changed(recipe, psf).items())
    lines = ["import demoe", ""]
    if painted is not None:
        lines.insert(0, _TO_SAVE.format(name=painted.name, file=(mapped := _file_of(painted))))
        fields += f", expert_map={mapped!r}"
    if output:
        run = f"demoe.run({str(source)!r}, {str(target)!r}{fields}, resume=True)"
        return "\n".join([*lines, run, ""])
    lines += [
        f"image = demoe.open_image({str(source)!r})",
        f"result = demoe.deblur(image{fields})",
        f"demoe.save(result, {str(target)!r})",
    ]
    return "\n".join([*lines, ""])


def command(
    recipe: Recipe,
    layer: Image,
    output: str = "",
    painted: Labels | Shapes | None = None,
    psf: str = "",
) -> str:
    """Write the command line that does the same run; for the arguments see `script`.

    Raises
    ------
    RecipeError
        If the blur is given by numbers, which a command line takes from a file.
    """
    source, target = _files(layer, output)
    words = ["demoe", "run", str(source), str(target)]
    for name, value in _changed(recipe, psf).items():
        words += _option(name, value)
    lines = []
    if painted is not None:
        lines.append(_TO_SAVE.format(name=painted.name, file=(mapped := _file_of(painted))))
        words += ["--expert-map", mapped]
    if output:
        words.append("--resume")
    return "\n".join([*lines, _joined(words), ""])


_TO_SAVE = "# First save the layer {name!r} as {file}"


def _option(name: str, value: Any) -> list[str]:
    """Return a field of a recipe as `demoe run` takes it."""
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if name == "instructions":
        return [word for sentence in value for word in ("--instruction", sentence)]
    if value is None:
        value = "none"
    elif isinstance(value, Mapping):
        value = ",".join(f"{key}={number}" for key, number in value.items())
    elif name == "psf" and not isinstance(value, str):
        raise RecipeError(
            "A PSF in numbers is too long for a command line; save it as an image, and write the "
            "name of its file under Known PSF."
        )
    elif isinstance(value, tuple):
        value = ",".join(map(str, value))
    text = str(value)
    return [f"{flag}={text}"] if text.startswith("-") else [flag, text]


def _joined(words: list[str]) -> str:
    """Quote words as this system's command line wants them."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def _files(layer: Image, output: str) -> tuple[Path, Path]:
    noted = layer.metadata.get("demoe", {}).get("source")
    source = Path(noted or layer.source.path or "image.tif")
    stem = source.name.removesuffix(source.suffix).removesuffix(".ome")
    return source, Path(output or source.with_name(f"{stem}_deblurred.ome.zarr"))


def _file_of(painted: Labels | Shapes) -> str:
    return str(painted.source.path or "map.tif")


def _changed(recipe: Recipe, psf: str) -> dict[str, Any]:
    """Return the fields of a recipe that are not as by default."""
    changed = {
        name: value
        for name, question in questions(type(recipe)).items()
        if (value := getattr(recipe, name)) != question.default
    }
    if psf and isinstance(recipe.psf, tuple):
        changed["psf"] = psf
    return changed
