"""What a result came from, and what a person wants otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from demoe.routing.correction import wishes
from napari_demoe._job import Finished, Job


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the last result came from, for corrections of it.

    Attributes
    ----------
    job, finished : Job, Finished
        What was asked for, and what came of it.
    by_hand, by_layer : ndarray of int
        Cells, 0 or the number of an expert, painted on the expert map itself and taken from
        another layer.
    """

    job: Job
    finished: Finished
    by_hand: np.ndarray
    by_layer: np.ndarray

    def wishes(self, shown: np.ndarray, layer: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Return what a person wants by hand and by a layer now.

        Parameters
        ----------
        shown : ndarray of int
            The expert map as it is painted now.
        layer : array of int, optional
            Cells of the layer that is chosen beside it; by default those of before count on.
        """
        by_hand = wishes(shown, self.finished.expert_map, self.by_hand)
        if layer is not None:
            return by_hand, np.asarray(layer)
        taken_back = (shown != self.finished.expert_map) & (shown == 0)
        return by_hand, np.where(taken_back, 0, self.by_layer)


def joined(by_hand: np.ndarray, by_layer: np.ndarray) -> np.ndarray:
    """Return the map that both make: what is painted by hand wins."""
    return np.where(by_hand > 0, by_hand, by_layer)
