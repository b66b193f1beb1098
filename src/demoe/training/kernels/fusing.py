"""The fusion: learnt on what network and deconvolution made of places that are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import demoe
from demoe.model.kernels.fusion import Fusion
from demoe.plan.tiling import Box
from demoe.training.kernels.fitting import fit
from demoe.training.kernels.places import Place

CROP, BATCH = 160, 8
_LEAST = 3e-5  # mean square error below which nobody sees a difference
_HARM = 2.0  # how much more a loss against the source counts than a gain


@dataclass(frozen=True)
class Restored:
    """A place with all that the fusion sees, and what it should become.

    Attributes
    ----------
    pictures : ndarray of float16
        (13, H, W): source, network, candidate and that blurred again (3 each), and its gain.
    noise : float
        Standard deviation of the place's noise.
    target : ndarray of float16
        (3, H, W).
    task : int
        Index into `demoe.TASKS`, -1 for a sharp place.
    """

    pictures: NDArray[np.float16]
    noise: float
    target: NDArray[np.float16]
    task: int


def restored(places: Iterable[Place], model: str) -> Iterator[Restored]:
    """Restore places by a network, and by the kernels that its file's judge finds."""
    for place in places:
        image = np.rint(place.blurred * 255).astype(np.uint8)
        network = demoe.deblur(image, "YXS", model=model, psf=None).image.compute() / 255
        work = demoe.deblur(image, "YXS", model=model).work
        assert work.deconvolver is not None
        assert work.fuser is not None
        whole, plane = Box(0, 0, *image.shape[:2]), (0, 0, 0)
        undone = work.deconvolver.undone(plane, whole)
        parts = [image / 255, network, undone.restored, undone.again, undone.gain]
        stack = np.concatenate(parts, axis=2)
        yield Restored(_half(stack), work.fuser.noise(plane), _half(place.sharp), place.task)


def _half(values: NDArray[Any]) -> NDArray[np.float16]:
    return np.ascontiguousarray(values.transpose(2, 0, 1)).astype(np.float16)


def learn_fusion(
    examples: list[Restored],
    seconds: float,
    seed: int,
    report: Callable[[str], None],
    begin: Fusion | None = None,
) -> Fusion:
    """Fit a fusion for some time.

    Parameters
    ----------
    examples : list of Restored
        What it is learnt on.
    seconds : float
        For how long.
    seed : int
        Where randomness begins.
    report : callable
        Gets a line now and then.
    begin : Fusion, optional
        Where to go on from.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    fusion = begin or _beginning()

    def lesson() -> tuple[Tensor, float]:
        pictures, noise, target = _batch(examples, rng)
        gain = _gains(fuse(fusion, pictures, noise), target, pictures[:, :3])
        loss = -(gain - (_HARM - 1) * (-gain).clamp_min(0)).mean()
        return loss, float(gain.detach().mean())

    def tell(step: int, spent: float, gain: float) -> None:
        report(f"step {step}, {spent:.0%}: {gain:+.3f} dB")

    fit(fusion, seconds, lesson, tell)
    return fusion


def _beginning() -> Fusion:
    """Return a fusion that weighs the three alike nearly everywhere."""
    fusion = Fusion()
    with torch.no_grad():
        for parameter in fusion.last.parameters():
            parameter.mul_(0.1)
    return fusion


def fuse(fusion: Fusion, pictures: Tensor, noise: Tensor) -> Tensor:
    """Return what a fusion makes of stacked pictures (N, 13, H, W)."""
    fused: Tensor = fusion(*pictures.split((3, 3, 3, 3, 1), dim=1), noise)
    return fused


def fused_gains(fusion: Fusion, examples: list[Restored]) -> NDArray[np.float64]:
    """Return what each example gains, in dB: fused, by the network, by the deconvolution.

    Returns
    -------
    ndarray
        (examples, 3).
    """
    found = []
    with torch.inference_mode():
        for one in examples:
            pictures = torch.from_numpy(one.pictures.astype(np.float32))[None]
            target = torch.from_numpy(one.target.astype(np.float32))[None]
            source, network, candidate = pictures[:, :3], pictures[:, 3:6], pictures[:, 6:9]
            fused = fuse(fusion, pictures, torch.tensor([one.noise]))
            found.append([float(_gains(x, target, source)) for x in (fused, network, candidate)])
    return np.array(found)


def _gains(x: Tensor, target: Tensor, source: Tensor) -> Tensor:
    """Return by how many dB pictures (N, 3, H, W) are nearer to the target than the source is."""
    inner = (..., slice(16, -16), slice(16, -16))
    errors = [
        (one[inner].clamp(0, 1) - target[inner]).square().mean(dim=(1, 2, 3)) + _LEAST
        for one in (source, x)
    ]
    return 10 * torch.log10(errors[0] / errors[1])


def _batch(examples: list[Restored], rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Cut crops of some examples, flipped and turned by chance."""
    noise: list[float] = []
    pictures: list[Tensor] = []
    targets: list[Tensor] = []
    for number in rng.integers(len(examples), size=BATCH):
        one = examples[number]
        room = one.pictures.shape[1] - CROP
        top, left = (int(rng.integers(room // 2 + 1)) * 2 for _ in range(2))
        part = (slice(None), slice(top, top + CROP), slice(left, left + CROP))
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        for values, into in ((one.pictures, pictures), (one.target, targets)):
            cut = np.rot90(values[part].astype(np.float32), turns, (1, 2))
            into.append(torch.from_numpy(np.ascontiguousarray(cut[:, :, ::-1] if flip else cut)))
        noise.append(one.noise)
    return torch.stack(pictures), torch.tensor(noise), torch.stack(targets)
