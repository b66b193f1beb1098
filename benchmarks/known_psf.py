"""What a known PSF is worth: deconvolution by demoe beside Richardson-Lucy, told the same PSF.

``python benchmarks/known_psf.py FOLDER`` wants pictures NAME_blurred.png and NAME_sharp.png and a
JSON file that maps each NAME to its ``kernel`` (rows of numbers), its ``task``, and ``light``
("linear" or "display"): where the blur happened. Richardson-Lucy is that of scikit-image, 30
iterations, on light where light was blurred; demoe has to find that out. PSNR without 16 px of
border.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.restoration import richardson_lucy

import demoe

BORDER, PADDING = 16, 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--skip", nargs="*", default=["local_motion"], help="tasks left out")
    parser.add_argument("--iterations", type=int, default=30)
    given = parser.parse_args()
    (table,) = given.folder.glob("*.json")
    gains: dict[str, list[tuple[float, float]]] = {}
    for name, facts in json.loads(table.read_text()).items():
        if facts["task"] in given.skip:
            continue
        blurred, sharp = (read(given.folder / f"{name}_{k}.png") for k in ("blurred", "sharp"))
        top = 255.0 if blurred.ndim == 3 else float(sharp.max())
        ours = demoe.deblur(
            blurred, "YXS" if blurred.ndim == 3 else "YX", psf=facts["kernel"]
        ).image.compute()
        light = facts["light"] == "linear" and blurred.ndim == 3
        peer = by_richardson_lucy(blurred / top, np.array(facts["kernel"]), given.iterations, light)
        before = psnr(blurred / top, sharp / top)
        gain = psnr(ours / top, sharp / top) - before, psnr(peer, sharp / top) - before
        gains.setdefault(facts["task"], []).append(gain)
        print(
            f"{name:26s} {before:6.2f} dB  demoe {gain[0]:+6.2f}  Richardson-Lucy {gain[1]:+6.2f}"
        )
    print("\n| task | pictures | demoe, mean | worst | Richardson-Lucy, mean | worst |")
    print("|---|---:|---:|---:|---:|---:|")
    for task, found in gains.items():
        (mean, other), (worst, others) = np.mean(found, axis=0), np.min(found, axis=0)
        print(
            f"| {task} | {len(found)} | {mean:+.2f} dB | {worst:+.2f} dB "
            f"| {other:+.2f} dB | {others:+.2f} dB |"
        )


def read(path: Path) -> np.ndarray:
    picture = Image.open(path)
    if picture.mode.startswith("I"):
        return np.asarray(picture).astype(np.uint16)
    return np.asarray(picture.convert("RGB"))


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    error = (image.clip(0, 1) - truth)[BORDER:-BORDER, BORDER:-BORDER]
    return float(-10 * np.log10(max(1e-12, np.mean(error**2))))


def by_richardson_lucy(
    values: np.ndarray, kernel: np.ndarray, iterations: int, light: bool
) -> np.ndarray:
    kernel = kernel / kernel.sum()
    if light:
        values = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    planes = values.reshape(*values.shape[:2], -1)
    inner = slice(PADDING, -PADDING)
    found = [
        richardson_lucy(
            np.pad(plane.clip(1e-6), PADDING, mode="reflect"), kernel, iterations, clip=False
        )[inner, inner]
        for plane in np.moveaxis(planes, -1, 0)
    ]
    restored = np.stack(found, axis=-1).reshape(values.shape)
    if light:
        restored = restored.clip(0)
        restored = np.where(
            restored <= 0.0031308, restored * 12.92, 1.055 * restored ** (1 / 2.4) - 0.055
        )
    return restored


if __name__ == "__main__":
    main()
