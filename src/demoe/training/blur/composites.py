"""Pictures that carry several blurs, each in a region of its own that is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from demoe.choices import TASKS
from demoe.training.blur import kernels
from demoe.training.blur.degradations import INNER, KERNEL, MARGIN, degrade, to_display, to_linear
from demoe.training.data.crops import SharpImages
from demoe.training.evaluate.grid import Pixels, to_pixels
from demoe.training.random import Draw

KINDS = 3
"""Blurs in one picture."""

LOCAL = TASKS.index("local_motion")

_WAVES = 3  # coarse values a side that regions are drawn from
_SOFT = 0.05  # of the coarse values' spread, in which one blur passes into another
_SMALLEST = 0.12  # share of a picture that each blur has at least


@dataclass(frozen=True, eq=False)
class Composite:
    """A picture with several blurs.

    Attributes
    ----------
    blurred : ndarray
        (side, side, 3) uint8.
    target : ndarray
        The same, sharp, at the same exposure.
    shares : ndarray
        (5, side, side) float32: how much each task had its way with a pixel; they sum to 1.
    """

    blurred: Pixels
    target: Pixels
    shares: NDArray[np.float32]

    def cells(self, pitch: int) -> NDArray[np.float32]:
        """Return the mean shares of square cells, (5, rows, cols); the last may be cut short."""
        shares = torch.from_numpy(self.shares)[None]
        means = F.avg_pool2d(shares, pitch, ceil_mode=True, count_include_pad=False)
        return np.asarray(means[0])

    def expert_map(self, pitch: int) -> NDArray[np.uint8]:
        """Return the expert, 1 to 5, of the task with most of each cell."""
        return np.asarray(self.cells(pitch).argmax(axis=0) + 1, np.uint8)

    def change(self, pitch: int) -> NDArray[np.float32]:
        """Return how much was done to each cell: the root mean square in [0, 1]."""
        wrong = (self.blurred.astype(np.float32) - self.target) / 255
        squares = torch.from_numpy(np.square(wrong).mean(axis=2))[None, None]
        means = F.avg_pool2d(squares, pitch, ceil_mode=True, count_include_pad=False)
        return np.asarray(means[0, 0].sqrt())


@dataclass(frozen=True)
class Blend:
    """What `blend` made.

    Attributes
    ----------
    image, target : Tensor
        (1, 3, side, side) in [0, 1].
    shares : Tensor
        (5, side, side): how much each task had its way with a pixel; they sum to 1.
    """

    image: Tensor
    target: Tensor
    shares: Tensor


def composites(images: SharpImages, count: int, side: int, seed: int) -> list[Composite]:
    """Make pictures of three blurs each; in every ten pictures all tasks occur equally often."""
    draw = Draw(seed)
    kinds = itertools.cycle(itertools.combinations(range(len(TASKS)), KINDS))
    return [composite(images, tasks, side, draw) for tasks in itertools.islice(kinds, count)]


def composite(images: SharpImages, tasks: Sequence[int], side: int, draw: Draw) -> Composite:
    """Blur a scene that fills a picture in several ways.

    Parameters
    ----------
    images : SharpImages
        Crops, one of which makes a scene.
    tasks : sequence of int
        Different indices into ``TASKS``.
    side : int
        Side of the picture in pixels.
    draw : Draw
        Source of all randomness.
    """
    made = blend(lambda: _scene(images, side + 2 * MARGIN, draw), tasks, side, draw)
    shares = made.shares.cpu().numpy()
    return Composite(to_pixels(made.image[0]), to_pixels(made.target[0]), shares)


def blend(scene: Callable[[], Tensor], tasks: Sequence[int], side: int, draw: Draw) -> Blend:
    """Blur one scene in several ways and blend the results; what moves is an object in front of it.

    Parameters
    ----------
    scene : callable
        Draws a sharp scene, (1, 3, side + 2 MARGIN, same) in [0, 1]; the moving object comes from a
        second one.
    tasks : sequence of int
        Two or more different indices into ``TASKS``.
    side : int
        Side of the result in pixels.
    draw : Draw
        Source of all randomness.
    """
    fields = _fields(len(tasks), side + 2 * MARGIN, draw)
    sharp = scene()
    still = [task for task in tasks if task != LOCAL]
    behind = fields[[tasks.index(task) for task in still]].softmax(dim=0)[INNER].to(sharp)
    parts = [degrade(sharp, [task], draw) for task in still]
    blurred = torch.stack([s * part.image for s, part in zip(behind, parts, strict=True)]).sum(0)
    target = torch.stack([s * part.target for s, part in zip(behind, parts, strict=True)]).sum(0)
    shares = torch.zeros(len(TASKS), side, side).to(sharp)
    shares[still] = behind
    if LOCAL in tasks:
        alpha = fields.softmax(dim=0)[tasks.index(LOCAL)][None, None].to(sharp)
        front = to_linear(scene()) * alpha
        bend = draw.uniform(-1.5, 1.5)
        path = kernels.line(draw.log_uniform(4, 28), draw.uniform(0, math.pi), bend)
        kernel = kernels.from_path(KERNEL, path)[None]
        moved, cover = (kernels.convolve(x, kernel)[INNER] for x in (front, alpha))
        noise = draw.normal(*blurred.shape).to(sharp) * draw.log_uniform(0.0005, 0.02)
        blurred = to_display(moved + (1 - cover) * to_linear(blurred)) + noise * cover
        target = to_display(front[INNER] + (1 - alpha[INNER]) * to_linear(target))
        shares *= 1 - cover[0]
        shares[LOCAL] = cover[0, 0]
    return Blend(blurred.clamp(0, 1), target.clamp(0, 1), shares)


def _fields(count: int, side: int, draw: Draw) -> Tensor:
    """Draw smooth fields (count, side, side), the largest of which owns a place."""
    while True:
        coarse = draw.normal(1, count, _WAVES, _WAVES)
        fields = F.interpolate(coarse, (side, side), mode="bicubic", align_corners=False)[0]
        owned = fields.argmax(dim=0).flatten().bincount(minlength=count)
        if int(owned.min()) >= _SMALLEST * side**2:
            return fields / _SOFT


def _scene(images: SharpImages, side: int, draw: Draw) -> Tensor:
    """Mirror a crop until it fills (1, 3, side, side) in [0, 1]: no edge that is not its own."""
    crop = images.images[draw.integer(0, len(images.images))].permute(2, 0, 1).float() / 255
    n = images.largest_crop
    back_and_forth = torch.cat([torch.arange(n), torch.arange(n - 1, -1, -1)])
    top, left = (draw.integer(0, 2 * n) for _ in range(2))
    rows, columns = (back_and_forth[(torch.arange(side) + at) % (2 * n)] for at in (top, left))
    return crop[:, rows][:, :, columns][None]
