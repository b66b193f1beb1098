"""Does deblurring keep what a microscope measured?

``python benchmarks/photometry.py FOLDER`` takes pictures of a folder as light, blurs each, records
it with 12 bits in a 16-bit file, so bright that some pixels are saturated, and says for both
settings of ``photometry`` by how much the mean of textured blocks of 64 pixels moves, how many
saturated pixels are saturated no more, and which values lie beyond the camera's range.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

import demoe
from demoe.model.kernels.psf import make_psf
from demoe.recipe import PHOTOMETRY

KERNELS = ({"sigma": 1.8}, {"radius": 3.0}, {"sigma": 2.6})
BLOCK, PHOTONS, TOP, OFFSET, READ = 64, 500, 4095, 100, 4
TEXTURE = 0.1
"""Standard deviation of a block, relative to its mean above the camera's offset."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--side", type=int, default=512)
    given = parser.parse_args()
    rng = np.random.default_rng(5)
    print(f"| picture | photometry | blocks | moved | saturated lost | beyond |{'|---' * 6}|")
    moved: dict[str, list[float]] = {setting: [] for setting in PHOTOMETRY}
    for number, path in enumerate(sorted(given.folder.glob("*.png"))[: given.pictures]):
        seen = recorded(path, given.side, KERNELS[number % len(KERNELS)], rng)
        for setting in PHOTOMETRY:
            restored = np.asarray(demoe.deblur(seen, "YX", photometry=setting).image)
            drifts = drift(seen, restored)
            moved[setting].append(float(drifts.mean()))
            full = seen == TOP
            lost = np.count_nonzero(restored[full] < TOP)
            beyond = np.count_nonzero(restored > TOP)
            print(
                f"| {path.stem} | {setting} | {drifts.size} | {drifts.mean():.2%}, at most "
                f"{drifts.max():.2%} | {lost} of {np.count_nonzero(full)} | {beyond} |",
                flush=True,
            )
    for setting, values in moved.items():
        print(f"{setting}: {np.mean(values):.2%} in the mean, worst picture {max(values):.2%}")


def recorded(path: Path, side: int, kernel: dict, rng: np.random.Generator) -> np.ndarray:
    """Blur a picture and record it as a camera of 12 bits does: (rows, cols) of uint16."""
    light = np.asarray(Image.open(path).convert("L"), np.float64)[:side, :side] / 255
    light = light / np.percentile(light, 99.5) * 1.1  # the brightest are too bright
    blurred = ndimage.convolve(light, make_psf(kernel), mode="reflect").clip(0)
    counted = rng.poisson(blurred * PHOTONS) / PHOTONS * (TOP - OFFSET)
    values = counted + rng.normal(0, READ, light.shape) + OFFSET
    return np.rint(values).clip(0, TOP).astype(np.uint16)


def drift(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Relative change of the mean above the offset, of each textured block."""
    found = []
    for top in range(0, before.shape[0] - BLOCK + 1, BLOCK):
        for left in range(0, before.shape[1] - BLOCK + 1, BLOCK):
            part = (slice(top, top + BLOCK), slice(left, left + BLOCK))
            was, now = (image[part].astype(float) - OFFSET for image in (before, after))
            if was.std() > TEXTURE * was.mean() > 0:
                found.append(abs(now.mean() / was.mean() - 1))
    return np.asarray(found)


if __name__ == "__main__":
    main()
