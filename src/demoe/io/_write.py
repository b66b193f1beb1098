"""One way out for all formats, with the expert map and the provenance beside the image."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from demoe.errors import OutputError
from demoe.image.lazy_image import LazyImage
from demoe.io._blocks import IN_MEMORY, load, store
from demoe.io._levels import Progress, Reader, count_shards, in_memory, make_levels, take
from demoe.io._shards import Shards, create, order_of
from demoe.io._spread import Spread, over_threads
from demoe.io._tiff_writer import check_tiff, count_tiles, tiff_shapes, write_tiff
from demoe.io._zarr_writer import check_zarr, nothing_runs_on, write_zarr, zarr_shapes
from demoe.io.atomic import Placing, check_target, partial_outputs, recover, remove
from demoe.io.lock import OutputLock, hold
from demoe.io.mosaic import Mosaic
from demoe.io.names import PHOTOS, SUFFIXES_OUT, ZARR, places_beside, suffix_of
from demoe.io.photos import check_photo, encode_photo

if TYPE_CHECKING:
    import dask.array as da

    from demoe.choices import Choice


def write_image(
    path: str | os.PathLike[str],
    image: LazyImage,
    *,
    experts: LazyImage | None = None,
    choices: Sequence[Choice] = (),
    gates: LazyImage | da.Array | None = None,
    confidence: LazyImage | None = None,
    painted: LazyImage | None = None,
    consistency: LazyImage | None = None,
    complexity: LazyImage | None = None,
    kernels: LazyImage | None = None,
    provenance: dict[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    lock: OutputLock | None = None,
    when_whole: Callable[[list[Placing]], None] | None = None,
    pixels: Mosaic | None = None,
    spread: Spread = over_threads,
) -> Path:
    """Write an image, computing it block by block; the name appears once the file is whole.

    Memory does not grow with the image: more than 128 MB of pixels are put together on the disk.

    Parameters
    ----------
    path : str or path
        The suffix decides: .tif, .tiff (always OME-TIFF), .png, .jpg, .jpeg (one plane, kept in
        memory), .zarr (OME-Zarr 0.5 with a pyramid).
    image : LazyImage
        The image; dtype, axes, scale, units and channel names are kept where the format can.
    experts : LazyImage, optional
        Expert map, one value a routing cell; its scale is that of a cell. In zarr it becomes
        labels/expert_map, else the sibling NAME.experts.tif.
    choices : sequence of Choice, optional
        What the values 1, 2 ... of the expert map mean. In zarr they become the names and colours
        of its labels; not stored elsewhere.
    gates : LazyImage or dask array, optional
        Expert weights; stored in zarr as demoe/gates, not stored elsewhere.
    confidence : LazyImage, optional
        How sure the choice of experts is, one value a routing cell. In zarr it becomes
        demoe/confidence, else the sibling NAME.confidence.tif.
    painted : LazyImage, optional
        A person's choices, one value a routing cell. In zarr they become demoe/painted, else the
        sibling NAME.painted.tif.
    consistency : LazyImage, optional
        How well the data support the result, one value a routing cell. In zarr it becomes
        demoe/consistency, else the sibling NAME.consistency.tif.
    complexity : LazyImage, optional
        How much the experts at work compute, one value a routing cell. In zarr it becomes
        demoe/complexity, else the sibling NAME.complexity.tif.
    kernels : LazyImage, optional
        The kernels that were found, side by side as a picture. In zarr they become demoe/kernels,
        else the sibling NAME.kernels.tif.
    provenance : dict, optional
        What JSON can hold; the attribute "demoe" in zarr, else the sibling NAME.demoe.json.
    overwrite : bool, default False
        Whether existing outputs may be replaced.
    progress : callable, optional
        ``progress(done, total, message)`` after each group of blocks; may raise to stop.
    lock : OutputLock, optional
        The lock on the output, where the caller holds it; it is taken here if left out.
    when_whole : callable, optional
        Told what is to be renamed, once all of it is safe on the disk.
    pixels : Mosaic, optional
        The pixels, all in their shards on the same disk, where they are there already. Of zarr,
        its folder becomes the output; of other formats, smaller levels are made in it.
    spread : Spread
        Works on several shards at once; by default in threads of this process.

    Returns
    -------
    Path
        The path written.

    Raises
    ------
    OutputError
        If the format is unknown or cannot hold the image, the name is taken, another process
        writes there, or the system refuses to write; nothing is left behind.
    ImageError
        If the source turns out to be damaged; nothing is left behind.
    LostTile
        If some of ``pixels`` are lost or damaged.
    """
    target = Path(path)
    check_form(target, image)
    kind = suffix_of(target)
    # One text for the check and the file, so that nothing unserialisable is met half-way.
    record = None if provenance is None else json.dumps(provenance, indent=2)
    cells = {
        "confidence": confidence,
        "painted": painted,
        "consistency": consistency,
        "complexity": complexity,
        "kernels": kernels,
    }
    parts = {"experts": experts, **cells, "record": record}
    beside = {
        place: content
        for name, place in places_beside(target).items()
        if kind not in ZARR and (content := parts[name]) is not None
    }
    with hold(target) if lock is None else nullcontext(lock) as held:
        if lock is None:
            recover_all(target)

        def whole(placings: list[Placing]) -> None:
            held.check()
            if when_whole is not None:
                when_whole(placings)

        names = [target, *beside]
        made = pixels.root if pixels is not None and kind in ZARR else None
        outputs = partial_outputs(names, overwrite=overwrite, when_whole=whole, made=made)
        with outputs as (partial, *siblings):
            if kind in ZARR:
                work = [_blocks_of(image, pixels), count_shards(image, zarr_shapes(image))]
                told = _in_turn(work, image, progress)
                if pixels is None:
                    _store(partial, image, next(told))
                else:
                    next(told)
                write_zarr(
                    partial,
                    image,
                    experts=experts,
                    choices=choices,
                    gates=gates.data if isinstance(gates, LazyImage) else gates,
                    cells={name: one for name, one in cells.items() if one is not None},
                    provenance=provenance,
                    spread=spread,
                    tell=next(told),
                )
            elif kind in PHOTOS:
                _write_photo(target, partial, image, pixels, progress)
            else:
                _write_tiff(partial, image, pixels, spread, progress)
            for sibling, content in zip(siblings, beside.values(), strict=True):
                if isinstance(content, LazyImage):
                    _write_tiff(sibling, content, None, spread, None)
                else:
                    sibling.write_text(content, encoding="utf-8")
    return target


def check_output(
    path: str | os.PathLike[str],
    image: LazyImage,
    *,
    overwrite: bool = False,
    with_experts: bool = False,
) -> None:
    """Refuse an output that could not be written, before anything is computed.

    Parameters
    ----------
    path : str or path
        Where the image is to go; the suffix decides on the format.
    image : LazyImage
        What is to be written; nothing of it is computed.
    overwrite : bool, default False
        Whether existing outputs may be replaced.
    with_experts : bool, default False
        Whether an expert map and a provenance are to be written too.

    Raises
    ------
    OutputError
        If the format is unknown or cannot hold the image, or a name cannot be written to.
    """
    target = Path(path)
    check_form(target, image)
    for name in names_of_output(target) if with_experts else (target,):
        check_target(name, overwrite=overwrite)


def check_form(target: Path, image: LazyImage) -> None:
    """Refuse a format that is not known, or that cannot hold the image."""
    kind = suffix_of(target)
    if kind not in SUFFIXES_OUT:
        raise OutputError(
            f"{target} has a suffix that cannot be written; use one of {', '.join(SUFFIXES_OUT)}."
        )
    check = check_zarr if kind in ZARR else check_photo if kind in PHOTOS else check_tiff
    check(target, image)


def names_of_output(target: Path) -> list[Path]:
    """List the names that an output may take: the image's, and those of what lies beside it."""
    if suffix_of(target) in ZARR:
        return [target]
    return [target, *places_beside(target).values()]


