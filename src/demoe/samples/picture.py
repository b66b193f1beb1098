"""The demo picture: samples in rows; input, output, expert map and truth in columns."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from demoe.choices import BLURS, NOT_DECIDED, Choice, words_of
from demoe.errors import ImageError, OutputError

COLUMNS = ("Input", "Output", "Expert map", "Sharp")
SUFFIXES = (".png", ".jpg", ".jpeg")

_PANEL = 500  # widest and highest panel, pixels
_GAP = 20
_MARGIN = 40
_INK, _SOFT, _PAPER = (25, 25, 25), (105, 105, 105), (255, 255, 255)
_FRAME = (255, 255, 255)
_ZOOM = 2.5  # of a detail against the picture around it
_DETAIL = 0.42  # side of a detail, as a share of the panel's shorter side
_TINT = 0.55
_KERNEL, _KERNEL_PIXELS = 51, 17  # side of a drawn kernel, and pixels of the image in it


@dataclass(frozen=True, eq=False)
class SheetRow:
    """One sample in the picture.

    Attributes
    ----------
    title : str
        A few words above the row.
    blurred, restored : ndarray, shape (Y, X) or (Y, X, 3)
        One plane before and after, of the same shape and in the same units.
    expert_map : ndarray of integers, shape (rows, cols)
        Number of the choice of each routing cell; 0 is not decided.
    sharp : ndarray or None
        The truth, of the same shape; None where it is not known.
    pitch : tuple of int, optional
        Pixels a routing cell along Y and X; if left out, the cells share the plane evenly.
    note : str
        One line in small print beside the title.
    choices : tuple of Choice
        What the numbers mean.
    found, kernels : sequence of ndarray
        Kernels that were found and the true ones, from left to right; drawn below output and truth.
    """

    title: str
    blurred: NDArray[Any]
    restored: NDArray[Any]
    expert_map: NDArray[Any]
    sharp: NDArray[Any] | None = None
    pitch: tuple[int, int] | None = None
    note: str = ""
    choices: tuple[Choice, ...] = BLURS
    found: Sequence[NDArray[Any]] = ()
    kernels: Sequence[NDArray[Any]] = ()

    def __post_init__(self) -> None:
        """Check that the pictures fit each other."""
        shape = self.blurred.shape
        if len(shape) != 2 and (len(shape) != 3 or shape[2] != 3):
            raise ImageError(
                f"row {self.title!r} has pixels of shape {shape}; give one plane, (Y, X) or "
                "(Y, X, 3)"
            )
        for name, other in (("restored", self.restored), ("sharp", self.sharp)):
            if other is not None and other.shape != shape:
                raise ImageError(
                    f"row {self.title!r}: {name} has shape {other.shape}, but blurred has {shape}"
                )
        if self.expert_map.ndim != 2 or not 0 <= self.expert_map.min() <= self.expert_map.max() <= (
            len(self.choices)
        ):
            raise ImageError(
                f"row {self.title!r}: an expert map has two axes and values 0 to "
                f"{len(self.choices)}"
            )


class _Box(NamedTuple):
    top: int
    left: int
    side: int


def psnr(image: NDArray[Any], truth: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio in dB.

    Parameters
    ----------
    image, truth : ndarray of the same shape
        The peak is 255 for uint8; for other types it is the range of `truth`, because 12-bit and
        floating point data rarely fill their type.

    Returns
    -------
    float
        Infinity when the two are equal.
    """
    truth_values = truth.astype(np.float64)
    peak = 255.0 if truth.dtype == np.uint8 else float(np.ptp(truth_values))
    error = float(np.mean((image.astype(np.float64) - truth_values) ** 2))
    if error == 0:
        return math.inf
    return 10 * math.log10(max(peak, 1e-12) ** 2 / error)


