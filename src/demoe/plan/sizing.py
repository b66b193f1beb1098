"""How large tiles are: from the memory of the device and what networks were measured to take."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from demoe.engine.runner import TileRunner

BYTES = {
    "torch": 64,
    "torch, bfloat16": 56,
    "torch, float16": 64,
    "openvino": 34,
    "openvino, bfloat16": 26,
}
"""Bytes a pixel and a channel of the first level that a tile was seen to take (`demoe bench`)."""

SHARE_OF_MEMORY = {"cpu": 1 / 8, "cuda": 2 / 5}
"""Part of all memory of a device that a tile may take; graphics cards have two at once."""

MOST_BYTES = 1.3e9
"""Most that a tile may take on a CPU, however much memory there is."""

SIDES = {"cpu": (128, 1024), "cuda": (128, 2048)}
"""Smallest and largest automatic tile: the larger, the less is read twice; on a CPU, a tile is also
what a person waits for until the next one shows."""


def bytes_per_pixel(runner: TileRunner) -> float:
    """Return the memory that a pixel of a tile, halo included, takes while it is computed."""
    return float(BYTES[runner.backend.name] * runner.model.config.width)


def choose_tile(runner: TileRunner, halo: int, step: int) -> int:
    """Return the side of the largest core whose computation fits the device.

    All memory counts, not what is free at the moment: the same machine always cuts the same way, so
    an interrupted run can go on.

    Parameters
    ----------
    runner : TileRunner
        The network, its device, and what runs it.
    halo : int
        Pixels read around a core.
    step : int
        What the side is a multiple of.
    """
    kind = runner.model.device.type
    budget = SHARE_OF_MEMORY[kind] * total_memory(runner.model.device)
    if kind == "cpu":
        budget = min(budget, MOST_BYTES)
    smallest, largest = SIDES[kind]
    side = (budget / bytes_per_pixel(runner)) ** 0.5 - 2 * halo
    return int(min(max(side, smallest), largest)) // step * step or step


def total_memory(device: torch.device) -> float:
    """Return bytes that a device has; of the machine or, if that is less, of this container."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not told by this system
        return 8e9
    try:
        return min(total, float(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return total
