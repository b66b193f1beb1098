"""A finished output, taken up again: of a correction, only the tiles that it changes are computed.

Nothing is taken on trust: one of the tiles that are kept is computed, and has to be what the file
holds. So an output of another image, or of a machine that rounds otherwise, is refused.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from demoe.errors import ImageError, RecipeError
from demoe.io import open_image
from demoe.io.names import places_beside
from demoe.io.record import read_record
from demoe.lazy import Deblurred, deblur, failed_cells, note_failed
from demoe.recipe import Recipe
from demoe.routing.correction import wishes
from demoe.routing.painted import paint

Index = tuple[int, ...]
Kept = tuple[Index, NDArray[Any], list[Index]]


@dataclass(frozen=True, eq=False)
class Correction:
    """A finished output and what becomes of it.

    Attributes
    ----------
    path : Path
        The output.
    pixels : dask.array.Array
        What it holds, with the axes of its source.
    before, after : Deblurred
        What was computed for it, and what is to be.
    """

    path: Path
    pixels: da.Array
    before: Deblurred
    after: Deblurred

    def check(self) -> None:
        """Compute a tile that does not change, and compare.

        Raises
        ------
        ImageError
            If it is not what the output holds.
        """
        for index, before, _ in self.kept():
            if np.ptp(before):  # an empty one would say nothing
                if not np.array_equal(before, self.after.image.blocks[index].compute()):
                    raise ImageError(
                        f"{self.path} does not hold what {self.before.source.name} gives here: it "
                        "was made from another image, on another kind of processor, or was changed "
                        "since; run without it."
                    )
                return

    def kept(self, but: Set[Index] = frozenset()) -> Iterator[Kept]:
        """Give the blocks that do not change, but for some, and the cells that failed in them."""
        left_out = but | set(self.after.changed_from(self.before))
        blocks = self.pixels.rechunk(self.after.image.chunks).blocks
        for index in itertools.product(*map(range, self.after.image.numblocks)):
            if index not in left_out:
                yield index, blocks[index].compute(), failed_cells(self.after.work, index)


def correct(
    path: str | os.PathLike[str],
    source: Any,
    axes: str | None,
    recipe: Recipe | None,
    expert_map: Any,
    compute: Callable[[da.Array], Any],
    **fields: Any,
) -> Correction:
    """Take up a finished output for a correction.

    Parameters
    ----------
    path : path-like
        The output, with all that was written with it.
    source, axes
        What it was made from, as for `demoe.deblur`.
    recipe, **fields
        Settings, if given: those that it was made with.
    expert_map : array, LazyImage or path, optional
        As for `demoe.deblur`; by default the map that is stored with the output, which may have
        been painted on. Where it says what the output follows, nothing is corrected; 0 gives a
        cell back to the router.
    compute : callable
        Computes a dask array.

    Raises
    ------
    ImageError
        If there is no such output, or it is none of ours.
    RecipeError
        If it was made from another image or with other settings, weights or software, or nothing
        is to be corrected.
    """
    path = Path(path)
    image, record, places = open_image(path), read_record(path), places_beside(path)
    try:
        made = Recipe.from_json(json.dumps(record["recipe"]))
        was_painted = record["painted"] is not None
        described = _description(record)
    except (KeyError, TypeError, RecipeError):
        raise ImageError(
            f"The record of {path} is damaged or of another version; run without it."
        ) from None
    if (recipe or made).replace(**fields) != made:
        raise RecipeError(
            f"A correction of {path} takes the settings that it was made with; give no others."
        )
    painted = open_image(places["painted"]) if was_painted else None
    before = deblur(source, axes, recipe=made, expert_map=painted)
    for what, now in _description(before.provenance).items():
        if described[what] != now:
            raise RecipeError(
                f"{path} was made with another {what} ({described[what]}, here {now}), so it "
                "cannot be corrected; run without it."
            )
    source = before.source
    if sorted(image.axes) != sorted(source.axes):
        raise ImageError(
            f"{path} has the axes {image.axes}, but the image has {source.axes}; run without it."
        )
    followed = np.asarray(compute(before.expert_map))

    def cells(values: Any) -> NDArray[np.uint8]:
        return paint(source, values, made.pitch, len(before.choices)).cells

    stored = cells(open_image(places["experts"]))
    if isinstance(expert_map, str | os.PathLike):
        expert_map = open_image(expert_map)
    shown = stored if expert_map is None else cells(expert_map)
    wished = np.zeros_like(followed) if before.painted is None else before.painted
    failed = np.argwhere((stored == 0) & (followed != 0))
    note_failed(before.work, map(tuple, failed.tolist()))
    after = before.corrected(wishes(shown, followed, wished))
    if not after.changed_from(before):
        raise RecipeError(
            f"The expert map says what {path} follows already; paint what is to be corrected."
        )
    pixels = image.data.transpose([image.axes.index(letter) for letter in source.axes])
    return Correction(path, pixels, before, after)


def _description(record: dict[str, Any]) -> dict[str, str]:
    """Return, in words, what has to be the same."""
    source, tiles = record["source"], record["tiles"]
    shape = " x ".join(map(str, source["shape"]))
    return {
        "image": f"{source['axes']} {shape} {source['dtype']}",
        "network": record["weights"]["sha256"][:12],
        "version of napari-demoe": record["software"]["napari-demoe"],
        "tiling": f"{tiles['core']} px, halo {tiles['halo']}",
    }