def contact_sheet(
    rows: Sequence[SheetRow],
    path: Path | str,
    *,
    title: str = "Deblurring, place by place",
    footer: str = "",
) -> Path:
    """Draw samples as a picture and write it.

    Each row shows input, output, expert map and the sharp picture, with the PSNR against the sharp
    picture where there is one, and in a corner the place that changed most, enlarged. Below output
    and truth are the kernels that were found, and the true ones, three times as large as they are.
    Intensities of one row are shown on one scale.

    Parameters
    ----------
    rows : sequence of SheetRow
        The samples, top to bottom.
    path : path
        ``.png`` or ``.jpg`` file; an existing one is replaced.
    title, footer : str
        One line above and one below, for example the model's name and the routing.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ImageError
        There is no row.
    OutputError
        The file cannot be written, or its suffix is not known.
    """
    path = Path(path)
    if not rows:
        raise ImageError("a contact sheet needs at least one row")
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{path.name} is no picture file name; end it with .png or .jpg")
    sheet = draw_sheet(rows, title=title, footer=footer)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)
    return path


def draw_sheet(rows: Sequence[SheetRow], *, title: str, footer: str = "") -> Image.Image:
    """Draw what `contact_sheet` writes, as an RGB Pillow image."""
    sizes = [_panel_size(row) for row in rows]
    column = max(max(width for width, _ in sizes), 260)
    width = 2 * _MARGIN + len(COLUMNS) * column + (len(COLUMNS) - 1) * _GAP
    lefts = [_MARGIN + i * (column + _GAP) for i in range(len(COLUMNS))]
    heights = [54 + height + 62 for _, height in sizes]
    total = _MARGIN + 108 + sum(heights) + 64 + (38 if footer else 0) + _MARGIN // 2
    sheet = Image.new("RGB", (width, total), _PAPER)
    draw = ImageDraw.Draw(sheet)

    y = _MARGIN
    _text(draw, (_MARGIN, y), title, 38, _INK, width - 2 * _MARGIN)
    y += 66
    for name, left in zip(COLUMNS, lefts, strict=True):
        _text(draw, (left, y), name, 25, _SOFT, column)
    y += 42
    for row, size, height in zip(rows, sizes, heights, strict=True):
        draw.line((_MARGIN, y, width - _MARGIN - 1, y), fill=(210, 210, 210), width=1)
        used = _text(draw, (_MARGIN, y + 12), row.title, 27, _INK, width - 2 * _MARGIN)
        left = _MARGIN + used + 16
        room = width - _MARGIN - left
        if room > 100:
            _text(draw, (left, y + 18), row.note, 20, _SOFT, room)
        _draw_row(sheet, draw, row, size, lefts, y + 54, column)
        y += height
    _legend(draw, rows[0].choices, y + 8, width)
    if footer:
        _text(draw, (_MARGIN, y + 62), footer, 20, _SOFT, width - 2 * _MARGIN)
    return sheet


