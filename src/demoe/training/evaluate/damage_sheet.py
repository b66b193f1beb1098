"""A picture of what a network does with several kinds of damage: two images of each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from demoe.model.protocol import Tenant
from demoe.training.data.crops import SharpImages
from demoe.training.evaluate.damages import damaged_images, restored
from demoe.training.evaluate.grid import Panel, draw_grid, to_pixels
from demoe.training.evaluate.metrics import psnr
from demoe.training.evaluate.sheet import COLUMNS, SIDE, TIMES


@torch.inference_mode()
def damage_sheet(
    tenant: Tenant, images: SharpImages, kinds: Sequence[str], *, title: str, crop: int, seed: int
) -> Image.Image:
    """Draw input, output and truth, with PSNR; networks that are told are told what is wrong.

    Parameters
    ----------
    tenant : Tenant
        The network.
    images : SharpImages
        Held-out sharp images.
    kinds : sequence of str
        Kinds of damage, a row each.
    title : str
        A line on top.
    crop, seed : int
        Side of the images in pixels, and seed of what is drawn; nothing else chooses the images.
    """
    rows = []
    for number, kind in enumerate(kinds):
        damaged, truth = damaged_images(images, kind, TIMES, crop, seed + number)
        made = torch.cat([restored(tenant, one, kind)[0] for one in damaged.split(1)])
        before, after = psnr(damaged, truth).tolist(), psnr(made, truth).tolist()
        panels = []
        for n in range(TIMES):
            panels += [
                Panel(to_pixels(damaged[n]), f"{before[n]:.2f} dB"),
                Panel(to_pixels(made[n]), f"{after[n]:.2f} dB ({after[n] - before[n]:+.2f})"),
                Panel(to_pixels(truth[n])),
            ]
        rows.append((kind.replace("_", " "), panels))
    return draw_grid(title, COLUMNS, rows, side=SIDE)
