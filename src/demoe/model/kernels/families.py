"""Families of blur: discs and Gaussians (out of focus), straight motion, and of any shape.

Sizes are in pixels, angles in degrees from the row towards the top.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

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
_POINTS = 241
_SAME = 0.9  # cosine of kernels that undo nearly the same


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


@dataclass(frozen=True)
class Kernel:
    """One blur of a family.

    Attributes
    ----------
    family : {"disc", "gaussian", "motion"}
        Its kind.
    size : float
        Radius, sigma or length, in pixels.
    angle : float
        Of motion: the direction in degrees.
    track : Track or None
        Of motion that is not straight and even; size and angle then say roughly what it is like.
    """

    family: str
    size: float
    angle: float = 0.0
    track: Track | None = None

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
        how = "motion on a path," if self.track else "motion"
        return f"{how} {self.size:.0f} px at {self.angle % 180:.0f}°"

    @property
    def outline(self) -> NDArray[np.float64]:
        """Return the kernel as a line: points (n, 2) of y and x around its middle, in pixels."""
        if self.family == "motion":
            return _way(self).T[:: _POINTS // 24]
        turn = np.linspace(0, 2 * np.pi, 25)
        return self.size * np.stack([np.sin(turn), np.cos(turn)], axis=1)

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
        if self.track or other.track:
            return self.cosine(other) > _SAME
        return self.is_like(other) and 0.8 < self.size / other.size < 1.25

    def cosine(self, other: Kernel) -> float:
        """Return how like the values of two kernels are, at most 1."""
        one, two = self.values, other.values
        return float((one * two).sum() / np.sqrt((one**2).sum() * (two**2).sum()))


@functools.cache
def straight_kernels() -> tuple[Kernel, ...]:
    """Return the kernels that a blur is compared with first."""
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


@functools.lru_cache(maxsize=4096)
def _drawn(kernel: Kernel) -> Psf:
    if kernel.family == "motion":
        return kernel.track.values if kernel.track else _splat(_way(kernel))
    name = "radius" if kernel.family == "disc" else "sigma"
    values = make_psf({name: kernel.size})
    side = (SIDE - values.shape[0]) // 2
    return np.pad(values, side)


def _way(kernel: Kernel) -> NDArray[np.float64]:
    """Return positions (2, points) of y and x on a path, their mean in the middle."""
    if kernel.track:
        return kernel.track.way
    along = np.linspace(-0.5, 0.5, _POINTS) * kernel.size
    heading = math.radians(kernel.angle)
    return np.stack([-math.sin(heading) * along, math.cos(heading) * along])


def _splat(way: NDArray[np.float64]) -> Psf:
    """Draw positions (2, points) of y and x, each shared by the four pixels around it."""
    values = np.zeros((SIDE, SIDE))
    low = np.floor(way).astype(int)
    part = way - low
    for down in (0, 1):
        for right in (0, 1):
            weight = (part[0] if down else 1 - part[0]) * (part[1] if right else 1 - part[1])
            rows, cols = (np.clip(low + [[down], [right]] + SIDE // 2, 0, SIDE - 1)).tolist()
            np.add.at(values, (rows, cols), weight)
    return np.asarray(values / values.sum())
