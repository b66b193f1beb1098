"""Measure a network: what it gains on each kind of blur, and how often its router is right."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from demoe.choices import TASKS
from demoe.model.devices import wait_for
from demoe.training.blur.degradations import Blurred, degrade
from demoe.training.data.crops import SharpImages
from demoe.training.evaluate.metrics import Measure, psnr
from demoe.training.evaluate.peers import Peer
from demoe.training.evaluate.scores import Means, PeerScore, Scores, TaskScore
from demoe.training.random import Draw

SHARP = -1
"""The task of images that are sharp already."""


@torch.inference_mode()
def evaluate(
    network: Any,
    images: SharpImages,
    *,
    per_task: int = 32,
    crop: int = 128,
    seed: int = 1,
    batch: int = 8,
    measures: Mapping[str, Measure] | None = None,
    peers: Mapping[str, Peer] | None = None,
) -> Scores:
    """Measure a network on images that it was not trained on.

    Parameters
    ----------
    network : nn.Module
        As `demoe.load_model` has it; put into evaluation mode; its device is used.
    images : SharpImages
        Held-out sharp images.
    per_task, crop, seed, batch : int
        Images a task, their side in pixels, seed of the degradations, images run at once.
    measures : mapping of str to callable, optional
        What to measure beside PSNR.
    peers : mapping of str to callable, optional
        Methods to compare with, which are told the true kernel.
    """
    network.eval()
    measures = {"psnr": psnr} | dict(measures or {})
    draw = Draw(seed)
    found = {task: _Found() for task in range(SHARP, len(TASKS))}
    confusion = [[0] * len(network.choices) for _ in TASKS]
    seconds = []
    for start in range(0, per_task, batch):
        count = min(batch, per_task - start)
        for task, one in found.items():
            sharp = images.batch(count, crop, draw, augment=False)
            data = degrade(sharp, [task] * count, draw)
            began = time.perf_counter()
            automatic, gates = network(data.image)
            wait_for(automatic.device)
            seconds.append((time.perf_counter() - began) / (count * crop**2 / 1e6))
            restored = {"blurred": data.image, "automatic": automatic}
            # For sharp images the reference of "left alone" is the input itself.
            target = data.image if task == SHARP else data.target
            if task != SHARP:
                one_hot = torch.eye(len(network.choices), device=sharp.device)[[task] * count]
                restored["manual"] = network(data.image, one_hot)[0]
                for choice in gates.argmax(dim=1).tolist():
                    confusion[task][choice] += 1
            for name, measure in measures.items():
                for method, image in restored.items():
                    one.add(name, method, measure(image, target))
            one.add("drift", "automatic", _drift(automatic, data.image))
            one.add("drift", "from truth", _drift(automatic, target))
            if task != SHARP:
                _ask_peers(one, data, restored, measures, peers or {})
    return Scores(
        tasks={name: found[task].score(measures) for task, name in enumerate(TASKS)},
        confusion=confusion,
        sharp=found[SHARP].means("psnr")["automatic"],
        seconds=statistics.median(seconds),
    )


class _Found:
    """Values of single images, by measure and then by method."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, list[float]]] = {}

    def add(self, measure: str, method: str, values: Tensor) -> None:
        self.values.setdefault(measure, {}).setdefault(method, []).extend(values.tolist())

    def means(self, measure: str) -> Means:
        return {method: statistics.fmean(v) for method, v in self.values[measure].items()}

    def score(self, measures: Mapping[str, Any]) -> TaskScore:
        drift, known = self.means("drift"), self.values.get("known psnr")
        return TaskScore(
            **self.means("psnr"),
            drift=drift["automatic"],
            drift_from_truth=drift["from truth"],
            similarity={name: self.means(name) for name in measures if name != "psnr"},
            peers=PeerScore(
                images=len(known["blurred"]),
                measures={name: self.means(f"known {name}") for name in measures},
            )
            if known
            else None,
        )


def _ask_peers(
    found: _Found,
    data: Blurred,
    restored: Mapping[str, Tensor],
    measures: Mapping[str, Measure],
    peers: Mapping[str, Peer],
) -> None:
    """Restore images whose kernel is known by other methods; measure all methods on these alone."""
    if not peers:
        return
    for n, psf in enumerate(data.psf):
        if psf is None:
            continue
        here = slice(n, n + 1)
        of_all = {method: image[here] for method, image in restored.items()}
        of_all |= {name: peer(data.image[here], psf) for name, peer in peers.items()}
        for name, measure in measures.items():
            for method, image in of_all.items():
                found.add(f"known {name}", method, measure(image, data.target[here]))


def _drift(image: Tensor, reference: Tensor) -> Tensor:
    """Return the relative change of mean intensity of each image."""
    before = reference.mean(dim=(1, 2, 3))
    return (image.clamp(0, 1).mean(dim=(1, 2, 3)) - before).abs() / before.clamp_min(1e-3)
