"""What a run would take, said before it begins. No Qt, and no pixel is read.

The network, its device and what earlier runs took are asked for in the background; what is in view
is counted here, by arithmetic alone.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from demoe.amounts import amount
from demoe.errors import DemoeError
from napari_demoe._choices import Choices
from napari_demoe._layers import to_lazy
from napari_demoe._words import duration, finest, tiles

if TYPE_CHECKING:
    from napari.layers import Image

    from demoe.execution.prospect import Estimate
    from demoe.live.order import View
    from demoe.plan.tiling import TilePlan

PATIENCE = 0.4
"""Seconds without another change after which the question is asked."""

Ask = Callable[[Callable[[], Any], Callable[[Any], None]], None]
"""Calls a function in the background, and another one with what it returned on the main thread."""


@dataclass(frozen=True)
class Forecast:
    """What was found out in the background.

    Attributes
    ----------
    estimate : Estimate
        What the run would take.
    devices : tuple of (str, str)
        Name and label of each device of this machine.
    why : str
        Why the processor computes, if nobody asked for it; else empty.
    folder : Path
        Where tiles would be kept.
    free : int
        Bytes that are free there.
    """

    estimate: Estimate
    devices: tuple[tuple[str, str], ...]
    why: str
    folder: Path
    free: int


class Outlook:
    """What is known of the run that would be next.

    Parameters
    ----------
    ask : callable
        See `Ask`.
    changed : callable
        Called when there is something else to say.

    Attributes
    ----------
    forecast : Forecast or None
        The last answer; None before it, and where a run cannot be made of what is chosen.
    """

    def __init__(self, ask: Ask, changed: Callable[[], None]) -> None:
        self.forecast: Forecast | None = None
        self._ask, self._changed = ask, changed
        self._due: float | None = None
        self._number = 0
        self._closed = False

    def stale(self) -> None:
        """Say that something else is chosen, so that the last answer is none any more."""
        self._due = time.monotonic() + PATIENCE
        self._number += 1

    def tick(self, layer: Image | None, choices: Choices, folder: str, output: str) -> None:
        """Ask, if it is time to; called now and then on the main thread."""
        if self._due is None or time.monotonic() < self._due or self._closed:
            return
        self._due, number = None, self._number
        if layer is None:
            self._answered(None, number)
            return
        pixels = finest(layer)
        shape, dtype = tuple(pixels.shape), np.dtype(pixels.dtype)
        meta = {**layer.as_layer_data_tuple()[1], "multiscale": False}
        chosen = copy.copy(choices)
        self._ask(
            lambda: look_ahead(
                *(shape, dtype, meta, chosen, folder, output),
                lambda: number == self._number and not self._closed,
            ),
            lambda found: self._answered(found, number),
        )

    def close(self) -> None:
        """Listen to no answer any more."""
        self._closed = True

    def _answered(self, found: Forecast | None, number: int) -> None:
        if number == self._number and not self._closed:
            self.forecast = found
            self._changed()

    def words(self, scope: str, wanted: Iterable[View]) -> str:
        """Say what the run takes: what is wanted first, and everything.

        Parameters
        ----------
        scope : str
            One of `napari_demoe._choices.SCOPES`.
        wanted : iterable of View
            What is in view, or what shapes frame.
        """
        if self.forecast is None:
            return ""
        found = self.forecast.estimate
        part = tiles_in(found.plan, wanted)
        about = "About" if found.is_measured else "Roughly"
        whole = f"{tiles(found.tiles)}, {amount(found.memory)} of memory"
        everything = duration(found.tiles * found.seconds)
        if part >= found.tiles:
            return f"{about} {everything}: {whole}."
        first = "what the shapes frame" if scope == "region" else "the view"
        took = duration(part * found.seconds)
        return f"{about} {took} for {first}, {everything} for everything: {whole}."

    def shortage(self, scope: str, wanted: Iterable[View]) -> str:
        """Say that tiles will not fit where they are kept; empty where they will."""
        if self.forecast is None or scope == "view":
            return ""
        found = self.forecast.estimate
        needed = found.disk
        if scope == "region":
            needed = min(needed, tiles_in(found.plan, wanted) * found.tile_bytes)
        if needed <= self.forecast.free:
            return ""
        return (
            f"{self.forecast.folder} has {amount(self.forecast.free)} free, but tiles may take up "
            f"to {amount(needed)}. Choose another folder for them."
        )


def look_ahead(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    meta: Mapping[str, Any],
    choices: Choices,
    folder: str,
    output: str,
    is_wanted: Callable[[], bool] = lambda: True,
) -> Forecast | None:
    """Find out what a run takes; None if what is chosen makes none. Not for the main thread.

    Parameters
    ----------
    shape, dtype
        Of the layer's pixels, which are not looked at.
    meta : mapping
        The layer's attributes.
    choices : Choices
        How it would be deblurred.
    folder : str
        Where tiles would be kept; empty: in the system's temporary folder.
    output : str
        The output that they would be kept beside; empty: none.
    is_wanted : callable
        Whether anybody still wants to know.
    """
    import dask.array as da

    from demoe.execution.prospect import prospect_of

    image = da.zeros(shape, dtype=dtype, chunks=shape)  # says what the image is like, no more
    try:
        found = prospect_of(to_lazy(image, meta), choices.recipe(), is_wanted)
    except DemoeError:  # said when it is run
        return None
    if found is None:
        return None
    place = Path(output).absolute().parent if output else Path(folder or tempfile.gettempdir())
    try:
        free = shutil.disk_usage(place).free
    except OSError:  # said when it is run
        free = found.estimate.disk
    return Forecast(found.estimate, found.devices, found.why, place, free)


def tiles_in(plan: TilePlan, wanted: Iterable[View]) -> int:
    """Return how many tiles are touched by views, of which no two overlap."""
    count = 0
    for view in wanted:
        spans = ((view.box.top, view.box.bottom), (view.box.left, view.box.right))
        across = 1
        for (start, stop), side, most in zip(spans, plan.core_shape, plan.shape, strict=True):
            across *= max(0, min(most, -(-stop // side)) - max(0, start // side))
        count += across
    return count
