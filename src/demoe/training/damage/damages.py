"""Damage of several kinds, alone or one upon another, with what is to become of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from demoe.choices import DAMAGES, TASKS
from demoe.training.blur.degradations import INNER, degrade
from demoe.training.blur.jpeg import compress
from demoe.training.damage.darkness import low_light
from demoe.training.damage.haze import haze
from demoe.training.damage.noise import noise
from demoe.training.damage.rain import rain
from demoe.training.random import Draw

KINDS = tuple(choice.name for choice in DAMAGES)
"""Names of the kinds of damage."""

Kinds = tuple[str, ...]

_BEFORE: dict[str, Callable[[Tensor, Draw], Tensor]] = {"haze": haze, "rain": rain}
_BEHIND: dict[str, Callable[[Tensor, Draw], Tensor]] = {"low_light": low_light, "noise": noise}
ORDER = ("haze", "rain", "blur", "low_light", "noise")
"""From the scene to the file: what happens in the air, in the lens, and on the sensor."""

OUT_OF_FOCUS = TASKS.index("defocus")
JPEG = 0.1
"""Share of images that are stored as JPEG at last; not of noisy ones, whose noise it would eat."""


@dataclass(frozen=True)
class Wrong:
    """What is wrong with an image, and what a network is asked to undo.

    Attributes
    ----------
    kinds : tuple of str
        Names of `KINDS`, in any order.
    asked : tuple of str
        What is to be undone: all of it, what happened last, or something that is not there, with
        which nothing is to be done.
    """

    kinds: Kinds
    asked: Kinds


@dataclass(frozen=True)
class Damaged:
    """Damaged images with what they should become.

    Attributes
    ----------
    image, target : Tensor
        (N, 3, H, W), [0, 1].
    told : Tensor
        (N, len(KINDS)): 1 for each kind that is to be undone.
    """

    image: Tensor
    target: Tensor
    told: Tensor


def damage(sharp: Tensor, wrongs: Sequence[Wrong], draw: Draw) -> Damaged:
    """Damage a batch, each image in its own way.

    Parameters
    ----------
    sharp : Tensor
        (N, 3, H, W), [0, 1]; ``MARGIN`` pixels a side are cut off the result.
    wrongs : sequence of Wrong
        One an image.
    draw : Draw
        Source of all randomness.

    Returns
    -------
    Damaged
        Images rounded to 8 bits. What is asked for and not there leaves the target as the image is;
        what is there and not asked for stays in the target.
    """
    images, targets = [], []
    for one, wrong in zip(sharp.split(1), wrongs, strict=True):
        image, target = _damaged(one, wrong, draw)
        images.append(image)
        targets.append(target)
    told = torch.tensor([[float(kind in wrong.asked) for kind in KINDS] for wrong in wrongs])
    return Damaged(torch.cat(images), torch.cat(targets), told.to(sharp.device))


def _damaged(sharp: Tensor, wrong: Wrong, draw: Draw) -> tuple[Tensor, Tensor]:
    """Return an image (1, 3, h, w) and its target."""
    kinds = [kind for kind in ORDER if kind in wrong.kinds]
    stages = [sharp]
    for kind in [kind for kind in kinds if kind in _BEFORE]:
        stages.append(_BEFORE[kind](stages[-1], draw))
    whole = stages[-1]
    stages = [stage[INNER] for stage in stages]
    if "blur" in kinds:
        stages.append(degrade(whole, [OUT_OF_FOCUS], draw).image)
    for kind in [kind for kind in kinds if kind in _BEHIND]:
        stages.append(_BEHIND[kind](stages[-1], draw))
    # The target is what the image was before the first damage that is asked to be undone.
    asked = [n for n, kind in enumerate(kinds) if kind in wrong.asked]
    image = stages[-1]
    if kinds and "blur" not in kinds and "noise" not in kinds and draw.chance(JPEG):
        image = compress(image, draw.integer(75, 99))
    image = (image.clamp(0, 1) * 255).round() / 255
    return image, stages[asked[0]] if asked else image