def most_changed(before: NDArray[Any], after: NDArray[Any], side: int) -> tuple[int, int]:
    """Top-left corner of the `side` x `side` square in which two planes differ most.

    Parameters
    ----------
    before, after : ndarray, shape (Y, X) or (Y, X, 3)
        Planes of the same shape.
    side : int
        Side in pixels, at most that of the plane.

    Returns
    -------
    tuple of int
        Y and X of the corner.
    """
    change = np.abs(after.astype(np.float64) - before.astype(np.float64))
    if change.ndim == 3:
        change = change.mean(axis=2)
    sums = np.pad(change, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    window = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    y, x = np.unravel_index(int(np.argmax(window)), window.shape)
    return int(y), int(x)


def _panel_size(row: SheetRow) -> tuple[int, int]:
    height, width = row.blurred.shape[:2]
    factor = min(_PANEL / width, _PANEL / height)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _draw_row(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    row: SheetRow,
    size: tuple[int, int],
    lefts: Sequence[int],
    top: int,
    column: int,
) -> None:
    low, high = _display_range(row)
    pictures = [
        None if plane is None else _as_picture(plane, low, high)
        for plane in (row.blurred, row.restored, row.sharp)
    ]
    before, after, truth = pictures
    assert before is not None
    assert after is not None
    detail = _choose_detail(row, size)
    below = top + size[1] + 9

    panels = [
        _panel(before, size, detail),
        _panel(after, size, detail),
        _map_panel(row, before, size),
    ]
    for panel, left in zip(panels, lefts, strict=False):
        sheet.paste(panel, (left, top))
    _text(draw, (lefts[2], below), _shares(row), 21, _INK, column)
    for kernels, left in ((row.found, lefts[1]), (row.kernels, lefts[3])):
        _draw_kernels(sheet, kernels, left + size[0], below)

    if truth is None or row.sharp is None:
        draw.rectangle(
            (lefts[3], top, lefts[3] + size[0] - 1, top + size[1] - 1),
            fill=(246, 246, 246),
            outline=(200, 200, 200),
        )
        centre = (lefts[3] + size[0] // 2, top + size[1] // 2)
        draw.text(centre, "not known", font=_font(25), fill=_SOFT, anchor="mm")
        _text(draw, (lefts[0], below), "really blurred", 21, _INK, column)
        _text(draw, (lefts[1], below), "no PSNR without a sharp picture", 21, _SOFT, column)
        return
    sheet.paste(_panel(truth, size, detail), (lefts[3], top))
    first, second = psnr(row.blurred, row.sharp), psnr(row.restored, row.sharp)
    gain = f" ({second - first:+.2f} dB)" if math.isfinite(first) and math.isfinite(second) else ""
    _text(draw, (lefts[0], below), f"PSNR {first:.2f} dB", 21, _INK, column)
    _text(draw, (lefts[1], below), f"PSNR {second:.2f} dB{gain}", 21, _INK, column)


def _draw_kernels(
    sheet: Image.Image, kernels: Sequence[NDArray[Any]], right: int, top: int
) -> None:
    """Draw kernels side by side, all on one scale of pixels, their right end at a column."""
    left = right - len(kernels) * (_KERNEL + 4) + 4
    for kernel in kernels:
        # The middle of each, in as many pixels: so that one can compare their sizes.
        shown = np.zeros((_KERNEL_PIXELS, _KERNEL_PIXELS))
        side = min(kernel.shape[0], _KERNEL_PIXELS)
        inner, outer = (kernel.shape[0] - side) // 2, (_KERNEL_PIXELS - side) // 2
        shown[outer : outer + side, outer : outer + side] = kernel[
            inner : inner + side, inner : inner + side
        ]
        picture = _as_picture(np.sqrt(shown), 0.0, float(np.sqrt(shown.max()) or 1))
        size = (_KERNEL, _KERNEL)
        sheet.paste(picture.resize(size, Image.Resampling.NEAREST), (left, top))
        left += _KERNEL + 4


def _display_range(row: SheetRow) -> tuple[float, float]:
    if row.blurred.dtype == np.uint8:
        return 0.0, 255.0
    reference = row.blurred if row.sharp is None else row.sharp
    low, high = np.percentile(reference, (0.1, 99.8))
    return float(low), float(high if high > low else low + 1)


def _as_picture(plane: NDArray[Any], low: float, high: float) -> Image.Image:
    scaled = np.clip((plane.astype(np.float64) - low) / (high - low), 0, 1)
    return Image.fromarray(np.rint(255 * scaled).astype(np.uint8)).convert("RGB")


def _choose_detail(row: SheetRow, size: tuple[int, int]) -> _Box | None:
    """Choose the square of the plane to enlarge; None when the plane is too small for one."""
    height, width = row.blurred.shape[:2]
    side = round(min(height, width) * _DETAIL / _ZOOM)
    if side < 12 or min(size) < 120:
        return None
    return _Box(*most_changed(row.blurred, row.restored, side), side)


def _panel(picture: Image.Image, size: tuple[int, int], detail: _Box | None) -> Image.Image:
    factor = size[0] / picture.width
    panel = picture.resize(size, Image.Resampling.LANCZOS)
    if detail is None:
        return panel
    draw = ImageDraw.Draw(panel)
    top, left, side = (round(value * factor) for value in detail)
    _outline(draw, (left, top, left + side, top + side))
    shown = round(side * _ZOOM)
    source = (detail.left, detail.top, detail.left + detail.side, detail.top + detail.side)
    enlarged = picture.resize((shown, shown), Image.Resampling.BICUBIC, box=source)
    # The corner across from the place shown, so that the detail never covers it.
    x = 0 if left + side / 2 > size[0] / 2 else size[0] - shown
    y = 0 if top + side / 2 > size[1] / 2 else size[1] - shown
    panel.paste(enlarged, (x, y))
    _outline(draw, (x, y, x + shown - 1, y + shown - 1))
    return panel


def _outline(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int]) -> None:
    """Draw a white frame with a dark rim, to be seen on any ground."""
    left, top, right, bottom = box
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=(40, 40, 40))
    draw.rectangle(box, outline=_FRAME, width=2)


