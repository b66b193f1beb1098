"""Where networks run: the devices of this machine, and how much memory they have."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from demoe.errors import DeviceError


def choose_device(device: str) -> torch.device:
    """Return the torch device for "auto", "cpu", "cuda" or "cuda:N".

    Raises
    ------
    DeviceError
        If a CUDA device is asked for that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if re.fullmatch(r"cuda(:\d+)?", device):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(device.partition(":")[2] or 0) >= count:
            raise DeviceError(
                f"The device {device} is not available: PyTorch sees {count} CUDA device(s) here; "
                "use cpu or auto."
            )
    try:
        return torch.device(device)
    except RuntimeError:
        raise DeviceError(
            f"There is no device {device!r}; use auto, cpu, cuda or cuda:N."
        ) from None


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


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was told; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
