"""Compare compact designs at equal compute: each is trained from nothing for the same time.

    python benchmarks/designs.py --pack PACK [--minutes 3] [--only even]

Every design sees the same schedule of `demoe train` with the same seed and is then evaluated on the
same held-out images. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from demoe.model.demoe.config import NetworkConfig
from demoe.model.demoe.flops import flops_per_pixel
from demoe.model.demoe.tenant import untrained
from demoe.model.devices import choose_device
from demoe.training.data.images import load_images
from demoe.training.evaluate.evaluation import evaluate
from demoe.training.fit.loop import TrainingPlan, steps_done, train

DESIGNS = {
    "shipped": NetworkConfig(16, (0, 1, 2, 4), 2, (1, 1, 1, 0), keeps_level=True),
    "even": NetworkConfig(16, (1, 1, 2, 4), 2, (1, 1, 1, 1), keeps_level=True),
    "narrow": NetworkConfig(12, (1, 2, 4, 4), 2, (1, 1, 1, 1), keeps_level=True),
}


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--only", choices=DESIGNS, nargs="+", default=list(DESIGNS))
    parser.add_argument("--device", default="auto")
    given = parser.parse_args(words)
    images, held_out = load_images(given.pack, choose_device(given.device))
    plan = TrainingPlan(minutes=given.minutes, batch=10, crop=128, rate=1e-3)
    print("| design | width; blocks | parameters | kFLOP a pixel | steps | mean gain | router |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name in given.only:
        config = DESIGNS[name]
        torch.manual_seed(0)
        network = untrained(config)
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            trained = train(network.to(images.images.device), images, plan, place, report=_say)
            steps = steps_done(place)
        scores = evaluate(trained, held_out, per_task=40, crop=128)
        blocks = " / ".join(
            "-".join(map(str, part))
            for part in (config.encoder_blocks, [config.middle_blocks], config.decoder_blocks)
        )
        size = sum(parameter.numel() for parameter in trained.parameters()) / 1e6
        print(
            f"| {name} | {config.width}; {blocks} | {size:.1f} million "
            f"| {flops_per_pixel(config) / 1e3:.0f} | {steps} | {scores.mean_gain:+.3f} dB "
            f"| {100 * scores.accuracy:.0f} % |",
            flush=True,
        )
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
