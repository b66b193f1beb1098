"""Places of sharp photos, blurred in a known way: what kernels are learnt from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from demoe.choices import TASKS
from demoe.errors import ImageError
from demoe.training.blur.degradations import MARGIN, Psf, degrade
from demoe.training.random import Draw

SIDE = 384
"""Side of a place in pixels."""

SHARP = -1
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_FLAT = 0.01  # a place whose values vary less says nothing
_SMALLEST = 0.5  # pictures are shrunk to so much at least
_ATTEMPTS = 50

Picture = NDArray[np.float32]


@dataclass(frozen=True)
class Place:
    """A blurred place and what it was.

    Attributes
    ----------
    blurred, sharp : ndarray of float32
        (`SIDE`, `SIDE`, 3), display values in [0, 1].
    task : int
        Index into `TASKS`; -1 where nothing was done.
    psf : Psf or None
        What blurred it where that is one kernel all over.
    extent : ndarray of float32
        (`SIDE`, `SIDE`), how much of each pixel is blurred, 0 to 1.
    """

    blurred: Picture
    sharp: Picture
    task: int
    psf: Psf | None
    extent: NDArray[np.float32]


def photos_in(folder: Path) -> list[Path]:
    """Return the pictures in a folder that are large enough, in order.

    Raises
    ------
    ImageError
        If there is none.
    """
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    large = []
    for file in files:
        with Image.open(file) as picture:
            if min(picture.size) >= _need():
                large.append(file)
    if not large:
        raise ImageError(
            f"{folder} holds no picture of at least {_need()} pixels a side "
            f"({', '.join(SUFFIXES)})."
        )
    return large


def places(
    files: Sequence[Path], count: int, seed: int, shares: dict[int, float]
) -> Iterator[Place]:
    """Give blurred places of pictures.

    Parameters
    ----------
    files : sequence of Path
        Sharp pictures, see `photos_in`.
    count, seed : int
        How many, and where randomness begins.
    shares : dict
        How often each task is drawn; they sum to 1.
    """
    rng, draw = np.random.default_rng(seed), Draw(seed)
    tasks = list(shares)
    for _ in range(count):
        task = tasks[rng.choice(len(tasks), p=list(shares.values()))]
        sharp = _cut(files, rng)
        batch, kinds = [sharp], [task]
        if task == TASKS.index("local_motion"):
            batch, kinds = [sharp, _cut(files, rng)], [task, SHARP]  # what moves is of another
        made = degrade(torch.from_numpy(np.stack(batch).transpose(0, 3, 1, 2).copy()), kinds, draw)
        blurred, target = (
            np.ascontiguousarray(one[0].numpy().transpose(1, 2, 0))
            for one in (made.image, made.target)
        )
        assert made.extent is not None
        yield Place(blurred, target, task, made.psf[0], made.extent[0, 0].numpy())


def _need() -> int:
    return SIDE + 2 * MARGIN


def _cut(files: Sequence[Path], rng: np.random.Generator) -> Picture:
    """Cut a place with its margin out of a picture, shrunk by chance."""
    for _ in range(_ATTEMPTS):
        with Image.open(files[int(rng.integers(len(files)))]) as opened:
            picture = opened.convert("RGB")
        scale = max(rng.uniform(_SMALLEST, 1), _need() / min(picture.size))
        size = [max(_need(), round(side * scale)) for side in picture.size]
        if scale < 1:
            picture = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)
        top, left = (int(rng.integers(side - _need() + 1)) for side in picture.size[::-1])
        pixels = np.asarray(picture, dtype=np.float32) / np.float32(255)
        cut = pixels[top : top + _need(), left : left + _need()]
        if cut.std() >= _FLAT:
            return cut
    raise ImageError("The pictures are flat nearly everywhere; nothing can be learnt from them.")
