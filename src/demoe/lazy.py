"""LazyImage + Recipe -> Deblurred: dask arrays whose tiles are computed when looked at.

The graphs are symbolic: they cost the same for one tile and for a million. Every block reads what
it needs from the source itself, because overlapping reads through dask would rechunk the source.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from numpy.typing import NDArray

from demoe.choices import Choice
from demoe.engine.cells import CellMaps
from demoe.engine.costs import mean_complexity
from demoe.engine.kernels.solution import Blur
from demoe.engine.provenance import provenance
from demoe.engine.reader import PlaneReader
from demoe.engine.resolve import resolve
from demoe.engine.runner import model_for
from demoe.engine.work import PlaneWork
from demoe.errors import RecipeError
from demoe.image.axes import from_canonical, plane_axes
from demoe.image.lazy_image import LazyImage
from demoe.io import open_image
from demoe.io.psf import read_psf
from demoe.model.loading import Model
from demoe.plan.tiling import Plane, TilePlan
from demoe.plan.windows import STEP, WINDOW, window_at, window_counts
from demoe.recipe import Recipe
from demoe.routing.correction import stale_tiles
from demoe.routing.gates import Gates
from demoe.routing.painted import PaintedMap, paint

KERNEL_PITCH = STEP
"""Pixels from one kernel to the next."""

KERNEL_BLOCK = 4
"""Kernels a side of a block."""


@dataclass(frozen=True, eq=False)
class Deblurred:
    """A lazy result.

    Attributes
    ----------
    source : LazyImage
        The image it was made from.
    image : dask.array.Array
        Restored pixels; shape, axes and dtype of the source, one block a tile.
    expert_map : dask.array.Array
        uint8: the strongest expert of each routing cell, 1 for the first of ``choices``, 0 where
        none works; the source's axes without Y, X and S, then (rows, cols) of cells.
    gates : dask.array.Array
        float32 expert weights, summing to 1: plane axes, then (choices, rows, cols).
    confidence : dask.array.Array
        float32, axes of the expert map: by how much the strongest expert leads, 0 to 1; 1 where a
        person chose, 0 on flat background, where there is nothing to decide.
    layer_map : dask.array.Array or None
        uint8: the strongest expert of each layer, as the expert map: plane axes, then (layers,
        rows, cols). None where all experts cost the same.
    complexity : dask.array.Array or None
        float32, axes of the expert map: how much the experts at work compute, as a share of the
        costliest, in the mean of all layers; 0 where none works. None where all cost the same.
    kernels : dask.array.Array or None
        float32 point spread functions, each summing to 1: plane axes, then (rows, cols, K, K), one
        every `KERNEL_PITCH` pixels; a point where no blur was found. None where nobody looks.
    pitch : (int, int)
        Rows and columns of pixels a cell covers.
    provenance : dict
        How it was made, JSON-able: versions, weights, recipe, tiles, device.
    recipe : Recipe
        The settings as they were given.
    plan : TilePlan
        How each plane is cut.
    work : PlaneWork
        What computes a tile.
    token : str
        Names all that pixels depend on.
    """

    source: LazyImage
    image: da.Array
    expert_map: da.Array
    gates: da.Array
    confidence: da.Array
    layer_map: da.Array | None
    complexity: da.Array | None
    kernels: da.Array | None
    pitch: tuple[int, int]
    provenance: dict[str, Any]
    recipe: Recipe
    plan: TilePlan
    work: PlaneWork = field(repr=False)
    token: str = field(repr=False)

    @property
    def is_untouched(self) -> bool:
        """Whether `image` is what `work` computes, not what a person made of it."""
        return bool(self.image.name == f"deblur-{self.token}")

    @property
    def choices(self) -> tuple[Choice, ...]:
        """What the values 1, 2 ... of the expert map mean: the network's choices."""
        return self.work.choices

    @property
    def painted(self) -> NDArray[np.uint8] | None:
        """What a person chose, 0 for nothing, with the expert map's axes; None without a map."""
        painted = self.work.painted
        return None if painted is None else np.broadcast_to(painted.cells, self.expert_map.shape)

    def blurs(self, plane: tuple[int, ...] = ()) -> list[Blur]:
        """Return what was found of the blur in each window of a plane, row by row.

        Parameters
        ----------
        plane : tuple of int
            Indices along the source's plane axes.
        """
        if self.work.kernels_from == "psf":
            return []  # nothing was looked for
        index = dict(zip(plane_axes(self.source.axes), plane, strict=True))
        return self.work.blurs(plane_of(index))

    def sub_gates(self, plane: tuple[int, ...] = ()) -> Gates | None:
        """Return which experts work within each choice on a plane, in networks of two levels.

        Parameters
        ----------
        plane : tuple of int
            Indices along the source's plane axes.

        Returns
        -------
        ndarray of float32 or None
            (layers, choices, K): the weights of those at work, 0 for others. None for networks
            without a second level, and where tiles pool by themselves.
        """
        index = dict(zip(plane_axes(self.source.axes), plane, strict=True))
        return self.work.sub_gates(plane_of(index))

    def kernel_picture(self) -> LazyImage | None:
        """Return the kernels side by side, as a picture that covers the source.

        Each is scaled to a largest value of 1, so that all can be seen.
        """
        if self.kernels is None:
            return None
        rows, cols, side, _ = self.kernels.shape[-4:]
        tops = self.kernels.max(axis=(-2, -1), keepdims=True)
        turned = (self.kernels / tops).swapaxes(-3, -2)
        picture = turned.reshape(*self.kernels.shape[:-4], rows * side, cols * side)
        found = self.source.of_cells(picture, (1, 1))
        steps = {a: self.source.scale.get(a, 1.0) * KERNEL_PITCH / side for a in "YX"}
        return found.with_data(found.data, scale={**found.scale, **steps})

    @property
    def consistency(self) -> da.Array | None:
        """float32, axes of the expert map: what the result, blurred again, leaves unexplained.

        The root mean square over a cell in units of the noise: about 1 where the data support what
        is seen. It needs the pixels of the result and computes them. None without `kernels`.
        """
        return self.consistency_of(self.image)

    def consistency_of(self, image: da.Array) -> da.Array | None:
        """Return `consistency` of an image that is computed already, of this result's shape."""
        work = self.work
        if work.consistency is None:
            return None
        planes = self.expert_map.chunks[:-2]
        name = f"consistency-{tokenize(self.expert_map.name, image.name)}"
        found: da.Array = da.map_blocks(
            _consistency_block,
            work=work,
            result=_Held(self.source.with_data(image)),
            chunks=(*planes, *_cell_chunks(work)),
            dtype=np.float32,
            meta=np.empty((0,) * self.expert_map.ndim, np.float32),
            name=name,
        )
        return found

    def as_image(self) -> LazyImage:
        """Return the restored pixels with the source's axes, scale, units and names."""
        return self.source.with_data(self.image, name=f"{self.source.name} deblurred")

    def corrected(self, expert_map: Any) -> Deblurred:
        """Describe the result with another expert map of a person; see `deblur`.

        What this result found out already serves the new one, so that only its changed tiles cost
        anything: `changed_from` lists them.
        """
        painted = _paint(self.source, expert_map, self.recipe, self.choices)
        work = self.work.repainted(painted, _stale(self.work, painted))
        return _describe(work, model_for(self.recipe))

    def changed_from(self, earlier: Deblurred) -> list[tuple[int, ...]]:
        """Return the blocks of `image` that may differ from an earlier result of the same run.

        Parameters
        ----------
        earlier : Deblurred
            What `corrected` was called on, or itself gave.

        Raises
        ------
        RecipeError
            If it is a result of another image, or of other settings.
        """
        if self.source is not earlier.source or self.recipe != earlier.recipe:
            raise RecipeError(
                "Only a result and its correction can be compared; get it with corrected()."
            )
        letters = plane_axes(self.source.axes) + "YX"
        stale = np.argwhere(_stale(earlier.work, self.work.painted)).tolist()
        found = (dict(zip(letters, at, strict=True)) for at in stale)
        return [tuple(at.get(letter, 0) for letter in self.source.axes) for at in found]


