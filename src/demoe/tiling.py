"""How a plane is cut: cores that partition it, and the reads around them. Integers only."""

from __future__ import annotations

from dataclasses import dataclass


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

    def grown(self, margin: int, height: int, width: int) -> Box:
        """Return the rectangle with a margin all around, cut at the borders of a plane."""
        return Box(
            max(0, self.top - margin),
            max(0, self.left - margin),
            min(height, self.bottom + margin),
            min(width, self.right + margin),
        )


@dataclass(frozen=True)
class Tile:
    """What one tile delivers (core) and what it looks at (read), both in plane pixels."""

    core: Box
    read: Box


@dataclass(frozen=True)
class TilePlan:
    """A regular grid of tiles over a plane; the same for every plane of an image.

    Cores have equal sides, multiples of ``grid``, except that the last of a row or column may be
    smaller. Reads begin on multiples of ``grid``. A plane no larger than ``tile`` is one tile.

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
    """

    height: int
    width: int
    tile: int
    halo: int
    grid: int = 16

    def __post_init__(self) -> None:
        """Check the integers."""
        if min(self.height, self.width, self.tile, self.grid) < 1 or self.halo < 0:
            raise ValueError(f"sizes must be positive: {self}")
        if self.tile % self.grid or self.halo % self.grid:
            raise ValueError(f"tile and halo must be multiples of {self.grid}: {self}")

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

    def tile_at(self, row: int, col: int) -> Tile:
        """Return the tile of a grid position."""
        rows, cols = self.shape
        if not (0 <= row < rows and 0 <= col < cols):
            raise IndexError(f"there is no tile {row}, {col} in a grid of {rows} x {cols}")
        h, w = self.core_shape
        core = Box(
            row * h, col * w, min((row + 1) * h, self.height), min((col + 1) * w, self.width)
        )
        return Tile(core, core.grown(self.halo, self.height, self.width))

    def _side(self, size: int) -> int:
        """Spread a side evenly over the fewest tiles, so that no sliver is left at the end."""
        if size <= self.tile:
            return size
        count = -(-size // self.tile)
        even = -(-size // count)
        return -(-even // self.grid) * self.grid


def _cuts(size: int, side: int) -> tuple[int, ...]:
    whole, rest = divmod(size, side)
    return (side,) * whole + ((rest,) if rest else ())
