"""What demoe is measured against: the same network, run the ways it is run elsewhere.

Peers run in processes of their own with the C library's default settings, because what demoe sets
at loading (`demoe.model.backends.allocator`) cannot be undone in a process.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demoe.bench.measure import Timing, give_memory_back, memory_in_use, timed
from demoe.model.architectures import build
from demoe.model.backends.allocator import keep_freed_memory
from demoe.model.checkpoint import read_state_dict
from demoe.samples.images import load_sample

SMALLEST_WHOLE = 256
"""Side in pixels below which the bare network is not measured on less than the picture."""

MONAI_WINDOW, MONAI_OVERLAP, MONAI_BATCH = 256, 0.25, 1
"""Side of MONAI's windows in pixels, the part of it that neighbours share, and windows at once."""

Photo = NDArray[np.uint8]
Result = TypeVar("Result")


def photo(side: int) -> Photo:
    """Return a square RGB picture (side, side, 3): a bundled sample, mirrored to any size."""
    sample = np.asarray(load_sample("pagoda_motion").blurred.data)
    rows, cols = (np.r_[0:n, n - 1 : -1 : -1][np.arange(side) % (2 * n)] for n in sample.shape[:2])
    return np.ascontiguousarray(sample[rows][:, cols])


def whole_side(size: int, bytes_per_pixel: float, free: int | None) -> tuple[int | None, str]:
    """Choose the picture on which the bare network, which knows no tiles, can run in memory.

    Parameters
    ----------
    size : int
        Side that is wished for, in pixels.
    bytes_per_pixel : float
        What the bare network takes at most.
    free : int or None
        Bytes that may be taken; three quarters of them are used. None trusts in there being enough.

    Returns
    -------
    side : int or None
        ``size``, or the largest of its halves, quarters, ... that fits; None if none does.
    note : str
        Why it is not ``size``, or nothing.
    """
    need = bytes_per_pixel * size**2
    if free is None or need <= 0.75 * free:
        return size, ""
    why = f"{size} px would take about {need / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
    side = size
    while side // 2 >= SMALLEST_WHOLE:
        side = side // 32 * 16
        if bytes_per_pixel * side**2 <= 0.75 * free:
            return side, f"on {side} px: {why}"
    return None, f"skipped: {why}"


def bare_work(
    network: Any, picture: Photo, device: torch.device
) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return what runs the network once on a whole picture, eagerly, gates fixed to one expert."""
    x, gates = _enter(network, picture, device)

    def work() -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            restored: tuple[Tensor, Tensor] = network(x, gates)
            return restored

    return work


def has_monai() -> bool:
    """Whether MONAI is installed; it is not imported."""
    return importlib.util.find_spec("monai") is not None


def monai_work(network: Any, picture: Photo, device: torch.device) -> Callable[[], Tensor]:
    """Return what runs the network over a picture in MONAI's sliding windows, with one expert."""
    from monai.inferers.utils import sliding_window_inference

    x, gates = _enter(network, picture, device)

    def restore(windows: Tensor) -> Tensor:
        restored: Tensor = network(windows, gates.expand(len(windows), -1))[0]
        return restored

    def work() -> Tensor:
        with torch.inference_mode():
            restored = sliding_window_inference(
                x, MONAI_WINDOW, MONAI_BATCH, restore, overlap=MONAI_OVERLAP
            )
        return cast(Tensor, restored)  # of predictors with several outputs, several

    return work


def _enter(network: Any, picture: Photo, device: torch.device) -> tuple[Tensor, Tensor]:
    """Bring a picture to the device, and the gates of the first choice alone."""
    x = torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)[None]
    gates = torch.eye(len(network.choices))[:1]
    return x.to(device, memory_format=torch.channels_last), gates.to(device)


def in_own_process(function: Callable[..., Result], *arguments: object) -> Result | None:
    """Run a function in a fresh process; None if the system ended it.

    Spawned, because a fork would inherit this process's allocator settings, which cannot be undone.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            return None


def bare_alone(weights: Path, side: int, repeats: int, device_name: str) -> Timing:
    """Measure the bare network on the whole picture; to be run in a process of its own."""
    return _alone(bare_work, weights, side, repeats, device_name)


def bare_keeping(weights: Path, side: int, repeats: int, device_name: str) -> Timing:
    """Measure the bare network with the allocator settings of demoe."""
    keep_freed_memory()
    return bare_alone(weights, side, repeats, device_name)


def monai_alone(weights: Path, side: int, repeats: int, device_name: str) -> Timing:
    """Measure MONAI's sliding windows; to be run in a process of its own."""
    import monai.inferers.utils  # noqa: F401  # belongs to the idle process

    return _alone(monai_work, weights, side, repeats, device_name)


def _alone(
    make: Callable[[Any, Photo, torch.device], Callable[[], object]],
    weights: Path,
    side: int,
    repeats: int,
    device_name: str,
) -> Timing:
    """Measure a peer; ``load_model`` is avoided, since it sets the allocator."""
    device = torch.device(device_name)
    network = build(*read_state_dict(weights))[1].to(device)
    network.to(memory_format=torch.channels_last)
    torch.mm(*torch.rand(2, 512, 512, device=device))  # its buffers belong to the idle process
    picture = photo(side)
    give_memory_back(device)
    idle = memory_in_use(device)
    return timed(make(network, picture, device), repeats, device, idle)
