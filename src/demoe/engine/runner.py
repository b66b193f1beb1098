"""The engine: a tile of numbers in, a restored tile and the gates that were used out.

It knows nothing of files, dask or planes, and networks only by what `demoe.model.Model` offers.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demoe.errors import DeviceError
from demoe.model.demoe.eager import Attention, Backend
from demoe.model.demoe.network import keep_top
from demoe.model.level import REACH, keep_level
from demoe.model.loading import Model
from demoe.routing.gates import Gates

Pixels = NDArray[np.float32]
Result = TypeVar("Result")

LANES = 2
"""Tiles at once on a graphics card: one is computed while another is brought or fetched."""

# The network uses every core by itself; two of them at once would only cost memory. On a graphics
# card, work is only queued under it.
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
    coarse : bool
        Results are rounded to 8 bits.
    """

    def __init__(
        self, model: Model, *, top_k: int = 1, preserve: bool = False, coarse: bool = False
    ) -> None:
        self.model = model
        self.top_k = top_k
        self.coarse = coarse
        self.preserve = preserve and not model.config.keeps_level

    @property
    def backend(self) -> Backend:
        """What runs the network."""
        return self.model.backend_for(self.coarse)

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

    def survey(self, samples: Sequence[Pixels]) -> Gates:
        """Return the router's one decision (5,) on a plane.

        Parameters
        ----------
        samples : sequence of ndarray
            (H, W, 1 or 3) in [0, 1], of one size: the plane, or places that stand for it together.
        """
        found = self._run(lambda x: (None, self.model.survey(x, coarse=self.coarse)), *samples)
        return found[1].numpy()

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

        def work(x: Tensor) -> tuple[Attention, Tensor]:
            mixing = None
            if weights is not None:
                mixing = torch.from_numpy(weights).to(x.device)[None]
                mixing = mixing.expand(len(x), *weights.shape)
            found = self.model.attend(
                x, mixing, top_k=self.top_k, each=each, every=every, coarse=self.coarse
            )
            return found, x[:0]

        return self._run(work, *samples)[0]

    def route_windows(
        self, pixels: Pixels, window: tuple[int, int], corners: Sequence[tuple[int, int]]
    ) -> Gates:
        """Decide once a window of a tile, by that window alone: gates (5, len(corners)).

        Parameters
        ----------
        pixels : ndarray
            (H, W, 1 or 3) in [0, 1].
        window : (int, int)
            Height and width of the windows in pixels.
        corners : sequence of (int, int)
            Rows and columns where they begin.
        """
        height, width = window

        def work(x: Tensor) -> tuple[None, Tensor]:
            windows = [x[:, :, t : t + height, n : n + width] for t, n in corners]
            return None, self.model.route(torch.cat(windows), coarse=self.coarse).T

        return self._run(work, pixels)[1].numpy()

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

        def work(x: Tensor) -> tuple[None, Tensor]:
            mixing = torch.from_numpy(weights)[None].to(x.device)
            restored = self.model.restore(
                x, mixing, attention, recurring=recurring, coarse=self.coarse
            )
            if self.preserve:
                restored = keep_level(restored, x, self.model.multiple)
            out = restored[0].permute(1, 2, 0)
            if pixels.shape[2] == 1:
                out = out.mean(dim=2, keepdim=True)
            return None, out

        return self._run(work, pixels)[1].numpy()

    def _run(
        self, work: Callable[[Tensor], tuple[Result, Tensor]], *tiles: Pixels
    ) -> tuple[Result, Tensor]:
        """Bring tiles to the device as (N, 3, H, W), work on them, and fetch the tensor found."""
        with torch.inference_mode(), _lane(self.model.device) as stream:
            try:
                x = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2)
                if stream is None:
                    with _ONE_AT_A_TIME:
                        return work(self.model.move(x))
                # From and to page-locked memory, which the card reads and writes by itself.
                x = self.model.move(x.pin_memory())
                # No shortened products (TF32): they would differ in the third digit.
                with _ONE_AT_A_TIME, torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                    result, found = work(x)
                fetched = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
                fetched.copy_(found, non_blocking=True)
                stream.synchronize()
                return result, fetched
            except (RuntimeError, MemoryError) as error:
                # On a CPU, PyTorch says so in words alone.
                if not (
                    isinstance(error, torch.OutOfMemoryError | MemoryError)
                    or "can't allocate memory" in str(error)
                ):
                    raise
                if self.model.device.type == "cuda":
                    torch.cuda.empty_cache()
                height, width = tiles[0].shape[:2]
                raise TooLarge(
                    f"The device {self.model.device} has too little memory for a tile of "
                    f"{width} x {height} pixels; choose a smaller tile or another device."
                ) from None


@contextmanager
def _lane(device: torch.device) -> Iterator[Any]:
    """Wait for one of a graphics card's streams, which all keep memory; None without a card."""
    if device.type != "cuda":
        yield None
        return
    free = _lanes(device)
    stream = free.get()
    try:
        with torch.cuda.stream(stream):
            yield stream
    finally:
        free.put(stream)


@functools.cache
def _lanes(device: torch.device) -> SimpleQueue[Any]:
    free: SimpleQueue[Any] = SimpleQueue()
    for _ in range(LANES):
        free.put(torch.cuda.Stream(device))
    return free
