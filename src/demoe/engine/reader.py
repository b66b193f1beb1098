"""One image and one recipe: its pixels as the network wants them, and what is remembered of it.

Every answer depends on image, recipe and weights alone; what is remembered only saves time.
Objects travel to other processes without what they remember, and share it there.
"""

from __future__ import annotations

import functools
import math
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from dask.local import get_sync
from numpy.typing import NDArray

from demoe.engine.runner import Pixels, TileRunner
from demoe.errors import ImageError
from demoe.image.intensity import IntensityScale, resolve_intensity
from demoe.image.lazy_image import LazyImage
from demoe.model.loading import Model, load_model
from demoe.plan.tiling import Box, TilePlan
from demoe.recipe import Recipe
from demoe.routing.gates import PaintedMap

_REMEMBERED = {"survey": 64, "attention": 64, "block": 4096}  # of at most 50 kB each

Plane = tuple[int, int, int]


class PlaneReader:
    """Reads one image, and knows the engine that its recipe asks for.

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

    def _failed(self, plane: Plane) -> set[tuple[int, int]]:
        """Return the cells of a plane found so far whose restoration was not plausible."""
        with self._memory.lock:
            return self._memory.failed.setdefault(plane, set())


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
