"""What becomes of each routing cell: what the router says, what a person painted, what is flat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from demoe.engine.flat import flat_cells, flat_read
from demoe.engine.memory import Memory
from demoe.engine.reader import PlaneReader
from demoe.plan.tiling import Box, Plane, touched
from demoe.routing.gates import (
    Gates,
    by_layer,
    cells_around,
    confidence,
    expert_map,
    override,
    spread,
)
from demoe.routing.painted import PaintedMap
from demoe.routing.router import PlaneRouter

FLAT_NOISE = 0.5 / 255
"""Noise of flat background, as a share of the intensity range, up to which it is passed by: more of
it, the network would take away."""


class CellMaps:
    """The maps of one image.

    Parameters
    ----------
    reader : PlaneReader
        Its pixels.
    router : PlaneRouter
        What the network decides.
    painted : PaintedMap or None
        A person's choices, which win.
    decides : bool
        Whether the network decides, so that there is nothing to be sure of on flat background.
    memory : Memory
        Where the network failed.
    """

    def __init__(
        self,
        reader: PlaneReader,
        router: PlaneRouter,
        painted: PaintedMap | None,
        decides: bool,
        memory: Memory,
    ) -> None:
        self._reader, self._router, self._painted = reader, router, painted
        self._decides, self._memory = decides, memory
        self._recipe, self._plan = router.recipe, router.plan

    def decisions(self, plane: Plane, rows: range, cols: range) -> Gates:
        """Return what works on some cells, (layers * E, len(rows), len(cols)) float32."""
        gates = self._router.gates(plane, rows, cols)
        painted = self._labels(plane, rows, cols)
        return gates if painted is None else override(gates, painted, self._router.layers)

    def gates(self, plane: Plane, rows: range, cols: range) -> Gates:
        """Return the gates of some cells of a plane, (E, len(rows), len(cols)) float32."""
        decided = by_layer(self.decisions(plane, rows, cols), self._router.layers)
        return np.asarray(decided.mean(axis=0) if len(decided) > 1 else decided[0], np.float32)

    def layers(self, plane: Plane, rows: range, cols: range) -> NDArray[np.uint8]:
        """Return the strongest choice of each layer, as `experts`: (layers, rows, cols)."""
        decided = by_layer(self.decisions(plane, rows, cols), self._router.layers)
        return np.asarray(expert_map(decided) * (self.experts(plane, rows, cols) > 0), np.uint8)

    def experts(self, plane: Plane, rows: range, cols: range) -> NDArray[np.uint8]:
        """Return the strongest choice of some cells, from 1, or 0 where none works.

        None works on flat background that is passed by, and where what came out was not plausible;
        the latter is known of tiles that were computed in this process.
        """
        experts = expert_map(self.gates(plane, rows, cols))
        if self._recipe.skip_flat:
            experts[self.flat(plane, rows, cols)] = 0
        for row, col in self._memory.failed_among(plane, rows, cols):
            experts[row - rows.start, col - cols.start] = 0
        return experts

    def confidence(self, plane: Plane, rows: range, cols: range) -> Gates:
        """Return by how much the strongest choice leads on some cells, (len(rows), len(cols)).

        1 where a person chose, 0 on flat background, where there is nothing to decide.
        """
        found = confidence(self.gates(plane, rows, cols))
        if self._recipe.skip_flat or self._decides:
            found[self.flat(plane, rows, cols)] = 0
        return found

    def failed(self, plane: Plane, core: Box) -> list[tuple[int, int]]:
        """Return cells (row, column) in a computed tile whose restoration was not plausible."""
        return self._memory.failed_among(plane, *touched(core, self._recipe.pitch))

    def note_failed(self, plane: Plane, cell: tuple[int, int]) -> None:
        """Remember that the restoration of a cell was not plausible."""
        self._memory.failed_in(plane).add(cell)

    def is_painted(self, plane: Plane) -> bool:
        """Say whether a person painted anything on a plane."""
        return self._labels(plane, range(1), range(1)) is not None

    def asked_for(self, plane: Plane, box: Box) -> int:
        """Return the choice, from 1 on, that a person painted on most of a rectangle, or 0."""
        rows, cols = touched(box, self._recipe.pitch)
        labels = self._labels(plane, rows, cols)
        if labels is None:
            return 0
        counts = np.bincount(labels.ravel())
        most = int(counts.argmax())
        return most if 2 * counts[most] > labels.size else 0

    def painted_share(self, plane: Plane, box: Box) -> Gates | None:
        """Return how much a person decided at each pixel of a rectangle (rows, cols): 0 to 1.

        Between cells it goes over as gates do. None where nothing is painted around.
        """
        pitch = self._recipe.pitch
        cells = self._plan.cells(pitch)
        rows = cells_around(box.top, box.bottom, pitch, cells[0])
        cols = cells_around(box.left, box.right, pitch, cells[1])
        labels = self._labels(plane, rows, cols)
        if labels is None or not labels.any():
            return None
        at = [
            (np.arange(start, stop) + 0.5) / pitch - cells.start
            for start, stop, cells in ((box.top, box.bottom, rows), (box.left, box.right, cols))
        ]
        share: Gates = spread((labels > 0).astype(np.float32)[None], at[0], at[1])[0]
        return share

    def flat(self, plane: Plane, rows: range, cols: range) -> NDArray[np.bool_]:
        """Say which cells are flat background, unless a person painted them."""
        size = (self._plan.height, self._plan.width)
        read = flat_read(rows, cols, self._recipe.pitch, size)
        flat = flat_cells(
            self._reader.pixels(plane, read),
            read,
            rows,
            cols,
            pitch=self._recipe.pitch,
            size=size,
            step=self._reader.scale.step(self._reader.image.dtype),
            noise_limit=FLAT_NOISE,
        )
        painted = self._labels(plane, rows, cols)
        return flat if painted is None else flat & (painted == 0)

    def _labels(self, plane: Plane, rows: range, cols: range) -> NDArray[np.uint8] | None:
        """Return what a person painted on some cells; None where the plane is bare."""
        if self._painted is None:
            return None
        index = dict(zip("TCZ", plane, strict=True))
        axes = self._reader.image.axes
        return self._painted.labels(tuple(index[a] for a in axes if a in index), rows, cols)
