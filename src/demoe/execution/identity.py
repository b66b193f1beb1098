"""What tiles were computed of, so that they go into no other picture."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from demoe.engine.reader import SCALE, PlaneReader, Read
from demoe.errors import ImageError
from demoe.image.lazy_image import LazyImage
from demoe.lazy import Deblurred

_LEAST_SECONDS = 10.0
_SHARE = 0.01


def describe(result: Deblurred) -> dict[str, Any]:
    """Return all that the pixels of a result depend on, JSON-able."""
    made = result.provenance
    # The checksum stands for the model, and the device does not change what a tile is.
    recipe = {k: v for k, v in asdict(result.recipe).items() if k not in ("model", "device")}
    source = result.source
    described = {
        "recipe": recipe,
        "weights": made["weights"]["sha256"],
        "painted": made["painted"],
        "tiles": [made["tiles"]["core"], made["tiles"]["halo"]],
        "version": made["software"]["napari-demoe"],
        "image": [source.axes, list(source.shape), str(source.dtype)],
        "name": result.image.name,
        "stamp": stamp(source),
        "absent": absent(source),
    }
    found: dict[str, Any] = json.loads(json.dumps(described))
    return found


def digest(described: dict[str, Any]) -> str:
    """Return a short name of a description."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:32]


def stamp(image: LazyImage) -> list[str]:
    """Tell one version of an image's files from the next; nothing for arrays."""
    return [origin.stamp() for origin in image.origins]


def absent(image: LazyImage) -> int:
    """Count the blocks of an image that its files lack."""
    return sum(origin.absent() for origin in image.origins)


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Say what is not the same, but for the source's pixels."""
    said = [
        f"{field} is {value!r} but was {then['recipe'].get(field)!r}"
        for field, value in now["recipe"].items()
        if then["recipe"].get(field) != value
    ]
    words: dict[str, tuple[str, Callable[[Any], str]]] = {
        "image": ("image", lambda image: f"{image[0]} {' x '.join(map(str, image[1]))} {image[2]}"),
        "weights": ("network", lambda sha256: sha256[:12]),
        "painted": ("painted expert map", lambda token: token[:12] if token else "none"),
        "tiles": ("tiling", lambda tiles: f"{tiles[0][0]} x {tiles[0][1]} px, halo {tiles[1]}"),
        "version": ("version of napari-demoe", str),
    }
    for key, (name, text) in words.items():
        if then[key] != now[key]:
            said.append(f"the {name} is {text(now[key])} but was {text(then[key])}")
    return said


def same_files(then: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether the source cannot have changed: same result, and files that nobody touched."""
    return all(then[key] == now[key] for key in ("name", "stamp", "absent"))


def check_content(
    reader: PlaneReader,
    reads: Iterable[Read],
    lacked: int,
    tell: Callable[[], None] = lambda: None,
) -> None:
    """Read again what was read of a source, and compare.

    Parameters
    ----------
    reader : PlaneReader
        Reads the source as it is now.
    reads : iterable of Read
        What was read.
    lacked : int
        How many blocks its files lacked then.
    tell : callable
        Called after each comparison.

    Raises
    ------
    ImageError
        If the source holds something else now.
    """
    source = reader.image
    name = source.source or source.name
    if (now := absent(source)) > lacked:
        raise ImageError(
            f"{name} lacks {now - lacked} blocks that it had when the run began, so tiles of it "
            "would not fit together; put them back, or start over with overwrite."
        )
    for read in reads:
        if not reader.still_gives(read):
            where = f"at row {read.box.top}, column {read.box.left} of plane {read.plane}"
            if read.box == SCALE:
                where = "in the sample that decides on its intensities"
            raise ImageError(
                f"{name} holds other pixels now than when tiles of it were computed ({where}), so "
                "they would not fit together; put it back, or start over with overwrite."
            )
        tell()


class SourceWatch:
    """Finds out while a run goes on that its source changes.

    Parameters
    ----------
    reader : PlaneReader
        Reads the source.
    reads : iterable of Read
        What was read of it so far, whenever it is asked.
    described : dict
        As `describe` gave it before anything was read.
    """

    def __init__(
        self, reader: PlaneReader, reads: Iterable[Read], described: dict[str, Any]
    ) -> None:
        self._reader, self._reads = reader, reads
        self._stamp, self._absent = described["stamp"], described["absent"]
        self._next = time.monotonic() + _LEAST_SECONDS

    def check(self) -> None:
        """Compare the files with what they were, and their content if they were touched.

        Raises
        ------
        ImageError
            If the source changed.
        """
        began = time.monotonic()
        if (now := stamp(self._reader.image)) != self._stamp:
            check_content(self._reader, self._reads, self._absent)
            self._stamp = now  # touched, but not changed
        took = time.monotonic() - began
        self._next = began + took + max(_LEAST_SECONDS, took / _SHARE)

    def check_at_times(self) -> None:
        """Check every now and then, so that it costs next to nothing."""
        if time.monotonic() > self._next:
            self.check()
