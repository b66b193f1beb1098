"""Sharp images made from nothing: dead leaves, text, cells, filaments, beads.

They widen what few photographs can show, and teach the network the structures of documents and
of fluorescence microscopy. Everything is drawn from a seed.
"""

from __future__ import annotations

import string

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]


def dead_leaves(rng: np.random.Generator, size: int) -> Picture:
    """Return overlapping discs and boxes whose sizes follow a power law (Lee et al. 2001)."""
    image = Image.new("RGB", (size, size), _colour(rng))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(60, 400))):
        r = size * 0.02 / (1 - rng.random() * 0.92)
        x, y = rng.random(2) * size
        box = (x - r, y - r * rng.uniform(0.5, 1), x + r, y + r)
        (draw.ellipse if rng.random() < 0.6 else draw.rectangle)(box, fill=_colour(rng))
    texture = rng.normal(0, rng.uniform(0, 10), (size, size, 1))
    return _bytes(np.asarray(image) + texture)


def text(rng: np.random.Generator, size: int) -> Picture:
    """Return lines of random words, dark on bright or bright on dark, at any angle."""
    bright = int(rng.integers(170, 256))
    dark = int(rng.integers(0, 90))
    paper, ink = (bright, dark) if rng.random() < 0.75 else (dark, bright)
    big = int(size * 1.5)
    image = Image.new("L", (big, big), paper)
    draw = ImageDraw.Draw(image)
    height = int(rng.integers(11, 44))
    font = ImageFont.load_default(height)
    letters = np.array(list(string.ascii_letters + string.digits + ".,;-"))
    for y in range(0, big, int(height * rng.uniform(1.15, 1.7))):
        words = ("".join(rng.choice(letters, rng.integers(1, 11))) for _ in range(24))
        draw.text((-int(rng.integers(0, 40)), y), " ".join(words), fill=ink, font=font)
    turned = image.rotate(rng.normal(0, 6), resample=Image.Resampling.BICUBIC, fillcolor=paper)
    at = (big - size) // 2
    gray = np.asarray(turned.crop((at, at, at + size, at + size)), dtype=np.float32)
    return _bytes(gray[..., None] * np.ones(3))


def cells(rng: np.random.Generator, size: int) -> Picture:
    """Return bright textured nuclei on a dark background, as in a DAPI channel."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    plane = np.full((size, size), rng.uniform(0, 12), np.float32)
    for _ in range(int(rng.integers(4, 40))):
        cy, cx = rng.random(2) * size
        a, b = rng.uniform(5, 24, 2)
        turn = rng.uniform(0, np.pi)
        u = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
        v = -(x - cx) * np.sin(turn) + (y - cy) * np.cos(turn)
        inside = 1 / (1 + np.exp(np.clip(((u / a) ** 2 + (v / b) ** 2 - 1) * a, -30, 30)))
        grain = 1 + rng.uniform(0, 0.5) * _smooth_noise(rng, size, rng.uniform(0.8, 3))
        plane = np.maximum(plane, inside * rng.uniform(50, 240) * grain)
    return _bytes(plane[..., None] * np.ones(3))


def filaments(rng: np.random.Generator, size: int) -> Picture:
    """Return thin bright winding lines, as of a labelled cytoskeleton."""
    fine = 2
    image = Image.new("L", (size * fine, size * fine), int(rng.integers(0, 14)))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(6, 60))):
        steps = 80
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.12, steps))
        path = rng.random(2) * size * fine + np.cumsum(
            np.stack([np.cos(heading), np.sin(heading)], 1) * size * fine / 60, axis=0
        )
        width = int(rng.integers(1, 5))
        draw.line([tuple(p) for p in path], fill=int(rng.integers(60, 250)), width=width)
    gray = np.asarray(image.resize((size, size), Image.Resampling.BOX), np.float32)
    return _bytes(gray[..., None] * np.ones(3))


def beads(rng: np.random.Generator, size: int) -> Picture:
    """Return small round spots of many brightnesses on a dark background."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    plane = np.full((size, size), rng.uniform(0, 15), np.float32)
    for _ in range(int(rng.integers(20, 200))):
        cy, cx = rng.random(2) * size
        r2 = rng.uniform(0.7, 3.5) ** 2
        top, left = int(max(cy - 16, 0)), int(max(cx - 16, 0))
        part = (slice(top, int(cy) + 17), slice(left, int(cx) + 17))
        distance = (y[part] - cy) ** 2 + (x[part] - cx) ** 2
        plane[part] += rng.uniform(30, 220) * np.exp(-distance / (2 * r2))
    return _bytes(plane[..., None] * np.ones(3))


_MAKERS = (dead_leaves, text, cells, filaments, beads)


def procedural_images(count: int, size: int, seed: int) -> Picture:
    """Return (count, size, size, 3) uint8 images, the kinds in turn."""
    rng = np.random.default_rng(seed)
    made = [_MAKERS[i % len(_MAKERS)](rng, size) for i in range(count)]
    return np.stack(made)


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    r, g, b = rng.integers(0, 256, 3)
    return int(r), int(g), int(b)


def _smooth_noise(rng: np.random.Generator, size: int, scale: float) -> NDArray[np.float32]:
    coarse = max(2, int(size / scale))
    noise = Image.fromarray(rng.normal(0, 1, (coarse, coarse)).astype(np.float32))
    return np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC), np.float32)


def _bytes(values: NDArray[np.floating]) -> Picture:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
