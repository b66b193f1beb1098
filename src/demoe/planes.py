"""One image and one recipe: what it takes to compute any tile or any routing cell of it.

Every answer depends on image, recipe and weights alone; what is remembered only saves time.
Objects travel to other processes without what they remember, and share it there.
"""

from __future__ import annotations

import functools
import logging
import math
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from dask.local import get_sync
from numpy.typing import NDArray

from demoe.consensus import agree, sharpen, smooth
from demoe.engine import Pixels, TileRunner, TooLarge
from demoe.errors import ImageError
from demoe.flat import active_parts, flat_cells, flat_read
from demoe.gates import (
    Gates,
    PaintedMap,
    cells_around,
    confidence,
    expert_map,
    fill,
    one_hot,
    override,
    spread,
    windows,
    windows_near,
)
from demoe.guard import implausible_cells
from demoe.image import LazyImage
from demoe.intensity import IntensityScale, resolve_intensity
from demoe.model.loading import Model, load_model
from demoe.model.pooling import Attention
from demoe.recipe import TASKS, Recipe
from demoe.tiling import Box, TilePlan

ROUTING_BLOCK = 1024
"""Side in pixels of the blocks in which windows are decided on; independent of compute tiles."""

SURVEYED_WHOLE = 768**2
"""Pixels of the largest plane that is surveyed as a whole; larger ones by samples."""

SAMPLES, SAMPLE = 3, 256
"""Samples along each axis that stand for a larger plane, and their side in pixels."""

SMALLEST = 32
"""Side in pixels below which a tile is not cut any more when memory is short."""

FLAT_NOISE = 0.5 / 255
"""Noise of flat background, as a share of the intensity range, up to which it is passed by: more of
it, the network would take away."""

_LOG = logging.getLogger("demoe")

_REMEMBERED = {"survey": 64, "attention": 64, "block": 4096}  # of about 10, 50 and 5 kB each

Plane = tuple[int, int, int]


