"""Half precision for results of 8 bits, which are rounded far more coarsely than that.

The picture itself never passes through half precision: the network's first and last layers run in
full, and what comes out is added to the picture as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from demoe.model.calibration.pictures import pictures
from demoe.model.demoe.eager import Attention, Backend, EagerBackend
from demoe.model.demoe.network import DeMoENet

HALVES = {"cuda": torch.float16, "cpu": torch.bfloat16}
"""The fast type, by kind of device."""

NEAR = 0.5
"""Below how many 8-bit steps the error has to stay: half of one, as rounding itself makes."""

SHARE = 0.99
"""Share of the values of every picture of calibration for which it does; the rest may differ by
about a step."""

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

    def features(self, padded: Tensor, *, together: bool, recurring: bool = False) -> Tensor:
        """Return the deepest features; in float32 where numbers get too large."""
        with torch.autocast(padded.device.type, self.dtype):
            found = super().features(padded, together=together, recurring=recurring)
        if found.isfinite().all():
            return found.float()
        return super().features(padded, together=together, recurring=recurring)

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
            return restored.float(), {name: found.float() for name, found in used.items()}
        return super().restore(padded, weights, attention, recurring)


@torch.inference_mode()
def half_error(exact: EagerBackend, half: Backend) -> float:
    """Return what 99 % of two backends' results differ by at most, in 8-bit steps.

    That of the picture and expert where it is largest.

    Parameters
    ----------
    exact, half : Backend
        Of the same network, in float32 and in half precision.
    """
    first = next(exact.network.parameters())
    all_gates = torch.eye(exact.network.config.experts, device=first.device)
    most = 0.0
    for picture in pictures(_SIDE):
        if not picture.ordinary:
            continue
        x = torch.from_numpy(picture.values).permute(2, 0, 1)[None].to(first.device)
        for gates in all_gates:
            weights = gates[None, :, None, None]
            wanted, attention = exact.restore(x, weights, None)
            found, _ = half.restore(x, weights, attention)
            # What is not finite differs as much as can be; a maximum would drop it.
            different = (found - wanted).abs().nan_to_num(torch.inf, torch.inf)
            most = max(
                most, 255 * float(different.flatten().quantile(SHARE, interpolation="higher"))
            )
    return most


def multiplies_bfloat16() -> bool:
    """Tell whether this CPU has instructions for products of bfloat16; without, they are slow."""
    ask = getattr(torch.cpu, "get_capabilities", dict)  # of torch 2.8 and later
    known: dict[str, object] = ask()
    return bool(known.get("avx512_bf16", False))
