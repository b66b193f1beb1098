"""A training from pack to finished weights: train, fit the router, measure, calibrate, write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from demoe.errors import OutputError
from demoe.model.architectures import ARCHITECTURES, build
from demoe.model.checkpoint import read_state_dict
from demoe.model.devices import choose_device
from demoe.model.protocol import Architecture
from demoe.training.data.images import load_images
from demoe.training.fit.blurs import Blurs
from demoe.training.fit.damages import Damages
from demoe.training.fit.finish import finish_blurs, finish_damages
from demoe.training.fit.loop import STATE, train
from demoe.training.fit.plan import Training, TrainingPlan


def train_weights(
    plan: TrainingPlan,
    folder: Path,
    *,
    network: str = "demoe",
    pack: Path | None = None,
    init: Path | None = None,
    width: int | None = None,
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
    network : str
        Name of the architecture, one of `ARCHITECTURES`.
    pack : Path, optional
        Data pack; without one, drawn images alone.
    init : Path, optional
        Weights to start from.
    width : int, optional
        Channels at full resolution of a network that starts from nothing; by default as it usually
        has them.
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
    architecture, begun = starting_network(network, init, width)
    kinds = architecture.learns
    lessons = Damages(kinds, told=begun.is_told) if kinds else Blurs()
    trained = train(
        begun.to(place), images, plan, folder, lessons=lessons, resume=resume, report=report
    )
    if plan.stop < 1:
        report(f"schedule done up to {plan.stop:.0%}; weights are in {folder}")
        return None
    training = Training(architecture, plan, images, held_out, folder, pack, init, per_task, report)
    return (finish_damages if kinds else finish_blurs)(trained, training)


def starting_network(name: str, init: Path | None, width: int | None) -> tuple[Architecture, Any]:
    """Return an architecture, and the network to train: from weights, or from nothing."""
    wanted = ARCHITECTURES[name]
    if init is None:
        return wanted, wanted.room.fresh(width) if width else wanted.room.fresh()
    tensors, metadata = read_state_dict(init)
    found, network = build(tensors, metadata, str(init))
    if found is not wanted:
        return wanted, wanted.room.adopt(tensors, str(init))
    return wanted, wanted.room.pupil(network)
