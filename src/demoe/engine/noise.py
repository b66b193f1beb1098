"""How noisy the planes of an image are: what differences from its data are measured by."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from demoe.engine.kernels.places import is_photo, sample_boxes
from demoe.engine.memory import Memory
from demoe.engine.reader import PlaneReader
from demoe.plan.tiling import Plane, TilePlan
from demoe.routing.router import Pixels


class PlaneNoise:
    """The noise of an image's planes, by intensity, from the places that stand for each."""

    def __init__(self, reader: PlaneReader, plan: TilePlan, memory: Memory) -> None:
        self._reader, self._plan, self._memory = reader, plan, memory

    def variance(self, plane: Plane, seen: Pixels) -> NDArray[np.float32]:
        """Return the variance of the noise at pixels (rows, cols, S) of a plane, of that shape."""
        from demoe.model.kernels.deconvolution import LEAST_NOISE
        from demoe.model.kernels.noise import mean_model, noise_model

        def measured() -> list[object]:
            samples = [self._reader.pixels(plane, box) for box in sample_boxes(self._plan)]
            channels = range(samples[0].shape[2])
            return [
                mean_model([noise_model(torch.from_numpy(one[..., n].copy())) for one in samples])
                for n in channels
            ]

        models = self._memory.once("kernel", ("noise model", plane), measured)
        least = LEAST_NOISE[is_photo(self._reader.image)] ** 2
        per_sample = [
            model.variance(torch.from_numpy(seen[..., n].copy())).clamp_min(least).numpy()
            for n, model in enumerate(models)
        ]
        return np.stack(per_sample, axis=-1)