def deblur(
    image: Any,
    axes: str | None = None,
    *,
    recipe: Recipe | None = None,
    expert_map: Any = None,
    **fields: Any,
) -> Deblurred:
    """Describe the deblurred image; pixels are computed when they are asked for.

    Parameters
    ----------
    image : LazyImage, array or path
        Pixels: a numpy, dask or zarr array of integers or floats with at least rows and columns,
        or a file or folder that `demoe.open_image` reads.
    axes : str, optional
        Letters of TCZYXS for each dimension; the rules without are those of
        `demoe.image.axes.guess_axes`.
    recipe : Recipe, optional
        Settings.
    expert_map : array, LazyImage or path, optional
        Integers painted by a person: 0 lets the router decide, 1 and more force an expert. (rows,
        cols) for all planes or plane axes first; any resolution. A map whose pixels have a size,
        in the image's own units, lies where that puts it; others cover the image.
    **fields
        Fields of `Recipe`, which win over ``recipe``. ``model`` may also be a loaded `Model`,
        ``routing`` an expert map, and ``psf`` text or a path as `demoe.io.psf.read_psf` takes it.

    Raises
    ------
    DemoeError
        If image, axes, settings, weights or device cannot be used.
    """
    source = _as_lazy_image(image, axes)
    if isinstance(fields.get("model"), Model):
        model: Model = fields.pop("model")
        fields |= {"model": str(model.path), "device": str(model.device)}
        if model.instructions:
            fields.setdefault("instructions", model.instructions)
    if isinstance(fields.get("model"), os.PathLike):
        fields["model"] = os.fspath(fields["model"])
    if not isinstance(fields.get("routing", ""), str):
        if expert_map is not None:
            raise RecipeError("Give the expert map either as routing or as expert_map, not both.")
        expert_map = fields.pop("routing")
    if isinstance(fields.get("psf"), str | os.PathLike):
        fields["psf"] = read_psf(os.fspath(fields["psf"]))
    recipe = (recipe or Recipe()).replace(**fields)
    loaded = model_for(recipe)
    painted = None
    if expert_map is not None:
        painted = _paint(source, expert_map, recipe, loaded.choices)
    return _describe(resolve(source, recipe, loaded, painted), loaded)


