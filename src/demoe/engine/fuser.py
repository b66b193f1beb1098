"""Source, network and deconvolution of a photo -> one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from demoe.engine.cells import CellMaps
from demoe.engine.deconvolver import PlaneDeconvolver
from demoe.engine.kernels.places import sample_boxes
from demoe.engine.memory import Memory
from demoe.engine.reader import PlaneReader
from demoe.model.kernels.noise import noise_of, samples_of
from demoe.plan.tiling import Box, Plane, TilePlan
from demoe.routing.router import Pixels

if TYPE_CHECKING:
    from demoe.model.kernels.fusion import Fusion


class Fuser:
    """Fuses what the network made of a photo with what undoing its blur made.

    Parameters
    ----------
    reader, plan, deconvolver, memory : PlaneReader, TilePlan, PlaneDeconvolver, Memory
        Its pixels, how planes are cut, what undoes the blur, and what was found out so far.
    fusion : Fusion or None
        Weighs the three in photos. Without it, pixels are the deconvolution's, but the network's
        where a person painted.
    maps : CellMaps
        Say where that is.
    """

    def __init__(
        self,
        reader: PlaneReader,
        plan: TilePlan,
        deconvolver: PlaneDeconvolver,
        maps: CellMaps,
        fusion: Fusion | None,
        memory: Memory,
    ) -> None:
        self._reader, self._plan, self._deconvolver = reader, plan, deconvolver
        self._maps, self._fusion, self._memory = maps, fusion, memory

    def asks_network(self, plane: Plane, core: Box) -> bool:
        """Say whether a core depends on what the network makes of it."""
        return self._fusion is not None or self._maps.painted_share(plane, core) is not None

    def alone(self, plane: Plane, core: Box) -> NDArray[Any]:
        """Return a core (rows, cols, S) that does not, dtype of the image."""
        return self._deconvolver.core(plane, core)

    def fuse(self, plane: Plane, core: Box, read: Box, pixels: Pixels, network: Pixels) -> Pixels:
        """Return the fused picture of a core.

        Parameters
        ----------
        plane, core, read : Plane, Box, Box
            Where; ``read`` reaches `demoe.model.kernels.fusion.REACH` around the core, or to the
            borders of the plane.
        pixels, network : ndarray of float32
            (rows, cols, S) of the read: what came in, and what the network made of it.

        Returns
        -------
        ndarray of float32
            (rows, cols, S) of the core.
        """
        from demoe.model.kernels.fusion import REACH

        if self._fusion is None:
            undone = self._deconvolver.undone(plane, core)
            share = self._maps.painted_share(plane, core)
            assert share is not None  # or nobody would have asked the network
            self._deconvolver.note_fallen(plane, core, (1 - share) * undone.fallen[..., 0])
            painted: Pixels = share[..., None] * network[core.within(read)]
            return painted + (1 - share[..., None]) * undone.restored
        box = core.grown(REACH, self._plan.height, self._plan.width).common(read)
        undone = self._deconvolver.undone(plane, box)
        inner = box.within(read)
        pictures = [pixels[inner], network[inner], undone.restored, undone.again, undone.gain]
        noise = self.noise(plane)
        with torch.inference_mode():
            fused = self._fusion(
                *(samples_of(one)[None] for one in pictures), torch.tensor([noise])
            )
        found: Pixels = fused[0].numpy().transpose(1, 2, 0)
        return found[core.within(box)]

    def noise(self, plane: Plane) -> float:
        """Return the standard deviation of a plane's noise, in [0, 1]."""
        found: float = self._memory.once("kernel", ("noise", plane), lambda: self._noise(plane))
        return found

    def _noise(self, plane: Plane) -> float:
        boxes = sample_boxes(self._plan)
        samples = [samples_of(self._reader.pixels(plane, box)) for box in boxes]
        return float(np.mean([noise_of(one).mean() for one in samples]))
