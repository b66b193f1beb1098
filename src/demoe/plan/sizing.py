"""How large tiles are: from the memory of the device and what networks were measured to take."""

from __future__ import annotations

SHARE_OF_MEMORY = {"cpu": 1 / 8, "cuda": 2 / 5}
"""Part of all memory of a device that a tile may take; graphics cards have two at once."""

UNTRIED_SHARE = 1 / 4
"""The same on accelerators that nothing was tried on, where other programs may take some, too."""

MOST_BYTES = 1.3e9
"""Most that a tile may take on a CPU, however much memory there is."""

SIDES = {"cpu": (128, 1024), "cuda": (128, 2048)}
"""Smallest and largest automatic tile: the larger, the less is read twice; on a CPU, a tile is also
what a person waits for until the next one shows."""


def choose_tile(kind: str, memory: float, bytes_per_pixel: float, halo: int, step: int) -> int:
    """Return the side of the largest core whose computation fits the device.

    Parameters
    ----------
    kind : str
        Of the device, as PyTorch calls it.
    memory : float
        All bytes that it has, not those free at the moment: the same machine always cuts the same
        way, so an interrupted run can go on.
    bytes_per_pixel : float
        Memory that a pixel of a tile, halo included, takes while it is computed.
    halo : int
        Pixels read around a core.
    step : int
        What the side is a multiple of.
    """
    budget = SHARE_OF_MEMORY.get(kind, UNTRIED_SHARE) * memory
    if kind == "cpu":
        budget = min(budget, MOST_BYTES)
    smallest, largest = SIDES.get(kind, SIDES["cpu"])
    side = (budget / bytes_per_pixel) ** 0.5 - 2 * halo
    return int(min(max(side, smallest), largest)) // step * step or step
