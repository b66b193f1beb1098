"""The engine: a tile of numbers in, a restored tile and the gates that were used out.

It knows nothing of files, dask or planes, and networks only by what `demoe.model.Model` offers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demoe.errors import DeviceError
from demoe.gates import Gates
from demoe.model.loading import Model, local_mean
from demoe.model.network import keep_top

Pixels = NDArray[np.float32]
Result = TypeVar("Result")

PHOTOMETRY_RADIUS = 32
"""Half the side, in pixels, of the square whose mean is kept by ``photometry="preserve"``."""

# The network uses every core by itself; two of them at once would only cost memory.
_ONE_AT_A_TIME = threading.Lock()


class TileRunner:
    """Runs a network on single tiles.

    Parameters
    ----------
    model : Model
        The network and its device.
    top_k : int
        Experts mixed at each place.
    preserve : bool
        Give the result the local mean intensity of what came in.
    """

    def __init__(self, model: Model, *, top_k: int = 1, preserve: bool = False) -> None:
        self.model = model
        self.top_k = top_k
        self.preserve = preserve

    @property
    def halo(self) -> int:
        """Pixels around a core that its result depends on, a multiple of the network's grid."""
        extra = PHOTOMETRY_RADIUS if self.preserve else 0
        return self.model.halo + -(-extra // self.model.multiple) * self.model.multiple

    def route(self, pixels: Pixels) -> Gates:
        """Decide on one set of gates (5,) for pixels (H, W, 1 or 3) in [0, 1]."""
        return self._run(lambda: self.model.route(self._enter(pixels))[0].cpu().numpy(), pixels)

    def route_windows(
        self, pixels: Pixels, window: tuple[int, int], tops: Sequence[int], lefts: Sequence[int]
    ) -> Gates:
        """Decide once a window: gates (5, len(tops), len(lefts)); sizes in pixels of the tile."""

        def work() -> Gates:
            gates = self.model.route_windows(self._enter(pixels), window, tops, lefts)
            return gates[0].cpu().numpy()

        return self._run(work, pixels)

    def mixing(self, gates: Gates) -> Gates:
        """Return the weights that gates (5, ...) stand for: their ``top_k`` largest, scaled."""
        return keep_top(torch.from_numpy(gates)[None], self.top_k)[0].numpy()

    def restore(self, pixels: Pixels, weights: Gates) -> Pixels:
        """Restore a tile.

        Parameters
        ----------
        pixels : ndarray of float32
            (H, W, 1 or 3) in [0, 1].
        weights : ndarray of float32
            Mixing weights: (5,), or (5, rows, cols) over cells as wide as the network's grid.

        Returns
        -------
        ndarray of float32
            Same shape as ``pixels``; may leave [0, 1] a little.
        """

        def work() -> Pixels:
            x = self._enter(pixels)
            restored = self.model.restore(x, torch.from_numpy(weights)[None].to(x.device))
            if self.preserve:
                restored = _keep_local_mean(restored, x)
            out = restored[0].permute(1, 2, 0)
            if pixels.shape[2] == 1:
                out = out.mean(dim=2, keepdim=True)
            return out.float().cpu().numpy()

        return self._run(work, pixels)

    def _enter(self, pixels: Pixels) -> Tensor:
        """Bring a tile to the device as (1, 3, H, W); gray becomes three equal samples."""
        x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
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
                height, width = pixels.shape[:2]
                raise DeviceError(
                    f"The device {self.model.device} has too little memory for a tile of "
                    f"{width} x {height} pixels; choose a smaller tile or another device."
                ) from None


def _keep_local_mean(restored: Tensor, x: Tensor) -> Tensor:
    """Scale the result so that its local mean is the input's.

    A ratio, because networks that brighten do so by a factor; where there is hardly any light, a
    difference does the same without dividing by nothing.
    """
    wanted = local_mean(x, PHOTOMETRY_RADIUS)
    found = local_mean(restored, PHOTOMETRY_RADIUS)
    enough = (wanted > 1e-3) & (found > 1e-3)
    return torch.where(enough, restored * (wanted / found), restored + (wanted - found))
