"""Levels of a result for eyes: what is known is shown at once, what is not is read meanwhile.

A viewer asks for pixels in the thread that draws its window. So nothing here reads a file when it
is asked: a thread of its own does, and says when there is more to be seen.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demoe.image.axes import plane_axes
from demoe.io._source import split_index
from demoe.live.order import Where
from demoe.live.pixels import Exact, LivePixels, gather
from demoe.plan.tiling import Box

BLOCK = 512
"""Side, in pixels of a level, of what is read at once."""

MEMORY_BYTES = 256 * 2**20
"""Blocks that are kept take at most so much."""

PATIENCE_SECONDS, REST_SECONDS = 0.01, 0.5
"""What is quick to read, as from memory, is waited for so long; after it was in vain, not again for
a while: a viewer asks several times in a row."""

Key = tuple[int, tuple[int, ...], int, int]
"""Level, plane, and row and column of a block."""


class Glances:
    """Shows the levels of a result; its thread ends with `close`.

    Parameters
    ----------
    pixels : LivePixels
        What is shown.
    more : callable
        Called from another thread when what was shown can be shown better.
    """

    def __init__(self, pixels: LivePixels, more: Callable[[], None] = lambda: None) -> None:
        self.pixels, self.more = pixels, more
        self._known: OrderedDict[Key, NDArray[Any]] = OrderedDict()
        self._kept: dict[Key, NDArray[Any]] = {}  # what viewers hold on to: changed in place
        self._asked: list[Key] = []
        self._late: list[Where] = []  # done while a block is read
        self._ready = threading.Condition()
        self._slow_until = 0.0
        self._closed = False
        self.error = ""
        self._thread = threading.Thread(target=self._read, name="demoe-glance", daemon=True)
        self._thread.start()

    @property
    def levels(self) -> list[Glance]:
        """The levels, the largest first, as a viewer takes them."""
        return [Glance(self, level) for level in range(self.pixels.levels)]

    def tile_done(self, where: Where, tile: NDArray[Any]) -> None:
        """Show a tile that was finished."""
        pixels = self.pixels
        pixels.remember(where, tile)
        with self._ready:
            self._late.append(where)
            for key, block in self._known.items():
                level, plane, _, _ = key
                if plane == where[:-2]:
                    pixels.put(
                        block, level, self._box(key), where, pixels.on_level(level, where, tile)
                    )
        self.more()

    def again(self) -> None:
        """Read anew what is shown, because other tiles are done than was told."""
        with self._ready:
            self._known.clear()
            self._late.extend(self.pixels.done)  # a block that is read now, is read again
            self._asked[:0] = self._kept
            self._ready.notify_all()
        self.more()

    def look(
        self, level: int, plane: tuple[int, ...], box: Box, until: float = 0.0
    ) -> NDArray[Any]:
        """Return a rectangle of a level as far as it is known at a time of the monotonic clock."""
        keys = self._blocks(level, plane, box)
        last = self._blocks(self.pixels.levels - 1, plane, self._whole())
        with self._ready:
            missing = [key for key in keys if key not in self._known]
            if missing:
                rough = [key for key in last if key not in self._known and key not in missing]
                # What is quicker to read first; of what was asked before, nobody looks at the rest.
                few = self._area(missing) < self._area(last)
                self._asked = missing + rough if few else rough + missing
                self._ready.notify_all()
                if time.monotonic() < self._slow_until:
                    until = 0.0
                while missing and (left := until - time.monotonic()) > 0:
                    self._ready.wait(left)
                    missing = [key for key in missing if key not in self._known]
                if missing and until:  # waited for in vain
                    self._slow_until = time.monotonic() + REST_SECONDS
            values = self._roughly(level, plane, box)
            for key in keys:
                if key in self._known:
                    self._known.move_to_end(key)
                    self._paste(values, box, key)
        return values

    def coarsest(self) -> NDArray[Any]:
        """Return the last level of a single plane, in an array that is filled in place.

        A viewer keeps it for good, and would never see what comes later elsewhere.
        """
        level = self.pixels.levels - 1
        (key,) = self._blocks(level, (), self._whole())
        with self._ready:
            if key not in self._kept:
                self._kept[key] = self._known.get(
                    key, np.zeros(self.pixels.shape(level), self.pixels.dtype)
                )
                self._asked.insert(0, key)
                self._ready.notify_all()
            return self._kept[key]

    def close(self) -> None:
        """End the thread."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    def _read(self) -> None:
        while True:
            with self._ready:
                while not self._asked and not self._closed:
                    self._ready.wait()
                if self._closed:
                    return
                key = self._asked.pop(0)
                self._late.clear()
            try:
                self._learn(key)
            except Exception as error:  # told where people look; all else can still be seen
                self.error = str(error)
            self.more()

    def _learn(self, key: Key) -> None:
        level, plane, _, _ = key
        box = self._box(key)
        touched = self.pixels.touched(level, plane, box)
        while True:
            block = self.pixels.read(level, plane, box)
            with self._ready:
                if touched.among(self._late):  # finished while the block was read
                    self._late.clear()
                    continue
                if key in self._kept:
                    self._kept[key][...] = block
                    block = self._kept[key]
                self._known[key] = block
                for kept in self._kept.keys() & self._known.keys():
                    self._known.move_to_end(kept)
                size = sum(block.nbytes for block in self._known.values())
                while size > MEMORY_BYTES and len(self._known) > 1:
                    size -= self._known.popitem(last=False)[1].nbytes
                self._ready.notify_all()
                return

    def _roughly(self, level: int, plane: tuple[int, ...], box: Box) -> NDArray[Any]:
        """Return a rectangle from the coarsest level, black where not even that is known."""
        pixels = self.pixels
        shape = tuple(
            {"Y": box.bottom - box.top, "X": box.right - box.left, "S": length}.get(letter, 1)
            for letter, length in zip(pixels.axes, pixels.shape(), strict=True)
        )
        last = pixels.levels - 1
        step = 2 ** (last - level)
        keys = self._blocks(last, plane, self._whole())
        if level == last or any(key not in self._known for key in keys):
            return np.zeros(shape, pixels.dtype)
        (only,) = (self._known[key] for key in keys)  # it is no larger than a block
        for letter, start, stop in (("Y", box.top, box.bottom), ("X", box.left, box.right)):
            axis = pixels.axes.index(letter)
            at = np.minimum(np.arange(start, stop) // step, only.shape[axis] - 1)
            only = only.take(at, axis=axis)
        return only

    def _area(self, keys: Sequence[Key]) -> int:
        """Count the pixels in full size of which blocks are made."""
        boxes = ((self._box(key), 4 ** key[0]) for key in keys)
        return sum((b.bottom - b.top) * (b.right - b.left) * each for b, each in boxes)

    def _whole(self) -> Box:
        lengths = dict(
            zip(self.pixels.axes, self.pixels.shape(self.pixels.levels - 1), strict=True)
        )
        return Box(0, 0, lengths["Y"], lengths["X"])

    def _paste(self, values: NDArray[Any], box: Box, key: Key) -> None:
        of = self._box(key)
        shared = of.common(box)
        to, part = (
            tuple(
                {"Y": inside[0], "X": inside[1]}.get(letter, slice(None))
                for letter in self.pixels.axes
            )
            for inside in (shared.within(box), shared.within(of))
        )
        values[to] = self._known[key][part]

    def _blocks(self, level: int, plane: tuple[int, ...], box: Box) -> list[Key]:
        """Return the blocks of a rectangle, those in its middle first."""
        rows, cols = (
            range(start // BLOCK, -(-stop // BLOCK))
            for start, stop in ((box.top, box.bottom), (box.left, box.right))
        )
        row, col = (part.start + (len(part) - 1) / 2 for part in (rows, cols))
        places = sorted(
            ((r, c) for r in rows for c in cols),
            key=lambda at: math.hypot(at[0] - row, at[1] - col),
        )
        return [(level, plane, r, c) for r, c in places]

    def _box(self, key: Key) -> Box:
        level, _, row, col = key
        lengths = dict(zip(self.pixels.axes, self.pixels.shape(level), strict=True))
        return Box(
            row * BLOCK,
            col * BLOCK,
            min((row + 1) * BLOCK, lengths["Y"]),
            min((col + 1) * BLOCK, lengths["X"]),
        )


class Glance:
    """A level, or a part of one, as an array that answers at once with what is known.

    Slices and coarse levels never wait; ``np.asarray(level)`` of the first level does, and so does
    `exact`.

    Parameters
    ----------
    glances : Glances
        What it shows.
    level : int
        0 is full size.
    box : tuple of slice, optional
        The part; by default all of it.
    """

    def __init__(self, glances: Glances, level: int, box: tuple[slice, ...] | None = None) -> None:
        self._glances, self._level = glances, level
        self.exact = Exact(glances.pixels, level)
        self._is_part = box is not None
        self._box = box or tuple(slice(0, length) for length in self.exact.shape)
        self.shape = tuple(part.stop - part.start for part in self._box)
        self.dtype, self.ndim, self.size = self.exact.dtype, len(self.shape), math.prod(self.shape)

    def __getitem__(self, key: Any) -> Any:
        """Return what is known of a part; of several planes, a part that is looked at later."""
        box, rest = split_index(key, self.shape)
        box = tuple(
            slice(part.start + whole.start, part.stop + whole.start)
            for part, whole in zip(box, self._box, strict=True)
        )
        planes = (
            part.stop - part.start
            for part, letter in zip(box, self._glances.pixels.axes, strict=True)
            if letter not in "YXS"
        )
        is_cut_out = all(isinstance(one, slice) and one.step == 1 for one in rest)
        if math.prod(planes) > 1 and is_cut_out:
            return Glance(self._glances, self._level, box)
        return self._look(box)[rest]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read all of the first level, however long that takes; else what is known."""
        pixels = self._glances.pixels
        is_plane = not plane_axes(pixels.axes)
        if is_plane and not self._is_part and 0 < self._level == pixels.levels - 1:
            return np.asarray(self._glances.coarsest(), dtype=dtype)
        if self._is_part or self._level:
            return np.asarray(self._look(self._box), dtype=dtype)
        return self.exact.__array__(dtype)

    def _look(self, box: tuple[slice, ...]) -> NDArray[Any]:
        look, level = self._glances.look, self._level
        until = time.monotonic() + PATIENCE_SECONDS
        return gather(self._glances.pixels, box, lambda plane, at: look(level, plane, at, until))
