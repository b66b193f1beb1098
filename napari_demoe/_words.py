"""What the widget says, in words."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from demoe.recipe import Recipe

if TYPE_CHECKING:
    from napari.layers import Image, Labels


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
    return f"{seconds / 3600:.1f} h"


def tiles(count: int) -> str:
    """Count tiles in words."""
    return "1 tile" if count == 1 else f"{count} tiles"


def script(recipe: Recipe, layer: Image) -> str:
    """Write the Python lines that do the same run without the viewer.

    Parameters
    ----------
    recipe : Recipe
        The settings.
    layer : Image
        The source; its file is named where the viewer knows it.

    Returns
    -------
    str
        Lines that read, deblur and save.
    """
    noted = layer.metadata.get("demoe", {}).get("source")
    source = Path(noted or layer.source.path or "image.tif")
    stem = source.name.removesuffix(source.suffix).removesuffix(".ome")
    target = source.with_name(f"{stem}_deblurred.ome.zarr")
    plain = asdict(Recipe())
    fields = {name: v for name, v in asdict(recipe).items() if v != plain[name]}
    arguments = "".join(f", {name}={value!r}" for name, value in fields.items())
    return (
        "import demoe\n\n"
        f"image = demoe.open_image({str(source)!r})\n"
        f"result = demoe.deblur(image{arguments})\n"
        f"demoe.save(result, {str(target)!r})\n"
    )
