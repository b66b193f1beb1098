"""From a trained network to finished weights: fit what is fitted last, measure, write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from demoe.choices import to_record
from demoe.io.atomic import write_text
from demoe.model.calibration.measuring import calibration_metadata
from demoe.model.checkpoint import write_weights
from demoe.model.protocol import Tenant
from demoe.training.evaluate.damages import evaluate_damages
from demoe.training.evaluate.evaluation import evaluate
from demoe.training.evaluate.metrics import find_measures
from demoe.training.fit.card import damage_card, model_card
from demoe.training.fit.loop import steps_done
from demoe.training.fit.plan import Training
from demoe.training.fit.router import fit_router
from demoe.training.words.instructing import teach_words

ROUTER_SAMPLES_A_MINUTE, ROUTER_SAMPLES = 2000, (120, 2400)
"""Blurred images that the router is fitted on: by the length of the schedule, within limits."""

LEAST_GAIN = 1.0
"""What a kind of damage has to gain for a network to offer it, in dB."""


def finish_blurs(network: Any, training: Training) -> str:
    """Fit the router, measure on blur, and write weights with their card; return the table."""
    plan, held_out = training.plan, training.held_out
    low, high = ROUTER_SAMPLES
    samples = int(min(high, max(low, plan.minutes * ROUTER_SAMPLES_A_MINUTE)))
    fit_router(
        network,
        training.images,
        samples=samples,
        steps=samples // 3,
        seed=plan.seed,
        report=training.report,
    )
    crop = min(128, held_out.largest_crop)
    scores = evaluate(network, held_out, per_task=training.per_task, crop=crop)
    tenant = training.architecture.room.plain(network)
    steps = steps_done(training.folder)
    title = training.architecture.title
    card = model_card(tenant, title, plan, steps, scores, training.pack, training.init)
    _write(network, tenant, card, scores.to_dict(), {}, training.folder)
    return scores.table()


def finish_damages(network: Any, training: Training) -> str:
    """Measure, keep what it can do, teach it words if it takes them, and write weights.

    Returns the table of the evaluation, in which kinds stand that are not offered, too.
    """
    architecture, held_out = training.architecture, training.held_out
    scores = evaluate_damages(
        architecture.room.plain(network),
        held_out,
        architecture.learns,
        per_kind=training.per_task,
        crop=min(128, held_out.largest_crop),
        measures=find_measures(next(network.parameters()).device)[0],
    )
    offers = [kind for kind in architecture.learns if scores.kinds[kind].gain >= LEAST_GAIN]
    if not offers:
        # So short a training is for trying the command; what it makes is to be looked at.
        training.report(f"nothing gains {LEAST_GAIN} dB; all kinds are offered all the same")
        offers = list(architecture.learns)
    network.offer(offers)
    understood = (
        teach_words(network, seed=training.plan.seed, report=training.report)
        if architecture.takes_words
        else None
    )
    tenant = architecture.room.plain(network)
    card = damage_card(tenant, training, steps_done(training.folder), scores, offers, understood)
    extra = {"offers": json.dumps(offers)}
    if not tenant.decides:
        extra["choices"] = json.dumps(to_record(tenant.choices))
    _write(network, tenant, card, scores.to_dict(), extra, training.folder)
    return f"{scores.table()}\n\n{scores.details()}"


def _write(
    network: Any,
    tenant: Tenant,
    card: str,
    scores: dict[str, Any],
    extra: dict[str, str],
    folder: Path,
) -> None:
    metadata = {"config": json.dumps(tenant.facts()), "card": card}
    metadata |= calibration_metadata(tenant) | extra
    write_weights(folder / "model.safetensors", network.state_dict(), metadata, half=True)
    write_text(folder / "model.md", card)
    write_text(folder / "scores.json", json.dumps(scores, indent=2))
