"""Draw docs/images/degradations.jpg: each kind of blur that training makes, on bundled samples.

Run it with ``python docs/make_degradations.py``. The pictures are always the same.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from demoe.choices import TASKS
from demoe.samples.images import load_sample
from demoe.training.blur import degradations
from demoe.training.blur.degradations import MARGIN, degrade
from demoe.training.random import Draw

PICTURE = Path(__file__).parent / "images" / "degradations.jpg"
SIDE, ZOOM, GAP, LEFT = 128, 2, 10, 190
TIMES = 4
ROWS = [
    ("sharp", "left alone, or\nbarely blurred", "photo", -1),
    ("defocus", "disk, polygon,\nGaussian, Airy", "photo", 0),
    ("global motion", "of the camera,\nin linear light", "photo", 1),
    ("local motion", "an object over a\nstill background", "photo", 2),
    ("synthetic motion", "finished frames,\naveraged", "photo", 3),
    ("low light", "1/4 to 1/16 of the\nlight; target alike", "photo", 4),
    ("defocus", "in a microscope,\ncounting photons", "cells", 0),
    ("synthetic motion", "a sample that\nmoves", "cells", 3),
]


def crop(name: str, top: int, left: int) -> torch.Tensor:
    """Return part of a sample with its margin, (1, 3, side, side), [0, 1]."""
    image = load_sample(name)
    sharp = np.asarray(image.sharp.data.compute(), dtype=np.float32)
    sharp = sharp if sharp.ndim == 3 else np.stack([sharp] * 3, axis=2)
    sharp = np.clip(sharp / np.percentile(sharp, 99.9), 0, 1) if name == "pollen" else sharp / 255
    side = SIDE + 2 * MARGIN
    part = sharp[top : top + side, left : left + side]
    return torch.from_numpy(part).permute(2, 0, 1)[None]


def panel(image: torch.Tensor) -> Image.Image:
    """Return an image (3, h, w) as a picture of twice its size."""
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    size = (SIDE * ZOOM, SIDE * ZOOM)
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


def main() -> None:
    """Draw rows of kinds and columns of random draws, the target first."""
    degradations.MICROSCOPE = 1.0
    sources = {"photo": crop("pagoda_motion", 200, 200), "cells": crop("pollen", 30, 30)}
    step = SIDE * ZOOM + GAP
    sheet = Image.new("RGB", (LEFT + (1 + TIMES) * step, 40 + len(ROWS) * step), "white")
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(19), ImageFont.load_default(15)
    for column, title in enumerate(("target of the first",) + ("blurred",) * TIMES):
        draw.text((LEFT + column * step, 10), title, "black", small)
    for row, (title, note, source, task) in enumerate(ROWS):
        data = degrade(sources[source].expand(TIMES, -1, -1, -1), [task] * TIMES, Draw(20 + row))
        y = 40 + row * step
        draw.text((12, y + 6), title, "black", font)
        draw.text((12, y + 36), note, "dimgray", small)
        for column, image in enumerate([data.target[0], *data.image]):
            sheet.paste(panel(image), (LEFT + column * step, y))
    assert max(task for *_, task in ROWS) < len(TASKS)
    sheet.save(PICTURE, quality=85)


if __name__ == "__main__":
    main()
