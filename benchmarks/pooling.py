"""What to pool over: sharpness and seams of tiled results for each way of pooling.

    python benchmarks/pooling.py SHARP_PHOTO... [--sizes 0.3 1.5 6 12] [--blurs defocus ...]

Every photo is reduced to each size, blurred in a known way (the kinds of blur take turns, photo by
photo), and restored with the expert for its blur: in tiles with pooling over the plane (the
default) and over each tile, and untiled with pooling over everything (the bare network) and in
sliding windows around each pixel (Test-time Local Converter, arXiv 2112.04491). What would not fit
into memory untiled is left out.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import demoe
from demoe.bench.measure import give_memory_back
from demoe.choices import TASKS
from demoe.model.demoe.blocks import NAFBlock, RunBlock, as_it_is
from demoe.model.devices import free_memory
from demoe.model.loading import Model, load_model
from demoe.recipe import Recipe
from demoe.training.blur.degradations import MARGIN, degrade
from demoe.training.random import Draw

Picture = NDArray[np.float32]

TILED = {
    "plane, tiles of 512": {"pooling": "plane", "tile": 512},
    "tile, tiles of 512": {"pooling": "tile", "tile": 512},
    "tile, tiles of 256": {"pooling": "tile", "tile": 256},
}
WINDOWS = (192, 384)
SUMS = 1.5  # memory that means over windows take, against the network without


@dataclass(frozen=True)
class Way:
    """What one way of pooling made of a picture; where known, the bare network's result beside."""

    name: str
    restored: Picture
    whole: Picture | None = None
    tile: tuple[int, int] | None = None


@dataclass(frozen=True)
class Row:
    """One way of pooling on one picture."""

    photo: str
    megapixels: float
    blur: str
    pooling: str
    gain: float  # PSNR in dB above that of the blurred picture
    seam: float | None  # see `seams`
    step: float | None


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="+", metavar="SHARP_PHOTO")
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.3, 1.5, 6.0, 12.0])
    parser.add_argument(
        "--blurs", nargs="+", choices=TASKS, default=["defocus", "global_motion", "low_light"]
    )
    parser.add_argument("--model", default="default")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(words)
    model = load_model(given.model)
    rows: list[Row] = []
    for number, path in enumerate(given.photos):
        for size in given.sizes:
            sharp = reduced(path, size)
            if sharp is None:
                continue
            blur = given.blurs[number % len(given.blurs)]
            print(f"{path.stem}, {size:g} MP, {blur}", file=sys.stderr)
            blurred, target = blurred_and_target(sharp, blur, seed=number)
            for way in restored_each_way(model, blurred, blur):
                gain = psnr(way.restored, target) - psnr(blurred, target)
                rows.append(Row(path.stem, size, blur, way.name, gain, *seams(way)))
    settings = {"model": Path(given.model).name, "sha256": model.sha256, "blurs": given.blurs}
    print(report(rows, settings))
    if given.json:
        given.json.write_text(json.dumps({**settings, "rows": [*map(asdict, rows)]}, indent=2))
    return 0


# -- pictures -----------------------------------------------------------------------------


