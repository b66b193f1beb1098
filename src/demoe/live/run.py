"""A run that is looked at while it goes on: tiles are computed as they are wanted, and kept."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from demoe.engine.kernels.solution import Blur
from demoe.errors import Cancelled
from demoe.execution.store import LostTile
from demoe.execution.tile import compute_tile
from demoe.image.axes import plane_axes
from demoe.lazy import Deblurred, plane_of
from demoe.live.glance import Glances
from demoe.live.keeper import Keeper
from demoe.live.kernels import blank, draw
from demoe.live.order import Scope, TileOrder, Where
from demoe.live.pixels import Exact, LivePixels
from demoe.plan.tiling import Box, touched

PATIENCE_SECONDS = 0.03
"""Who closes waits so long for those who read, or leaves the end to them."""


@dataclass(frozen=True, eq=False)
class Maps:
    """What is known of the routing cells, in arrays that fill up with the tiles.

    Attributes
    ----------
    expert_map : ndarray of uint8
    gates, confidence : ndarray of float32
        As of `demoe.Deblurred`; 0 where no tile is done.
    blurs : dict
        By plane: what was found of the blur in windows whose middle lies in a finished tile.
    kernels : ndarray of uint8, or None
        A picture of the kernels of these windows, see `demoe.live.kernels`; None where nobody looks
        for a blur, or for too large planes.
    """

    expert_map: NDArray[np.uint8]
    gates: NDArray[np.float32]
    confidence: NDArray[np.float32]
    blurs: dict[tuple[int, ...], dict[Box, Blur]]
    kernels: NDArray[np.uint8] | None = None


class LiveRun:
    """Computes the tiles of a result, those that are looked at first.

    `step` is called again and again by one thread; all else may be called from any.

    Parameters
    ----------
    result : Deblurred
        What is computed.
    scope : Scope
        Which tiles are wanted.
    target : Path, optional
        The output for which tiles are kept, as by `demoe.run`, which can go on with them, and the
        other way round. By default they are kept in a temporary folder, and go with this object.
    folder : Path, optional
        Where that temporary folder is made; by default in the system's.
    under : dask.array.Array, optional
        What is shown where no tile is done; by default the source.
    only : collection of Where, optional
        The tiles that may be computed; all others are shown from ``under``.
    pyramid : sequence of dask.array.Array
        Coarser levels of the source.
    known : Maps, optional
        What is known of cells already; it is copied, but for the picture of kernels.
    more : callable
        Called from other threads when more can be shown.

    Raises
    ------
    OutputError
        If tiles cannot be kept there, or another process writes that output.

    Attributes
    ----------
    order : TileOrder
        Says which tile is next; tell it what is looked at.
    done : set of Where
        The tiles that are finished.
    maps : Maps
        What is known of the cells.
    kept : int
        Tiles that an earlier run had finished; `maps` does not know their cells.
    """

    def __init__(
        self,
        result: Deblurred,
        scope: Scope,
        *,
        target: Path | None = None,
        folder: Path | None = None,
        under: da.Array | None = None,
        only: Collection[Where] | None = None,
        pyramid: Sequence[da.Array] = (),
        known: Maps | None = None,
        more: Callable[[], None] = lambda: None,
    ) -> None:
        self.result = result
        plan, axes = result.plan, result.source.axes
        self._along = plane_axes(axes)
        self._stepping, self._losing = threading.Lock(), threading.Lock()
        self._closed, self._users = False, 0
        self._unused = threading.Condition()  # of the files
        self._held = ExitStack()
        self._keeper = Keeper(result, target, folder)
        self._held.callback(self._keeper.close)
        self.done: set[Where] = self._kept()
        self.order = TileOrder(
            result.source.plane_lengths, plan.shape, plan.core_shape, scope, self.done, only
        )
        self.kept = len(self.done)
        self.maps = _unknown(result)
        if known is not None:
            self.maps = replace(copy.deepcopy(known), kernels=self.maps.kernels)
        pixels = LivePixels(
            result.source.data if under is None else under,
            axes,
            plan.core_shape,
            self._tile,
            self.done,
            pyramid if under is None else (),
        )
        self.glances = Glances(pixels, more)
        self._held.callback(self.glances.close)

    @property
    def exact(self) -> Exact:
        """The result in full size as an array, as it is now."""
        return Exact(self.glances.pixels)

    @property
    def is_complete(self) -> bool:
        """Whether all is done that may be done."""
        done, total = self.order.whole
        return done == total

    def step(self) -> bool:
        """Compute the tile that is wanted most; False where none is, or the run is closed.

        Raises
        ------
        Cancelled
            If nobody wants it any more (`demoe.wanted`); the next step begins it anew.
        DemoeError
            If it cannot be computed or kept, or the source changed.
        """
        with self._stepping, self._open() as is_open:
            if is_open and self._keeper.rests and not self.is_complete:
                self._take_up()
            where = self.order.next() if is_open else None
            if where is not None:
                try:
                    self._compute(where)
                except Cancelled:
                    self.order.again()
                    raise
            return where is not None

    def rest(self) -> None:
        """Let other processes go on with tiles that are kept for an output, until the next step.

        What they finish is shown where it was done before, too.
        """
        with self._stepping, self._losing:
            self._keeper.rest()

    def _take_up(self) -> None:
        """Be the only one who goes on with them; others may have done some, or lost all."""
        self._keeper.take_up()
        kept = self._kept()
        if kept != self.done:
            self.kept += len(kept - self.done)
            self.done &= kept
            self.done |= kept
            self.glances.again()
        self.order.again()

    def _kept(self) -> set[Where]:
        return {where_of(self.result, index) for index in self._keeper.done}

    def close(self) -> None:
        """Let go of all files, after the tile in work; tiles that are kept for an output stay."""
        self._closed = True
        with self._unused:
            if not self._stepping.locked():  # then somebody reads a tile, which is quick
                self._unused.wait_for(lambda: not self._users, PATIENCE_SECONDS)
        self._let_go()

    @contextmanager
    def _open(self) -> Iterator[bool]:
        """Keep the files meanwhile, if they are there still: the last who uses them lets go."""
        with self._unused:
            is_open = not self._closed
            self._users += is_open
        try:
            yield is_open
        finally:
            if is_open:
                with self._unused:
                    self._users -= 1
                    self._unused.notify_all()
                self._let_go()

    def _let_go(self) -> None:
        with self._unused:
            held = ExitStack()
            if self._closed and not self._users:
                held = self._held.pop_all()
        held.close()

    def _compute(self, where: Where) -> None:
        index = self._index(where)
        values, failed, reads = compute_tile(self.result.work, index)
        self._keeper.put(index, values, failed, reads)
        self.note(where)
        self.done.add(where)
        self.glances.tile_done(where, values)

    def _tile(self, where: Where) -> NDArray[Any] | None:
        with self._open() as is_open:
            if not is_open:
                return None
            try:
                return self._keeper.read(self._box(where))
            except LostTile:
                self._lose(where)
                return None

    def _lose(self, where: Where) -> None:
        with self._losing:
            if where in self.done:
                if self._keeper.rests:  # others write its files
                    self.done.discard(where)
                else:
                    self._keeper.check()  # where one is lost, others of its file are
                    self.done &= self._kept()
                self.order.again()

    def note(self, where: Where) -> None:
        """Fill in what the core remembers of the cells of a tile, or finds out now."""
        work, pitch = self.result.work, self.result.recipe.pitch
        *along, row, col = where
        core = self.result.plan.tile_at(row, col).core
        rows, cols = touched(core, pitch)
        plane, maps = plane_of(dict(zip(self._along, where, strict=False))), self.maps
        at = tuple(along)
        part = (slice(rows.start, rows.stop), slice(cols.start, cols.stop))
        maps.expert_map[at][part] = work.maps.experts(plane, rows, cols)
        maps.confidence[at][part] = work.maps.confidence(plane, rows, cols)
        maps.gates[at][(slice(None), *part)] = work.maps.gates(plane, rows, cols)
        self.note_blurs(at, core)

    def note_blurs(self, at: tuple[int, ...], part: Box | None = None) -> None:
        """Fill in the blurs of a plane, by its index, or of a part of it, that are known now."""
        work, maps = self.result.work, self.maps
        plane = plane_of(dict(zip(self._along, at, strict=True)))
        found = {blur.window: blur for blur in work.blurs(plane, part)}
        if work.kernels_from != "psf":  # there, nothing was looked for
            maps.blurs.setdefault(at, {}).update(found)
        if maps.kernels is not None and work.kernels is not None:
            draw(maps.kernels[at], work.kernels, plane, found)

    def blurs(self, at: tuple[int, ...]) -> list[Blur]:
        """Return what is known of the blurs of a plane, by its index, row by row."""
        of = self.maps.blurs.get(at, {})
        return [of[window] for window in sorted(of, key=lambda box: (box.top, box.left))]

    def _index(self, where: Where) -> tuple[int, ...]:
        at = dict(zip(self._along + "YX", where, strict=True))
        return tuple(at.get(letter, 0) for letter in self.result.source.axes)

    def _box(self, where: Where) -> tuple[slice, ...]:
        core = self.result.plan.tile_at(*where[-2:]).core
        parts = dict(zip("YX", core.slices, strict=True))
        parts |= {a: slice(n, n + 1) for a, n in zip(self._along, where, strict=False)}
        source = self.result.source
        return tuple(
            parts.get(letter, slice(0, length))
            for letter, length in zip(source.axes, source.shape, strict=True)
        )


def where_of(result: Deblurred, index: tuple[int, ...]) -> Where:
    """Return where a block of a result's image lies."""
    axes = result.source.axes
    at = dict(zip(axes, index, strict=True))
    return tuple(at[letter] for letter in plane_axes(axes) + "YX")


def _unknown(result: Deblurred) -> Maps:
    """Return maps of which nothing is known yet."""
    kernels, planes = result.work.kernels, tuple(result.source.plane_lengths)
    return Maps(
        np.zeros(result.expert_map.shape, np.uint8),
        np.zeros(result.gates.shape, np.float32),
        np.zeros(result.confidence.shape, np.float32),
        {},
        None if kernels is None else blank(kernels, result.plan, planes),
    )
