"""Point spread functions: from parameters or from what somebody measured. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demoe.errors import RecipeError
from demoe.limits import quoted, shortened

Psf = NDArray[np.float64]
"""(rows, cols), both odd, >= 0, summing to 1."""

LARGEST = 255
"""Rows and columns of a PSF, at most."""

OPTICS = ("na", "wavelength", "pixel")
OPTIONAL = {"index": 1.515, "defocus": 0.0}
"""What makes the PSF of a microscope: numerical aperture, wavelength of the light and size of a
pixel in the sample; perhaps the refractive index, and how far the plane lies out of focus. Lengths
are in micrometres."""

_LEAST, _MOST = 1e-6, 1e9  # numbers of a PSF: beyond these, products of them are none
_COARSEST = 30  # wavelengths that a pixel has, at most
_RINGS = 6.0  # first dark rings after which little light is left
_HIGH = 0.7  # numerical aperture above which light is no scalar
_FINE = 9  # points a side that stand for a pixel where a shape has edges
_FAR = 4.0  # standard deviations after which a Gaussian ends


def make_psf(value: Any) -> Psf:
    """Return a PSF from its parameters or its values.

    Parameters
    ----------
    value : mapping or array
        ``{"radius": r}``: a disc, out of focus; ``{"sigma": s}``: a Gaussian; ``{"length": l,
        "angle": a}``: an even motion, the angle in degrees from the row towards the top; all in
        pixels. ``{"na": n, "wavelength": w, "pixel": p}``, with ``"index"`` or ``"defocus"`` where
        needed: a microscope, lengths in micrometres. Or rows and columns of finite values >= 0,
        as measured; they are scaled to sum 1.

    Raises
    ------
    RecipeError
        If it is none of these; one sentence that says why.
    """
    if isinstance(value, Mapping):
        return _of_parameters(value)
    try:
        values = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise RecipeError(
            "A PSF has rows and columns of numbers, all rows of one length."
        ) from None
    if values.ndim != 2:
        raise RecipeError(
            f"The PSF has {values.ndim} dimensions, but planes are restored one by one: give rows "
            "and columns, of a stack the plane in focus."
        )
    if not values.size or max(values.shape) > LARGEST:
        raise RecipeError(
            f"The PSF has {values.shape[0]} x {values.shape[1]} pixels; give 1 to {LARGEST} rows "
            "and columns, cut to where there is light."
        )
    if not np.isfinite(values).all():
        row, col = np.argwhere(~np.isfinite(values))[0]
        raise RecipeError(f"The PSF holds {values[row, col]} at row {row}, column {col}.")
    if values.min() < 0:
        row, col = np.argwhere(values < 0)[0]
        raise RecipeError(
            f"The PSF is negative ({values[row, col]:g}) at row {row}, column {col}; a PSF says "
            "where light goes: subtract no more background than there is."
        )
    values = values / (values.max() or 1.0)  # whose sum then is a number
    total = values.sum()
    if not total > 0:
        raise RecipeError("The PSF is zero everywhere; it has to hold light.")
    grown = [(0, 1 - side % 2) for side in values.shape]  # an odd side has a middle
    return np.asarray(np.pad(values / total, grown))


def centroid(psf: Psf) -> tuple[float, float]:
    """Return how far down and right of the middle the light's centre of mass lies, in pixels."""
    rows, cols = (np.arange(side) - side // 2 for side in psf.shape)
    return float(psf.sum(axis=1) @ rows), float(psf.sum(axis=0) @ cols)


def _of_parameters(value: Mapping[str, Any]) -> Psf:
    if OPTICS[0] in value:
        return _microscope(value)
    makers: dict[frozenset[str], Callable[..., Psf]] = {
        frozenset({"radius"}): _disc,
        frozenset({"sigma"}): _gaussian,
        frozenset({"length", "angle"}): _line,
    }
    make = makers.get(frozenset(value))
    if make is None:
        raise RecipeError(
            "A PSF has a radius, a sigma, a length and an angle, or na, wavelength and pixel, not "
            f"{', '.join(map(shortened, value)) or 'nothing'}."
        )
    numbers = _numbers(value)
    size = next(n for name, n in numbers.items() if name != "angle")
    most = LARGEST / (8 if "sigma" in numbers else 1 if "length" in numbers else 2) - 2
    if not 0.1 <= size <= most:
        what = next(name for name in numbers if name != "angle")
        raise RecipeError(f"The {what} of a PSF is from 0.1 to {most:.0f} pixels, not {size:g}.")
    return make(**numbers)


def _numbers(value: Mapping[str, Any]) -> dict[str, float]:
    numbers = {}
    for name, given in value.items():
        number = isinstance(given, int | float) and not isinstance(given, bool)
        if not number or not abs(given) <= _MOST:  # NaN is not either
            raise RecipeError(
                f"The {name} of a PSF is a number up to {_MOST:g}, not {quoted(given)}."
            )
        numbers[name] = float(given)
    return numbers


def _microscope(value: Mapping[str, Any]) -> Psf:
    """Compute the PSF of a wide-field microscope by the package psfmodels."""
    unknown = [name for name in value if name not in (*OPTICS, *OPTIONAL)]
    missing = [name for name in OPTICS if name not in value]
    if unknown or missing:
        wrong = (
            f"{missing[0]} is missing" if missing else f"{shortened(unknown[0])} is none of them"
        )
        raise RecipeError(
            f"A microscope's PSF has {', '.join(OPTICS)} and perhaps {' or '.join(OPTIONAL)}, but "
            f"{wrong}."
        )
    numbers = OPTIONAL | _numbers(value)
    na, wavelength, pixel, index = (numbers[name] for name in (*OPTICS, "index"))
    for name in (*OPTICS, "index"):
        if not numbers[name] >= _LEAST:
            raise RecipeError(f"The {name} of a PSF is above 0, not {numbers[name]:g}.")
    if not na < index:
        raise RecipeError(
            f"The numerical aperture is {na:g}, but it cannot reach the refractive index {index:g}."
        )
    if pixel > _COARSEST * wavelength:  # no microscope's; the model would add up waves without end
        raise RecipeError(
            f"A pixel of {pixel:g} is more than {_COARSEST} times the wavelength {wavelength:g}; "
            "give both in micrometres in the sample."
        )
    # Out of focus, light goes as far as its cone is wide.
    cone = abs(numbers["defocus"]) * na / math.sqrt(index**2 - na**2)
    wide = 2 * min((_RINGS * 0.61 * wavelength / na + cone) / pixel, _MOST) + 1
    if wide > LARGEST:
        raise RecipeError(
            f"The PSF would be {wide:.3g} pixels wide, more than {LARGEST}; are wavelength, pixel "
            "and defocus in the same unit?"
        )
    reach = math.ceil((wide - 1) / 2)
    try:
        from psfmodels import make_psf as model
    except ImportError:
        raise RecipeError(
            "PSFs of microscopes need the package psfmodels: pip install 'napari-demoe[psf]'."
        ) from None
    values = model(
        [numbers["defocus"]],
        nx=2 * reach + 1,
        dxy=pixel,
        NA=na,
        wvl=wavelength,
        ns=index,
        ni=index,
        ni0=index,
        model="scalar" if na < _HIGH else "vectorial",
    )[0]
    return np.asarray(values / values.sum(), dtype=np.float64)


def _disc(radius: float) -> Psf:
    return _drawn(radius, lambda y, x: np.hypot(y, x) <= radius)


def _gaussian(sigma: float) -> Psf:
    reach = int(np.ceil(_FAR * sigma))
    line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    values = np.outer(line, line)
    return np.asarray(values / values.sum())


def _line(length: float, angle: float) -> Psf:
    """Draw a line one pixel wide, soft at its edges as pixels are."""
    along, across = np.cos(np.radians(angle)), np.sin(np.radians(angle))

    def inside(y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.bool_]:
        # Rows count downwards, angles upwards.
        far, aside = x * along - y * across, x * across + y * along
        return np.asarray((np.abs(far) <= length / 2) & (np.abs(aside) <= 0.5))

    return _drawn(length / 2 + 0.5, inside)


def _drawn(reach: float, inside: Callable[..., NDArray[np.bool_]]) -> Psf:
    """Draw a shape around the middle, each pixel by the share of it that is inside."""
    side = 2 * int(np.ceil(reach)) + 1
    place = (np.arange(side * _FINE) + 0.5) / _FINE - side / 2
    fine = inside(place[:, None], place[None, :]).astype(np.float64)
    values = fine.reshape(side, _FINE, side, _FINE).mean(axis=(1, 3))
    return np.asarray(values / values.sum())
