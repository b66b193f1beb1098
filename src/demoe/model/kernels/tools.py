"""What a weights file has learnt of kernels, beside its network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from demoe.model.kernels.fusion import Fusion, fusion_of
from demoe.model.kernels.judge import Judge, judge_of

JUDGE, FUSION = "kernels.judge.", "kernels.fusion."
"""Begin the names of their tensors."""


@dataclass(frozen=True)
class KernelTools:
    """What finds kernels in photos, and what makes one picture of source and restorations."""

    judge: Judge
    fusion: Fusion

    def tensors(self) -> dict[str, Tensor]:
        """Return what a weights file keeps of them."""
        parts = {JUDGE: self.judge, FUSION: self.fusion}
        return {
            begin + key: value
            for begin, part in parts.items()
            for key, value in part.state_dict().items()
        }


def tools_of(tensors: Mapping[str, Tensor], name: str) -> KernelTools | None:
    """Return the tools among the tensors of a weights file; None where it has none.

    Raises
    ------
    WeightsError
        If they are incomplete.
    """
    parts = {
        begin: {key.removeprefix(begin): v for key, v in tensors.items() if key.startswith(begin)}
        for begin in (JUDGE, FUSION)
    }
    if not any(parts.values()):
        return None
    return KernelTools(judge_of(parts[JUDGE], name), fusion_of(parts[FUSION], name))
