"""Families of blur: discs and Gaussians (out of focus), straight and bent motion.

Sizes are in pixels, angles in degrees from the row towards the top.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from demoe.model.kernels.psf import Psf, make_psf

SIDE = 33
"""Rows and columns of every kernel of the families."""

ROUND, MOTION = frozenset({"disc", "gaussian"}), frozenset({"motion"})

FAMILIES = {
    "defocus": ROUND,
    "global_motion": MOTION,
    "local_motion": MOTION,
    "synth_global_motion": MOTION,
}
"""What a person says of the kernel who asks for one of these choices; others leave it open."""

_RADII = (0.5, 0.75, *np.arange(1.0, 8.01, 0.25).tolist())
_SIGMAS = tuple(np.arange(0.4, 3.9, 0.15).tolist())
_LENGTHS = (3, 4, 5, 6, 7, 8.5, 10, 12, 14, 17, 20, 24, 28)
_BENDS = (-1.6, -0.8, 0.8, 1.6)  # radians from the one end of a path to the other
_LEAST_BENT = 7.0  # below this length, nobody could tell
_POINTS = 241
_SAME = 0.9  # cosine of kernels that undo nearly the same

ORDERS, DWELLS = 4, 2
"""How many polynomials describe a way, and how long a point stays where."""


@dataclass(frozen=True)
class Course:
    """A smooth way at uneven speed, by Legendre polynomials in time, which runs from -1 to 1.

    Attributes
    ----------
    down, right : tuple of float
        `ORDERS` coefficients each, from the first order on: where the point is, in pixels.
    dwell : tuple of float
        `DWELLS` coefficients of the logarithm of how long it stays.
    """

    down: tuple[float, ...]
    right: tuple[float, ...]
    dwell: tuple[float, ...]

    @property
    def turned(self) -> Course:
        """The same turned by half a circle."""
        down, right = (tuple(-value for value in values) for values in (self.down, self.right))
        return replace(self, down=down, right=right)

    @property
    def way(self) -> NDArray[np.float64]:
        """Positions (2, points) of y and x, their mean over time in the middle."""
        orders = legendre(_POINTS, ORDERS)
        way = np.array([self.down, self.right]) @ orders
        return np.asarray(way - (way * self.times).sum(axis=1, keepdims=True))

    @property
    def times(self) -> NDArray[np.float64]:
        """Share of time (points,) at each position."""
        stay = np.exp(np.array(self.dwell) @ legendre(_POINTS, DWELLS))
        return np.asarray(stay / stay.sum())

    @property
    def values(self) -> Psf:
        """The kernel (`SIDE`, `SIDE`)."""
        return splat(self.way, self.times)

    @property
    def kernel(self) -> Kernel:
        """The motion that goes this way; both are one way round if time runs backwards."""
        way = self.way
        steps = np.diff(way, axis=1)
        down, right = way[:, -1] - way[:, 0]
        return Kernel(
            "motion",
            float(np.hypot(*steps).sum()),
            math.degrees(math.atan2(-down, right)) % 360,
            _turn(way),
            self,
        )


@dataclass(frozen=True)
class Track:
    """A way of any shape, drawn pixel by pixel.

    Attributes
    ----------
    pixels : bytes
        float32 (`SIDE`, `SIDE`): how long the point was in each, summing to 1.
    """

    pixels: bytes = field(repr=False)

    @classmethod
    def of(cls, values: Psf) -> Track:
        """Make one of a kernel."""
        return cls(np.ascontiguousarray(values, np.float32).tobytes())

    @property
    def values(self) -> Psf:
        """The kernel (`SIDE`, `SIDE`)."""
        return np.frombuffer(self.pixels, np.float32).reshape(SIDE, SIDE).astype(np.float64)

    @property
    def turned(self) -> Track:
        """The same turned by half a circle."""
        return Track.of(self.values[::-1, ::-1])

    @property
    def way(self) -> NDArray[np.float64]:
        """Positions (2, points) of y and x along its greatest width, their mean in the middle."""
        at, weights, axis = self._lit()
        along, aside = axis.T @ at
        spots = np.linspace(along.min(), along.max(), _POINTS)
        near = weights * np.exp(-((spots[:, None] - along) ** 2) / 2)
        way = axis @ np.stack([spots, near @ aside / near.sum(axis=1)])
        return np.asarray(way - way.mean(axis=1, keepdims=True))

    @property
    def kernel(self) -> Kernel:
        """The motion that goes this way."""
        at, weights, axis = self._lit()
        along = axis[:, 0] @ at
        down, right = axis[:, 0]
        return Kernel(
            "motion",
            float(np.sqrt(1 + 12 * (weights * along**2).sum())),  # of a straight one its length
            math.degrees(math.atan2(-down, right)) % 180,
            _turn(self.way),
            self,
        )

    def _lit(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return where there is light (2, n), how much (n,), and the axes of its widths (2, 2)."""
        values = self.values
        at = np.array(np.nonzero(values), np.float64)
        weights = values[values > 0]
        at -= (at * weights).sum(axis=1, keepdims=True)
        axis = np.linalg.eigh((weights * at) @ at.T)[1][:, ::-1]
        return at, weights, axis


