"""Pictures in rows and columns with words above, beside and below them.

Drawn with Pillow: matplotlib keeps pixels exact only where every place is computed as here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from demoe.errors import OutputError
from demoe.io.atomic import check_target, partial_output

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}

_GAP, _LEFT, _TOP, _CAPTION, _LEGEND = 10, 190, 96, 30, 40
_INK, _SOFT, _PAPER = (25, 25, 25), (105, 105, 105), (255, 255, 255)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture (H, W, 3) uint8 and what is written below it."""

    pixels: Pixels
    caption: str = ""


def to_pixels(image: Tensor) -> Pixels:
    """Return an image (3, H, W) in [0, 1] as 8-bit pixels (H, W, 3)."""
    return np.asarray((image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu())


def check_picture(path: Path) -> None:
    """Refuse a name that no picture can be written to, before anything is computed."""
    if path.suffix.lower() not in FORMATS:
        raise OutputError(f"{path} is no name of a picture; end it with .jpg or .png.")
    check_target(path, overwrite=True)


def draw_grid(
    title: str,
    columns: Sequence[str],
    rows: Sequence[tuple[str, Sequence[Panel]]],
    *,
    side: int,
    legend: Mapping[str, tuple[int, int, int]] | None = None,
) -> Image.Image:
    """Draw rows of square panels, each row with words at its left.

    Parameters
    ----------
    title : str
        A line on top.
    columns : sequence of str
        What stands above each column.
    rows : sequence of (str, sequence of Panel)
        The words of a row, in several lines, and its panels.
    side : int
        Side of a panel in pixels; pictures are enlarged to it in whole steps if that is possible.
    legend : mapping of str to colour, optional
        What colours mean, in a line at the bottom.
    """
    step, below = side + _GAP, side + _CAPTION + _GAP
    bottom = _TOP + len(rows) * below + _GAP
    size = (_LEFT + len(columns) * step + _GAP, bottom + (_LEGEND if legend else 0))
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((16, 16), title, _INK, ImageFont.load_default(26))
    normal, small = ImageFont.load_default(20), ImageFont.load_default(17)
    for number, name in enumerate(columns):
        draw.text((_LEFT + number * step, _TOP - 32), name, _INK, normal)
    for number, (words, panels) in enumerate(rows):
        top = _TOP + number * below
        first, _, rest = words.partition("\n")
        draw.text((16, top), first, _INK, normal)
        draw.text((16, top + 30), rest, _SOFT, small)
        for column, panel in enumerate(panels):
            left = _LEFT + column * step
            picture = Image.fromarray(panel.pixels)
            sharp = side % picture.width == 0
            how = Image.Resampling.NEAREST if sharp else Image.Resampling.LANCZOS
            sheet.paste(picture.resize((side, side), how), (left, top))
            draw.text((left, top + side + 5), panel.caption, _INK, small)
    left = _LEFT
    for name, colour in (legend or {}).items():
        draw.rectangle((left, bottom + 3, left + 30, bottom + 25), colour, _SOFT)
        draw.text((left + 40, bottom + 2), name, _INK, normal)
        left += 70 + int(draw.textlength(name, normal))
    return sheet


def write_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture whole or not at all; an existing file is replaced."""
    with partial_output(path, overwrite=True) as partial:
        picture.save(partial, FORMATS[path.suffix.lower()], quality=90)
