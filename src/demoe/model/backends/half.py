"""Half precision for results of 8 bits, which are rounded far more coarsely than that.

The picture itself never passes through half precision: the network's first and last layers run in
full, and what comes out is added to the picture as it is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from demoe.model.backends.base import Backend
from demoe.model.calibration.pictures import pictures
from demoe.model.protocol import Statistics

HALVES = {"cuda": torch.float16, "cpu": torch.bfloat16}
"""The fast type, by kind of device."""

NEAR = 0.5
"""Below how many 8-bit steps the error has to stay: half of one, as rounding itself makes."""

SHARE = 0.99
"""Share of the values of every picture of calibration for which it does; the rest may differ by
about a step."""

SIDE = 192
"""Side in pixels of the pictures that the error is measured on."""


class InHalf:
    """Lets another backend run most of a network in half precision (`torch.autocast`).

    Where numbers get too large for that, it runs again in float32.

    Parameters
    ----------
    exact : Backend
        One of PyTorch's operations.
    dtype : torch.dtype
        ``torch.float16`` or ``torch.bfloat16``.
    """

    def __init__(self, exact: Backend, dtype: torch.dtype) -> None:
        self.exact = exact
        self.dtype = dtype
        self.name = f"torch, {str(dtype).removeprefix('torch.')}"

    def features(self, padded: Tensor, *, together: bool, recurring: bool = False) -> Tensor:
        """Return the deepest features; see `Backend`."""

        def work() -> tuple[Tensor, Statistics]:
            return self.exact.features(padded, together=together, recurring=recurring), {}

        return self._run(padded.device, work)[0]

    def restore(
        self,
        padded: Tensor,
        weights: Tensor,
        statistics: Statistics | None,
        recurring: bool = False,
    ) -> tuple[Tensor, Statistics]:
        """Return the restored samples and the statistics; see `Backend`."""
        return self._run(
            padded.device, lambda: self.exact.restore(padded, weights, statistics, recurring)
        )

    def survey(self, padded: Tensor, weights: Tensor) -> Statistics:
        """Return the statistics of all blocks that run."""
        return self.restore(padded, weights, None)[1]

    def _run(
        self, device: torch.device, work: Callable[[], tuple[Tensor, Statistics]]
    ) -> tuple[Tensor, Statistics]:
        with torch.autocast(device.type, self.dtype):
            found, statistics = work()
        if not found.isfinite().all():
            return work()
        return found.float(), {name: value.float() for name, value in statistics.items()}


@torch.inference_mode()
def half_error(exact: Backend, half: Backend, experts: int, device: torch.device) -> float:
    """Return what 99 % of two backends' results differ by at most, in 8-bit steps.

    That of the picture and choice where it is largest.

    Parameters
    ----------
    exact, half : Backend
        Of the same network, in float32 and in half precision.
    experts : int
        Number of its choices.
    device : torch.device
        Where it is.
    """
    most = 0.0
    for picture in pictures(SIDE):
        if not picture.ordinary:
            continue
        x = torch.from_numpy(picture.values).permute(2, 0, 1)[None].to(device)
        for gates in torch.eye(experts, device=device):
            weights = gates[None, :, None, None]
            wanted, statistics = exact.restore(x, weights, None)
            found, _ = half.restore(x, weights, statistics)
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
