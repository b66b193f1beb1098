"""Teach a weights file to find kernels: its detector of blur, its judge, then its fusion.

``python -m demoe.training.kernels --pictures FOLDER --weights IN --out OUT`` wants a folder of
sharp photos. Every eighth of them is held out, and what is gained there is printed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demoe.choices import TASKS
from demoe.engine.kernels.photo import LEAST_GAIN
from demoe.model.architectures import TOOLS
from demoe.model.checkpoint import read_state_dict, write_weights
from demoe.model.kernels.fusion import Fusion
from demoe.model.kernels.tools import KernelTools
from demoe.model.zoo import weights_path
from demoe.training.kernels.detecting import SHARES, learn_detector, scenes_of, told_right
from demoe.training.kernels.fusing import fused_gains, learn_fusion, restored
from demoe.training.kernels.judging import chosen_gains, learn_judge, try_guesses
from demoe.training.kernels.places import SHARP, photos_in, places

OF_ALL = {0: 0.2, 1: 0.25, 2: 0.15, 3: 0.18, 4: 0.15, SHARP: 0.07}
"""How often each task is drawn for judge and fusion."""

HELD_OUT = 8
"""One picture of so many is not learnt from."""


def main(given: Sequence[str] | None = None) -> None:
    """Learn, print what is gained, and write the weights."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=Path, required=True, help="folder of sharp photos")
    parser.add_argument("--weights", default="default", help="name or file of the network")
    parser.add_argument("--out", type=Path, required=True, help="where to write the weights")
    parser.add_argument(
        "--scenes", type=int, default=3000, help="places that the detector learns on"
    )
    parser.add_argument("--places", type=int, default=900, help="places that the judge learns on")
    parser.add_argument("--examples", type=int, default=600, help="the same of the fusion")
    parser.add_argument(
        "--minutes", type=float, default=10, help="time for fitting the fusion, and the detector"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(given)
    files = photos_in(arguments.pictures)
    held, learnt = files[::HELD_OUT], [f for n, f in enumerate(files) if n % HELD_OUT]
    few = [max(1, count // HELD_OUT) for count in (arguments.places, arguments.examples)]
    seed, seconds = arguments.seed, 60 * arguments.minutes
    print(f"{len(learnt)} pictures to learn from, {len(held)} held out", flush=True)

    scenes = scenes_of(places(learnt, arguments.scenes, seed + 4, SHARES))
    detector = learn_detector(scenes, seconds, seed, print)
    del scenes
    shown = scenes_of(places(held, few[0], seed + 5, SHARES))
    print(f"blurred or sharp, told right: {told_right(detector, shown):.1%}", flush=True)

    told = _Told("place")
    tried = try_guesses(places(learnt, arguments.places, seed, OF_ALL), detector, seed, told)
    judge = learn_judge(tried, seed)
    tried_too = try_guesses(places(held, few[0], seed + 1, OF_ALL), detector, seed + 1, told)
    gains = chosen_gains(judge, tried_too, LEAST_GAIN)
    print(_table("judge's choice", tried_too.task, gains[:, None]), flush=True)

    source = weights_path(arguments.weights)
    tensors, metadata = read_state_dict(source)
    tensors = {key: value for key, value in tensors.items() if not key.startswith(TOOLS)}
    with tempfile.TemporaryDirectory() as folder:
        partial = Path(folder) / "judge.safetensors"
        begun = KernelTools(judge, Fusion(), detector)
        write_weights(partial, tensors | begun.tensors(), metadata)
        drawn = places(learnt, arguments.examples, seed + 2, OF_ALL)
        examples = list(restored(drawn, str(partial)))
        held_out = list(restored(places(held, few[1], seed + 3, OF_ALL), str(partial)))
    fusion = learn_fusion(examples, seconds, seed, print)
    tasks = np.array([one.task for one in held_out])
    found = fused_gains(fusion, held_out)
    print(_table("fused | network | deconvolution", tasks, found), flush=True)
    write_weights(
        arguments.out, tensors | KernelTools(judge, fusion, detector).tensors(), metadata, half=True
    )


class _Told:
    """Prints a line every hundred steps."""

    def __init__(self, what: str) -> None:
        self._what, self._start = what, time.monotonic()

    def __call__(self, number: int) -> None:
        if number % 100 == 0:
            print(f"{self._what} {number}, {time.monotonic() - self._start:.0f} s", flush=True)


def _table(title: str, tasks: NDArray[np.int64], gains: NDArray[np.floating]) -> str:
    """Return mean and worst gains in dB for each task, as lines of a Markdown table."""
    lines = [f"| task | places | {title}: mean / worst |", "|---|---:|---|"]
    for task in sorted(set(tasks.tolist())):
        own = gains[tasks == task]
        values = " | ".join(
            f"{m:+.2f} / {w:+.2f}" for m, w in zip(own.mean(0), own.min(0), strict=True)
        )
        name = "sharp" if task == SHARP else TASKS[task]
        lines.append(f"| {name} | {len(own)} | {values} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
