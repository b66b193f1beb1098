"""The command ``demoe train``."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demoe.errors import ImageError, OutputError, RecipeError

if TYPE_CHECKING:
    from demoe.model.network import DeMoENet
    from demoe.training.data import SharpImages
    from demoe.training.loop import TrainingPlan

PROCEDURAL, PROCEDURAL_HELD_OUT = 450, 60
"""Images made from nothing that join the photographs of a pack, in training and held out of it."""

ROUTER_SAMPLES_A_MINUTE, ROUTER_SAMPLES = 2000, (120, 2400)
"""Blurred images that the router is fitted on: by the length of the schedule, within limits."""


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``demoe train``."""
    parser.add_argument("--make-pack", type=Path, metavar="PACK", help="make a data pack and stop")
    parser.add_argument(
        "images", nargs="*", type=Path, help="sharp images for the pack (else: listed free ones)"
    )
    parser.add_argument("--pack", type=Path, help="data pack to train on (else: drawn images only)")
    parser.add_argument("--out", type=Path, default=Path("training"), help="folder for the results")
    parser.add_argument("--minutes", type=float, default=60, help="length of the whole schedule")
    parser.add_argument("--start", type=float, default=0.0, help="where in the schedule to begin")
    parser.add_argument("--stop", type=float, default=1.0, help="where in the schedule to end")
    parser.add_argument("--resume", action="store_true", help="go on from the state in --out")
    parser.add_argument("--init", type=Path, help="weights to start from")
    parser.add_argument("--width", type=count, default=16, help="channels at full resolution")
    parser.add_argument("--batch", type=count, default=12)
    parser.add_argument("--crop", type=count, default=96, help="side of training crops in pixels")
    parser.add_argument(
        "--last-crop", type=count, default=0, help="their side in the last fifth of the schedule"
    )
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument(
        "--mixed-share", type=float, default=0.3, help="share of images with two blurs"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--per-task", type=count, default=40, help="images a task in the evaluation"
    )


