"""``demoe train``: make a data pack, or train a network on one."""

from __future__ import annotations

import argparse
from pathlib import Path

from demoe.cli.options import DEVICE_HELP, count
from demoe.errors import ImageError, RecipeError
from demoe.model.architectures import ARCHITECTURES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``demoe train``."""
    parser.add_argument("--make-pack", type=Path, metavar="PACK", help="make a data pack and stop")
    parser.add_argument(
        "images", nargs="*", type=Path, help="sharp images for the pack (else: listed free ones)"
    )
    parser.add_argument(
        "--pack-size", type=count, default=48, metavar="MB", help="most that a pack made may take"
    )
    parser.add_argument(
        "--network", default="demoe", choices=tuple(ARCHITECTURES), help="what to train"
    )
    parser.add_argument("--pack", type=Path, help="data pack to train on (else: drawn images only)")
    parser.add_argument("--out", type=Path, default=Path("training"), help="folder for the results")
    parser.add_argument("--minutes", type=float, default=60, help="length of the whole schedule")
    parser.add_argument("--start", type=float, default=0.0, help="where in the schedule to begin")
    parser.add_argument("--stop", type=float, default=1.0, help="where in the schedule to end")
    parser.add_argument("--resume", action="store_true", help="go on from the state in --out")
    parser.add_argument("--init", type=Path, help="weights to start from")
    parser.add_argument(
        "--width", type=count, help="channels at full resolution (default: as each network has it)"
    )
    parser.add_argument("--batch", type=count, default=12)
    parser.add_argument("--crop", type=count, default=96, help="side of training crops in pixels")
    parser.add_argument(
        "--last-crop", type=count, default=0, help="their side in the last fifth of the schedule"
    )
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument(
        "--mixed-share", type=float, default=0.3, help="share of images with two kinds of damage"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help=DEVICE_HELP)
    parser.add_argument(
        "--per-task", type=count, default=40, help="images a task in the evaluation"
    )


def main(arguments: argparse.Namespace) -> int:
    """Make a pack, or train, fit the router, evaluate, and write weights with their card."""
    if arguments.make_pack:
        return _make_pack(arguments)
    if arguments.images:
        raise RecipeError(
            "Training takes a pack: make one with `demoe train --make-pack PACK IMAGES ...`, then "
            "train with `demoe train --pack PACK`."
        )
    from demoe.training.fit.plan import TrainingPlan
    from demoe.training.fit.whole import train_weights

    plan = TrainingPlan(
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
    table = train_weights(
        plan,
        arguments.out,
        network=arguments.network,
        pack=arguments.pack,
        init=arguments.init,
        width=arguments.width,
        device=arguments.device,
        resume=arguments.resume,
        per_task=arguments.per_task,
        report=_say,
    )
    if table is not None:
        print(table)
    return 0


def _make_pack(arguments: argparse.Namespace) -> int:
    from tempfile import TemporaryDirectory

    from demoe.training.data.pack import make_pack
    from demoe.training.data.sources import CUTOUTS, collect_sources

    most = arguments.pack_size * 1_000_000
    if arguments.images:
        report = make_pack(arguments.images, arguments.make_pack, max_bytes=most)
    else:
        with TemporaryDirectory() as folder:
            place = Path(folder)
            report = make_pack(
                collect_sources(place),
                arguments.make_pack,
                max_bytes=most,
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