def _turn(way: NDArray[np.float64]) -> float:
    """Return by how many radians a way (2, points) turns from end to end."""
    down, right = np.diff(way, axis=1)
    heading = np.unwrap(np.arctan2(-down, right))
    return float(heading[-1] - heading[0])


def legendre(points: int, orders: int) -> NDArray[np.float64]:
    """Return the Legendre polynomials (orders, points) from the first on, at even times."""
    time = np.linspace(-1, 1, points + 1)
    middle = (time[1:] + time[:-1]) / 2
    return np.asarray(np.polynomial.legendre.legvander(middle, orders)[:, 1:].T, np.float64)


@dataclass(frozen=True)
class Kernel:
    """One blur of a family.

    Attributes
    ----------
    family : {"disc", "gaussian", "motion"}
        Its kind.
    size : float
        Radius, sigma or length, in pixels.
    angle, bend : float
        Of motion: the direction in degrees, and by how many radians it turns from end to end.
    course : Course, Track or None
        Of motion whose way is neither straight nor an arc; size, angle and bend then say roughly
        what it is like.
    """

    family: str
    size: float
    angle: float = 0.0
    bend: float = 0.0
    course: Course | Track | None = None

    @property
    def values(self) -> Psf:
        """The point spread function: (`SIDE`, `SIDE`), summing to 1, centred on its centroid."""
        return _drawn(self)

    @property
    def words(self) -> str:
        """What people call it."""
        if self.family == "disc":
            return f"defocus, radius {self.size:.1f} px"
        if self.family == "gaussian":
            return f"defocus, sigma {self.size:.1f} px"
        how = "motion on an arc," if self.bend else "motion"
        how = "motion on a path," if self.course else how
        return f"{how} {self.size:.0f} px at {self.angle % 180:.0f}°"

    @property
    def outline(self) -> NDArray[np.float64]:
        """Return the kernel as a line: points (n, 2) of y and x around its middle, in pixels."""
        if self.family == "motion":
            return _way(self).T[:: _POINTS // 24]
        turn = np.linspace(0, 2 * np.pi, 25)
        return self.size * np.stack([np.sin(turn), np.cos(turn)], axis=1)

    @property
    def turned(self) -> Kernel:
        """The same turned by half a circle: the spectrum of a blurred image cannot tell them."""
        turned = self.course.turned if self.course else None
        return replace(self, angle=self.angle + 180, course=turned)

    def is_like(self, other: Kernel) -> bool:
        """Tell whether another is so near that it is no other guess."""
        if self.family != other.family:
            return False
        if self.family != "motion":
            return True
        aside = abs((self.angle - other.angle + 90) % 180 - 90)
        return aside < 20 and 0.7 < self.size / other.size < 1.4

    def is_near(self, other: Kernel) -> bool:
        """Tell whether another is so near that it makes no difference which of them is undone."""
        if self.course or other.course:
            return self.cosine(other) > _SAME
        alike = self.is_like(other) and self.bend == other.bend
        turned = (self.angle - other.angle + 180) % 360 - 180
        return alike and 0.8 < self.size / other.size < 1.25 and (not self.bend or abs(turned) < 90)

    def cosine(self, other: Kernel) -> float:
        """Return how like the values of two kernels are, at most 1."""
        one, two = self.values, other.values
        return float((one * two).sum() / np.sqrt((one**2).sum() * (two**2).sum()))


@functools.cache
def straight_kernels() -> tuple[Kernel, ...]:
    """Return the kernels that a blur is compared with first: none of them bent."""
    return tuple(_straight())


@functools.cache
def round_kernels() -> tuple[Kernel, ...]:
    """Return those of a lens out of focus."""
    return tuple(kernel for kernel in straight_kernels() if kernel.family != "motion")


def _straight() -> Iterator[Kernel]:
    yield from (Kernel("disc", radius) for radius in _RADII)
    yield from (Kernel("gaussian", sigma) for sigma in _SIGMAS)
    for length in _LENGTHS:
        count = max(8, min(32, int(length * 2.2)))
        for angle in np.arange(count) * (180 / count):
            yield Kernel("motion", float(length), float(angle))


def arcs_of(kernel: Kernel) -> tuple[Kernel, ...]:
    """Return a straight motion bent to both sides; none where nobody could tell."""
    if kernel.family != "motion" or kernel.size < _LEAST_BENT:
        return ()
    return tuple(replace(kernel, bend=bend) for bend in _BENDS)


@functools.lru_cache(maxsize=4096)
def _drawn(kernel: Kernel) -> Psf:
    if kernel.family == "motion":
        return _path(kernel)
    name = "radius" if kernel.family == "disc" else "sigma"
    values = make_psf({name: kernel.size})
    side = (SIDE - values.shape[0]) // 2
    return np.pad(values, side)


def _path(kernel: Kernel) -> Psf:
    """Draw the way of a point at even speed, each position shared by the four pixels around it."""
    return kernel.course.values if kernel.course else splat(_way(kernel))


def _way(kernel: Kernel) -> NDArray[np.float64]:
    """Return positions (2, points) of y and x on a path, their mean in the middle."""
    if kernel.course:
        return kernel.course.way
    along = np.linspace(-0.5, 0.5, _POINTS)
    heading = math.radians(kernel.angle) + kernel.bend * along
    steps = np.stack([-np.sin(heading), np.cos(heading)]) * (kernel.size / _POINTS)
    way = steps.cumsum(axis=1)
    return np.asarray(way - way.mean(axis=1, keepdims=True))


def course_of(kernel: Kernel) -> Course:
    """Return a motion as a course, as nearly as polynomials can follow it."""
    orders = legendre(_POINTS, ORDERS).T
    down, right = np.linalg.lstsq(orders, _way(kernel).T, rcond=None)[0].T.tolist()
    return Course(tuple(down), tuple(right), (0.0,) * DWELLS)


def splat(way: NDArray[np.float64], times: NDArray[np.float64] | None = None) -> Psf:
    """Return the PSF of a point that is at positions (2, points) of y and x.

    Parameters
    ----------
    way : ndarray
        The positions.
    times : ndarray, optional
        How long (points,) it is at each; equally long by default.
    """
    values = np.zeros((SIDE, SIDE))
    low = np.floor(way).astype(int)
    part = way - low
    for down in (0, 1):
        for right in (0, 1):
            weight = (part[0] if down else 1 - part[0]) * (part[1] if right else 1 - part[1])
            rows, cols = (np.clip(low + [[down], [right]] + SIDE // 2, 0, SIDE - 1)).tolist()
            np.add.at(values, (rows, cols), weight if times is None else weight * times)
    return np.asarray(values / values.sum())
