"""Draw docs/images/failures.jpg: blur of bundled samples that is not found, or told wrongly.

Run it with ``python docs/make_failures.py``. The pictures are always the same.
"""

from pathlib import Path

import numpy as np
from PIL import Image

import demoe
from demoe.samples.blur import apply_recipe, convolve, disc_kernel
from demoe.samples.images import load_sample
from demoe.samples.picture import SheetRow, draw_sheet

PICTURE = Path(__file__).parent / "images" / "failures.jpg"
GAMMA = 2.2
SIDE = 31


def winding() -> np.ndarray:
    """Return the kernel (31, 31) of a hand that goes there and half way back."""
    kernel = np.zeros((SIDE, SIDE))
    at = np.linspace(0, 1, 600)
    rows = 15 + 9 * np.sin(7.5 * at) * (1 - 0.4 * at)
    cols = 15 + 10 * np.cos(4.5 * at + 0.4)
    for row, col in zip(rows, cols, strict=True):
        kernel[round(row), round(col)] += 1
    return kernel / kernel.sum()


def in_light(sharp: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Blur a photo (Y, X, 3) of 8 bits in linear light."""
    light = (sharp / 255) ** GAMMA
    planes = [convolve(plane, kernel) for plane in np.moveaxis(light, -1, 0)]
    return np.rint(255 * np.stack(planes, -1).clip(0, 1) ** (1 / GAMMA)).astype(np.uint8)


def row(title: str, blurred: np.ndarray, sharp: np.ndarray, kernels: list[np.ndarray]) -> SheetRow:
    """Restore a picture as is the default."""
    out = demoe.deblur(blurred, "YXS" if blurred.ndim == 3 else "YX")
    words = ", ".join(dict.fromkeys(blur.words for blur in out.blurs()))
    found = [k for row in np.asarray(out.kernels) for k in row][:4]
    return SheetRow(
        title,
        blurred,
        out.image.compute(),
        np.asarray(out.expert_map),
        sharp,
        pitch=out.pitch,
        note=f"found: {words}",
        found=found,
        kernels=kernels,
    )


def main() -> None:
    """Draw the picture."""
    pagoda = np.asarray(load_sample("pagoda_motion").sharp.data)
    path = winding()
    stripes = {
        "seed": 1,
        "photons": 4000,
        "gamma": GAMMA,
        "parts": [{"kernel": "disc", "radius": 3.0}, {"kernel": "line", "length": 9, "angle": 60}]
        * 2,
    }
    mixed = apply_recipe(pagoda, "YXS", stripes)
    grains = np.asarray(load_sample("pollen").sharp.data).astype(float)
    top = np.percentile(grains, 99.9)
    disc = disc_kernel(3.0)
    light = 30 * convolve(grains / top, disc).clip(0, None)
    counted = np.random.default_rng(0).poisson(light) / 30
    photons = np.rint(4095 * counted.clip(0, 1)).astype(np.uint16)
    truth = np.rint(4095 * (grains / top).clip(0, 1)).astype(np.uint16)
    rows = [
        row("A winding path", in_light(pagoda, path), pagoda, [path]),
        row("Two kinds of blur within a window", mixed, pagoda, []),
        row("Out of focus, 30 photons at the brightest", photons, truth, [disc]),
    ]
    sheet = draw_sheet(rows, title="Where it fails")
    sheet.resize((sheet.width // 2, sheet.height // 2), Image.Resampling.LANCZOS).save(
        PICTURE, quality=88
    )


if __name__ == "__main__":
    main()
