"""A settled piece of work: one image, recipe, network and a person's paint.

What it computes depends on these alone. It travels to other processes as what it says; the parts
that compute are made where they are needed, and hold each other.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demoe.choices import Choice, names_of
from demoe.engine.cells import CellMaps
from demoe.engine.consistency import Consistency
from demoe.engine.deconvolver import NoMaps, PlaneDeconvolver
from demoe.engine.extents import Extents
from demoe.engine.fuser import Fuser
from demoe.engine.kernels.known import KnownKernels
from demoe.engine.kernels.measurement import MeasurementKernels
from demoe.engine.kernels.photo import Families, PhotoKernels
from demoe.engine.kernels.places import is_photo
from demoe.engine.kernels.solution import Blur, Kernels
from demoe.engine.memory import Found, Memory, memory_of
from demoe.engine.noise import PlaneNoise
from demoe.engine.parallel import each
from demoe.engine.photometry import Photometry
from demoe.engine.reader import PlaneReader
from demoe.engine.restorer import Restorer, is_cut
from demoe.engine.runner import TileRunner, make_runner, model_for
from demoe.image.lazy_image import LazyImage
from demoe.model.kernels.families import FAMILIES
from demoe.model.kernels.psf import make_psf
from demoe.model.kernels.tools import KernelTools
from demoe.plan.tiling import Box, Plane, TilePlan
from demoe.plan.windows import windows_in
from demoe.recipe import Recipe
from demoe.routing.gates import Gates
from demoe.routing.painted import PaintedMap
from demoe.routing.router import PlaneRouter


@dataclass(frozen=True)
class Common:
    """Something that several tiles depend on.

    Attributes
    ----------
    plane : (int, int, int)
        T, C and Z.
    block : (int, int) or None
        Row and column of a block of the router's windows; None for what counts everywhere.
    """

    plane: Plane
    block: tuple[int, int] | None = None


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
    layers : int
        In how many layers it decides.
    piece : int
        Largest side of what is computed at once.
    kernels_from : str
        Where the blur's kernel comes from: "psf" (it is given), "photo" or "measurement" (it is
        looked for in such an image), or "" (the network works alone).
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
        layers: int,
        piece: int,
        kernels_from: str = "",
        painted: PaintedMap | None = None,
    ) -> None:
        self.image, self.recipe, self.plan, self.routing = image, recipe, plan, routing
        self.choices, self.layers, self.piece = choices, layers, piece
        self.kernels_from, self.painted = kernels_from, painted
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
        return PlaneReader(self.image, self.recipe.intensity, self.memory, noted=True)

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
            self.layers,
            look=self.reader.pixels,
            decider=self.runner,
            once=self.memory.once,
        )

    @property
    def asks_network(self) -> bool:
        """Whether pixels depend on the network where nobody paints."""
        return self.kernels_from in ("", "photo")

    @cached_property
    def maps(self) -> CellMaps | NoMaps:
        """What becomes of each cell."""
        if self.kernels_from == "psf":
            return NoMaps(self.choices, self.recipe.pitch, self.memory)
        decides = self.routing not in names_of(self.choices)
        return CellMaps(self.reader, self.router, self.painted, decides, self.memory)

    @cached_property
    def restorer(self) -> Restorer | PlaneDeconvolver:
        """What computes tiles."""
        if self.kernels_from == "psf":
            assert self.deconvolver is not None
            return self.deconvolver
        assert isinstance(self.maps, CellMaps)
        return Restorer(
            self.reader,
            self.router,
            self.maps,
            self.runner,
            self.piece,
            self.memory,
            self.fuser,
        )

    @cached_property
    def kernels(self) -> Kernels | None:
        """What says how the blur of each window is undone; None where nobody looks for it."""
        if self.kernels_from == "psf":
            psf = make_psf(self.recipe.psf)
            return KnownKernels(self.reader, self.plan, psf, self.memory)
        if self.kernels_from == "photo":
            return PhotoKernels(
                self.reader,
                self.plan,
                self._tools.judge,
                self._extents,
                FAMILIES.get(self.routing),
                self._painted_families,
                self.memory,
            )
        if self.kernels_from == "measurement":
            return MeasurementKernels(self.reader, self.plan, self.memory)
        return None

    def _painted_families(self, plane: Plane, window: Box) -> Families | None:
        """Return the families of kernels that were painted over most of a window."""
        assert isinstance(self.maps, CellMaps)
        asked = self.maps.asked_for(plane, window)
        return FAMILIES.get(self.choices[asked - 1].name) if asked else None

    @cached_property
    def deconvolver(self) -> PlaneDeconvolver | None:
        """What undoes the blur."""
        if self.kernels is None:
            return None
        noise = None if is_photo(self.image) else self._noise
        pitch = self.recipe.pitch
        return PlaneDeconvolver(
            self.reader, self.plan, self.kernels, pitch, self.memory, noise, self._extents
        )

    @cached_property
    def _extents(self) -> Extents | None:
        """What tells blurred parts of a photo from sharp ones."""
        if self.kernels_from != "photo" or self._tools.detector is None:
            return None
        return Extents(self.reader, self.plan, self._tools.detector, self.memory)

    @cached_property
    def fuser(self) -> Fuser | None:
        """What makes one picture of the network's and the deconvolution's."""
        if self.deconvolver is None:
            return None
        assert isinstance(self.maps, CellMaps)
        fusion = self._tools.fusion if self.kernels_from == "photo" else None
        return Fuser(self.reader, self.plan, self.deconvolver, self.maps, fusion, self.memory)

    @cached_property
    def consistency(self) -> Consistency | None:
        """What compares results with the source."""
        if self.deconvolver is None:
            return None
        pitch = self.recipe.pitch
        return Consistency(self.reader, self.plan, self.deconvolver, self._noise, pitch)

    @cached_property
    def _noise(self) -> PlaneNoise:
        return PlaneNoise(self.reader, self.plan, self.memory)

    def blurs(self, plane: Plane, part: Box | None = None) -> list[Blur]:
        """Return what was found of the blur in each window of a plane, row by row.

        Of a part of it, those whose middle lies there.
        """
        if self.kernels is None:
            return []
        part = part or Box(0, 0, self.plan.height, self.plan.width)
        self.kernels.look_at(plane)
        windows = windows_in(self.plan, part)
        found = zip(windows, each(partial(self.kernels.window, plane), windows), strict=True)
        return [Blur(window, solution.kernel if solution else None) for window, solution in found]

    def sub_gates(self, plane: Plane) -> Gates | None:
        """Return what works within each choice on a plane; see `Restorer.sub_gates`."""
        return self.restorer.sub_gates(plane) if isinstance(self.restorer, Restorer) else None

    @property
    def _tools(self) -> KernelTools:
        tools = model_for(self.recipe).tools
        assert tools is not None  # or `resolve` would not have asked for kernels
        return tools

    def runner(self) -> TileRunner:
        """Return the engine on this process's device."""
        model = model_for(self.recipe, self.memory.device)
        return make_runner(model, self.recipe, self.image.dtype)

    def tile(self, plane: Plane, row: int, col: int) -> NDArray[Any]:
        """Return the restored core of a tile: (rows, cols, S), dtype of the image."""
        if self.recipe.photometry != "preserve":
            return self.restorer.tile(plane, row, col)
        core = self.plan.tile_at(row, col).core
        photometry = Photometry(self.reader, self.plan)
        if self.deconvolver is not None and self._by_physics(plane, core):
            return photometry.of_physics(plane, core, self.deconvolver)
        return photometry.of_network(plane, core, self.restorer.tile(plane, row, col))

    def common(self, plane: Plane, row: int, col: int) -> list[Common]:
        """Return what a tile depends on that other tiles depend on as well, and that takes long."""
        # A tile that is passed by depends on nothing.
        if self.recipe.skip_flat or not is_cut(self.plan, self.recipe):
            return []
        found = [Common(plane)]
        # Of a plane that is surveyed as a whole, the survey asks for all blocks.
        if self.asks_network and len(self.router.samples()) > 1:
            blocks = self.router.blocks_for(plane, self.plan.tile_at(row, col).read)
            found += [Common(beside, (r, c)) for beside, r, c in blocks]
        return found

    def find(self, common: Common) -> Found:
        """Find out what tiles have in common; `Memory.learn` knows it in other processes."""

        def look() -> None:
            if common.block is not None:
                self.router.look_at(common.plane, *common.block)
                return
            if self.kernels is not None:
                self.kernels.look_at(common.plane)
            if self.asks_network and isinstance(self.restorer, Restorer):
                self.restorer.look_at(common.plane)

        return self.memory.found(common, look)

    def _by_physics(self, plane: Plane, core: Box) -> bool:
        """Say whether no network has a say in a core, and all of it is restored."""
        if self.kernels_from == "psf":
            return True
        return (
            self.fuser is not None
            and not self.recipe.skip_flat
            and not self.fuser.asks_network(plane, core)
        )

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
            self.image,
            self.recipe,
            self.plan,
            self.routing,
            self.choices,
            self.layers,
            self.piece,
            self.kernels_from,
            painted,
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
