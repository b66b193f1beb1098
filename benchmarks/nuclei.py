"""Does deblurring harm or invent on smooth, noisy fluorescence?

``python benchmarks/nuclei.py FOLDER`` takes dark-field pictures of a folder, smooths them, blurs
each by one of three kernels at four levels of photons, records them with 12 bits, and says what
each gains, how its mean intensity drifts, and what was found of its blur.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

import demoe
from demoe.model.kernels.psf import make_psf
from demoe.samples.picture import psnr

KERNELS = ({"sigma": 1.8}, {"radius": 3.0}, {"sigma": 2.6})
PHOTONS = (30, 120, 500, 2000)
SIDE, BORDER = 384, 16
TOP, OFFSET, READ = 3500, 100, 4  # of a camera with 12 bits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=6)
    given = parser.parse_args()
    rng = np.random.default_rng(3)
    gains, drifts = [], []
    print("| picture | photons | kernel | blurred | gain | drift | found |\n" + "|---" * 7 + "|")
    for number, (name, light) in enumerate(dark_fields(given.folder, given.pictures)):
        for level, photons in enumerate(PHOTONS):
            kernel = KERNELS[(number + level) % len(KERNELS)]
            seen = ndimage.convolve(light, make_psf(kernel), mode="reflect").clip(0)
            counted = rng.poisson(seen * photons + 3) / photons * TOP
            values = counted + rng.normal(0, READ, seen.shape) + OFFSET
            blurred = np.rint(values).clip(0, 4095).astype(np.uint16)
            sharp = np.rint((light + 3 / photons) * TOP + OFFSET).clip(0, 4095).astype(np.uint16)
            result = demoe.deblur(blurred, "YX")
            restored = np.asarray(result.image)
            inner = (slice(BORDER, -BORDER),) * 2
            before = psnr(blurred[inner], sharp[inner])
            gains.append(psnr(restored[inner], sharp[inner]) - before)
            drifts.append(abs(float(restored.mean()) / float(blurred.mean()) - 1))
            words = result.blurs()[0].words
            print(
                f"| {name} | {photons} | {kernel} | {before:.2f} dB | {gains[-1]:+.2f} dB "
                f"| {drifts[-1]:.2%} | {words} |",
                flush=True,
            )
    print(f"\nmean {np.mean(gains):+.2f} dB, worst {min(gains):+.2f} dB, drift {max(drifts):.2%}")


def dark_fields(folder: Path, count: int):
    """Give smooth pictures (rows, cols), 0 to about 1, of which most is dark."""
    found = 0
    for file in sorted(folder.iterdir())[::3]:
        try:
            values = np.asarray(Image.open(file).convert("L"), dtype=float)[:SIDE, :SIDE]
        except OSError:
            continue
        low, high = np.percentile(values, (1, 99.8))
        if min(values.shape) < 300 or high - low < 40:
            continue
        light = ndimage.gaussian_filter(((values - low) / (high - low)).clip(0), 1.0)
        if np.median(light) <= 0.35:
            yield file.stem, light
            found += 1
            if found == count:
                return


if __name__ == "__main__":
    main()
