"""A training from pack to finished weights: train, fit the router, measure, calibrate, write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from demoe.errors import OutputError
from demoe.io.atomic import write_text
from demoe.model.architectures import ARCHITECTURES, build
from demoe.model.calibration.measuring import calibration_metadata
from demoe.model.checkpoint import read_state_dict, write_weights
from demoe.model.devices import choose_device
from demoe.model.protocol import Architecture
from demoe.training.data.images import load_images
from demoe.training.evaluate.evaluation import evaluate
from demoe.training.fit.card import model_card
from demoe.training.fit.loop import STATE, TrainingPlan, steps_done, train
from demoe.training.fit.router import fit_router

ROUTER_SAMPLES_A_MINUTE, ROUTER_SAMPLES = 2000, (120, 2400)
"""Blurred images that the router is fitted on: by the length of the schedule, within limits."""


def train_weights(
    plan: TrainingPlan,
    folder: Path,
    *,
    pack: Path | None = None,
    init: Path | None = None,
    width: int = 16,
    device: str = "auto",
    resume: bool = False,
    per_task: int = 40,
    report: Callable[[str], None] = print,
) -> str | None:
    """Train a network, and write weights with their card once the schedule is at its end.

    Parameters
    ----------
    plan : TrainingPlan
        The schedule, or a part of it.
    folder : Path
        Gets the state, and at the end ``model.safetensors``, ``model.md`` and ``scores.json``.
    pack : Path, optional
        Data pack; without one, drawn images alone.
    init : Path, optional
        Weights to start from.
    width : int
        Channels at full resolution of a network that starts from nothing.
    device : str
        As for `demoe.load_model`.
    resume : bool
        Go on from the state in the folder.
    per_task : int
        Images a task in the evaluation.
    report : callable
        Told a line now and then.

    Returns
    -------
    str or None
        The table of the evaluation; None where the schedule has not come to its end.

    Raises
    ------
    DemoeError
        If folder, pack, weights or device cannot be used.
    """
    place = choose_device(device)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {folder} cannot be made ({error.strerror}).") from None
    if not resume and (folder / STATE).exists():
        raise OutputError(
            f"{folder} holds a training already; go on with --resume, or choose another --out."
        )
    images, held_out = load_images(pack, place)
    torch.manual_seed(plan.seed)
    architecture, begun = starting_network(init, width)
    network = train(begun.to(place), images, plan, folder, resume=resume, report=report)
    if plan.stop < 1:
        report(f"schedule done up to {plan.stop:.0%}; weights are in {folder}")
        return None
    low, high = ROUTER_SAMPLES
    samples = int(min(high, max(low, plan.minutes * ROUTER_SAMPLES_A_MINUTE)))
    fit_router(network, images, samples=samples, steps=samples // 3, seed=plan.seed, report=report)
    crop = min(128, held_out.largest_crop)
    scores = evaluate(network, held_out, per_task=per_task, crop=crop)
    tenant = architecture.room.plain(network)
    card = model_card(tenant, architecture.title, plan, steps_done(folder), scores, pack, init)
    metadata = {"config": json.dumps(tenant.facts()), "card": card}
    metadata |= calibration_metadata(tenant)
    write_weights(folder / "model.safetensors", network.state_dict(), metadata, half=True)
    write_text(folder / "model.md", card)
    write_text(folder / "scores.json", json.dumps(scores.to_dict(), indent=2))
    return scores.table()


def starting_network(init: Path | None, width: int) -> tuple[Architecture, Any]:
    """Return the architecture, and the network to train: from weights, or from nothing."""
    if init is None:
        architecture = ARCHITECTURES["demoe"]
        return architecture, architecture.room.fresh(width)
    architecture, network = build(*read_state_dict(init), str(init))
    return architecture, architecture.room.pupil(network)