def _describe(work: PlaneWork, loaded: Model) -> Deblurred:
    """Describe the result of some work as arrays."""
    source, recipe, plan, painted = work.image, work.recipe, work.plan, work.painted
    # The checksum stands for the model, and the device does not change what a tile is.
    token = tokenize(
        source.data.name,
        source.axes,
        asdict(recipe.replace(device="auto", model="default")),
        loaded.sha256,
        None if painted is None else painted.cells,
        (plan.core_shape, plan.halo),
        version("napari-demoe"),
    )
    # In the image's own order of axes from the start: every step after this would cost as many
    # tasks as there are tiles.
    length = dict(zip(source.axes, source.shape, strict=True))
    along = plane_axes(source.axes)
    planes = tuple((1,) * length[letter] for letter in along)
    sides = dict(zip(along, planes, strict=True)) | dict(zip("YX", plan.chunks, strict=True))
    if source.is_rgb:
        sides["S"] = (length["S"],)
    tiles = tuple(sides[letter] for letter in source.axes)
    cells = (*planes, *_cell_chunks(work))
    weights = (*planes, (len(work.choices),), *cells[-2:])
    real, whole = np.dtype(np.float32), np.dtype(np.uint8)
    layer_map = complexity = None
    if loaded.tenant.arithmetic is not None and isinstance(work.maps, CellMaps):
        layers = (*planes, (work.layers,), *cells[-2:])
        layer_map = _blocks(_layers_block, work, f"layers-{token}", layers, whole)
        complexity = da.map_blocks(
            mean_complexity,
            layer_map,
            loaded.tenant.arithmetic,
            drop_axis=len(planes),
            meta=np.empty((0,) * len(cells), real),
        )
    return Deblurred(
        source=source,
        image=_blocks(restore_block, work, f"deblur-{token}", tiles, source.dtype),
        expert_map=_blocks(_experts_block, work, f"experts-{token}", cells, whole),
        gates=_blocks(_gates_block, work, f"gates-{token}", weights, real),
        confidence=_blocks(_confidence_block, work, f"confidence-{token}", cells, real),
        layer_map=layer_map,
        complexity=complexity,
        kernels=_kernels(work, planes, f"kernels-{token}"),
        pitch=(recipe.pitch, recipe.pitch),
        provenance=provenance(work, loaded),
        recipe=recipe,
        plan=plan,
        work=work,
        token=token,
    )


def _kernels(work: PlaneWork, planes: tuple[tuple[int, ...], ...], name: str) -> da.Array | None:
    if work.kernels is None:
        return None
    side = work.kernels.side
    cells = (_chunks(count, KERNEL_BLOCK) for count in window_counts(work.plan))
    chunks = (*planes, *cells, (side,), (side,))
    return _blocks(_kernels_block, work, name, chunks, np.dtype(np.float32))


def _stale(work: PlaneWork, painted: PaintedMap | None) -> NDArray[np.bool_]:
    """Say which tiles another map of a person changes."""
    planes, pitch = work.image.plane_lengths, work.recipe.pitch
    # What is painted has a say in the kernels of all windows that it touches.
    reach = WINDOW if work.kernels_from == "photo" else 0
    return stale_tiles(work.painted, painted, planes, work.plan, pitch, reach)


def _paint(
    source: LazyImage, values: Any, recipe: Recipe, choices: tuple[Choice, ...]
) -> PaintedMap:
    if isinstance(values, str | os.PathLike):
        values = open_image(values)
    return paint(source, values, recipe.pitch, len(choices))


def _as_lazy_image(image: Any, axes: str | None) -> LazyImage:
    if isinstance(image, LazyImage):
        if axes is None:
            return image
        return image.with_data(image.data, axes=axes)
    if isinstance(image, str | os.PathLike):
        return open_image(image, axes)
    if type(image).__module__.startswith("zarr."):  # not imported where nobody uses it
        from demoe.io.zarr import of_array

        if (found := of_array(image, axes)) is not None:
            return found
    return LazyImage.from_array(image, axes)