def reduced(path: Path, megapixels: float) -> Picture | None:
    """Return a photo reduced to a size, sides multiples of 16; None if it is smaller than that."""
    photo = Image.open(path).convert("RGB")
    scale = (megapixels * 1e6 / (photo.width * photo.height)) ** 0.5
    if scale > 1.01:
        return None
    sides = [int(min(scale, 1) * side) // 16 * 16 for side in photo.size]
    return np.asarray(photo.resize(sides, Image.Resampling.LANCZOS), np.float32) / 255


def blurred_and_target(sharp: Picture, blur: str, seed: int) -> tuple[Picture, Picture]:
    """Blur a picture as for training; the target of low light is as dark as the blurred one."""
    x = torch.from_numpy(sharp).permute(2, 0, 1)[None]
    task = TASKS.index(blur)
    done = degrade(F.pad(x, (MARGIN,) * 4, mode="reflect"), [task], Draw(100 * seed + task))
    height, width = sharp.shape[:2]
    top, left = (done.image.shape[2] - height) // 2, (done.image.shape[3] - width) // 2

    def cut(picture: Tensor) -> Picture:
        inner = picture[0, :, top : top + height, left : left + width]
        return np.ascontiguousarray(inner.permute(1, 2, 0).numpy())

    return cut(done.image), cut(done.target)


# -- ways of pooling ----------------------------------------------------------------------


def restored_each_way(model: Model, blurred: Picture, blur: str) -> Iterator[Way]:
    """Restore a picture in tiles and, where it fits into memory, at once."""
    recipe = Recipe(model=str(model.path), routing=blur, halo=model.halo, intensity="full")
    pixels = blurred.shape[0] * blurred.shape[1]
    give_memory_back(model.device)
    free = free_memory(model.device)
    needed = model.tenant.bare_bytes * pixels / (0.75 * (free or math.inf))
    whole = untiled(model, blurred, blur, as_it_is) if needed <= 1 else None
    for name, fields in TILED.items():
        result = demoe.deblur(blurred, "YXS", recipe=recipe.replace(**fields))
        restored = np.asarray(result.image.compute(scheduler="synchronous"))
        yield Way(name, restored, whole, result.plan.core_shape)
    if whole is not None:
        yield Way("whole picture, untiled", whole)
        for side in WINDOWS if needed * SUMS <= 1 else ():
            restored = untiled(model, blurred, blur, in_windows(side))
            yield Way(f"windows of {side}, untiled", restored)


def in_windows(side: int) -> RunBlock:
    """Return how to run blocks whose attention sees a window of ``side`` pixels of the picture."""
    full: list[int] = []  # rows of the picture, which the first block runs on

    def run(block: NAFBlock, x: Tensor) -> Tensor:
        if not full:
            full.append(x.shape[2])
        window = max(1, side * x.shape[2] // full[0])
        gated = block.gated(x)
        return block.finish(x, gated, block.attend(window_mean(gated, window)))

    return run


def window_mean(x: Tensor, side: int) -> Tensor:
    """Return means over windows (N, C, H, W); windows at borders are moved inside."""
    dtype = x.dtype
    for axis, before in ((2, (0, 0, 1, 0)), (3, (1, 0))):
        length = x.shape[axis]
        window = min(side, length)
        sums = F.pad(x.double().cumsum(axis), before)
        start = (torch.arange(length, device=x.device) - window // 2).clamp(0, length - window)
        of_window = sums.index_select(axis, start + window) - sums.index_select(axis, start)
        x = (of_window / window).to(dtype)
    return x


@torch.inference_mode()
def untiled(model: Model, blurred: Picture, blur: str, run: RunBlock) -> Picture:
    """Run the whole picture at once."""
    network = model.network
    x = model.move(torch.from_numpy(blurred).permute(2, 0, 1)[None])
    gates = torch.eye(len(TASKS), device=x.device)[TASKS.index(blur)][None, :, None, None]
    features, skips = network.encode(x, run)
    size = (x.shape[2], x.shape[3])
    restored = network.finish(network.decode(features, skips, gates, size, run) + x, x)
    return np.ascontiguousarray(restored[0].permute(1, 2, 0).float().cpu().numpy())


# -- figures ------------------------------------------------------------------------------


def seams(way: Way) -> tuple[float | None, float | None]:
    """Return how much stronger borders of tiles are than in the untiled result: as a part of the
    usual difference of neighbours there, and as a step of what tiling changed, in 8-bit levels."""
    if way.whole is None or way.tile is None or way.tile == way.whole.shape[:2]:
        return None, None
    across, inside = differences(way.restored, way.tile)
    usual_across, usual_inside = differences(way.whole, way.tile)
    changed_across, changed_inside = differences(way.restored - way.whole, way.tile)
    seam = across / inside / (usual_across / usual_inside) - 1
    return seam, 255 * (changed_across - changed_inside)


def psnr(found: Picture, wanted: Picture) -> float:
    return float(-10 * np.log10(np.mean((found.clip(0, 1) - wanted) ** 2)))


def differences(picture: Picture, tile: tuple[int, int]) -> tuple[float, float]:
    """Return mean absolute differences of neighbours across tile borders, and one pixel further in.

    Both sides of a border count as further in. The ratio of the two depends on what the picture
    shows there, so it is compared with that of the untiled result.
    """
    across, inside = [], []
    for axis, side in enumerate(tile):
        steps = np.abs(np.diff(picture, axis=axis))
        at = np.arange(side - 1, picture.shape[axis] - 2, side)
        across.append(steps.take(at, axis).ravel())
        inside += [steps.take(at + away, axis).ravel() for away in (-1, 1)]
    return float(np.concatenate(across).mean()), float(np.concatenate(inside).mean())


def report(rows: list[Row], settings: dict[str, object]) -> str:
    """Return the means as text."""
    sizes = sorted({row.megapixels for row in rows})
    names = list(dict.fromkeys(row.pooling for row in rows))
    pictures = defaultdict(set)
    for row in rows:
        pictures[row.megapixels].add((row.photo, row.blur))
    lines = [
        f"weights {settings['model']}, sha256 {str(settings['sha256'])[:12]}",
        "pictures "
        + ", ".join(f"{len(pictures[size])} of {size:g} MP" for size in sizes)
        + f"; blurs: {', '.join(map(str, settings['blurs']))}",
    ]

    def section(title: str, value: Callable[[list[Row]], str]) -> None:
        lines.extend(["", title, f"{'':28}" + "".join(f"{size:>9g} MP" for size in sizes)])
        for name in names:
            cells = [
                value([row for row in rows if (row.pooling, row.megapixels) == (name, size)])
                for size in sizes
            ]
            if any(cell != "-" for cell in cells):
                lines.append(f"{name:28}" + "".join(f"{cell:>12}" for cell in cells))

    def mean(of: str, pattern: str) -> Callable[[list[Row]], str]:
        def value(chosen: list[Row]) -> str:
            known = [getattr(row, of) for row in chosen if getattr(row, of) is not None]
            return format(statistics.fmean(known), pattern) if known else "-"

        return value

    def largest(chosen: list[Row]) -> str:
        known = [abs(row.seam) for row in chosen if row.seam is not None]
        return f"{max(known):.2%}" if known else "-"

    section("PSNR gain over the blurred picture, dB, mean", mean("gain", "+.3f"))
    section("seams: difference across borders by that one pixel further in, beside the same of the "
            "untiled result; largest of all pictures", largest)  # fmt: skip
    section("step of the change at borders, 8-bit levels, mean", mean("step", ".3f"))
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
