"""What runs a network of two halves: one that a decision is made on, and one that restores."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from demoe.model.protocol import Statistics


class Backend(Protocol):
    """Runs the two halves of a network.

    ``padded`` is (N, 3, H, W) in [0, 1], sides multiples of the network's grid: a picture (N = 1),
    or samples of one, which are pooled together. Given ``statistics`` hold pooling fixed.
    ``recurring`` says that more pictures of the same size are to come.
    """

    name: str

    def features(self, padded: Tensor, *, together: bool, recurring: bool = False) -> Tensor:
        """Return the deepest features, of samples pooled together or of pictures each by itself."""

    def restore(
        self,
        padded: Tensor,
        weights: Tensor,
        statistics: Statistics | None,
        recurring: bool = False,
    ) -> tuple[Tensor, Statistics]:
        """Return the restored samples and the statistics of all blocks that ran.

        ``weights`` are the choices', (N, E, 1, 1) or (N, E, rows, cols) over cells of the grid.
        """

    def survey(self, padded: Tensor, weights: Tensor) -> Statistics:
        """Return the statistics of all blocks that run on samples of one size that recurs."""
