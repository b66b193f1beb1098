"""A blur undone: deconvolution with few edges, by half-quadratic splitting.

The restored picture x minimises ``lambda / 2 |k * x - y|^2`` and what its gradients cost, no darker
than black (Wang, Yang, Yin and Zhang, SIAM J. Imaging Sci. 1, 2008). ``lambda`` is the strength
over the variance of the noise. A gradient costs its length (total variation: Rudin, Osher and
Fatemi 1992): edges may be sharp, and noise makes no texture. Of a photo whose blur is known
exactly, a long gradient costs hardly more than a short one, as the nonnegative garrote has it
(Breiman, Technometrics 37, 1995): edges become steeper, and so would those that a wrong kernel
makes. Colours of a photo are solved apart from luma: they have fewer edges, and luma has less noise
than each sample. How strongly, and whether light or display values were blurred, is chosen by what
explains the picture best.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demoe.model.kernels.fourier import differences, grown, joined, roughness, transfer
from demoe.model.kernels.light import LUMA, to_display, to_light
from demoe.model.kernels.noise import colour_of, noise_model, noise_of, samples_of
from demoe.model.kernels.psf import Psf
from demoe.wanted import check

STRENGTHS = (0.001, 0.003, 0.01, 0.02, 0.04, 0.08, 0.16)
"""What is tried, from careful to bold."""

LIGHT = 1.5
"""How much more structure light may leave unexplained in a photo than display values do, and still
be believed: cameras blur light."""

LEAST_NOISE = {True: 1 / 255, False: 1 / 1000}
"""What there is at least, of photos and of measurements."""

_PENALTIES = (4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)  # the splitting's, from loose to tight
_OF_EXACT = tuple(4 * 64 ** (n / 7) for n in range(8))  # the same where the kernel is exact, and
_OF_COLOURS = (16.0, 64.0, 256.0)  # of a photo's colours, in which less happens
_RELAXED = 1.8  # of the way to what a solution says of what nobody saw: above 1 is quicker, and
_MOMENTUM = 0.9  # so much of how that changed since the last solution
_WHITE = 0.98  # what is as bright in a photo may have been brighter
_ALL = 0.9  # of a pixel is blurred: from then on, what it says of the blurred picture is believed
_NONE, _MOST = 0.3, 0.8  # up to which it stays as it is, and from which on it is restored
_LEAST_OF_EXACT = 1 / 400  # noise of luma, in which that of three samples is averaged
_COLOURS = torch.tensor([0.5 / 0.886, 0.5 / 0.701])[:, None, None]  # how far blue and red are off
_FLAT = 1e-18  # square of a gradient that is none
_TINY = 1e-8  # variance that no picture of 8 bits goes below
_EDGE = 16  # pixels at the borders of a sample, beyond which much is guessed
_BORDER = 16  # pixels beyond the PSF's reach after which what lies further makes little difference

Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class Setting:
    """How a picture is deconvolved.

    Attributes
    ----------
    linear : bool
        Whether light was blurred, not the display values.
    strength : float
        Weight of the data against the smoothness.
    parts : bool
        Whether only parts of a photo are blurred, as a `Detector` tells, and the rest stays.
    """

    linear: bool
    strength: float
    parts: bool = False


@dataclass(frozen=True)
class Left:
    """What a solution, blurred again, leaves unexplained of a picture.

    Attributes
    ----------
    setting : Setting
        How it was found.
    colour : float
        What structure that has (`colour_of`).
    size : float
        Its root mean square, in units of the noise.
    """

    setting: Setting
    colour: float
    size: float


class Deconvolver:
    """Undoes the blur of one PSF.

    Parameters
    ----------
    psf : ndarray
        (rows, cols), odd, summing to 1.
    photo : bool
        Whether pictures have display values, so that light may have been blurred.
    exact : bool
        Whether the PSF is known, not found.

    Attributes
    ----------
    reach : int
        Pixels around a place that its blur looks at.
    margin : int
        Pixels around a place that its solution should see.
    """

    def __init__(self, psf: Psf, photo: bool, exact: bool = False) -> None:
        self.photo, self._exact = photo, exact
        self._psf = _cut(np.asarray(psf, dtype=np.float64))
        self.reach = max(self._psf.shape) // 2
        self.margin = self.reach + _BORDER

    def restore(self, pixels: Pixels, setting: Setting) -> Pixels:
        """Return a picture (H, W, S) without the blur."""
        return self.solve(self.seen(pixels, setting.linear), setting.strength)[0]

    def seen(self, pixels: Pixels, linear: bool, extent: Pixels | None = None) -> Seen:
        """Return a picture as it is solved; see `Seen`."""
        return Seen(pixels, linear, self.photo, extent, self._exact)

    @torch.inference_mode()
    def solve(self, seen: Seen, strength: float) -> tuple[Pixels, Pixels]:
        """Return a picture (H, W, S) without the blur, and that blurred again."""
        restored, again = self._solve(seen, strength)
        if seen.share is not None:
            restored, again = (seen.values.lerp(x, seen.share) for x in (restored, again))
        return _pixels(restored), _pixels(again)

    @torch.inference_mode()
    def blur(self, pixels: Pixels, linear: bool) -> Pixels:
        """Return a picture (H, W, S) blurred, mirrored beyond its borders."""
        x = samples_of(pixels)
        x = to_light(x) if linear else x
        x, inner = grown(x, self.reach)
        size = x.shape[1:]
        x = torch.fft.irfft2(self._transfer(size) * torch.fft.rfft2(x), size)[inner]
        return _pixels(to_display(x) if linear else x)

    @torch.inference_mode()
    def choose(self, samples: Sequence[Pixels]) -> Setting:
        """Choose what leaves nothing but white noise of samples of a plane unexplained.

        Parameters
        ----------
        samples : sequence of ndarray
            (H, W, S) in [0, 1]; of a photo, light may have been blurred, or display values.
        """
        display = self.whitest(samples, False)
        if not self.photo:
            return display.setting
        light = self.whitest(samples, True)
        return (light if light.colour < LIGHT * display.colour else display).setting

    @torch.inference_mode()
    def whitest(self, samples: Sequence[Pixels], linear: bool, most: float = STRENGTHS[-1]) -> Left:
        """Return the strength up to ``most`` that leaves least structure, and what it leaves."""
        seen = [self.seen(pixels, linear) for pixels in samples]
        best: Left | None = None
        for strength in (one for one in STRENGTHS if one <= most):
            colours, powers = zip(*(self._left(one, strength) for one in seen), strict=True)
            found = Left(
                Setting(linear, strength), float(np.mean(colours)), float(np.mean(powers)) ** 0.5
            )
            if best is not None and found.colour > best.colour:
                break
            best = found
        assert best is not None  # the least strength is always tried
        return best

    def _left(self, seen: Seen, strength: float) -> tuple[float, float]:
        """Return the structure of what a solution leaves, and its power against the noise's."""
        check()
        left = (self._solve(seen, strength)[1] - seen.values) / seen.variance.sqrt()
        rows, cols = (_EDGE if side > 8 * _EDGE else 0 for side in left.shape[1:])
        left = left[:, rows : left.shape[1] - rows, cols : left.shape[2] - cols]
        return colour_of(left), float(left.square().mean())

    def _solve(self, seen: Seen, strength: float) -> tuple[Tensor, Tensor]:
        """Return the solution and what it gives when it is blurred again, both (S, H, W)."""
        solved = [self._layer(layer, seen.extent, strength) for layer in seen.layers]
        x, again = (seen.joined(parts) for parts in zip(*solved, strict=True))
        return (to_display(x), to_display(again)) if seen.linear else (x, again)

    def _layer(
        self, layer: _Layer, extent: Tensor | None, strength: float
    ) -> tuple[Tensor, Tensor]:
        """Return the solution of a layer and that blurred again."""
        weight = strength / layer.power[:, None, None]
        y, inner = grown(layer.y, self.reach)
        size = y.shape[1:]
        blur = self._transfer(size)
        back = weight * blur.conj()
        power = weight * (blur.real.square() + blur.imag.square()) + 1e-9
        rough = roughness(size)
        one, flat = torch.tensor(1.0), torch.tensor(_FLAT)
        down, right, kept = (torch.empty_like(y) for _ in range(3))
        believed = _Believed(y, inner, layer, extent)
        x = believed.begun(torch.fft.irfft2(blur * torch.fft.rfft2(y), size))
        data = back * torch.fft.rfft2(x)
        for penalty in layer.penalties:
            differences(x, down, right)
            torch.addcmul(flat, down, down, out=kept).addcmul_(right, right)
            # Of each gradient, what is long: all of it, nearly, where edges are to be steep.
            kept = kept.reciprocal_() if layer.steep else kept.rsqrt_()
            less = penalty**-2 if layer.steep else 1 / penalty
            torch.sub(one, kept, alpha=less, out=kept).clamp_min_(0)
            edges = joined(down.mul_(kept), right.mul_(kept), out=kept)
            total = torch.fft.rfft2(edges)
            torch.add(data, total, alpha=penalty, out=total)
            # Times the inverse: dividing complex numbers takes seven times as long.
            total.mul_(torch.add(power, rough, alpha=penalty).reciprocal_())
            x = torch.fft.irfft2(total, size).clamp_min_(layer.floor)
            if penalty != layer.penalties[-1]:
                again = torch.fft.irfft2(total.mul_(blur), size)
                data = back * torch.fft.rfft2(believed.after(again))
        again = torch.fft.irfft2(blur * torch.fft.rfft2(x), size)
        return x[inner], again[inner]

    def _transfer(self, size: tuple[int, ...]) -> Tensor:
        return _transfer(self._psf.tobytes(), self._psf.shape, size)


