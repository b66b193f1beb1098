"""Where networks run: the devices of this machine, their names, and how much memory they have.

What PyTorch calls an accelerator is offered: one kind a machine, since PyTorch is built for one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from demoe.errors import DeviceError
from demoe.recipe import DEVICE_KINDS

TRIED = ("cpu",)
"""Kinds of device that this program was run on; the others ought to work."""

AUTOMATIC = ("cuda",)
"""Kinds that "auto" takes where they are; it was prepared for them. Others are taken by name."""

_WORDS = {"cuda": "CUDA", "mps": "Apple MPS", "xpu": "Intel XPU"}

_GUESSED = 8e9  # bytes, where nothing tells


@dataclass(frozen=True)
class Device:
    """A device of this machine.

    Attributes
    ----------
    name : str
        What a recipe calls it: "cpu", "cuda:0", "mps:0" ...
    words : str
        What its maker calls it, or what kind it is.
    kind : str
        "processor", "CUDA", "ROCm", "Apple MPS" or "Intel XPU".
    free : float or None
        Bytes that may be taken now; None where the system does not tell.
    total : float
        Bytes that it has.
    is_tried : bool
        Whether this program was ever run on its kind.
    """

    name: str
    words: str
    kind: str
    free: float | None
    total: float
    is_tried: bool

    @property
    def label(self) -> str:
        """All of it in one line, for example "NVIDIA H200 (CUDA), 130 of 140 GB free"."""
        words = (
            self.words if self.kind in (self.words, "processor") else f"{self.words} ({self.kind})"
        )
        total = f"{self.total / 1e9:.0f} GB"
        memory = total if self.free is None else f"{self.free / 1e9:.0f} of {total} free"
        return f"{words}, {memory}" + ("" if self.is_tried else ", not tried")


def list_devices() -> tuple[Device, ...]:
    """Return what this machine has, accelerators first, the processor last."""
    kind, count = _accelerator()
    found = [_described(torch.device(kind, number)) for number in range(count)]
    return (*found, _described(torch.device("cpu")))


def choose_device(device: str) -> torch.device:
    """Return the torch device for "auto", "cpu", or a kind with or without a number.

    Raises
    ------
    DeviceError
        If a device is asked for that is not there.
    """
    kind, count = _accelerator()
    if device == "auto":
        return torch.device(kind if kind in AUTOMATIC else "cpu")
    wanted = re.fullmatch(rf"({'|'.join(DEVICE_KINDS)})(?::(\d+))?", device)
    if wanted and (wanted[1] != kind or int(wanted[2] or 0) >= count):
        seen = f"{count} {_kind_words(kind)} device(s)" if count else "no accelerator"
        raise DeviceError(
            f"The device {device} is not available: PyTorch sees {seen} here; use cpu or auto."
        )
    try:
        return torch.device(device)
    except RuntimeError:
        kinds = ", ".join(DEVICE_KINDS)
        raise DeviceError(
            f"There is no device {device!r}; use auto, cpu, or one of {kinds} with or without :N."
        ) from None


def why_processor() -> str:
    """Say in a sentence why "auto" means the processor here; empty where it does not."""
    kind, _ = _accelerator()
    if kind in AUTOMATIC:
        return ""
    if not kind:
        return "PyTorch finds no graphics card that it can use here, so the processor computes."
    return (
        f"The processor computes: {_kind_words(kind)} is there, but was not tried yet; choose the "
        f"device {kind} to try it."
    )


def total_memory(device: torch.device) -> float:
    """Return bytes that a device has; of the machine or, if that is less, of this container."""
    if device.type in ("cuda", "xpu"):
        return float(_module(device).get_device_properties(device).total_memory)
    if device.type == "mps":  # shared with the processor
        return float(torch.mps.recommended_max_memory())
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not told by this system
        return _GUESSED
    try:
        return min(total, float(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return total


def free_memory(device: torch.device) -> int | None:
    """Return bytes that work on a device may still take; None where the system does not tell."""
    if device.type in ("cuda", "xpu"):
        return int(_module(device).mem_get_info(device)[0])
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        facts = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
        free = 1024 * int(facts["MemAvailable"][0])
    except (OSError, KeyError):
        return None
    try:  # a container may be allowed less than the machine has
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        return min(free, limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        return free


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was told; a CPU has."""
    if device.type == "mps":
        torch.mps.synchronize()
    elif device.type != "cpu":
        _module(device).synchronize(device)


def give_back(device: torch.device) -> None:
    """Return memory that is free on an accelerator, but kept by PyTorch."""
    if device.type != "cpu":
        _module(device).empty_cache()


def _accelerator() -> tuple[str, int]:
    """Return which kind of accelerator PyTorch offers here, and how many; "" and 0 without."""
    if not hasattr(torch, "accelerator"):  # before 2.6
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return ("cuda", count) if count else ("", 0)
    found = torch.accelerator.current_accelerator()
    if found is None or found.type not in DEVICE_KINDS or not torch.accelerator.is_available():
        return "", 0
    return found.type, torch.accelerator.device_count()


def _described(device: torch.device) -> Device:
    kind, words = device.type, "Processor"
    if kind == "mps":
        words = _kind_words(kind)
    elif kind != "cpu":
        words = _told(lambda: str(_module(device).get_device_name(device)), _kind_words(kind))
    return Device(
        "cpu" if kind == "cpu" else str(device),
        words,
        "processor" if kind == "cpu" else _kind_words(kind),
        _told(lambda: free_memory(device), None),
        _told(lambda: total_memory(device), _GUESSED),
        kind in TRIED,
    )


def _told(ask: Callable[[], Any], otherwise: Any) -> Any:
    """Ask a driver, which may refuse, above all on devices that nobody tried."""
    try:
        return ask()
    except (RuntimeError, AttributeError):
        return otherwise


def _kind_words(kind: str) -> str:
    return "ROCm" if kind == "cuda" and torch.version.hip else _WORDS[kind]


def _module(device: torch.device) -> Any:
    return getattr(torch, device.type)
