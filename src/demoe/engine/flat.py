"""Where there is nothing to restore: cells of a plane that hold flat background and white noise.

Restoring such a cell changes nothing but its noise, so a run may pass it through. A cell is flat if
it and its surroundings look like one grey level plus noise that is independent from pixel to pixel.
Such noise is equally strong at every scale. Blurred structures are stronger at coarse scales,
textures are seldom equal everywhere, and noise that was smoothed or shaped (demosaicing, JPEG,
halftones) counts as structure too, since nothing can be said about what it hides.

Everything is local: the answer for a cell depends on the pixels within `MARGIN` of it, to the last
bit, whatever else was read and whichever tile asks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demoe.plan.tiling import Box

MARGIN = 48
"""Pixels around a cell that its answer depends on."""

_BLOCK = 16  # side of the blocks in which squares are summed, and of the grid that cells lie on
_RING = 2  # blocks around a cell in which noise is measured and the level must not drift
_FEWEST = 16  # blocks that a measurement of noise needs

# Sides of the boxes whose means are compared with the means beside them, and the blocks around a
# cell in which their centres lie: fewer for large boxes, which look further out by themselves.
_BOXES = {2: 1, 4: 1, 8: 1, 16: 0, 32: 0}

# How far chance goes. Powers differ by _SLACK, for noise that is not quite white, and by so many
# standard deviations of an estimate (2: Haar coefficients too); a single difference of box means is
# at most _PEAK of its standard deviations. Small boxes are the most, and few photons skew them; the
# means of large ones overlap. With these about one cell of noise in a thousand is not flat.
_SLACK = 0.05
_SPREAD = {2: 5.0, 4: 3.0, 8: 2.4, 16: 2.4, 32: 2.6}
_PEAK = {2: 7.5, 4: 6.2, 8: 5.6, 16: 5.4, 32: 5.2}
_DRIFT = 1.0  # largest range of the level, in standard deviations of a pixel's noise

Plane = NDArray[np.float32]
Flags = NDArray[np.bool_]


def flat_read(rows: range, cols: range, pitch: int, size: tuple[int, int]) -> Box:
    """Return what `flat_cells` has to see for some cells.

    Parameters
    ----------
    rows, cols : range
        Indices of cells, step 1, not empty.
    pitch : int
        Pixels a side of a cell, a multiple of 16.
    size : (int, int)
        Rows and columns of the plane in pixels.

    Returns
    -------
    Box
        The cells' pixels and `MARGIN` around them, cut at the borders of the plane.

    Raises
    ------
    ValueError
        If the pitch is off the grid or the cells are not those of the plane.
    """
    if pitch < 1 or pitch % _BLOCK:
        raise ValueError(f"the pitch must be a multiple of {_BLOCK}, not {pitch}")
    for cells, length in zip((rows, cols), size, strict=True):
        if cells.step != 1 or not 0 <= cells.start < cells.stop <= -(-length // pitch):
            raise ValueError(f"{cells} are no cells of {pitch} in a length of {length} pixels")
    return _pixels(Box(rows.start, cols.start, rows.stop, cols.stop), pitch).grown(MARGIN, *size)


def flat_cells(
    values: Plane,
    read: Box,
    rows: range,
    cols: range,
    *,
    pitch: int,
    size: tuple[int, int],
    step: float,
    noise_limit: float = math.inf,
) -> Flags:
    """Say which cells hold nothing but flat background under their own noise.

    Parameters
    ----------
    values : ndarray of float32
        Pixels (H, W, S) of ``read``, in the network's scale and finite. A cell is flat if it is
        so in every sample; leave an alpha channel out.
    read : Box
        Where in the plane ``values`` lie; holds at least ``flat_read(rows, cols, pitch, size)``.
    rows, cols : range
        Indices of the cells asked for, step 1.
    pitch : int
        Pixels a side of a cell, a multiple of 16.
    size : (int, int)
        Rows and columns of the plane in pixels.
    step : float
        One grey level in the scale of ``values``; 0 for floats. What varies by no more is flat.
    noise_limit : float
        Standard deviation, in the scale of ``values``, above which noise makes a cell not flat: a
        network that takes noise away has something to do there.

    Returns
    -------
    ndarray of bool
        (len(rows), len(cols)).

    Raises
    ------
    ValueError
        If ``values`` are not the pixels of ``read``, ``read`` is too small, the pitch is off the
        grid, the cells are not those of the plane, or ``step`` is negative.

    Notes
    -----
    The noise is the power of diagonal Haar coefficients. It is compared with the other Haar
    coefficients and with second differences between the means of boxes of 2 to 32 pixels a side,
    whose power under white noise is known. Second differences do not see a level that drifts
    evenly; the range of the level is limited to one standard deviation of the noise.
    """
    wanted = flat_read(rows, cols, pitch, size)
    if values.ndim != 3 or values.shape[:2] != read.shape or not values.shape[2]:
        raise ValueError(f"values of shape {values.shape} are not the pixels (H, W, S) of {read}")
    if (
        read.top > wanted.top
        or read.left > wanted.left
        or read.bottom < wanted.bottom
        or read.right < wanted.right
    ):
        raise ValueError(f"{read} is too small: these cells need {wanted}")
    if not step >= 0:
        raise ValueError(f"a grey level must be 0 or more, not {step}")
    part = values[wanted.within(read)]
    cells = _Cells(
        (len(rows), len(cols)),
        (
            (rows.start * pitch - wanted.top) // _BLOCK,
            (cols.start * pitch - wanted.left) // _BLOCK,
        ),
        pitch // _BLOCK,
    )
    flat = np.ones((len(rows), len(cols)), bool)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is not flat
        for sample in range(part.shape[2]):
            plane = np.ascontiguousarray(part[..., sample], np.float32)
            flat &= _flat_in(plane, cells, step, noise_limit)
    return flat


def _flat_in(plane: Plane, cells: _Cells, step: float, noise_limit: float) -> Flags:
    """Answer for one sample."""
    # Rounding to float32 must not make two grey levels of one.
    flat: Flags = cells.span(plane, 1) <= 1.5 * step
    mean, across, down, diagonal = _haar(plane)
    variance, count = cells.mean_square(diagonal)
    white = (variance > 0) & (variance <= noise_limit**2)
    white &= count >= _FEWEST * (_BLOCK // 2) ** 2
    for other in (across, down):
        white &= _alike(cells.mean_square(other)[0], variance, count, _SPREAD[2])
    for side, ring in _BOXES.items():
        # Boxes overlap by half, except for the smallest.
        boxes, stride = (mean, 2) if side == 2 else (_mean_of_four(mean, 1), side // 2)
        power, count, peak = cells.second_differences(boxes, side, stride, ring)
        # The mean of n pixels has the variance of one / n; a second difference, 1.5 times that.
        expected = 1.5 * variance / side**2
        apart = count * (stride / side) ** 2
        white &= (count == 0) | _alike(power, expected, apart, _SPREAD[side])
        white &= peak <= _PEAK[side] ** 2 * expected
        mean = mean if side == 2 else _mean_of_four(mean, 2)
        if side == _BLOCK:
            white &= cells.span(mean, side) <= _DRIFT * np.sqrt(variance)
    return flat | white


def _alike(
    power: NDArray[np.float64],
    expected: NDArray[np.float64],
    count: NDArray[np.float64],
    deviations: float,
) -> Flags:
    """Say where a power from so many values differs from the expected one by chance at most."""
    # The variance of a mean of n squares is 2 / n; as much again is for what is expected.
    spread = _SLACK + deviations * np.sqrt(4 / np.maximum(count, 1))
    return np.asarray(np.abs(power - expected) <= spread * expected, bool)


def _haar(plane: Plane) -> tuple[Plane, Plane, Plane, Plane]:
    """Return mean and Haar coefficients (across, down, diagonal) of each 2 x 2 pixels.

    Coefficients have the variance of a pixel under white noise. An odd row or column is left out.
    """
    height, width = (length // 2 * 2 for length in plane.shape)
    upper, lower = plane[0:height:2, :width], plane[1:height:2, :width]
    both, change = upper + lower, upper - lower
    left, right = both[:, 0::2], both[:, 1::2]
    change_left, change_right = change[:, 0::2], change[:, 1::2]
    half = np.float32(0.5)
    return (
        (left + right) * half * half,
        (left - right) * half,
        (change_left + change_right) * half,
        (change_left - change_right) * half,
    )


def _mean_of_four(boxes: Plane, stride: int) -> Plane:
    """Return the mean of each 2 x 2 neighbours, at every place or at every other one."""
    height, width = (length // 2 * 2 if stride == 2 else length for length in boxes.shape)
    boxes = boxes[:height, :width]
    pairs = boxes[:-1:stride] + boxes[1::stride]
    return (pairs[:, :-1:stride] + pairs[:, 1::stride]) * np.float32(0.25)


@dataclass(frozen=True)
class _Cells:
    """Cells and the blocks around them, for sums and maxima over each cell's window.

    Numbers are added pair by pair, in an order that does not depend on where a read begins, so that
    sums agree to the last bit.

    Attributes
    ----------
    shape : (int, int)
        Number of cells.
    first : (int, int)
        Place of the first cell in the read, in blocks.
    step : int
        Blocks a side of a cell.
    """

    shape: tuple[int, int]
    first: tuple[int, int]
    step: int

    def span(self, values: Plane, stride: int) -> NDArray[np.float64]:
        """Return the difference between the largest and the smallest value around each cell."""
        largest = self._gather(values, stride, (0, 0), _RING, np.maximum, -np.inf)
        return largest + self._gather(-values, stride, (0, 0), _RING, np.maximum, -np.inf)

    def mean_square(self, haar: Plane) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return power and number of Haar coefficients around each cell."""
        count = self._gather(np.ones_like(haar), 2, (0, 0), _RING, np.add, 0)
        total = self._gather(haar * haar, 2, (0, 0), _RING, np.add, 0)
        return total / np.maximum(count, 1), count

    def second_differences(
        self, boxes: Plane, side: int, stride: int, ring: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Compare box means, ``stride`` pixels apart, with those right beside them, both ways.

        Returns
        -------
        power, count, peak : ndarray
            Mean square, number (the mean of both ways) and largest square for each cell.
        """
        total, count, peak = (np.zeros(self.shape) for _ in range(3))
        beside = side // stride
        for axis in (0, 1):
            lines = boxes.swapaxes(0, axis)
            if len(lines) <= 2 * beside:
                continue
            sides = lines[: -2 * beside] + lines[2 * beside :]
            difference = lines[beside:-beside] - sides * np.float32(0.5)
            square = (difference * difference).swapaxes(0, axis)
            # A box counts where its centre lies.
            centre = side // 2 // stride
            place = (centre + beside, centre) if axis == 0 else (centre, centre + beside)
            total += self._gather(square, stride, place, ring, np.add, 0)
            count += self._gather(np.ones_like(square), stride, place, ring, np.add, 0)
            peak = np.maximum(peak, self._gather(square, stride, place, ring, np.maximum, 0))
        return total / np.maximum(count, 1), count / 2, peak

    def _gather(
        self,
        values: Plane,
        stride: int,
        place: tuple[int, int],
        ring: int,
        combine: np.ufunc,
        empty: float,
    ) -> NDArray[np.float64]:
        """Combine numbers ``stride`` pixels apart over each cell and a ring of blocks.

        ``place`` is where the first of them lies on the lattice through the read's first pixel.
        """
        each = _BLOCK // stride  # numbers a block
        width = self.step + 2 * ring
        result = values
        for axis in (0, 1):
            # Whole blocks from the start of the first window to the end of the last.
            blocks = (self.shape[axis] - 1) * self.step + width
            lead = place[axis] - (self.first[axis] - ring) * each
            lines = result.swapaxes(0, axis)[max(0, -lead) : max(0, blocks * each - lead)]
            framed = np.full((blocks * each, lines.shape[1]), empty, np.float32)
            framed[max(0, lead) : max(0, lead) + len(lines)] = lines
            while len(framed) > blocks:
                framed = combine(framed[0::2], framed[1::2])
            last = blocks - width + 1
            gathered = framed[: last : self.step]
            for block in range(1, width):
                gathered = combine(gathered, framed[block : block + last : self.step])
            result = gathered.swapaxes(0, axis)
        return np.asarray(result, np.float64)


def active_boxes(flat: Flags, pitch: int, margin: int) -> list[Box]:
    """Cover the cells that are not flat by boxes that are cheap to restore.

    Parameters
    ----------
    flat : ndarray of bool
        (rows, cols), True where there is nothing to do.
    pitch : int
        Pixels a side of a cell.
    margin : int
        Pixels that are read around each box; they are why a few boxes beat many.

    Returns
    -------
    list of Box
        In cells, from the top left; disjoint, inside the array, and holding every cell that is not
        flat. The same cells give the same boxes.

    Raises
    ------
    ValueError
        If ``flat`` has not two axes, the pitch is below 1 or the margin is negative.
    """
    if flat.ndim != 2:
        raise ValueError(f"cells have rows and columns, not the shape {flat.shape}")
    if pitch < 1 or margin < 0:
        raise ValueError(f"a pitch of {pitch} and a margin of {margin} pixels are impossible")
    return _cover(~flat.astype(bool), 0, 0, pitch, margin)[1]


def active_parts(
    flat: Flags, rows: range, cols: range, pitch: int, core: Box, margin: int
) -> list[Box]:
    """Cover what is not flat in the core of a tile.

    Parameters
    ----------
    flat : ndarray of bool
        (len(rows), len(cols)), True where there is nothing to do.
    rows, cols : range
        The cells, at least all that touch the core.
    pitch : int
        Pixels a side of a cell.
    core : Box
        Pixels of the plane that are wanted; edges off the cells' grid are allowed.
    margin : int
        Pixels that are read around each box.

    Returns
    -------
    list of Box
        In pixels of the plane, disjoint and inside the core; the rest of it is flat.

    Raises
    ------
    ValueError
        As `active_boxes`, or if ``flat`` has another shape than the cells or misses some.
    """
    if flat.shape != (len(rows), len(cols)):
        raise ValueError(f"{len(rows)} x {len(cols)} cells, but flags of shape {flat.shape}")
    if pitch < 1:
        raise ValueError(f"a pitch of {pitch} pixels is impossible")
    held = _pixels(Box(rows.start, cols.start, rows.stop, cols.stop), pitch)
    if held.common(core) != core:
        raise ValueError(f"the cells cover {held}, which does not hold {core}")
    # Cells that only others need are nothing to cover here.
    top, left = core.top // pitch, core.left // pitch
    bottom, right = -(-core.bottom // pitch), -(-core.right // pitch)
    inner = flat[top - rows.start : bottom - rows.start, left - cols.start : right - cols.start]
    return [
        _pixels(box.moved(top, left), pitch).common(core)
        for box in active_boxes(inner, pitch, margin)
    ]


def _pixels(cells: Box, pitch: int) -> Box:
    return Box(cells.top * pitch, cells.left * pitch, cells.bottom * pitch, cells.right * pitch)


def _cover(active: Flags, top: int, left: int, pitch: int, margin: int) -> tuple[int, list[Box]]:
    """Return cost and boxes for cells of which the first lies at a place."""
    rows, cols = np.flatnonzero(active.any(axis=1)), np.flatnonzero(active.any(axis=0))
    if not len(rows):
        return 0, []
    active = active[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    top, left = top + int(rows[0]), left + int(cols[0])
    height, width = active.shape
    box = Box(top, left, top + height, left + width)
    cost = (height * pitch + 2 * margin) * (width * pitch + 2 * margin)
    # Two boxes or more around so many cells cost at least this, however they lie.
    side = pitch * math.isqrt(int(active.sum()))
    if cost <= side**2 + 4 * margin * side + 8 * margin**2:
        return cost, [box]
    down, across = _cuts(active, pitch, margin), _cuts(active.T, pitch, margin)
    # The best cut is tried even where it does not pay by itself: those that follow may.
    if min(down, default=math.inf) <= min(across, default=math.inf):
        at = down.index(min(down)) + 1
        first = _cover(active[:at], top, left, pitch, margin)
        second = _cover(active[at:], top + at, left, pitch, margin)
    else:
        at = across.index(min(across)) + 1
        first = _cover(active[:, :at], top, left, pitch, margin)
        second = _cover(active[:, at:], top, left + at, pitch, margin)
    if first[0] + second[0] < cost:
        return first[0] + second[0], first[1] + second[1]
    return cost, [box]


def _cuts(active: Flags, pitch: int, margin: int) -> list[int]:
    """Return what both sides of every cut between two rows cost, each as one box."""
    before = _costs_of_beginnings(active, pitch, margin)
    after = _costs_of_beginnings(active[::-1], pitch, margin)[::-1]
    return [int(cost) for cost in before + after]


def _costs_of_beginnings(active: Flags, pitch: int, margin: int) -> NDArray[np.int64]:
    """Return what the first row costs, the first two, ..., and all but the last, as one box."""
    hit = active.any(axis=1)
    width = active.shape[1]
    left = np.minimum.accumulate(np.where(hit, active.argmax(axis=1), width))
    right = np.maximum.accumulate(np.where(hit, width - active[:, ::-1].argmax(axis=1), 0))
    height = np.maximum.accumulate(np.where(hit, np.arange(1, len(active) + 1), 0))
    cost = (height * pitch + 2 * margin) * ((right - left) * pitch + 2 * margin)
    return np.asarray(cost[:-1], np.int64)
