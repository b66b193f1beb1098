"""Half precision on graphics cards, where it changes no 8-bit result by more than half a step."""

from __future__ import annotations

import torch
from torch import Tensor

from demoe.model.calibration_pictures import pictures
from demoe.model.network import DeMoENet
from demoe.model.pooling import Attention, Backend, EagerBackend

HALVES = (torch.float16, torch.bfloat16)
"""Tried in this order: equally fast, and the first has three more binary digits."""

TOLERANCE = 1 / 510 / 2
"""Largest difference, in units of the picture's range, on the pictures of calibration; half of half
an 8-bit step, because other pictures differ more."""

_SIDE = 192


class AutocastBackend(EagerBackend):
    """Runs most of a network in half precision (`torch.autocast`), and a picture's own values not.

    Parameters
    ----------
    network : DeMoENet
        On the device to run on.
    dtype : torch.dtype
        ``torch.float16`` or ``torch.bfloat16``.
    """

    def __init__(self, network: DeMoENet, dtype: torch.dtype) -> None:
        super().__init__(network)
        self.dtype = dtype
        self.name = f"torch, {str(dtype).removeprefix('torch.')}"

    def restore(
        self,
        padded: Tensor,
        weights: Tensor,
        attention: Attention | None,
        recurring: bool = False,
    ) -> tuple[Tensor, Attention]:
        """Return the restored samples and the attention; in float32 where numbers get too large."""
        with torch.autocast(padded.device.type, self.dtype):
            restored, used = super().restore(padded, weights, attention, recurring)
        if restored.isfinite().all():
            return restored.float(), used
        return super().restore(padded, weights, attention, recurring)


@torch.inference_mode()
def half_precision(network: DeMoENet, exact: Backend) -> Backend | None:
    """Return a half-precision backend that is close enough to an exact one; None if none is.

    Parameters
    ----------
    network : DeMoENet
        On the device to run on.
    exact : Backend
        Of the same network, in float32.
    """
    device = next(network.parameters()).device
    views = [torch.from_numpy(p.values).permute(2, 0, 1) for p in pictures(_SIDE) if p.ordinary]
    samples = torch.stack(views).to(device)
    one_hot = torch.eye(network.config.experts, device=device)[:, None, :, None, None]
    wanted = [exact.restore(samples, gates, None)[0] for gates in one_hot]
    for dtype in HALVES:
        half = AutocastBackend(network, dtype)
        found = (half.restore(samples, gates, None)[0] for gates in one_hot)
        differences = [(f - w).abs().max() for f, w in zip(found, wanted, strict=True)]
        if float(torch.stack(differences).max()) < TOLERANCE:
            return half
    return None