class _Believed:
    """A blurred picture with what nobody saw of it: beyond borders, above white, where it is sharp.

    There, a solution, blurred again, says what was seen, and the next one is made to fit that, as
    for any data that are missing (Dempster, Laird and Rubin, J. R. Stat. Soc. B 39, 1977). Without
    it, edges that reach a border ring, and most so if the blur is wide.

    Parameters
    ----------
    y : Tensor
        (S, H, W), mirrored beyond its borders.
    inner : tuple of slice
        What was seen of it.
    layer : _Layer
        Says what is white.
    extent : Tensor or None
        (H, W), where the blur was seen; None for everywhere.
    """

    def __init__(
        self, y: Tensor, inner: tuple[slice, slice, slice], layer: _Layer, extent: Tensor | None
    ) -> None:
        self._seen, self._inner, self._extent = y[inner], inner, extent
        self._white = layer.white
        self._whole = y
        self._before: Tensor | None = None

    def begun(self, blurred: Tensor) -> Tensor:
        """Return the picture, where it was not seen blurred once more: so sharp it cannot be."""
        self._whole = blurred
        self._put(self._seen)
        return self._whole

    def after(self, again: Tensor) -> Tensor:
        """Return what is believed after a solution that is this when blurred again."""
        self._whole.lerp_(again, _RELAXED)
        if self._before is not None:
            self._whole.add_(again - self._before, alpha=_MOMENTUM)
        self._before, seen = again, self._seen
        if self._white is not None:
            more = torch.maximum(self._whole[self._inner], seen)
            seen = torch.where(self._white, more, seen)
        self._put(seen)
        return self._whole

    def _put(self, seen: Tensor) -> None:
        """Put what was seen where it belongs."""
        if self._extent is not None:
            seen = torch.where(self._extent, seen, self._whole[self._inner])
        self._whole[self._inner] = seen


