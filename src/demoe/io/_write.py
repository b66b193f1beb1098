"""One way out for all formats, with the expert map and the provenance beside the image."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from demoe.errors import OutputError
from demoe.image.lazy_image import LazyImage
from demoe.io._bands import Progress, iter_bands
from demoe.io._tiff_writer import check_tiff, write_tiff
from demoe.io._zarr_writer import check_zarr, write_zarr
from demoe.io.atomic import Placing, check_target, partial_outputs, recover
from demoe.io.lock import OutputLock, hold
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
) -> Path:
    """Write an image, computing it block by block; the name appears once the file is whole.

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
        with partial_outputs(names, overwrite=overwrite, when_whole=whole) as (partial, *siblings):
            if kind in ZARR:
                write_zarr(
                    partial,
                    image,
                    experts=experts,
                    choices=choices,
                    gates=gates.data if isinstance(gates, LazyImage) else gates,
                    cells={name: one for name, one in cells.items() if one is not None},
                    provenance=provenance,
                    progress=progress,
                )
            elif kind in PHOTOS:
                _write_photo(target, partial, image, progress)
            else:
                write_tiff(partial, image, progress)
            for sibling, content in zip(siblings, beside.values(), strict=True):
                if isinstance(content, LazyImage):
                    write_tiff(sibling, content, None)
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


def _write_photo(target: Path, partial: Path, image: LazyImage, progress: Progress | None) -> None:
    rows, _ = image.plane_shape
    pixels = np.concatenate([band.pixels for band in iter_bands(image, rows, progress)])
    encode_photo(target, partial, pixels if image.is_rgb else pixels[..., 0])