class PlaneWork:
    """Computes tiles and gates of one image.

    Parameters
    ----------
    image : LazyImage
        The source.
    recipe : Recipe
        How; ``recipe.model`` is loaded again by other processes that this object travels to.
    plan : TilePlan
        How planes are cut.
    routing : str
        "image", "local" or a task.
    painted : PaintedMap, optional
        A person's choices, which win.
    piece : int
        Largest side of what is computed at once; by default that of a tile.
    """

    def __init__(
        self,
        image: LazyImage,
        recipe: Recipe,
        plan: TilePlan,
        routing: str,
        painted: PaintedMap | None = None,
        piece: int = 0,
    ) -> None:
        self.image = image
        self.recipe = recipe
        self.plan = plan
        self.routing = routing
        self.painted = painted
        self.piece = piece or plan.tile
        self._identity = uuid.uuid4().hex
        self._memory = _memory_of(self._identity)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is remembered: locks do not travel, the rest can be computed again."""
        return {name: value for name, value in vars(self).items() if name != "_memory"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Remember together with other copies: on a cluster every task brings one of its own."""
        self.__dict__.update(state)
        self._memory = _memory_of(self._identity)

    @property
    def runner(self) -> TileRunner:
        """The engine on this process's device."""
        device = self._memory.device or self.recipe.device
        return make_runner(load_model(self.recipe.model, device), self.recipe, self.image.dtype)

    @property
    def scale(self) -> IntensityScale:
        """How pixel values become [0, 1]; decided once an image, from a fixed sample of it."""
        memory = self._memory
        with memory.lock:
            if memory.scale is None:
                memory.scale = resolve_intensity(self.image, self.recipe.intensity)
            return memory.scale

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of routing cells in a plane."""
        return (
            -(-self.plan.height // self.recipe.pitch),
            -(-self.plan.width // self.recipe.pitch),
        )

    @property
    def block_cells(self) -> int:
        """Side, in cells, of a routing block."""
        return max(1, ROUTING_BLOCK // self.recipe.pitch)

    def block_ranges(self, row: int, col: int) -> tuple[range, range]:
        """Rows and columns of the cells that a routing block covers."""
        side, (rows, cols) = self.block_cells, self.cells
        return (
            range(row * side, min((row + 1) * side, rows)),
            range(col * side, min((col + 1) * side, cols)),
        )

    def repainted(self, painted: PaintedMap, stale: NDArray[np.bool_]) -> PlaneWork:
        """Return the same work with another map, knowing already what paint does not change.

        Parameters
        ----------
        painted : PaintedMap
            A person's choices, all of them.
        stale : ndarray of bool
            The tiles that change: plane axes of the image, then rows and columns of tiles.
        """
        other = PlaneWork(self.image, self.recipe, self.plan, self.routing, painted, self.piece)
        mine, theirs = self._memory, other._memory
        with mine.lock:
            theirs.scale, theirs.too_large, theirs.device = mine.scale, mine.too_large, mine.device
            theirs.kept = {kind: kept.copy() for kind, kept in mine.kept.items()}
            for plane, cells in mine.failed.items():
                index = dict(zip("TCZ", plane, strict=True))
                tiles = stale[tuple(index[a] for a in self.image.axes if a in index)]
                theirs.failed[plane] = {
                    cell for cell in cells if not tiles[self._tiles_of(*cell)].any()
                }
        return other

    def _tiles_of(self, row: int, col: int) -> tuple[slice, slice]:
        """Return the tiles whose cores a cell touches."""
        pitch, (height, width) = self.recipe.pitch, self.plan.core_shape
        return (
            slice(row * pitch // height, ((row + 1) * pitch - 1) // height + 1),
            slice(col * pitch // width, ((col + 1) * pitch - 1) // width + 1),
        )

    # -- tiles ------------------------------------------------------------------------------

    def restore_tile(self, plane: Plane, row: int, col: int) -> NDArray[Any]:
        """Return the restored core of a tile: (rows, cols, S), dtype of the image."""
        tile = self.plan.tile_at(row, col)
        if not self.recipe.skip_flat:
            return self._restore(plane, tile.core, tile.read, recurring=True)
        out = self._values(plane, tile.core)
        for box in self._active(plane, tile.core):
            out[box.within(tile.core)] = self._restore_window(plane, box)
        return out

    def failed_cells(self, plane: Plane, row: int, col: int) -> list[tuple[int, int]]:
        """Return cells (row, column) in a computed tile whose restoration was not plausible."""
        core, pitch = self.plan.tile_at(row, col).core, self.recipe.pitch
        rows, cols = _touched(core, pitch)
        return sorted(cell for cell in self._failed(plane) if cell[0] in rows and cell[1] in cols)

    def _active(self, plane: Plane, core: Box) -> list[Box]:
        """Return the boxes of a core in which there is something to restore, of a tile at most."""
        pitch = self.recipe.pitch
        rows, cols = _touched(core, pitch)
        parts = active_parts(self._flat(plane, rows, cols), rows, cols, pitch, core, self.plan.halo)
        return [box for part in parts for box in _pieces(part, self.piece, self.plan.grid)]

    def _flat(self, plane: Plane, rows: range, cols: range) -> NDArray[np.bool_]:
        """Say which cells are flat background, unless a person painted them."""
        size = (self.plan.height, self.plan.width)
        read = flat_read(rows, cols, self.recipe.pitch, size)
        flat = flat_cells(
            self._network_pixels(plane, read),
            read,
            rows,
            cols,
            pitch=self.recipe.pitch,
            size=size,
            step=self.scale.step(self.image.dtype),
            noise_limit=FLAT_NOISE,
        )
        painted = self._labels(plane, rows, cols)
        return flat if painted is None else flat & (painted == 0)

    def _is_painted(self, plane: Plane) -> bool:
        return self._labels(plane, range(1), range(1)) is not None

    def _restore_window(self, plane: Plane, box: Box) -> NDArray[Any]:
        return self._restore(plane, box, self.plan.window(box, box.shape), recurring=False)

    def _restore(self, plane: Plane, core: Box, read: Box, *, recurring: bool) -> NDArray[Any]:
        """Restore a rectangle, half by half where the device has too little memory."""
        memory, area = self._memory, math.prod(read.shape)
        halves = _halves(core, self.plan.grid)
        if area < memory.too_large or not halves:
            try:
                return self._restore_at_once(plane, core, read, recurring=recurring)
            except TooLarge as error:
                if halves and self._attention(plane) is not None:
                    memory.too_large = area
                    _LOG.warning("%s Going on with half of it at a time.", error)
                elif self.runner.model.device.type != "cpu":
                    memory.device, memory.too_large = "cpu", math.inf
                    _LOG.warning("%s Going on with the CPU.", error)
                    return self._restore(plane, core, read, recurring=recurring)
                else:
                    raise
        parts = [self._restore_window(plane, half) for half in halves]
        return np.concatenate(parts, axis=0 if halves[0].left == halves[1].left else 1)

    def _restore_at_once(
        self, plane: Plane, core: Box, read: Box, *, recurring: bool
    ) -> NDArray[Any]:
        values = self._values(plane, read)
        samples = min(values.shape[2], 3)  # an alpha channel passes by
        pixels = self.scale.normalise(values[..., :samples])
        runner = self.runner
        weights = self._weights(plane, read, runner, self.cell_gates)
        attention = self._attention(plane)
        restored = runner.restore(pixels, weights, attention, recurring=recurring)
        inner = core.within(read)
        kept = values[inner]
        done = self.scale.restore(restored[inner], self.image.dtype)
        for cell, part in self._implausible(plane, core, read, pixels, restored):
            self._failed(plane).add(cell)
            done[part] = kept[part][..., :samples]
        return np.concatenate([done, kept[..., samples:]], axis=2)

    def _implausible(
        self, plane: Plane, core: Box, read: Box, pixels: Pixels, restored: Pixels
    ) -> Iterator[tuple[tuple[int, int], tuple[slice, slice]]]:
        """Give the cells of a core in which the network failed, with their pixels in the core."""
        pitch = self.recipe.pitch
        rows, cols = _touched(core, pitch)
        # Whole cells as far as they were read, so that tiles that share one agree on it.
        whole = Box(rows.start * pitch, cols.start * pitch, rows.stop * pitch, cols.stop * pitch)
        seen = whole.common(read)
        bad = implausible_cells(
            pixels[seen.within(read)],
            restored[seen.within(read)],
            pitch,
            self.runner.model.calibration.guard,
            (seen.top - whole.top, seen.left - whole.left),
        )
        for row, col in np.argwhere(bad):
            cell = (rows[row], cols[col])
            top, left = cell[0] * pitch, cell[1] * pitch
            part = Box(top, left, top + pitch, left + pitch).common(core)
            yield cell, part.within(core)

    def _failed(self, plane: Plane) -> set[tuple[int, int]]:
        """Return the cells of a plane found so far whose restoration was not plausible."""
        with self._memory.lock:
            return self._memory.failed.setdefault(plane, set())

    def _values(self, plane: Plane, box: Box) -> NDArray[Any]:
        """Read a rectangle of a plane: (rows, cols, S), dtype of the image."""
        # In the image's own axes: to turn all of it first would cost as much as it has blocks.
        axes = self.image.axes
        index = dict(zip("TCZ", plane, strict=True)) | dict(zip("YX", box.slices, strict=True))
        lazy = self.image.data[tuple(index.get(letter, slice(None)) for letter in axes)]
        # In this thread: this already runs inside a task, and tasks are what runs in parallel.
        values: NDArray[Any] = np.asarray(lazy.compute(scheduler=get_sync))
        if axes.index("Y") > axes.index("X"):
            values = values.swapaxes(0, 1)
        if not self.image.is_rgb:
            values = values[..., None]
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            y, x, _ = np.argwhere(~np.isfinite(values))[0]
            raise ImageError(
                f"{self.image.source or self.image.name} holds a value that is not finite at row "
                f"{box.top + y}, column {box.left + x} of plane T, C, Z = {plane}; replace such "
                "values first, for example with numpy.nan_to_num."
            )
        return values

    def _weights(
        self,
        plane: Plane,
        read: Box,
        runner: TileRunner,
        gates_of: Callable[[Plane, range, range], Gates],
    ) -> Gates:
        """Return mixing weights for a read: (5,), or (5, rows, cols) on the network's grid."""
        pitch, grid = self.recipe.pitch, self.plan.grid
        if self.routing != "local" and not self._is_painted(plane):
            return runner.mixing(self._whole(plane))
        # One cell more on every side, so that interpolation sees what neighbouring tiles see.
        rows = cells_around(read.top, read.bottom, pitch, self.cells[0])
        cols = cells_around(read.left, read.right, pitch, self.cells[1])
        weights = runner.mixing(gates_of(plane, rows, cols))
        if (weights == weights[:, :1, :1]).all():
            return np.ascontiguousarray(weights[:, 0, 0])
        at = [
            (np.arange(start, stop, grid) + grid / 2) / pitch - cells.start
            for start, stop, cells in (
                (read.top, read.bottom, rows),
                (read.left, read.right, cols),
            )
        ]
        return spread(weights, at[0], at[1])

    # -- gates ------------------------------------------------------------------------------

    def cell_gates(self, plane: Plane, rows: range, cols: range) -> Gates:
        """Return the gates of some cells of a plane, (5, len(rows), len(cols)) float32."""
        gates = self._router_gates(plane, rows, cols)
        painted = self._labels(plane, rows, cols)
        return gates if painted is None else override(gates, painted)

    def _labels(self, plane: Plane, rows: range, cols: range) -> NDArray[np.uint8] | None:
        """Return what a person painted on some cells; None where the plane is bare."""
        if self.painted is None:
            return None
        index = dict(zip("TCZ", plane, strict=True))
        named = tuple(index[letter] for letter in self.image.axes if letter in index)
        return self.painted.labels(named, rows, cols)

    def _router_gates(self, plane: Plane, rows: range, cols: range) -> Gates:
        """Return the same as if nothing were painted."""
        if self.routing != "local":
            return fill(self._whole(plane), len(rows), len(cols))
        radius = self.recipe.smoothing
        r, c = (
            range(max(0, part.start - radius), min(count, part.stop + radius))
            for part, count in zip((rows, cols), self.cells, strict=True)
        )
        gates = agree([self._own_gates(beside, r, c) for beside in self._beside(plane)])
        return smooth(gates, radius)[:, _part(rows, r), _part(cols, c)]

    def _own_gates(self, plane: Plane, rows: range, cols: range) -> Gates:
        """Return the gates of cells from the windows of this plane alone."""
        recipe, plan = self.recipe, self.plan
        down, rows_at = windows_near(rows, plan.height, recipe.pitch, recipe.window)
        across, cols_at = windows_near(cols, plan.width, recipe.pitch, recipe.window)
        decisions = sharpen(self._decisions(plane, down, across), recipe.temperature)
        return spread(decisions, rows_at, cols_at)

    def _decisions(self, plane: Plane, rows: range, cols: range) -> Gates:
        """Return what the router decides on some windows, (5, len(rows), len(cols))."""
        gates = np.empty((len(TASKS), len(rows), len(cols)), np.float32)
        side = max(1, ROUTING_BLOCK // self.recipe.window)
        for block_row in range(rows.start // side, (rows.stop - 1) // side + 1):
            for block_col in range(cols.start // side, (cols.stop - 1) // side + 1):
                block, r, c = self._block(plane, block_row, block_col, side)
                r_both = range(max(r.start, rows.start), min(r.stop, rows.stop))
                c_both = range(max(c.start, cols.start), min(c.stop, cols.stop))
                gates[:, _part(r_both, rows), _part(c_both, cols)] = block[
                    :, _part(r_both, r), _part(c_both, c)
                ]
        return gates

    def _block(self, plane: Plane, row: int, col: int, side: int) -> tuple[Gates, range, range]:
        """Return the decisions on a block of windows, and which they are."""
        recipe, plan = self.recipe, self.plan
        height, tops = windows(plan.height, recipe.window)
        width, lefts = windows(plan.width, recipe.window)
        rows = range(row * side, min((row + 1) * side, len(tops)))
        cols = range(col * side, min((col + 1) * side, len(lefts)))

        def decide() -> Gates:
            y, x = tops[rows.start : rows.stop], lefts[cols.start : cols.stop]
            read = Box(y[0], x[0], y[-1] + height, x[-1] + width)
            return self.runner.route_windows(
                self._network_pixels(plane, read),
                (height, width),
                [top - read.top for top in y],
                [left - read.left for left in x],
            )

        gates: Gates = self._once("block", (plane, row, col), decide)
        return gates, rows, cols

    def _beside(self, plane: Plane) -> list[Plane]:
        """Return the planes that decide together: of the same stack, or else of the same series."""
        length = dict(zip(self.image.axes, self.image.shape, strict=True))
        letter = "Z" if length.get("Z", 1) > 1 else "T"
        at, reach = dict(zip("TCZ", plane, strict=True)), self.recipe.agreement
        near = range(max(0, at[letter] - reach), min(length.get(letter, 1), at[letter] + reach + 1))
        return [(moved["T"], moved["C"], moved["Z"]) for moved in (at | {letter: n} for n in near)]

    def cell_experts(self, plane: Plane, rows: range, cols: range) -> NDArray[np.uint8]:
        """Return the strongest expert of some cells, 1 to 5, or 0 where none works.

        None works on flat background that is passed by, and where what came out was not plausible;
        the latter is known of tiles that were computed in this process.
        """
        experts = expert_map(self.cell_gates(plane, rows, cols))
        if self.recipe.skip_flat:
            experts[self._flat(plane, rows, cols)] = 0
        for row, col in list(self._failed(plane)):
            if row in rows and col in cols:
                experts[row - rows.start, col - cols.start] = 0
        return experts

    def cell_confidence(self, plane: Plane, rows: range, cols: range) -> Gates:
        """Return by how much the strongest expert leads on some cells, (len(rows), len(cols)).

        1 where a person chose, 0 on flat background, where there is nothing to decide.
        """
        found = confidence(self.cell_gates(plane, rows, cols))
        if self.recipe.skip_flat or self.routing not in TASKS:
            found[self._flat(plane, rows, cols)] = 0
        return found

    def _whole(self, plane: Plane) -> Gates:
        """Return the one decision (5,) for a plane."""
        if self.routing in TASKS:
            return one_hot(self.routing)
        decisions = [
            sharpen(self._survey(beside)[1], self.recipe.temperature)[:, None, None]
            for beside in self._beside(plane)
        ]
        return agree(decisions)[:, 0, 0]

    # -- what holds for a plane as a whole ---------------------------------------------------

    def _attention(self, plane: Plane) -> Attention | None:
        """Return the attention that all tiles share; None where a tile pools by itself.

        What is painted does not count, so that painting changes nothing where it is not.
        """
        whole = self.plan.shape == (1, 1) and not self.recipe.skip_flat
        painted = self._is_painted(plane)
        if (whole and not painted) or self.recipe.pooling == "tile":
            return None
        every = self.routing == "local" or painted
        found: Attention = self._once(
            "attention", (plane, every), lambda: self._attend(plane, every)
        )
        return found

    def _survey(self, plane: Plane) -> tuple[Attention, Gates]:
        """Return the encoder's attention and the router's one decision."""
        found: tuple[Attention, Gates] = self._once(
            "survey", plane, lambda: self.runner.survey(self._sampled(plane))
        )
        return found

    def _attend(self, plane: Plane, every: bool) -> Attention:
        runner, samples, local = self.runner, self._sampled(plane), self.routing == "local"
        weights = None
        if local and len(samples) == 1:
            box = self._samples()[0]
            weights = self._weights(plane, box, runner, self._router_gates)
        elif not local:
            weights = runner.mixing(self._whole(plane))
        # Of several samples, each decides for itself, much as routing windows do.
        return runner.attend(samples, weights, each=local, every=every)

    def _sampled(self, plane: Plane) -> list[Pixels]:
        return [self._network_pixels(plane, box) for box in self._samples()]

    def _samples(self) -> list[Box]:
        """Return the places that stand for a plane: all of it, or a few windows of one size."""
        height, width = self.plan.height, self.plan.width
        if height * width <= SURVEYED_WHOLE:
            return [Box(0, 0, height, width)]
        side = SAMPLE
        return [
            Box(top, left, min(top + side, height), min(left + side, width))
            for top in _spread_starts(height, side, self.plan.grid)
            for left in _spread_starts(width, side, self.plan.grid)
        ]

    def _network_pixels(self, plane: Plane, box: Box) -> Pixels:
        return self.scale.normalise(self._values(plane, box)[..., :3])

    def _once(self, kind: str, key: Any, make: Callable[[], Any]) -> Any:
        """Return what was computed under a key, computing it at the first call."""
        memory = self._memory
        with memory.lock:
            kept = memory.kept[kind]
            if key not in kept:
                kept[key] = make()
                while len(kept) > _REMEMBERED[kind]:
                    kept.popitem(last=False)
            kept.move_to_end(key)
            return kept[key]


class _Memory:
    """What the copies of one `PlaneWork` in a process have found out so far.

    Attributes
    ----------
    failed : dict
        Cells whose restoration was not plausible, by plane.
    too_large : float
        Pixels of the smallest read for which the device had too little memory.
    device : str
        Where to go on when the recipe's device is too small.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.scale: IntensityScale | None = None
        self.failed: dict[Plane, set[tuple[int, int]]] = {}
        self.too_large = math.inf
        self.device = ""
        self.kept: dict[str, OrderedDict[Any, Any]] = {kind: OrderedDict() for kind in _REMEMBERED}


@functools.lru_cache(maxsize=16)
def _memory_of(_identity: str) -> _Memory:
    return _Memory()


def make_runner(model: Model, recipe: Recipe, dtype: np.dtype[Any]) -> TileRunner:
    """Return the engine for a recipe on a loaded model, for images of a dtype."""
    return TileRunner(
        model,
        top_k=recipe.top_k,
        preserve=recipe.photometry == "preserve",
        coarse=dtype.itemsize == 1,
    )


def _touched(box: Box, pitch: int) -> tuple[range, range]:
    """Return rows and columns of the cells that a box touches."""
    return (
        range(box.top // pitch, -(-box.bottom // pitch)),
        range(box.left // pitch, -(-box.right // pitch)),
    )


def _pieces(box: Box, side: int, grid: int) -> list[Box]:
    """Cut a box into pieces of a side at most."""
    cuts = TilePlan(*box.shape, side, 0, grid)
    cores = [cuts.tile_at(row, col).core for row, col in np.ndindex(*cuts.shape)]
    return [core.moved(box.top, box.left) for core in cores]


def _halves(box: Box, grid: int) -> list[Box]:
    """Halve the longer side of a box on the grid; nothing if it is short already."""
    height, width = box.shape
    if max(height, width) < 2 * SMALLEST:
        return []
    if height >= width:
        middle = box.top + height // 2 // grid * grid
        return [replace(box, bottom=middle), replace(box, top=middle)]
    middle = box.left + width // 2 // grid * grid
    return [replace(box, right=middle), replace(box, left=middle)]


def _part(inner: range, outer: range) -> slice:
    return slice(inner.start - outer.start, inner.stop - outer.start)


def _spread_starts(size: int, side: int, grid: int) -> list[int]:
    """Return where a few windows begin that are spread evenly over a length."""
    count = min(SAMPLES, -(-size // side))
    room = max(0, size - side)
    return [round(i * room / max(1, count - 1)) // grid * grid for i in range(count)]
