"""Image, recipe, network and paint -> a settled piece of work; all that is open is decided here."""

from __future__ import annotations

from demoe.choices import names_of, number_of
from demoe.engine.kernels.places import is_photo
from demoe.engine.runner import TileRunner, make_runner
from demoe.engine.work import PlaneWork
from demoe.errors import RecipeError
from demoe.image.lazy_image import LazyImage
from demoe.model.devices import total_memory
from demoe.model.kernels.fusion import REACH
from demoe.model.kernels.psf import make_psf
from demoe.model.loading import Model
from demoe.plan.sizing import choose_tile
from demoe.plan.tiling import TilePlan
from demoe.recipe import DECIDED, Recipe
from demoe.routing.painted import PaintedMap

SMALLEST = 64
"""Least side in pixels of a plane in which a kernel can be found."""

SKIPPING_TILE = 2048
"""Side in pixels of an automatic tile of which only parts are computed."""


def resolve(
    source: LazyImage, recipe: Recipe, model: Model, painted: PaintedMap | None = None
) -> PlaneWork:
    """Settle what is to be done to an image.

    Parameters
    ----------
    source : LazyImage
        The image.
    recipe : Recipe
        How; its model is the one that is given.
    model : Model
        The network.
    painted : PaintedMap, optional
        A person's choices.

    Raises
    ------
    RecipeError
        If the recipe does not fit the network.
    """
    if recipe.knows_psf:
        _check_psf(source, recipe, painted)
    runner = make_runner(model, recipe, source.dtype)
    kernels_from = _kernels_from(source, recipe, model)
    plan = make_plan(source, recipe, runner, REACH if kernels_from == "photo" else 0)
    routing = resolve_routing(recipe, plan, model)
    piece = _automatic_tile(runner, plan.halo, plan.step) if recipe.tile == "auto" else plan.tile
    layers = model.tenant.layers
    return PlaneWork(
        source, recipe, plan, routing, model.choices, layers, piece, kernels_from, painted
    )


def _kernels_from(source: LazyImage, recipe: Recipe, model: Model) -> str:
    """Say where the blur's kernel comes from; see `PlaneWork`."""
    if recipe.knows_psf:
        return "psf"
    if recipe.psf is None or model.tools is None or min(source.plane_shape) < SMALLEST:
        return ""
    if is_photo(source):
        return "photo"
    # Of a measurement, an expert that a person asks for is not overruled.
    return "measurement" if recipe.routing in DECIDED else ""


def _check_psf(source: LazyImage, recipe: Recipe, painted: PaintedMap | None) -> None:
    rows, cols = make_psf(recipe.psf).shape
    height, width = source.plane_shape
    if rows > height or cols > width:
        raise RecipeError(
            f"The PSF has {rows} x {cols} pixels, but a plane of the image only {height} x {width}."
        )
    if painted is not None:
        raise RecipeError("Where the PSF is known, no expert works: give a PSF or an expert map.")


def make_plan(source: LazyImage, recipe: Recipe, runner: TileRunner, reach: int = 0) -> TilePlan:
    """Cut planes by the recipe; what it leaves open follows from network, dtype and device.

    ``reach`` is what is done to the network's picture looks so far around a place.
    """
    height, width = source.plane_shape
    grid = runner.model.multiple
    for name in ("tile", "halo", "pitch", "window"):
        value = getattr(recipe, name)
        if value != "auto" and value % grid:
            raise RecipeError(
                f"{name} must be a multiple of {grid} pixels for this network, not {value}."
            )
    # Tiles of whole cells: what is decided by cells is decided in one tile.
    step = recipe.pitch
    if not isinstance(recipe.tile, str) and recipe.tile % step:
        step = grid

    def side(halo: int) -> int:
        if isinstance(recipe.tile, str):
            return _automatic_tile(runner, halo, step)
        return recipe.tile

    alone = max(height, width) <= side(0)
    if not isinstance(recipe.halo, str):
        halo = recipe.halo
    elif recipe.pooling == "tile" or alone:
        halo = runner.halo + reach
    else:
        halo = runner.halo_for(source.dtype) + reach
    tile = side(0 if alone else halo)
    if recipe.skip_flat and recipe.tile == "auto":  # cut as little as possible of what is restored
        tile = max(tile, SKIPPING_TILE // step * step)
    return TilePlan(height, width, tile, halo, grid, step)


def _automatic_tile(runner: TileRunner, halo: int, step: int) -> int:
    device = runner.model.device
    return choose_tile(device.type, total_memory(device), runner.bytes_per_pixel, halo, step)


def resolve_routing(recipe: Recipe, plan: TilePlan, model: Model) -> str:
    """Return what a recipe's routing means for a plane, checked against a network's choices.

    "auto" is local where the plane is larger than two routing windows. Of a network that does not
    decide, it is the first instruction in words.
    """
    choices, own = model.choices, recipe.instructions
    if not choices:
        raise RecipeError(
            f"The network {model.name} knows no instruction by name; give one in words."
        )
    if recipe.top_k > len(choices):
        raise RecipeError(
            f"top_k is {recipe.top_k}, but the network has only {len(choices)} choices."
        )
    if recipe.routing not in DECIDED:
        number_of(choices, recipe.routing)
    elif not model.tenant.decides and own:
        return own[0]
    elif not model.tenant.decides:
        raise RecipeError(
            f"The network {model.name} does not decide by itself; set routing to one of its "
            f"choices: {', '.join(names_of(choices))}."
        )
    if recipe.routing != "auto":
        return recipe.routing
    return "local" if max(plan.height, plan.width) > 2 * recipe.window else "image"
