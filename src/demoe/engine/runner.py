"""The engine: a tile of numbers in, a restored tile and the gates that were used out.

It knows nothing of files, dask or planes, and of networks only what `demoe.model.protocol` says.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from demoe.errors import DeviceError
from demoe.model.devices import give_back
from demoe.model.level import REACH, keep_level
from demoe.model.loading import Model, load_model
from demoe.model.mixing import keep_top
from demoe.model.protocol import Nested
from demoe.recipe import Recipe
from demoe.routing.gates import Gates, by_layer
from demoe.routing.router import Pixels
from demoe.wanted import check

if TYPE_CHECKING:
    from demoe.model.protocol import Statistics

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
        Experts mixed at each place, of a network whose choices can work alone.
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
        self.preserve = preserve and not model.tenant.keeps_level

    @property
    def bytes_per_pixel(self) -> float:
        """Memory that a pixel of a read takes while it is restored."""
        return self.model.tenant.bytes_per_pixel(self.coarse)

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

    def decide(self, samples: Sequence[Pixels]) -> Gates:
        """Return the network's one decision (layers * E,) on a plane.

        Parameters
        ----------
        samples : sequence of ndarray
            (H, W, 1 or 3) in [0, 1], of one size: the plane, or places that stand for it together.
        """
        tenant = self.model.tenant
        found = self._run(lambda x: (None, tenant.decide(x, coarse=self.coarse)), *samples)
        return found[1].numpy()

    def survey(
        self, samples: Sequence[Pixels], weights: Gates | None, *, every: bool = False
    ) -> Statistics:
        """Return what is pooled over a plane.

        Parameters
        ----------
        samples
            As for `decide`.
        weights : ndarray, optional
            Mixing weights for all samples, as for `restore`; by default the network decides on each
            sample by itself.
        every : bool
            Include choices that work in no sample.
        """

        def work(x: Tensor) -> tuple[Statistics, Tensor]:
            mixing = None
            if weights is not None:
                mixing = torch.from_numpy(weights).to(x.device)[None]
                mixing = mixing.expand(len(x), *weights.shape)
            found = self.model.tenant.survey(
                x, mixing, top_k=self.top_k, every=every, coarse=self.coarse
            )
            return found, x[:0]

        return self._run(work, *samples)[0]

    def sub_gates(self, statistics: Statistics) -> Gates | None:
        """Return weights (layers, E, K) within each choice, of a network that has such."""
        tenant = self.model.tenant
        return tenant.sub_gates(statistics).numpy() if isinstance(tenant, Nested) else None

    def route_windows(
        self, pixels: Pixels, window: tuple[int, int], corners: Sequence[tuple[int, int]]
    ) -> Gates:
        """Decide once a window of a tile, by that window alone: (layers * E, len(corners)).

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
            return None, self.model.tenant.route(torch.cat(windows), coarse=self.coarse).T

        return self._run(work, pixels)[1].numpy()

    def mixing(self, gates: Gates) -> Gates:
        """Return the weights that decisions (layers * E, ...) stand for.

        Of each layer these are the ``top_k`` largest, scaled to sum 1; all of them, of a network
        whose choices work together.
        """
        if self.model.tenant.dense:
            return gates
        layers = by_layer(gates, self.model.tenant.layers)
        return keep_top(torch.from_numpy(layers), self.top_k).flatten(0, 1).numpy()

    def restore(
        self,
        pixels: Pixels,
        weights: Gates,
        statistics: Statistics | None = None,
        *,
        recurring: bool = False,
    ) -> Pixels:
        """Restore a tile.

        Parameters
        ----------
        pixels : ndarray of float32
            (H, W, 1 or 3) in [0, 1].
        weights : ndarray of float32
            Mixing weights, as `mixing` makes them: (layers * E,), or with (rows, cols) of cells as
            wide as the network's grid.
        statistics : mapping, optional
            What `survey` found for the plane; without, the tile is pooled by itself.
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
            restored = self.model.tenant.restore(
                x, mixing, statistics, recurring=recurring, coarse=self.coarse
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
        check()
        with torch.inference_mode(), _lane(self.model.device) as stream:
            try:
                x = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2)
                if stream is None:
                    with _ONE_AT_A_TIME:
                        result, found = work(self.model.move(x))
                        return result, found.cpu()
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
                # On a CPU and Apple's devices, PyTorch says so in words alone.
                if not (
                    isinstance(error, torch.OutOfMemoryError | MemoryError)
                    or "can't allocate memory" in str(error)
                    or "out of memory" in str(error)
                ):
                    raise
                give_back(self.model.device)
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


def model_for(recipe: Recipe, device: str = "") -> Model:
    """Return the network of a recipe with all of its choices, on its device or another."""
    return load_model(recipe.model, device or recipe.device, recipe.instructions)


def half_will_do(recipe: Recipe, dtype: np.dtype[Any]) -> bool:
    """Tell whether results are rounded so coarsely that half precision may do."""
    return dtype.itemsize == 1 and recipe.precision == "auto"


def make_runner(model: Model, recipe: Recipe, dtype: np.dtype[Any]) -> TileRunner:
    """Return the engine for a recipe on a loaded model, for images of a dtype."""
    return TileRunner(
        model,
        top_k=recipe.top_k,
        preserve=recipe.photometry == "preserve",
        coarse=half_will_do(recipe, dtype),
    )
