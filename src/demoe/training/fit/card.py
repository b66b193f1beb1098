"""The model card: what a network was made from, how, how good it is, and where it ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from demoe.model.protocol import Tenant
from demoe.training.evaluate.damages import DamageScores
from demoe.training.evaluate.scores import Scores
from demoe.training.fit.plan import Training, TrainingPlan


def model_card(
    tenant: Tenant,
    title: str,
    plan: TrainingPlan,
    steps: int,
    scores: Scores,
    pack: Path | None,
    init: Path | None = None,
) -> str:
    """Return a model card in Markdown.

    Parameters
    ----------
    tenant, title
        The network, and what its architecture is called.
    plan, steps, scores
        Schedule, number of steps and figures.
    pack : Path or None
        The data pack that it was trained on; its sources and their licences are listed.
    init : Path, optional
        The weights that training began from.
    """
    lines = [
        f"# {title.partition(' (')[0]} network",
        "",
        f"A deblurring network of the family {title}, trained with `demoe train`.",
        "It keeps exposure: low-light images are restored at the brightness that they have.",
        "",
        "## Design",
        "",
        f"{tenant.design()} Stored as 16-bit floats, run in 32 bits."
        + (
            " The restored picture has the local mean of the blurred one (`demoe.model.level`)."
            if tenant.keeps_level
            else ""
        ),
        "",
        "## Training",
        "",
        f"{steps:,} steps in a schedule of {plan.minutes:g} minutes on one machine, batches of "
        f"{plan.batch} crops of {plan.crop} px"
        + (f", {plan.last_crop} px at last" if plan.last_crop else "")
        + (f", {plan.mixed_share:.0%} of them with two blurs" if plan.mixed_share else "")
        + ", "
        f"AdamW with a cosine from {plan.rate:g}, smoothed weights (decay {plan.ema}), then "
        "the router alone to convergence on features of the finished encoder.",
        *([f"Training began from the weights {init.name}."] if init else []),
        "Blur is synthesised as it is needed (`demoe.training.blur`): disks, polygons, "
        "Gaussian and Airy spots of 1 to 7 px radius, microscopes out of focus; camera paths of 3 "
        "to 28 px in linear light; objects moving 4 to 28 px; frames averaged over 2.5 to 28 px; "
        "motion or defocus at 1/4 to 1/16 exposure with shot and read noise. Some of each is "
        "computed on display values, and some images are compressed as JPEG.",
        "",
        "## Figures",
        "",
        "PSNR on images held out of training, blurred by the same generators with "
        "another seed (`demoe evaluate`):",
        "",
        scores.table(),
        "",
        "## Limits",
        "",
        "Compact and trained on synthetic blur alone: expect moderate sharpening, not "
        "the recovery of strong blur. Blur wider than about 28 px, strong compression and other "
        "modalities than photographs, text, histology and fluorescence-like images were not in "
        "training. "
        "Do not measure intensities in deblurred images without checking them against the "
        "original.",
        "",
        "## Data",
        "",
        *_sources(pack),
        "Drawn images: dead leaves, text, cells, filaments, beads (`demoe.training.data`).",
        "",
    ]
    return "\n".join(lines)


def damage_card(
    tenant: Tenant,
    training: Training,
    steps: int,
    scores: DamageScores,
    offers: Sequence[str],
    understood: float | None,
) -> str:
    """Return the model card of a network for several kinds of damage, in Markdown.

    Parameters
    ----------
    tenant, training, steps, scores
        The network, what it was trained with, number of steps and figures.
    offers : sequence of str
        Kinds of damage that it is for.
    understood : float or None
        Share of held-out sentences that it understands; None for networks without words.
    """
    architecture, plan = training.architecture, training.plan
    kinds = ", ".join(kind.replace("_", " ") for kind in offers)
    left = [kind.replace("_", " ") for kind in architecture.learns if kind not in offers]
    named = architecture.title.partition(" (")[0]
    lines = [
        f"# {named} network, compact",
        "",
        f"A network of the family {architecture.title} for {kinds}, trained with "
        f"`demoe train --network {architecture.name}`. It is not the published one, and far "
        "smaller.",
        "",
        "## Design",
        "",
        f"{tenant.design()} Stored as 16-bit floats, run in 32 bits.",
        "",
        "## Training",
        "",
        f"{steps:,} steps in a schedule of {plan.minutes:g} minutes on one core, batches of "
        f"{plan.batch} crops of {plan.crop} px"
        + (f", {plan.last_crop} px at last" if plan.last_crop else "")
        + f", {plan.mixed_share:.0%} of them with two kinds of damage, AdamW with a cosine from "
        f"{plan.rate:g}, smoothed weights.",
        *(
            [
                f"Training began from the weights {training.init.name}; the pictures that those "
                "were trained on are listed in their own card."
            ]
            if training.init
            else []
        ),
        "Damage is synthesised as it is needed (`demoe.training.damage`): normal noise of sigma 5 "
        "to 55 of 255, photons and read-out; haze of optical thickness 0.5 to 2.2 over a smooth "
        "depth; streaks of rain in three distances with a slight veil; exposures 3 to 20 times too "
        "short with their noise; pictures out of focus as for DeMoE networks. Some of each is "
        "computed on display values, and some images are compressed as JPEG.",
        "",
        "## Figures",
        "",
        "On images held out of training, damaged by the same generators with another seed "
        "(`demoe evaluate`):",
        "",
        scores.table(),
        "",
        scores.details(),
        "",
        *(
            [f"Trained too, but not good enough to be offered: {', '.join(left)}.", ""]
            if left
            else []
        ),
    ]
    if understood is not None:
        lines += [
            f"Of sentences of a kind that it did not learn from, {understood:.0%} are understood "
            "(`demoe.training.words.instructing`).",
            "",
        ]
    lines += [
        "## Limits",
        "",
        "Compact and trained on synthetic damage alone. Damage by other causes, such as snow, "
        "reflections, moved cameras, strong compression or drops on the lens, was not in training. "
        "Do not measure intensities in restored images without checking them against the original.",
        "",
        "## Data",
        "",
        *_sources(training.pack),
        "Drawn images: dead leaves, text, cells, filaments, beads (`demoe.training.data`).",
        "",
    ]
    return "\n".join(lines)


def _sources(pack: Path | None) -> list[str]:
    if pack is None:
        return []
    from demoe.training.data.pack import load_pack

    content = load_pack(pack)
    rows = [
        f"| {s.name} | {s.package} | {s.licence} | {s.author} | "
        f"{'held out' if index in content.held_out_sources else 'trained on'} |"
        for index, s in enumerate(content.sources)
    ]
    return ["| file | from | licence | author | use |", "|---|---|---|---|---|", *rows, ""]
