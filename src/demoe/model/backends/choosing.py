"""Which backend runs a network: the fastest on its device that computes the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch

from demoe.errors import DeviceError
from demoe.model.backends.allocator import keep_freed_memory
from demoe.model.backends.base import Backend
from demoe.model.backends.half import HALVES, NEAR, InHalf, half_error, multiplies_bfloat16

TOLERANCE = 1e-4
"""Largest difference, in units of the picture's range, between backends that count as the same."""

HALF_TOLERANCE = 0.02
"""The same for backends in half precision."""

Graph = Callable[[bool], Backend]
"""Returns the backend of compiled graphs, in half precision or not; ImportError where its package
is not installed."""


def choose_exact(eager: Backend, graph: Graph, experts: int, device: torch.device) -> Backend:
    """Return compiled graphs on a CPU where they are to be had and compute the same, else eager.

    The environment variable ``DEMOE_BACKEND=torch`` asks for PyTorch.
    """
    wanted = os.environ.get("DEMOE_BACKEND", "auto")
    if wanted not in ("auto", "torch"):
        raise DeviceError(f"DEMOE_BACKEND must be auto or torch, not {wanted!r}.")
    if device.type == "cpu" and wanted == "auto":
        try:
            fast = graph(False)
        except ImportError:
            pass
        else:
            if _difference(eager, fast, experts, (True, False)) < TOLERANCE:
                return fast
    # Graphs keep what they need by themselves; a heap that never shrinks would only keep it twice.
    keep_freed_memory()
    return eager


def choose_coarse(
    exact: Backend,
    eager: Backend,
    graph: Graph,
    experts: int,
    device: torch.device,
    error: Callable[[], float],
) -> Backend:
    """Return what restores pictures of 8 bits: in half precision where that is fast and near.

    Parameters
    ----------
    exact : Backend
        What `choose_exact` returned; it is the answer elsewhere.
    eager, graph, experts, device
        As there.
    error : callable
        Tells what half precision was measured to change on a CPU, since there it takes seconds.
    """
    dtype = HALVES.get(device.type)
    on_cpu = device.type == "cpu"
    if dtype is None or (on_cpu and not multiplies_bfloat16()):
        return exact
    half = InHalf(eager, dtype)
    if (error() if on_cpu else half_error(eager, half, experts, device)) >= NEAR:
        return exact
    if exact is eager:
        return half
    # Where two ways round at different places they differ by about as much as from the exact one.
    fast = graph(True)
    return fast if _difference(half, fast, experts, (True,)) < HALF_TOLERANCE else exact


@torch.inference_mode()
def _difference(eager: Backend, other: Backend, experts: int, held: Sequence[bool]) -> float:
    """Return how far two backends are apart on a picture of noise, with pooling held or not."""
    picture = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    weights = torch.eye(experts)[:1, :, None, None]
    wanted, statistics = eager.restore(picture, weights, None)
    found = [other.restore(picture, weights, statistics if h else None)[0] for h in held]
    most = max(float((one - wanted).abs().max()) for one in found)
    return most / max(1.0, float(wanted.abs().max()))