def _blocks(
    function: Callable[..., Any],
    work: PlaneWork,
    name: str,
    chunks: tuple[tuple[int, ...], ...],
    dtype: np.dtype[Any],
) -> da.Array:
    meta = np.empty((0,) * len(chunks), dtype)
    lazy: da.Array = da.map_blocks(
        function, work=work, chunks=chunks, dtype=dtype, meta=meta, name=name
    )
    return lazy


def restore_block(work: PlaneWork, block_id: tuple[int, ...]) -> Any:
    """Compute a block of `Deblurred.image`, by its index."""
    block = work.tile(*tile_of(work, block_id))
    return from_canonical(block[None, None, None], work.image.axes)


def tile_of(work: PlaneWork, block_id: tuple[int, ...]) -> tuple[Plane, int, int]:
    """Return plane, row and column of the tile that is a block of `Deblurred.image`."""
    index = dict(zip(work.image.axes, block_id, strict=True))
    return plane_of(index), index["Y"], index["X"]


def failed_cells(work: PlaneWork, block_id: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return cells of a restored block in which the network failed, by index in the expert map."""
    index = dict(zip(work.image.axes, block_id, strict=True))
    along = tuple(index[letter] for letter in plane_axes(work.image.axes))
    cells = work.failed_cells(*tile_of(work, block_id))
    return [(*along, *cell) for cell in cells]


def note_failed(work: PlaneWork, cells: Iterable[tuple[int, ...]]) -> None:
    """Remember cells, by index in the expert map, that a run before found to have failed."""
    for *along, row, col in cells:
        plane = plane_of(dict(zip(plane_axes(work.image.axes), along, strict=True)))
        work.maps.note_failed(plane, (row, col))


def _gates_block(work: PlaneWork, block_id: tuple[int, ...]) -> Any:
    *along, _, row, col = block_id
    return _cells_block(work.maps.gates, work, along, row, col)


def _layers_block(work: PlaneWork, block_id: tuple[int, ...]) -> Any:
    *along, _, row, col = block_id
    assert isinstance(work.maps, CellMaps)
    return _cells_block(work.maps.layers, work, along, row, col)


def _experts_block(work: PlaneWork, block_id: tuple[int, ...]) -> Any:
    *along, row, col = block_id
    return _cells_block(work.maps.experts, work, along, row, col)


def _confidence_block(work: PlaneWork, block_id: tuple[int, ...]) -> Any:
    *along, row, col = block_id
    return _cells_block(work.maps.confidence, work, along, row, col)


def _kernels_block(work: PlaneWork, block_id: tuple[int, ...]) -> Any:
    *along, row, col, _, _ = block_id
    plane = plane_of(dict(zip(plane_axes(work.image.axes), along, strict=True)))
    assert work.kernels is not None
    rows, cols = (
        range(at * KERNEL_BLOCK, min((at + 1) * KERNEL_BLOCK, count))
        for at, count in zip((row, col), window_counts(work.plan), strict=True)
    )
    found = np.stack(
        [
            np.stack([work.kernels.values(plane, window_at(work.plan, r, c)) for c in cols])
            for r in rows
        ]
    )
    return found.reshape((1,) * len(along) + found.shape)


class _Held:
    """An image that dask does not see, and so does not compute as a whole."""

    def __init__(self, image: LazyImage) -> None:
        self.image = image


def _consistency_block(work: PlaneWork, result: _Held, block_id: tuple[int, ...]) -> Any:
    *along, row, col = block_id
    plane = plane_of(dict(zip(plane_axes(work.image.axes), along, strict=True)))
    reader = PlaneReader(result.image, work.recipe.intensity, work.memory)
    rows, cols = work.router.block_ranges(row, col)
    assert work.consistency is not None
    block = work.consistency.cells(plane, rows, cols, lambda box: reader.pixels(plane, box))
    return block.reshape((1,) * len(along) + block.shape)


def _chunks(count: int, side: int) -> tuple[int, ...]:
    return tuple(min(side, count - start) for start in range(0, count, side))


def _cells_block(
    function: Callable[..., Any], work: PlaneWork, along: list[int], row: int, col: int
) -> Any:
    plane = plane_of(dict(zip(plane_axes(work.image.axes), along, strict=True)))
    block = function(plane, *work.router.block_ranges(row, col))
    return block.reshape((1,) * len(along) + block.shape)


def plane_of(index: Mapping[str, int]) -> Plane:
    """Return the plane of an index by letters of axes; one that is missing counts as 0."""
    return index.get("T", 0), index.get("C", 0), index.get("Z", 0)


def _cell_chunks(work: PlaneWork) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rows, cols = (_chunks(n, work.router.block_cells) for n in work.router.cells)
    return rows, cols