def count(text: str) -> int:
    """Read a number of at least 1 from the command line."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def train(arguments: argparse.Namespace) -> int:
    """Train, fit the router, evaluate, and write weights with their card."""
    if arguments.make_pack:
        return _make_pack(arguments)
    if arguments.images:
        raise RecipeError(
            "Training takes a pack: make one with `demoe train --make-pack PACK IMAGES ...`, then "
            "train with `demoe train --pack PACK`."
        )
    import torch

    from demoe.model.calibration import calibration_metadata
    from demoe.model.checkpoint import write_weights
    from demoe.model.loading import choose_device
    from demoe.training.card import model_card
    from demoe.training.evaluation import evaluate as measure
    from demoe.training.loop import STATE, steps_done
    from demoe.training.loop import train as train_network
    from demoe.training.router_fit import fit_router

    plan = _plan(arguments)
    device = choose_device(arguments.device)
    folder: Path = arguments.out
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {folder} cannot be made ({error.strerror}).") from None
    if not arguments.resume and (folder / STATE).exists():
        raise OutputError(
            f"{folder} holds a training already; go on with --resume, or choose another --out."
        )
    images, held_out = load_images(arguments.pack, device)
    torch.manual_seed(arguments.seed)
    network = train_network(
        _network(arguments).to(device), images, plan, folder, resume=arguments.resume, report=_say
    )
    if plan.stop < 1:
        _say(f"schedule done up to {plan.stop:.0%}; weights are in {folder}")
        return 0
    low, high = ROUTER_SAMPLES
    samples = int(min(high, max(low, plan.minutes * ROUTER_SAMPLES_A_MINUTE)))
    fit_router(network, images, samples=samples, steps=samples // 3, seed=plan.seed, report=_say)
    crop = min(128, held_out.largest_crop)
    scores = measure(network, held_out, per_task=arguments.per_task, crop=crop)
    steps = steps_done(folder)
    card = model_card(network.config, plan, steps, scores, arguments.pack, arguments.init)
    metadata = {"config": json.dumps(network.config.to_dict()), "card": card}
    metadata |= calibration_metadata(network)
    write_weights(folder / "model.safetensors", network.state_dict(), metadata, half=True)
    write_text(folder / "model.md", card)
    write_text(folder / "scores.json", json.dumps(scores.to_dict(), indent=2))
    print(scores.table())
    return 0


def _network(arguments: argparse.Namespace) -> DeMoENet:
    """Return the network to train; it keeps levels, since all targets have their image's exposure.

    Weights to start from may not have done so.
    """
    from demoe.model.checkpoint import build_network, read_state_dict
    from demoe.model.config import NetworkConfig
    from demoe.model.network import DeMoENet
    from demoe.training.loop import fresh_network

    if arguments.init:
        begun = build_network(read_state_dict(arguments.init)[0], name=str(arguments.init))
        network = DeMoENet(replace(begun.config, keeps_level=True))
        network.load_state_dict(begun.state_dict(), strict=False)
        return network
    # Few blocks where pixels are many, more where they are few: the best use of a short time.
    config = NetworkConfig(arguments.width, (0, 1, 2, 4), 2, (1, 1, 1, 0), keeps_level=True)
    return fresh_network(config)


def load_images(pack: Path | None, device: Any) -> tuple[SharpImages, SharpImages]:
    """Return training and held-out images: a pack's photographs and drawn images.

    The two drawn sets have different seeds, the two photographic ones different source files.
    """
    import numpy as np

    from demoe.training.data import SharpImages
    from demoe.training.procedural import procedural_images

    photographs = _photographs(pack)
    side = photographs[0].shape[1]
    drawn = procedural_images(PROCEDURAL, side, seed=11)
    return (
        SharpImages(np.concatenate([photographs[0], drawn]), device),
        _with_drawn_held_out(photographs[1], device),
    )


def load_held_out(pack: Path | None, device: Any) -> SharpImages:
    """Return the second of what `load_images` returns, without making the first."""
    return _with_drawn_held_out(_photographs(pack)[1], device)


def _photographs(pack: Path | None) -> tuple[Any, Any]:
    """Return a pack's training and held-out images; without a pack, none of the usual size."""
    import numpy as np

    from demoe.training.pack import load_pack

    if pack is None:
        return np.empty((0, 192, 192, 3), np.uint8), np.empty((0, 192, 192, 3), np.uint8)
    content = load_pack(pack)
    return content.images[content.train], content.images[content.validation]


def _with_drawn_held_out(photographs: Any, device: Any) -> SharpImages:
    import numpy as np

    from demoe.training.data import SharpImages
    from demoe.training.procedural import procedural_images

    drawn = procedural_images(PROCEDURAL_HELD_OUT, photographs.shape[1], seed=99)
    return SharpImages(np.concatenate([photographs, drawn]), device)


def write_text(path: Path, text: str) -> None:
    """Write text whole or not at all; an existing file is replaced."""
    from demoe.io._atomic import partial_output

    with partial_output(path, overwrite=True) as partial:
        partial.write_text(text, encoding="utf-8")


def _plan(arguments: argparse.Namespace) -> TrainingPlan:
    from demoe.training.loop import TrainingPlan

    return TrainingPlan(
        minutes=arguments.minutes,
        start=arguments.start,
        stop=arguments.stop,
        batch=arguments.batch,
        crop=arguments.crop,
        last_crop=arguments.last_crop,
        rate=arguments.rate,
        mixed_share=arguments.mixed_share,
        seed=arguments.seed,
    )


def _make_pack(arguments: argparse.Namespace) -> int:
    from tempfile import TemporaryDirectory

    from demoe.training.pack import make_pack
    from demoe.training.sources import CUTOUTS, collect_sources

    if arguments.images:
        report = make_pack(arguments.images, arguments.make_pack)
    else:
        with TemporaryDirectory() as folder:
            place = Path(folder)
            report = make_pack(
                collect_sources(place),
                arguments.make_pack,
                cutouts=collect_sources(place, CUTOUTS),
            )
    if not report.n_crops:
        raise ImageError("No image was sharp enough for the pack; give sharper or larger ones.")
    print(
        f"{report.path}: {report.n_crops} crops of {len(report.crops)} files, {report.size:,} bytes"
    )
    return 0


def _say(text: str) -> None:
    print(text, flush=True)
