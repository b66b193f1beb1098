"""A picture of what a network does: two images of each task and two of a microscope."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from demoe.choices import TASKS
from demoe.samples.images import load_sample
from demoe.training.blur.degradations import INNER, MARGIN, degrade, microscope_defocus
from demoe.training.data.crops import SharpImages
from demoe.training.evaluate.grid import Panel, draw_grid, to_pixels
from demoe.training.evaluate.metrics import psnr
from demoe.training.random import Draw

TIMES = 2
"""Images a row."""

COLUMNS = ("input", "output", "truth") * TIMES

SIDE = 256
"""Side of a panel in pixels."""

MICROSCOPE_SAMPLES = ("pollen", "pollen_stack")
"""Bundled fluorescence whose sharp picture is known; no network of ours was trained on it."""


@torch.inference_mode()
def evaluation_sheet(
    network: Any, images: SharpImages, *, title: str, crop: int, seed: int
) -> Image.Image:
    """Draw input, output by automatic routing, and truth, with PSNR and the router's choice.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode; its device is used.
    images : SharpImages
        Held-out sharp images.
    title : str
        A line on top.
    crop, seed : int
        Side of the images in pixels, and seed of what is drawn; nothing else chooses the images.
    """
    rows = []
    for words, blurred, truth in _examples(images, crop, Draw(seed)):
        restored, gates = network(blurred)
        before, after = psnr(blurred, truth).tolist(), psnr(restored, truth).tolist()
        panels = []
        for n, choice in enumerate(gates.argmax(dim=1).tolist()):
            panels += [
                Panel(to_pixels(blurred[n]), f"{before[n]:.2f} dB"),
                Panel(
                    to_pixels(restored[n]),
                    f"{after[n]:.2f} dB ({after[n] - before[n]:+.2f})",
                ),
                Panel(to_pixels(truth[n]), f"router: {TASKS[choice].replace('_', ' ')}"),
            ]
        rows.append((words, panels))
    return draw_grid(title, COLUMNS, rows, side=SIDE)


def _examples(images: SharpImages, crop: int, draw: Draw) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield a row's words, its blurred images (2, 3, H, W) and their truth."""
    for task, name in enumerate(TASKS):
        sharp = images.batch(TIMES, crop, draw, augment=False)
        data = degrade(sharp, [task] * TIMES, draw)
        yield name.replace("_", "\n", 1).replace("_", " "), data.image, data.target
    light = torch.cat([_microscope_part(name, crop, draw) for name in MICROSCOPE_SAMPLES])
    light = light.to(images.images.device)
    blurred = torch.cat([microscope_defocus(one, draw)[0] for one in light.split(1)])
    yield "microscope\nfluorescence,\nout of focus", blurred[INNER].clamp(0, 1), light[INNER]


def _microscope_part(name: str, crop: int, draw: Draw) -> Tensor:
    """Cut out of a sample, mirrored where it is too small, with the margin that blurring needs."""
    sharp = load_sample(name).sharp
    assert sharp is not None
    values = np.asarray(sharp.data, np.float32)
    plane = values.reshape(-1, *values.shape[-2:])[len(values) // 2 if values.ndim > 2 else 0]
    plane = np.clip(plane / np.percentile(plane, 99.9), 0, 1)
    side = crop + 2 * MARGIN
    short = max(0, side - min(plane.shape))
    plane = np.pad(plane, ((0, short), (0, short)), mode="symmetric")
    top, left = (draw.integer(0, length - side + 1) for length in plane.shape)
    part = torch.from_numpy(plane[top : top + side, left : left + side])
    return part.expand(1, 3, -1, -1)
