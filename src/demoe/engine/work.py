"""A settled piece of work: one image, recipe, network and a person's paint.

What it computes depends on these alone. It travels to other processes as what it says; the parts
that compute are made where they are needed, and hold each other.
"""

from __future__ import annotations

import uuid
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demoe.choices import Choice, names_of
from demoe.engine.cells import CellMaps
from demoe.engine.deconvolver import NoMaps, PlaneDeconvolver
from demoe.engine.memory import Memory, memory_of
from demoe.engine.reader import PlaneReader
from demoe.engine.restorer import Restorer
from demoe.engine.runner import TileRunner, make_runner
from demoe.image.lazy_image import LazyImage
from demoe.model.kernels.psf import make_psf
from demoe.model.loading import load_model
from demoe.plan.tiling import Plane, TilePlan
from demoe.recipe import Recipe
from demoe.routing.painted import PaintedMap
from demoe.routing.router import PlaneRouter


class PlaneWork:
    """What it takes to compute any tile and any cell of an image; made by `resolve`.

    Nothing of it changes once it is made. It is no dataclass, because dask would look into one and
    compute the image that it finds there.

    Attributes
    ----------
    image : LazyImage
        The source.
    recipe : Recipe
        How; ``recipe.model`` is loaded again by other processes that this travels to.
    plan : TilePlan
        How planes are cut.
    routing : str
        "image", "local" or the name of a choice.
    choices : tuple of Choice
        Those of the network.
    piece : int
        Largest side of what is computed at once.
    painted : PaintedMap or None
        A person's choices, which win.
    """

    def __init__(
        self,
        image: LazyImage,
        recipe: Recipe,
        plan: TilePlan,
        routing: str,
        choices: tuple[Choice, ...],
        piece: int,
        painted: PaintedMap | None = None,
    ) -> None:
        self.image, self.recipe, self.plan, self.routing = image, recipe, plan, routing
        self.choices, self.piece, self.painted = choices, piece, painted
        self._identity = uuid.uuid4().hex  # what its copies in other processes have in common

    def __getstate__(self) -> dict[str, Any]:
        """Leave the parts out: locks do not travel, and the rest can be made again."""
        parts = {
            name for name, value in vars(PlaneWork).items() if isinstance(value, cached_property)
        }
        return {name: value for name, value in vars(self).items() if name not in parts}

    @cached_property
    def memory(self) -> Memory:
        """What was found out so far, in this process."""
        return memory_of(self._identity)

    @cached_property
    def reader(self) -> PlaneReader:
        """The pixels."""
        return PlaneReader(self.image, self.recipe.intensity, self.memory)

    @cached_property
    def router(self) -> PlaneRouter:
        """What the network decides."""
        names = names_of(self.choices)
        return PlaneRouter(
            self.image.axes,
            self.image.shape,
            self.recipe,
            self.plan,
            self.routing,
            names.index(self.routing) + 1 if self.routing in names else 0,
            len(names),
            look=self.reader.pixels,
            decider=self.runner,
            once=self.memory.once,
        )

    @cached_property
    def maps(self) -> CellMaps | NoMaps:
        """What becomes of each cell."""
        if self.recipe.psf is not None:
            return NoMaps(self.choices)
        decides = self.routing not in names_of(self.choices)
        return CellMaps(self.reader, self.router, self.painted, decides, self.memory)

    @cached_property
    def restorer(self) -> Restorer | PlaneDeconvolver:
        """What computes tiles."""
        if self.recipe.psf is not None:
            psf = make_psf(self.recipe.psf)
            return PlaneDeconvolver(self.reader, self.plan, psf, self.memory)
        assert isinstance(self.maps, CellMaps)
        return Restorer(self.reader, self.router, self.maps, self.runner, self.piece, self.memory)

    def runner(self) -> TileRunner:
        """Return the engine on this process's device."""
        device = self.memory.device or self.recipe.device
        return make_runner(load_model(self.recipe.model, device), self.recipe, self.image.dtype)

    def failed_cells(self, plane: Plane, row: int, col: int) -> list[tuple[int, int]]:
        """Return cells (row, column) in a computed tile whose restoration was not plausible."""
        return self.maps.failed(plane, self.plan.tile_at(row, col).core)

    def repainted(self, painted: PaintedMap, stale: NDArray[np.bool_]) -> PlaneWork:
        """Return the same work with another map, knowing already what paint does not change.

        Parameters
        ----------
        painted : PaintedMap
            A person's choices, all of them.
        stale : ndarray of bool
            The tiles that change: plane axes of the image, then rows and columns of tiles.
        """
        other = PlaneWork(
            self.image, self.recipe, self.plan, self.routing, self.choices, self.piece, painted
        )
        other.memory.take_from(self.memory)
        with self.memory.lock:
            for plane, cells in self.memory.failed.items():
                index = dict(zip("TCZ", plane, strict=True))
                tiles = stale[tuple(index[a] for a in self.image.axes if a in index)]
                kept = {cell for cell in cells if not tiles[self._tiles_of(*cell)].any()}
                other.memory.failed[plane] = kept
        return other

    def _tiles_of(self, row: int, col: int) -> tuple[slice, slice]:
        """Return the tiles whose cores a cell touches."""
        pitch, (height, width) = self.recipe.pitch, self.plan.core_shape
        return (
            slice(row * pitch // height, ((row + 1) * pitch - 1) // height + 1),
            slice(col * pitch // width, ((col + 1) * pitch - 1) // width + 1),
        )
