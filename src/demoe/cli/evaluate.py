"""``demoe evaluate``: measure a network against known truth."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demoe.choices import DAMAGES, names_of
from demoe.cli.options import DEVICE_HELP, count
from demoe.errors import RecipeError, WeightsError

if TYPE_CHECKING:
    from demoe.model.loading import Model
    from demoe.training.data.crops import SharpImages
    from demoe.training.evaluate.scores import Scores

REFERENCE = "demoe"
"""Name of the released weights."""

CROP, SMALLEST_CROP = 128, 32
MIXED_SIDE, SMALLEST_MIXED = 768, 128
"""Sides of pictures in pixels, usual and least: with one blur, and with several."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``demoe evaluate``."""
    parser.add_argument("--model", default="default", help="name or path of weights")
    parser.add_argument(
        "--kinds",
        nargs="+",
        choices=names_of(DAMAGES),
        metavar="KIND",
        help=f"kinds of damage ({', '.join(names_of(DAMAGES))}); default: what a network is for",
    )
    parser.add_argument("--pack", type=Path, help="data pack; its held-out images are used")
    parser.add_argument("--per-task", type=count, default=40, help="images a task")
    parser.add_argument(
        "--crop",
        type=count,
        help=f"side of the images in pixels (default {CROP}; with --mixed {MIXED_SIDE})",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--reference", action="store_true", help="measure the released weights as well"
    )
    what.add_argument(
        "--mixed", action="store_true", help="measure routing on pictures with several blurs"
    )
    parser.add_argument(
        "--pictures", type=count, default=60, help="pictures with several blurs (default 60)"
    )
    parser.add_argument(
        "--recipe", type=Path, help="JSON file of settings to measure routing with (--mixed)"
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--sheet", type=Path, help="draw inputs, outputs and truth (.jpg or .png)")


def main(arguments: argparse.Namespace) -> int:
    """Print how good a network is on images held out of training."""
    from demoe.io.atomic import check_target, write_text
    from demoe.model.loading import load_model
    from demoe.training.data.images import load_held_out
    from demoe.training.evaluate.grid import check_picture

    usual, least = (MIXED_SIDE, SMALLEST_MIXED) if arguments.mixed else (CROP, SMALLEST_CROP)
    crop = arguments.crop or usual
    if crop < least:
        raise RecipeError(f"--crop must be at least {least} px here, not {crop}.")
    if arguments.recipe and not arguments.mixed:
        raise RecipeError("--recipe is for --mixed; without it the bare network is measured.")
    if arguments.json:
        check_target(arguments.json, overwrite=True)
    if arguments.sheet:
        check_picture(arguments.sheet)
    model = load_model(arguments.model, arguments.device)
    kinds = tuple(arguments.kinds or model.offers)
    if kinds and (arguments.mixed or arguments.reference):
        raise RecipeError(
            "--mixed and --reference are for networks for blur, and for blur alone; this is about "
            f"{', '.join(kinds)}."
        )
    known = names_of(model.choices)
    if not model.tenant.decides and (unknown := [kind for kind in kinds if kind not in known]):
        raise RecipeError(f"{model.name} cannot be told about {', '.join(unknown)}.")
    held_out = load_held_out(arguments.pack, model.device)
    if kinds:
        found = _damages(arguments, model, held_out, crop, kinds)
    else:
        found = (_mixed if arguments.mixed else _plain)(arguments, model, held_out, crop)
    if arguments.json:
        write_text(arguments.json, json.dumps(_facts(model) | found, indent=2))
    return 0


def _plain(
    arguments: argparse.Namespace, model: Model, held_out: SharpImages, crop: int
) -> dict[str, Any]:
    """Measure on pictures with one blur each."""
    from demoe.training.evaluate.grid import write_picture
    from demoe.training.evaluate.metrics import find_measures
    from demoe.training.evaluate.scores import compare
    from demoe.training.evaluate.sheet import evaluation_sheet

    reference = _reference(arguments) if arguments.reference else None
    measures, missing = find_measures(model.device)

    def measured(which: Model) -> Scores:
        from demoe.training.evaluate.evaluation import evaluate
        from demoe.training.evaluate.peers import PEERS

        scores = evaluate(
            which.network,
            held_out,
            per_task=arguments.per_task,
            crop=crop,
            seed=arguments.seed,
            measures=measures,
            # Peers know nothing of the network: once is enough.
            peers=PEERS if which is model and "ssim" in measures else None,
        )
        print(f"{_title(which)}\n\n{scores.table()}\n\n{scores.details()}\n")
        print(
            f"{scores.seconds:.2f} s a megapixel in the bare network (median, on {which.device}); "
            "`demoe bench` measures whole runs.\n"
        )
        return scores

    scores = measured(model)
    found = scores.to_dict()
    if reference:
        of_reference = measured(reference)
        found["reference"] = _facts(reference) | of_reference.to_dict()
        print(compare({model.name: scores, reference.name: of_reference}))
        print(
            "\nThe released weights brighten low light, while the truth here has the input's "
            "exposure: their low-light figures say little.\n"
        )
    for sentence in missing:
        print(sentence)
    if arguments.sheet:
        title = f"{_title(model)}, images held out of training"
        sheet = evaluation_sheet(
            model.network, held_out, title=title, crop=crop, seed=arguments.seed
        )
        write_picture(sheet, arguments.sheet)
    return found


def _damages(
    arguments: argparse.Namespace,
    model: Model,
    held_out: SharpImages,
    crop: int,
    kinds: tuple[str, ...],
) -> dict[str, Any]:
    """Measure on pictures with one kind of damage each."""
    from demoe.training.evaluate.damage_sheet import damage_sheet
    from demoe.training.evaluate.damages import evaluate_damages
    from demoe.training.evaluate.grid import write_picture
    from demoe.training.evaluate.metrics import find_measures

    measures, missing = find_measures(model.device)
    scores = evaluate_damages(
        model.tenant,
        held_out,
        kinds,
        per_kind=arguments.per_task,
        crop=crop,
        seed=arguments.seed,
        measures=measures,
    )
    print(f"{_title(model)}\n\n{scores.table()}\n\n{scores.details()}\n")
    print(
        f"{scores.seconds:.2f} s a megapixel in the bare network (median, on {model.device}); a "
        f"tile takes {model.tenant.bytes_per_pixel(False) / 1000:.1f} kB a pixel.\n"
    )
    for sentence in missing:
        print(sentence)
    if arguments.sheet:
        title = f"{_title(model)}, images held out of training"
        sheet = damage_sheet(
            model.tenant, held_out, kinds, title=title, crop=crop, seed=arguments.seed
        )
        write_picture(sheet, arguments.sheet)
    return scores.to_dict()


def _mixed(
    arguments: argparse.Namespace, model: Model, held_out: SharpImages, side: int
) -> dict[str, Any]:
    """Measure routing on pictures with several blurs each."""
    from demoe.cli.options import read_recipe
    from demoe.training.blur.composites import composites
    from demoe.training.evaluate.grid import write_picture
    from demoe.training.evaluate.mixed import measure_mixed
    from demoe.training.evaluate.mixed_sheet import mixed_sheet

    recipe = read_recipe(arguments.recipe)
    pictures = composites(held_out, arguments.pictures, side, arguments.seed)
    scores, results = measure_mixed(model, pictures, recipe)
    title = f"{_title(model)}, {len(pictures)} pictures of {side} px with several blurs"
    print(f"{title}\n\n{scores.table()}")
    if arguments.sheet:
        sheet = mixed_sheet(pictures, results, title=_title(model), pitch=recipe.pitch)
        write_picture(sheet, arguments.sheet)
    return scores.to_dict()


def _reference(arguments: argparse.Namespace) -> Model | None:
    """Return the released weights; where they are not here, say how to get them."""
    from demoe.model.loading import load_model
    from demoe.model.zoo import weights_path

    try:
        weights_path(REFERENCE)
    except WeightsError as error:
        print(f"demoe: {error}", file=sys.stderr)
        return None
    return load_model(REFERENCE, arguments.device)


def _title(model: Model) -> str:
    size = model.path.stat().st_size
    return f"{model.name}: {_parameters(model) / 1e6:.1f} million parameters, {size / 1e6:.1f} MB"


def _parameters(model: Model) -> int:
    return sum(parameter.numel() for parameter in model.network.parameters())


def _facts(model: Model) -> dict[str, Any]:
    return {
        "model": model.name,
        "sha256": model.sha256,
        "parameters": _parameters(model),
        "bytes": model.path.stat().st_size,
        "device": str(model.device),
    }