class Seen:
    """A blurred picture, and what all of its solutions share: its noise is found once.

    Parameters
    ----------
    pixels : ndarray of float32
        (H, W, S) in [0, 1].
    linear : bool
        Whether light was blurred.
    photo : bool
        Whether it has display values, which end at white.
    extent : ndarray of float32, optional
        (H, W), how much of each pixel is blurred, 0 to 1: what is not stays as it is. By default
        all of it is.
    exact : bool
        Whether its PSF is known, not found.

    Attributes
    ----------
    values, y : Tensor
        (S, H, W): what was seen, and what was blurred, the same as light where that is so.
    extent, share : Tensor or None
        (H, W): where the blur was seen, and how much is restored.
    """

    def __init__(
        self,
        pixels: Pixels,
        linear: bool,
        photo: bool,
        extent: Pixels | None = None,
        exact: bool = False,
    ) -> None:
        self.values, self.linear, self._photo = samples_of(pixels), linear, photo
        self._steep = photo and exact
        self.y = to_light(self.values) if linear else self.values
        self._least = LEAST_NOISE[photo] ** 2
        self.extent = self.share = None
        if extent is not None:
            whole = torch.from_numpy(extent)
            self.extent = whole >= _ALL
            self.share = ((whole - _NONE) / (_MOST - _NONE)).clamp(0, 1)

    @functools.cached_property
    def layers(self) -> tuple[_Layer, ...]:
        """What is solved one after the other: of a photo in colours, luma and colours."""
        floor = min(0.0, float(self.y.min()))  # no darker than black, or than what was seen
        if not self._photo:
            return (_Layer(self.y, self._power, None, False, floor, _PENALTIES),)
        if len(self.y) == 1:
            return (self._luma(self.y, floor),)
        luma = torch.tensordot(torch.tensor(LUMA), self.y, 1)
        colours = (self.y[[2, 0]] - luma) * _COLOURS
        power = noise_of(colours).square().clamp_min(self._least)
        return (
            self._luma(luma[None], floor),
            _Layer(colours, power, None, self._steep, -math.inf, _OF_COLOURS),
        )

    def _luma(self, y: Tensor, floor: float) -> _Layer:
        """Return the luma (1, H, W) of a photo as it is solved."""
        white = y >= _WHITE
        least = _LEAST_OF_EXACT**2 if self._steep else self._least
        return _Layer(
            y,
            noise_of(y).square().clamp_min(least),
            white if bool(white.any()) else None,
            self._steep,
            floor,
            _OF_EXACT if self._steep else _PENALTIES,
        )

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Return samples (S, H, W) of what was made of layers."""
        if len(parts) == 1:
            return parts[0]
        luma, colours = parts
        blue, red = colours / _COLOURS
        blue, red = blue + luma[0], red + luma[0]
        green = (luma[0] - LUMA[0] * red - LUMA[2] * blue) / LUMA[1]
        return torch.stack([red, green, blue])

    @property
    def _power(self) -> Tensor:
        """Mean variance of the noise of each sample (S,) of a measurement."""
        variance = _variance(self.y) if self.linear else self._unbounded
        return torch.stack([one.mean() for one in variance]).clamp_min(self._least)

    @functools.cached_property
    def variance(self) -> Tensor:
        """Variance of the noise, that broadcasts to samples (S, H, W) of what is seen."""
        if self._photo:
            return noise_of(self.values).mean().square().clamp_min(_TINY)
        return self._unbounded.clamp_min(self._least)

    @functools.cached_property
    def _unbounded(self) -> Tensor:
        return _variance(self.values)


@dataclass(frozen=True, eq=False)
class _Layer:
    """Samples that are solved alike.

    Attributes
    ----------
    y : Tensor
        (S, H, W), blurred.
    power : Tensor
        (S,), mean variance of their noise.
    white : Tensor or None
        (S, H, W) bool, where there may have been more.
    steep : bool
        Whether a long gradient costs hardly more than a short one.
    floor : float
        The least that a value may be.
    penalties : tuple of float
        Of the splitting.
    """

    y: Tensor
    power: Tensor
    white: Tensor | None
    steep: bool
    floor: float
    penalties: tuple[float, ...]


def _variance(x: Tensor) -> Tensor:
    """Return the variance of the noise in each pixel of samples (S, H, W)."""
    return torch.stack([noise_model(one).variance(one) for one in x])


def _cut(psf: Psf) -> Psf:
    """Leave out rows and columns around a PSF in which there is no light, its middle kept."""
    edges = []
    for axis in (0, 1):
        lit = np.flatnonzero(psf.any(axis=1 - axis))
        edges.append(int(min(lit[0], psf.shape[axis] - 1 - lit[-1])))
    rows, cols = (slice(edge, side - edge) for edge, side in zip(edges, psf.shape, strict=True))
    return np.ascontiguousarray(psf[rows, cols])


@functools.lru_cache(maxsize=32)
def _transfer(psf: bytes, shape: tuple[int, int], size: tuple[int, ...]) -> Tensor:
    """Keep the transfer functions of kernels that many windows share."""
    return transfer(np.frombuffer(psf).reshape(shape), size)


def _pixels(x: Tensor) -> Pixels:
    return np.ascontiguousarray(x.numpy().transpose(1, 2, 0))
