"""The engine: a tile of numbers in, a restored tile and the gates that were used out.

It knows nothing of files, dask or planes, and networks only by what `demoe.model.Model` offers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demoe.errors import DeviceError
from demoe.gates import Gates
from demoe.model.level import REACH, keep_level
from demoe.model.loading import Model
from demoe.model.network import keep_top
from demoe.model.pooling import Attention

Pixels = NDArray[np.float32]
Result = TypeVar("Result")

# The network uses every core by itself; two of them at once would only cost memory.
_ONE_AT_A_TIME = threading.Lock()


class TooLarge(DeviceError):
    """A tile needs more memory than the device has."""


class TileRunner:
    """Runs a network on single tiles.

    Parameters
    ----------
    model : Model
        The network and its device.
    top_k : int
        Experts mixed at each place.
    preserve : bool
        Give the result the local mean intensity of what came in, if the network does not.
    """

    def __init__(self, model: Model, *, top_k: int = 1, preserve: bool = False) -> None:
        self.model = model
        self.top_k = top_k
        self.preserve = preserve and not model.config.keeps_level

    @property
    def halo(self) -> int:
        """Pixels around a core that its result depends on, a multiple of the network's grid."""
        return self.model.halo + self._extra

    def halo_for(self, dtype: np.dtype[Any]) -> int:
        """Return how much of that it takes to be right to half a step of an image's dtype."""
        return self.model.calibration.halo_for(dtype) + self._extra

    @property
    def _extra(self) -> int:
        """What keeping the local mean needs, on the network's grid."""
        return REACH * self.model.multiple if self.preserve else 0

    def survey(self, samples: Sequence[Pixels]) -> tuple[Attention, Gates]:
        """Return the encoder's attention for a plane and the router's decision (5,) on it.

        Parameters
        ----------
        samples : sequence of ndarray
            (H, W, 1 or 3) in [0, 1], of one size: the plane, or places that stand for it together.
        """

        def work() -> tuple[Attention, Gates]:
            attention, gates = self.model.survey(self._enter(*samples))
            return attention, gates.cpu().numpy()

        return self._run(work, samples[0])

    def attend(
        self,
        samples: Sequence[Pixels],
        weights: Gates | None,
        *,
        each: bool = False,
        every: bool = False,
    ) -> Attention:
        """Return the attention of all blocks for a plane.

        Parameters
        ----------
        samples
            As for `survey`.
        weights : ndarray, optional
            Mixing weights for all samples, as for `restore`; by default the router decides.
        each : bool
            Let the router decide on each sample by itself.
        every : bool
            Include experts that work in no sample.
        """

        def work() -> Attention:
            x = self._enter(*samples)
            mixing = None
            if weights is not None:
                mixing = torch.from_numpy(weights).to(x.device)[None]
                mixing = mixing.expand(len(x), *weights.shape)
            return self.model.attend(x, mixing, top_k=self.top_k, each=each, every=every)

        return self._run(work, samples[0])

    def route_windows(
        self,
        pixels: Pixels,
        window: tuple[int, int],
        tops: Sequence[int],
        lefts: Sequence[int],
        attention: Attention | None = None,
    ) -> Gates:
        """Decide once a window: gates (5, len(tops), len(lefts)); sizes in pixels of the tile."""

        def work() -> Gates:
            x = self._enter(pixels)
            gates = self.model.route_windows(x, window, tops, lefts, attention)
            return gates[0].cpu().numpy()

        return self._run(work, pixels)

    def mixing(self, gates: Gates) -> Gates:
        """Return the weights that gates (5, ...) stand for: their ``top_k`` largest, scaled."""
        return keep_top(torch.from_numpy(gates)[None], self.top_k)[0].numpy()

    def restore(
        self,
        pixels: Pixels,
        weights: Gates,
        attention: Attention | None = None,
        *,
        recurring: bool = False,
    ) -> Pixels:
        """Restore a tile.

        Parameters
        ----------
        pixels : ndarray of float32
            (H, W, 1 or 3) in [0, 1].
        weights : ndarray of float32
            Mixing weights: (5,), or (5, rows, cols) over cells as wide as the network's grid.
        attention : mapping, optional
            What `attend` found for the plane; without, the tile is pooled by itself.
        recurring : bool
            More tiles of this size are to come.

        Returns
        -------
        ndarray of float32
            Same shape as ``pixels``; may leave [0, 1] a little.

        Raises
        ------
        TooLarge
            If the device has too little memory; what the attempt took is free again.
        """

        def work() -> Pixels:
            x = self._enter(pixels)
            mixing = torch.from_numpy(weights)[None].to(x.device)
            restored = self.model.restore(x, mixing, attention, recurring=recurring)
            if self.preserve:
                restored = keep_level(restored, x, self.model.multiple)
            out = restored[0].permute(1, 2, 0)
            if pixels.shape[2] == 1:
                out = out.mean(dim=2, keepdim=True)
            return out.float().cpu().numpy()

        return self._run(work, pixels)

    def _enter(self, *tiles: Pixels) -> Tensor:
        """Bring tiles to the device as (N, 3, H, W); gray becomes three equal samples."""
        x = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2)
        return self.model.move(x.expand(-1, 3, -1, -1))

    def _run(self, work: Callable[[], Result], pixels: Pixels) -> Result:
        with _ONE_AT_A_TIME, torch.inference_mode():
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                # On a CPU, PyTorch says so in words alone.
                if not (
                    isinstance(error, torch.OutOfMemoryError | MemoryError)
                    or "can't allocate memory" in str(error)
                ):
                    raise
                if self.model.device.type == "cuda":
                    torch.cuda.empty_cache()
                height, width = pixels.shape[:2]
                raise TooLarge(
                    f"The device {self.model.device} has too little memory for a tile of "
                    f"{width} x {height} pixels; choose a smaller tile or another device."
                ) from None
