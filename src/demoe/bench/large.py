"""What ``demoe bench --full`` adds: memory of large planes, and the cost of a lazy result."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import MemoryStore, WrapperStore

from demoe.bench.measure import PeakMemory, give_memory_back, memory_in_use
from demoe.bench.peers import bare_work, in_own_process, photo
from demoe.execution.run import run
from demoe.lazy import Deblurred, deblur
from demoe.model.backends.allocator import keep_freed_memory
from demoe.model.checkpoint import write_weights
from demoe.model.loading import Model, load_model
from demoe.plan.tiling import TilePlan
from demoe.recipe import Recipe

CPU = torch.device("cpu")  # what is watched here is the process's own memory, on any device

PLANES = (100e6, 1000e6)
"""Pixels of the planes."""

MOST_SECONDS = 240
"""Longest time that the network itself may take over a plane; else it gets a quarter of it."""

LAZY_SIDE = 1_000_000
"""Side in pixels of the array of which a single tile is computed."""

SOURCE_CHUNK = 1024
"""Side of the chunks of a large plane."""

LAZY_CHUNK = 64
"""Side of the chunks of the lazy array: small, so that counting them counts pixels."""

Gray = NDArray[np.uint8]


def measure_full(
    recipe: Recipe,
    speed: float,
    repeats: int,
    *,
    planes: tuple[float, float] = PLANES,
    lazy_side: int = LAZY_SIDE,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure what needs no quiet machine but time and disk: 4 bytes for each pixel of a plane.

    Parameters
    ----------
    recipe : Recipe
        With the routing of the rows of one expert.
    speed : float
        Megapixels a second of a run with it, to choose what is done in reasonable time.
    repeats : int
        Tiles of the lazy array whose median counts.
    planes : (float, float)
        Pixels of the planes.
    lazy_side : int
        Side of the lazy array in pixels.
    say : callable
        Told what is measured next.

    Returns
    -------
    dict
        ``planes``: a row for each run with ``network``, ``shape``, ``seconds``, ``peak_bytes``
        above the idle process, ``tile`` and ``halo``; None for figures of a process that the
        system ended. ``lazy``: see `measure_lazy`.
    """
    smaller, larger = planes
    model = load_model(recipe.model, recipe.device)
    with tempfile.TemporaryDirectory(prefix="demoe-bench-") as name:
        folder = Path(name)
        tiny = slim_weights(folder / "tiny.safetensors", model)
        own = smaller if smaller / 1e6 / speed <= MOST_SECONDS else smaller / 4
        rows = []
        for network, weights, pixels in (
            (Path(model.name).name, model.path, own),
            ("tiny", tiny, smaller),
            ("tiny", tiny, larger),
        ):
            plan = _plan_of(recipe, int(math.sqrt(pixels)))
            how = recipe.replace(model=str(weights), tile=plan.tile, halo=plan.halo)
            shape = whole_tiles(pixels, plan.tile)
            say(f"memory, {shape[0]} x {shape[1]} pixels, {network} network")
            source = write_plane(folder / "plane.zarr", shape)
            found = in_own_process(_run_plane, source, folder / "out.ome.zarr", how.to_json())
            rows.append(
                {
                    "network": network,
                    "shape": list(shape),
                    "tile": plan.tile,
                    "halo": plan.halo,
                    **(found or {"seconds": None, "peak_bytes": None}),
                }
            )
        say(f"a lazy array of {lazy_side} x {lazy_side} pixels")
        how = recipe.replace(model=str(model.path))
        lazy = in_own_process(measure_lazy, how.to_json(), lazy_side, repeats)
    return {"planes": rows, "lazy": lazy}


def _plan_of(recipe: Recipe, side: int) -> TilePlan:
    nothing = zarr.create_array(MemoryStore(), shape=(side, side), chunks=(256, 256), dtype="uint8")
    return deblur(nothing, "YX", recipe=recipe).plan


def whole_tiles(pixels: float, tile: int) -> tuple[int, int]:
    """Return rows and columns of a plane of at least so many pixels that has no cut tiles."""
    down = math.ceil(math.sqrt(pixels) / tile)
    across = math.ceil(pixels / (down * tile) / tile)
    return down * tile, across * tile


def slim_weights(path: Path, model: Model) -> Path:
    """Write a network that is as deep as another one, but hardly computes anything."""
    network = model.architecture.room.slim(model.network)
    write_weights(path, network.state_dict(), {})
    return path


