"""What a weights file has learnt of kernels, beside its network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from demoe.model.kernels.detector import Detector, detector_of
from demoe.model.kernels.fusion import Fusion, fusion_of
from demoe.model.kernels.judge import Judge, judge_of

JUDGE, FUSION, DETECTOR = "kernels.judge.", "kernels.fusion.", "kernels.detector."
"""Begin the names of their tensors."""


@dataclass(frozen=True)
class KernelTools:
    """What finds kernels in photos, and what makes one picture of source and restorations.

    Attributes
    ----------
    judge : Judge
        Says what kernels are worth.
    fusion : Fusion
        Weighs source, network and deconvolution.
    detector : Detector or None
        Tells what is blurred from what is sharp; weights of earlier versions have none.
    """

    judge: Judge
    fusion: Fusion
    detector: Detector | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Return what a weights file keeps of them."""
        parts = {JUDGE: self.judge, FUSION: self.fusion, DETECTOR: self.detector}
        return {
            begin + key: value
            for begin, part in parts.items()
            if part is not None
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
        for begin in (JUDGE, FUSION, DETECTOR)
    }
    if not any(parts.values()):
        return None
    detector = detector_of(parts[DETECTOR], name) if parts[DETECTOR] else None
    return KernelTools(judge_of(parts[JUDGE], name), fusion_of(parts[FUSION], name), detector)
