"""What passing flat background by saves, and what it costs.

    python benchmarks/flat.py [--size 2048] [--noise 0.001] [--repeats 3]

A synthetic fluorescence plane (uint16): blurred, textured cells crowded in a disc of a tenth of the
area, and camera noise everywhere. It is restored by the defocus expert with and without
``skip_flat``; PSNR is against the plane without blur and noise.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
from numpy.typing import NDArray

import demoe

TOP = 60000.0


def fluorescence(size: int, noise: float, seed: int = 0) -> tuple[NDArray[np.uint16], NDArray]:
    """Return a plane as a camera sees it, and the truth; ``noise`` is a share of the range."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((size, size))
    radius = size * (0.1 / np.pi) ** 0.5
    y, x = np.mgrid[-24:25, -24:25]
    for _ in range(round(0.1 * size**2 / 900)):
        turn, distance = rng.uniform(0, 2 * np.pi), (radius - 24) * rng.uniform() ** 0.5
        row, col = (round(size / 2 + distance * f(turn)) for f in (np.sin, np.cos))
        cell = np.hypot(x, y * rng.uniform(1, 1.5)) < rng.uniform(10, 22)
        part = truth[row - 24 : row + 25, col - 24 : col + 25]
        part += cell * rng.uniform(0.1, 0.3) * (1 + 0.5 * np.sin(x / 2) * np.sin(y / 2))
    truth = 0.03 + truth / truth.max() * 0.9
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij"))
    blurred = np.fft.irfft2(np.fft.rfft2(truth) * np.exp(-2 * (np.pi * 1.5 * frequency) ** 2))
    seen = blurred + noise * rng.standard_normal(truth.shape)
    return np.clip(seen * TOP, 0, 65535).round().astype(np.uint16), truth * TOP


def main() -> None:
    """Print seconds, PSNR and the share of cells passed by."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--noise", type=float, default=0.001)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    plane, truth = fluorescence(arguments.size, arguments.noise)
    demoe.deblur(plane[:128, :128], routing="defocus").image.compute()  # loads and prepares
    seconds: dict[bool, list[float]] = {False: [], True: []}
    print("skip_flat  seconds (median)  PSNR, dB  cells passed by")
    for skip in (False, True):
        for _ in range(arguments.repeats):
            began = time.perf_counter()
            out = demoe.deblur(plane, routing="defocus", skip_flat=skip, intensity=(0, TOP))
            restored = out.image.compute()
            seconds[skip].append(time.perf_counter() - began)
        psnr = -10 * np.log10(np.mean((restored.astype(float) - truth) ** 2) / TOP**2)
        passed = float((out.expert_map.compute() == 0).mean())
        print(f"{skip!s:9}  {statistics.median(seconds[skip]):16.2f}  {psnr:8.3f}  {passed:15.1%}")
    ratio = statistics.median(seconds[False]) / statistics.median(seconds[True])
    print(f"{ratio:.1f} times as fast")


if __name__ == "__main__":
    main()