def write_plane(path: Path, shape: tuple[int, int]) -> Path:
    """Write a gray plane, uint8, chunk by chunk: a photo, shifted from chunk to chunk."""
    texture = photo(SOURCE_CHUNK)[..., 1]
    chunks = tuple(min(SOURCE_CHUNK, side) for side in shape)
    plane = zarr.create_array(path, shape=shape, chunks=chunks, dtype="uint8", overwrite=True)
    for number, (row, col) in enumerate(np.ndindex(*(-(-n // SOURCE_CHUNK) for n in shape))):
        top, left = row * SOURCE_CHUNK, col * SOURCE_CHUNK
        height, width = min(SOURCE_CHUNK, shape[0] - top), min(SOURCE_CHUNK, shape[1] - left)
        shifted = np.roll(texture, (13 * number, 7 * number), (0, 1))
        plane[top : top + height, left : left + width] = shifted[:height, :width]
    return path


def _run_plane(source: Path, output: Path, recipe: str) -> dict[str, Any]:
    """Run zarr to zarr with one worker, in a process of its own."""
    how = Recipe.from_json(recipe)
    _get_ready(how)
    idle = memory_in_use(CPU)
    with PeakMemory(CPU) as peak:
        report = run(source, output, how, axes="YX", workers=1, overwrite=True)
    return {"seconds": report.seconds, "peak_bytes": _above(peak.bytes, idle)}


def _get_ready(recipe: Recipe) -> None:
    """Load what an idle process holds: the network and the libraries' own buffers."""
    model = load_model(recipe.model, recipe.device)
    assert model.tenant.backend_name(False) and model.calibration  # made when first asked for
    torch.mm(*torch.rand(2, 512, 512))
    give_memory_back(CPU)


def _above(peak: int | None, idle: int | None) -> int | None:
    return None if peak is None or idle is None else max(0, peak - idle)


class TextureStore(WrapperStore[MemoryStore]):
    """A zarr store whose chunks are made when they are read, and which counts them.

    Attributes
    ----------
    reads : int
        Chunks that were read.
    """

    def __init__(self, texture: Gray) -> None:
        super().__init__(MemoryStore())
        self.texture = texture
        self.reads = 0

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return metadata as it was written, and for every chunk a part of the texture."""
        kind, *index = key.split("/")
        if kind != "c":
            return await super().get(key, prototype, byte_range)
        self.reads += 1
        top, left = (
            int(i) * LAZY_CHUNK % side for i, side in zip(index, self.texture.shape, strict=True)
        )
        chunk = self.texture[top : top + LAZY_CHUNK, left : left + LAZY_CHUNK]
        return prototype.buffer.from_bytes(chunk.tobytes())


def measure_lazy(recipe: str, side: int, repeats: int) -> dict[str, Any]:
    """Measure a lazy result over a zarr array, and single tiles of it; in a process of its own.

    Parameters
    ----------
    recipe : str
        As JSON.
    side : int
        Side of the array, uint8, in pixels.
    repeats : int
        Tiles after the first one, and runs of the bare network on as many pixels as a tile reads.

    Returns
    -------
    dict
        ``side``; ``tiles`` in all; ``seconds_to_make`` and ``peak_bytes_to_make`` of the result;
        ``tile`` and ``read``: sides of a tile and of what it reads; ``first`` and ``next``:
        ``seconds`` of tiles and ``pixels`` read for each, where the first one surveys the plane;
        ``bare_seconds`` of the network as it is, with the same allocator settings;
        ``times_bare``: seconds of the next tiles by that, medians.
    """
    how = Recipe.from_json(recipe)
    _get_ready(how)
    store = TextureStore(photo(8 * LAZY_CHUNK)[..., 1])
    array = zarr.create_array(
        store, shape=(side, side), chunks=(LAZY_CHUNK,) * 2, dtype="uint8", compressors=None
    )
    idle = memory_in_use(CPU)
    began = time.perf_counter()
    with PeakMemory(CPU) as peak:
        result = deblur(array, "YX", recipe=how)
        made = time.perf_counter() - began
    times, pixels = zip(*_tiles(result, store, repeats), strict=True)
    plan = result.plan
    read = plan.tile_at(*_inner(plan, 0)).read.shape
    model = load_model(how.model, how.device)
    keep_freed_memory()
    bare = bare_work(model.network, photo(max(read))[: read[0], : read[1]], model.device)
    bare_times = [_seconds(bare) for _ in range(repeats)]
    return {
        "side": side,
        "tiles": math.prod(plan.shape),
        "seconds_to_make": made,
        "peak_bytes_to_make": _above(peak.bytes, idle),
        "tile": list(plan.core_shape),
        "read": list(read),
        "first": {"seconds": times[0], "pixels": pixels[0]},
        "next": {"seconds": list(times[1:]), "pixels": max(pixels[1:])},
        "bare_seconds": bare_times,
        "times_bare": statistics.median(times[1:]) / statistics.median(bare_times),
    }


def _tiles(result: Deblurred, store: TextureStore, repeats: int) -> Iterator[tuple[float, int]]:
    """Compute a tile and some more; give the seconds and the pixels read for each."""
    for number in range(repeats + 1):
        before = store.reads
        tile = result.image.blocks[_inner(result.plan, number)]
        seconds = _seconds(lambda tile=tile: tile.compute(scheduler="synchronous"))  # type: ignore[misc]  # mypy infers no type for a default of a lambda
        yield seconds, (store.reads - before) * LAZY_CHUNK**2


def _inner(plan: TilePlan, number: int) -> tuple[int, int]:
    """Return places of tiles somewhere in the middle, far from each other."""
    rows, cols = plan.shape
    return rows // 2, (cols // 2 + number * max(1, cols // 8)) % cols


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
