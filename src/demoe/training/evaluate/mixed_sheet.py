"""A picture of how pictures with several blurs are routed and restored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demoe.choices import BLURS
from demoe.samples.picture import psnr
from demoe.training.blur.composites import Composite
from demoe.training.evaluate.grid import Panel, Pixels, draw_grid
from demoe.training.evaluate.mixed import IMAGE, LOCAL, PAINTED, Restored

ROWS = 4
"""Pictures shown."""

SIDE = 300
"""Side of a panel in pixels."""

COLUMNS = ("blurred", "map found", "true map", IMAGE, LOCAL, PAINTED, "truth")

_TINT = 0.6


def mixed_sheet(
    pictures: Sequence[Composite], results: Sequence[Restored], *, title: str, pitch: int
) -> Image.Image:
    """Draw the first pictures with both maps, what became of them, and their truth."""
    rows = []
    for number, (picture, result) in enumerate(zip(pictures[:ROWS], results[:ROWS], strict=True)):
        before = psnr(picture.blurred, picture.target)
        true, found = picture.expert_map(pitch), result.maps[LOCAL]
        panels = [
            Panel(picture.blurred, f"{before:.2f} dB"),
            Panel(
                _coloured(picture.blurred, found, pitch),
                f"{100 * (found == true).mean():.0f} % alike",
            ),
            Panel(_coloured(picture.blurred, true, pitch)),
        ]
        for name in (IMAGE, LOCAL, PAINTED):
            after = psnr(result.pictures[name], picture.target)
            panels.append(Panel(result.pictures[name], f"{after:.2f} dB ({after - before:+.2f})"))
        panels.append(Panel(picture.target))
        tasks = "\n".join(BLURS[value - 1].words for value in np.unique(true))
        rows.append((f"picture {number + 1}\n{tasks}", panels))
    legend = {blur.words: blur.colour for blur in BLURS}
    return draw_grid(title, COLUMNS, rows, side=SIDE, legend=legend)


def _coloured(pixels: Pixels, experts: NDArray[np.uint8], pitch: int) -> Pixels:
    """Lay the colours of an expert map over a picture in gray."""
    height, width = pixels.shape[:2]
    cells = experts[np.arange(height)[:, None] // pitch, np.arange(width) // pitch]
    known = [(0, 0, 0), *(blur.colour for blur in BLURS)]
    tint = np.where(cells > 0, _TINT, 0.0)[..., None]
    gray = pixels.mean(axis=2, keepdims=True)
    return np.asarray((gray * (1 - tint) + np.array(known)[cells] * tint).round(), np.uint8)
