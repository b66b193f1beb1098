"""Measure a network for several kinds of damage: what it gains, and what wrong instructions do."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from demoe.choices import names_of
from demoe.model.devices import wait_for
from demoe.model.protocol import Tenant
from demoe.training.blur.degradations import INNER
from demoe.training.damage.damages import Wrong, damage
from demoe.training.damage.noise import plain
from demoe.training.data.crops import SharpImages
from demoe.training.evaluate.metrics import Measure, psnr
from demoe.training.random import Draw

SIGMA = 25
"""Strength of the noise that published tables have, of 255."""

PLAIN = f"noise, sigma {SIGMA}"


@dataclass(frozen=True)
class DamageScore:
    """How a network does on one kind of damage; means over images.

    Attributes
    ----------
    images : int
        How many.
    before, after : mapping of str to float
        PSNR in dB and, where it could be measured, SSIM, of damaged and restored images.
    told : mapping of str to float
        PSNR after each instruction, for networks that are told; empty for others.
    choices : tuple of float
        Share of each choice over images and layers, for networks that decide; empty for others.
    """

    images: int
    before: Mapping[str, float]
    after: Mapping[str, float]
    told: Mapping[str, float]
    choices: tuple[float, ...]

    @property
    def gain(self) -> float:
        """What is gained in PSNR, in dB."""
        return self.after["psnr"] - self.before["psnr"]


@dataclass(frozen=True)
class DamageScores:
    """What a network gains on kinds of damage.

    Attributes
    ----------
    kinds : mapping of str to DamageScore
        By kind, and `PLAIN`.
    seconds : float
        Median for a megapixel in the bare network.
    """

    kinds: Mapping[str, DamageScore]
    seconds: float

    def table(self) -> str:
        """Return the gains as a Markdown table."""
        lines = [
            "| damage | images | damaged | restored | gain | SSIM |",
            "|---|---:|---:|---:|---:|---|",
        ]
        for kind, score in self.kinds.items():
            ssim = (
                f"{score.before['ssim']:.3f} to {score.after['ssim']:.3f}"
                if "ssim" in score.before
                else "not measured"
            )
            lines.append(
                f"| {kind.replace('_', ' ')} | {score.images} | {score.before['psnr']:.2f} dB | "
                f"{score.after['psnr']:.2f} dB | {score.gain:+.2f} dB | {ssim} |"
            )
        return "\n".join(lines)

    def details(self) -> str:
        """Return what instructions do, or how often each choice is made, as a Markdown table."""
        first = next(iter(self.kinds.values()))
        if first.told:
            head, rule = ["damage", "input", *first.told], "|---" + "|---:" * (1 + len(first.told))
            rows = {
                kind: [score.before["psnr"], *score.told.values()]
                for kind, score in self.kinds.items()
            }
            title = "PSNR in dB after each instruction:"
            form = "{:.2f}"
        else:
            count = len(first.choices)
            head, rule = ["damage", *(f"expert {n + 1}" for n in range(count))], "|---" * 1
            rule += "|---:" * count
            rows = {kind: [100 * c for c in score.choices] for kind, score in self.kinds.items()}
            title = "Share of experts over images and layers:"
            form = "{:.0f} %"
        lines = [f"| {' | '.join(name.replace('_', ' ') for name in head)} |", f"{rule}|"]
        for kind, values in rows.items():
            cells = " | ".join(form.format(value) for value in values)
            lines.append(f"| {kind.replace('_', ' ')} | {cells} |")
        return "\n".join([title, "", *lines])

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as JSON-able values."""
        kinds = {kind: asdict(score) | {"gain": score.gain} for kind, score in self.kinds.items()}
        return {"kinds": kinds, "seconds_a_megapixel": self.seconds}


def damaged_images(
    images: SharpImages, kind: str, count: int, crop: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Return held-out images (count, 3, crop, crop) with one kind of damage, or `PLAIN`; targets.

    The same ones for the same seed, whichever network is measured.
    """
    draw = Draw(seed)
    sharp = images.batch(count, crop, draw, augment=False)
    if kind != PLAIN:
        made = damage(sharp, [Wrong((kind,), (kind,))] * count, draw)
        return made.image, made.target
    target = sharp[INNER]
    noisy = torch.cat([plain(one, SIGMA / 255, draw) for one in target.split(1)])
    return (noisy * 255).round() / 255, target


@torch.inference_mode()
def evaluate_damages(
    tenant: Tenant,
    images: SharpImages,
    kinds: Sequence[str],
    *,
    per_kind: int = 32,
    crop: int = 128,
    seed: int = 1,
    measures: Mapping[str, Measure] | None = None,
    instructions: bool = True,
) -> DamageScores:
    """Measure a network on images that it was not trained on.

    Parameters
    ----------
    tenant : Tenant
        The network; each image is restored by itself.
    images : SharpImages
        Held-out sharp images, on its device.
    kinds : sequence of str
        Kinds of damage; with noise, `PLAIN` is measured, too.
    per_kind, crop, seed : int
        Images a kind, their side in pixels, and seed of the damage.
    measures : mapping of str to callable, optional
        What to measure beside PSNR.
    instructions : bool
        Whether a network that is told is tried with wrong instructions as well.
    """
    tenant.network.eval()
    measures = {"psnr": psnr} | {k: v for k, v in (measures or {}).items() if k == "ssim"}
    seconds: list[float] = []
    found = {}
    for kind in (*kinds, *([PLAIN] if "noise" in kinds else [])):
        damaged, target = damaged_images(images, kind, per_kind, crop, seed)
        own = PLAIN if kind == PLAIN else kind
        right = "noise" if kind == PLAIN else kind
        asked = names_of(tenant.choices) if instructions else (right,)
        by_told: dict[str, Tensor] = {}
        shares: list[Tensor] = []
        for name in (right,) if tenant.decides else asked:
            found_here = []
            for one in damaged.split(1):
                began = time.perf_counter()
                made, chosen = restored(tenant, one, name)
                wait_for(made.device)
                seconds.append((time.perf_counter() - began) / (crop**2 / 1e6))
                found_here.append(made.clamp(0, 1))
                shares += [] if chosen is None else [chosen]
            by_told[name] = torch.cat(found_here)
        found[own] = DamageScore(
            images=per_kind,
            before={name: float(m(damaged, target).mean()) for name, m in measures.items()},
            after={name: float(m(by_told[right], target).mean()) for name, m in measures.items()},
            told={}
            if tenant.decides
            else {name: float(psnr(one, target).mean()) for name, one in by_told.items()},
            choices=tuple(torch.stack(shares).mean(dim=0).tolist()) if shares else (),
        )
    return DamageScores(found, statistics.median(seconds))


def restored(tenant: Tenant, image: Tensor, name: str) -> tuple[Tensor, Tensor | None]:
    """Restore an image (1, 3, H, W); also return the share of layers that chose each expert."""
    names = names_of(tenant.choices)
    if not tenant.decides:
        weights = torch.zeros(1, len(names), device=image.device)
        weights[0, names.index(name)] = 1
        return tenant.restore(image, weights), None
    made, gates = tenant.network(image)
    gates = gates.reshape(-1, len(names))
    chosen = torch.nn.functional.one_hot(gates.argmax(dim=1), len(names)).float()
    return made, chosen.mean(dim=0)