def _map_panel(row: SheetRow, before: Image.Image, size: tuple[int, int]) -> Image.Image:
    height, width = row.blurred.shape[:2]
    experts = row.expert_map.astype(np.intp)
    rows, cols = experts.shape
    if row.pitch is None:
        y = np.arange(height) * rows // height
        x = np.arange(width) * cols // width
    else:
        y = np.minimum(np.arange(height) // row.pitch[0], rows - 1)
        x = np.minimum(np.arange(width) // row.pitch[1], cols - 1)
    wide = Image.fromarray(experts[np.ix_(y, x)].astype(np.uint8))
    cells = np.asarray(wide.resize(size, Image.Resampling.NEAREST))
    gray = np.asarray(before.convert("L").resize(size, Image.Resampling.LANCZOS)).astype(np.float64)
    ground = np.repeat((60 + 0.65 * gray)[..., None], 3, axis=2)
    colours = np.array([(0, 0, 0), *(choice.colour for choice in row.choices)])
    tint = np.where(cells > 0, _TINT, 0.0)[..., None]
    return Image.fromarray(np.rint(ground * (1 - tint) + colours[cells] * tint).astype(np.uint8))


def _shares(row: SheetRow) -> str:
    """Which experts cover how much, the largest first."""
    experts, words = row.expert_map, words_of(row.choices)
    values, counts = np.unique(experts, return_counts=True)
    order = sorted(zip(counts.tolist(), values.tolist(), strict=True), reverse=True)
    parts = [
        f"{words[value]} {100 * count / experts.size:.0f} %"
        for count, value in order
        if count / experts.size >= 0.005
    ]
    return ", ".join(parts)


def _legend(draw: ImageDraw.ImageDraw, choices: Sequence[Choice], y: int, width: int) -> None:
    draw.line((_MARGIN, y - 8, width - _MARGIN - 1, y - 8), fill=(210, 210, 210), width=1)
    x = _MARGIN + _text(draw, (_MARGIN, y + 10), "Experts", 21, _SOFT, width) + 22
    for choice in choices:
        draw.rectangle((x, y + 11, x + 30, y + 33), fill=choice.colour, outline=_SOFT)
        x += 40 + _text(draw, (x + 40, y + 10), choice.words, 21, _INK, width) + 26
    draw.rectangle((x, y + 11, x + 30, y + 33), fill=(150, 150, 150), outline=_SOFT)
    _text(draw, (x + 40, y + 10), NOT_DECIDED, 21, _INK, width)


def _text(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    size: int,
    colour: tuple[int, int, int],
    room: float,
) -> int:
    """Draw a line, shortened to `room` pixels, and return the pixels it takes."""
    font = _font(size)
    text = text[: int(room / (0.15 * size))]  # no letter is narrower; spares long loops
    line = text
    while text and font.getlength(line) > room:
        text = text[:-1]
        line = text.rstrip(" ,.") + "..."
    draw.text(at, line, font=font, fill=colour)
    return math.ceil(font.getlength(line))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
