"""Kernels that are found, beside those that blurred: how like they are, and what they gain.

``python benchmarks/found_kernels.py FOLDER`` wants the folder of `known_psf.py`. A kernel's cosine
to the true one is that of the windows in the mean, where both lie best on each other; a window
without a kernel has that of a point. "plain" is what a Wiener filter with the kernel found gains,
at the best of four strengths, on display values. ``--sheet FILE`` draws the ``--worst`` pictures
whose result gains least.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from known_psf import psnr, read
from scipy.fft import irfft2, next_fast_len, rfft2
from skimage.restoration import wiener

import demoe
from demoe.engine.kernels.places import is_photo
from demoe.samples.picture import SheetRow, contact_sheet

STRENGTHS = (0.003, 0.01, 0.03, 0.1)
PADDING = 40


class Found(NamedTuple):
    """What came of a picture."""

    task: str
    family: str
    cosine: float
    gain: float
    plain: float
    row: SheetRow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--skip", nargs="*", default=["local_motion"], help="tasks left out")
    parser.add_argument("--sheet", type=Path, help="draw the worst into this file")
    parser.add_argument("--worst", type=int, default=4, help="how many")
    given = parser.parse_args()
    (table,) = given.folder.glob("*.json")
    found = []
    for name, facts in json.loads(table.read_text()).items():
        if facts["task"] not in given.skip:
            found.append(look(given.folder, name, facts))
            one = found[-1]
            print(f"{name:26s} {one.row.note}")
    print("\n| task | kernel | pictures | cosine, mean | worst | plain filter | result |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for task, family in dict.fromkeys((one.task, one.family) for one in found):
        of = [one for one in found if (one.task, one.family) == (task, family)]
        cosine, plain, gain = (
            np.mean([getattr(one, name) for one in of]) for name in ("cosine", "plain", "gain")
        )
        print(
            f"| {task} | {family} | {len(of)} | {cosine:.2f} | {min(o.cosine for o in of):.2f} "
            f"| {plain:+.2f} dB | {gain:+.2f} dB |"
        )
    if given.sheet:
        worst = sorted(found, key=lambda one: one.gain)[: given.worst]
        contact_sheet([one.row for one in worst], given.sheet, title="Where it fails")


def look(folder: Path, name: str, facts: dict) -> Found:
    """Restore a picture and compare its kernels with the true one."""
    blurred, sharp = (read(folder / f"{name}_{k}.png") for k in ("blurred", "sharp"))
    top = 255.0 if blurred.ndim == 3 else float(sharp.max())
    image = demoe.LazyImage.from_array(blurred, "YXS" if blurred.ndim == 3 else "YX")
    out = demoe.deblur(image)
    restored = out.image.compute()
    true = np.array(facts["kernel"], dtype=float)
    kernels = [k for row in np.asarray(out.kernels) for k in row]
    cosine = float(np.mean([cosine_of(kernel, true) for kernel in kernels]))
    before = psnr(blurred / top, sharp / top)
    gain = psnr(restored / top, sharp / top) - before
    plain = by_wiener(blurred / top, np.mean(kernels, axis=0), sharp / top) - before
    words = ", ".join(dict.fromkeys(blur.words for blur in out.blurs()))
    note = f"{gain:+.2f} dB; {facts['kernel_kind']}; found: {words} (cosine {cosine:.2f})"
    # A sheet shows 8 bits of a photo as they are, a measurement from its least to its greatest.
    shown = [
        values if is_photo(image) else values.astype(np.float32)
        for values in (blurred, restored, sharp)
    ]
    row = SheetRow(
        name,
        shown[0],
        shown[1],
        np.asarray(out.expert_map),
        shown[2],
        pitch=out.pitch,
        note=note,
        found=kernels[:4],
        kernels=[true / true.sum()],
    )
    return Found(facts["task"], facts["kernel_kind"], cosine, gain, plain, row)


def cosine_of(kernel: np.ndarray, true: np.ndarray) -> float:
    """Return the greatest cosine of two kernels, one of them moved."""
    size = [next_fast_len(a + b) for a, b in zip(kernel.shape, true.shape, strict=True)]
    product = irfft2(rfft2(kernel, size) * rfft2(true, size).conj(), size)
    return float(product.max() / np.sqrt((kernel**2).sum() * (true**2).sum()))


def by_wiener(values: np.ndarray, kernel: np.ndarray, sharp: np.ndarray) -> float:
    """Return the PSNR of the best of a few Wiener filters."""
    planes = np.moveaxis(values.reshape(*values.shape[:2], -1), -1, 0)
    inner = slice(PADDING, -PADDING)
    scores = []
    for strength in STRENGTHS:
        done = [
            wiener(np.pad(plane, PADDING, mode="reflect"), kernel, strength, clip=False)[
                inner, inner
            ]
            for plane in planes
        ]
        scores.append(psnr(np.stack(done, axis=-1).reshape(values.shape), sharp))
    return max(scores)


if __name__ == "__main__":
    main()