def recover_all(target: Path) -> None:
    """Mend what a process left that died while it wrote an output; see `recover`."""
    for name in names_of_output(target):
        recover(name)


Tell = Callable[[int, int], None]


def _in_turn(totals: list[int], image: LazyImage, progress: Progress | None) -> Iterator[Tell]:
    """Give, for each part of the work, what to tell its progress to; their progress adds up."""

    def telling(before: int) -> Tell:
        def tell(done: int, _: int) -> None:
            if progress is not None:
                progress(before + done, sum(totals), f"Writing {image.name}")

        return tell

    for number in range(len(totals)):
        yield telling(sum(totals[:number]))


def _blocks_of(image: LazyImage, pixels: Mosaic | None) -> int:
    """Return how many blocks have to be computed."""
    return 0 if pixels is not None else math.prod(image.data.numblocks)


def _store(root: Path, image: LazyImage, tell: Tell) -> None:
    """Compute an image into the array "0" of a folder that does not exist yet."""

    def progress(done: int, total: int, _: str) -> None:
        tell(done, total)

    if math.prod(image.shape) * image.dtype.itemsize > IN_MEMORY:
        with nothing_runs_on():
            store(image, Mosaic(root / "tiles", root, image.axes, image.data.chunks), progress)
        return
    pixels = load(image, progress)
    root.mkdir()
    with nothing_runs_on():
        shards = create(root / "0", order_of(image.axes), pixels.shape, image.dtype)
        over_threads(shards.write, ((at, pixels[shards.box(at)]) for at in shards))


def _write_tiff(
    target: Path,
    image: LazyImage,
    pixels: Mosaic | None,
    spread: Spread,
    progress: Progress | None,
) -> None:
    shapes = tiff_shapes(image)
    levels: list[Reader]
    above = 0 if len(shapes) == 1 else count_shards(image, shapes)
    work = [_blocks_of(image, pixels), above, count_tiles(image)]
    computing, making, writing = _in_turn(work, image, progress)
    if pixels is None and math.prod(image.shape) * image.dtype.itemsize <= IN_MEMORY:
        levels = in_memory(load(image, lambda done, total, _: computing(done, total)), shapes)
        write_tiff(target, image, levels, writing)
        return
    # A number that is removed with the partial file, if this process dies.
    root = target.with_name(f"{target.name}0") if pixels is None else pixels.root
    try:
        if pixels is None:
            _store(root, image, computing)
        for other in root.iterdir():
            if other.name != "0":
                remove(other)
        with nothing_runs_on():
            found = [Shards(root / "0")]
            if above:
                found = make_levels(root, image, shapes, spread, making)
        write_tiff(target, image, [level.read for level in found], writing)
    finally:
        if pixels is None:
            remove(root)


def _write_photo(
    target: Path,
    partial: Path,
    image: LazyImage,
    pixels: Mosaic | None,
    progress: Progress | None,
) -> None:
    if pixels is None:
        reader: Reader = in_memory(load(image, progress), [image.plane_shape])[0]
    else:
        reader = pixels.shards.read
    rows, columns = (slice(0, length) for length in image.plane_shape)
    plane = (0,) * len(image.plane_lengths)
    values = np.ascontiguousarray(take(reader, image, plane, rows, columns))
    if progress is not None:
        progress(1, 1, f"Writing {image.name}")
    encode_photo(target, partial, values if image.is_rgb else values[..., 0])
