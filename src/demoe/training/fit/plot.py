"""A picture of the metrics that training writes: loss and router over the steps."""

from __future__ import annotations

import csv
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from demoe.errors import OutputError

_SIZE = (900, 300)  # of one panel
_LEFT, _TOP, _BOTTOM = 80, 40, 40
_INK, _SOFT, _LINE = (25, 25, 25), (200, 200, 200), (0, 90, 170)
_PANELS = (("loss", "loss"), ("router", "share that the router gets right"))


def plot_metrics(table: Path, picture: Path) -> None:
    """Draw ``metrics.csv`` as ``metrics.png``: a panel each for the loss and for the router.

    Raises
    ------
    OutputError
        If the table cannot be read or the picture cannot be written.
    """
    partial = picture.with_name(f".{picture.name}.partial")
    try:
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
        sheet = Image.new("RGB", (_SIZE[0], _SIZE[1] * len(_PANELS)), "white")
        for number, (column, title) in enumerate(_PANELS):
            points = [(float(row["step"]), float(row[column])) for row in rows]
            _panel(ImageDraw.Draw(sheet), _SIZE[1] * number, title, points)
        sheet.save(partial, "PNG")
        partial.replace(picture)
    except (OSError, KeyError, ValueError, TypeError) as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"{picture} cannot be drawn from {table}: {error}.") from None


def _panel(
    draw: ImageDraw.ImageDraw, top: int, title: str, points: list[tuple[float, float]]
) -> None:
    """Draw one curve with its mean over the ten values before, and the ends of its axes."""
    font = ImageFont.load_default(15)
    draw.text((_LEFT, top + 10), title, _INK, font)
    if not points:
        return
    steps, values = zip(*points, strict=True)
    low, high = min(values), max(values)
    right, bottom = _SIZE[0] - 20, top + _SIZE[1] - _BOTTOM
    width, height = right - _LEFT, bottom - top - _TOP

    def at(step: float, value: float) -> tuple[float, float]:
        x = _LEFT + width * (step - steps[0]) / max(steps[-1] - steps[0], 1)
        return x, bottom - height * (value - low) / max(high - low, 1e-9)

    draw.rectangle((_LEFT, top + _TOP, right, bottom), outline=_SOFT)
    for value, y in ((high, top + _TOP), (low, bottom - 18)):
        draw.text((8, y), f"{value:.3f}", _INK, font)
    draw.text((_LEFT, bottom + 8), f"step {steps[0]:.0f}", _INK, font)
    draw.text((right, bottom + 8), f"{steps[-1]:.0f}", _INK, font, anchor="ra")
    recent = [values[max(0, n - 9) : n + 1] for n in range(len(values))]
    smooth = [sum(part) / len(part) for part in recent]
    for curve, colour, thick in ((values, _SOFT, 1), (smooth, _LINE, 3)):
        draw.line([at(*point) for point in zip(steps, curve, strict=True)], colour, thick)
