"""How a plane is cut: cores that partition it, and the reads around them. Integers only."""

from __future__ import annotations

from dataclasses import dataclass

Plane = tuple[int, int, int]
"""Indices along T, C and Z, 0 where an image has no such axis."""


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels: rows top .. bottom - 1, columns left .. right - 1."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.bottom - self.top, self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the rectangle in a plane."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def within(self, outer: Box) -> tuple[slice, slice]:
        """Index of this rectangle in an array that holds just ``outer``."""
        return (
            slice(self.top - outer.top, self.bottom - outer.top),
            slice(self.left - outer.left, self.right - outer.left),
        )

    def moved(self, down: int, right: int) -> Box:
        """Return the rectangle in other coordinates."""
        return Box(self.top + down, self.left + right, self.bottom + down, self.right + right)

    def common(self, other: Box) -> Box:
        """Return what two rectangles that overlap have in common."""
        return Box(
            max(self.top, other.top),
            max(self.left, other.left),
            min(self.bottom, other.bottom),
            min(self.right, other.right),
        )

    def grown(self, margin: int, height: int, width: int) -> Box:
        """Return the rectangle with a margin all around, cut at the borders of a plane."""
        return Box(
            max(0, self.top - margin),
            max(0, self.left - margin),
            min(height, self.bottom + margin),
            min(width, self.right + margin),
        )


def touched(box: Box, pitch: int) -> tuple[range, range]:
    """Return rows and columns of the cells, ``pitch`` pixels a side, that a box touches."""
    return (
        range(box.top // pitch, -(-box.bottom // pitch)),
        range(box.left // pitch, -(-box.right // pitch)),
    )


@dataclass(frozen=True)
class Tile:
    """What one tile delivers (core) and what it looks at (read), both in plane pixels."""

    core: Box
    read: Box


@dataclass(frozen=True)
class TilePlan:
    """A regular grid of tiles over a plane; the same for every plane of an image.

    Cores have equal sides, multiples of ``step``, except that the last of a row or column may be
    smaller. Reads begin on multiples of ``grid``, and all have the same size, once padded to that
    grid: at the borders of the plane they are shifted, so that what runs the network need not
    prepare for more than one. A plane no larger than ``tile`` is one tile.

    Parameters
    ----------
    height, width : int
        Size of the plane.
    tile : int
        Largest side of a core, a multiple of ``grid``.
    halo : int
        Pixels read around a core, a multiple of ``grid``.
    grid : int
        The network's cell: what is off it gives other results.
    step : int
        What the sides of cores are multiples of, itself one of ``grid``; by default ``grid``.
    """

    height: int
    width: int
    tile: int
    halo: int
    grid: int = 16
    step: int = 0

    def __post_init__(self) -> None:
        """Check the integers."""
        if self.step == 0:
            object.__setattr__(self, "step", self.grid)
        if min(self.height, self.width, self.tile, self.grid, self.step) < 1 or self.halo < 0:
            raise ValueError(f"sizes must be positive: {self}")
        if self.step % self.grid or self.halo % self.grid:
            raise ValueError(f"step and halo must be multiples of {self.grid}: {self}")
        if self.tile % self.step:
            raise ValueError(f"tile must be a multiple of {self.step}: {self}")

    @property
    def core_shape(self) -> tuple[int, int]:
        """Rows and columns of every core but the last ones."""
        return self._side(self.height), self._side(self.width)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of tiles down and across."""
        rows, cols = self.core_shape
        return -(-self.height // rows), -(-self.width // cols)

    @property
    def chunks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Sides of the cores along rows and columns, as dask wants them."""
        return (
            _cuts(self.height, self.core_shape[0]),
            _cuts(self.width, self.core_shape[1]),
        )

    def cells(self, pitch: int) -> tuple[int, int]:
        """Return rows and columns of the routing cells of a plane."""
        return -(-self.height // pitch), -(-self.width // pitch)

    def tile_at(self, row: int, col: int) -> Tile:
        """Return the tile of a grid position."""
        rows, cols = self.shape
        if not (0 <= row < rows and 0 <= col < cols):
            raise IndexError(f"there is no tile {row}, {col} in a grid of {rows} x {cols}")
        h, w = self.core_shape
        core = Box(
            row * h, col * w, min((row + 1) * h, self.height), min((col + 1) * w, self.width)
        )
        # Of two tiles, none has the other on both sides.
        return Tile(core, self.window(core, self.core_shape, (min(2, rows - 1), min(2, cols - 1))))

    def window(self, box: Box, shape: tuple[int, int], halos: tuple[int, int] = (2, 2)) -> Box:
        """Return what is read for a box: a shape grown by the halo, shifted into the plane.

        Parameters
        ----------
        box : Box
            Pixels that are wanted; begins on the grid.
        shape : (int, int)
            Rows and columns, no fewer than the box has.
        halos : (int, int)
            Halos that any such box needs, down and across.
        """
        top, bottom = self._span(box.top, shape[0], self.height, halos[0])
        left, right = self._span(box.left, shape[1], self.width, halos[1])
        return Box(top, left, bottom, right)

    def _span(self, start: int, length: int, size: int, halos: int) -> tuple[int, int]:
        padded = -(-size // self.grid) * self.grid
        side = -(-length // self.grid) * self.grid + halos * self.halo
        first = max(0, min(start - self.halo, padded - side))
        return first, min(size, first + side)

    def _side(self, size: int) -> int:
        """Spread a side evenly over the fewest tiles, so that no sliver is left at the end."""
        if size <= self.tile:
            return size
        count = -(-size // self.tile)
        even = -(-size // count)
        return -(-even // self.step) * self.step


def _cuts(size: int, side: int) -> tuple[int, ...]:
    whole, rest = divmod(size, side)
    return (side,) * whole + ((rest,) if rest else ())
