"""Train a network on damage that is synthesised as it is needed, whichever network it is."""

from __future__ import annotations

import copy
import csv
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from demoe.errors import OutputError, WeightsError
from demoe.model.backends.allocator import keep_freed_memory
from demoe.model.backends.half import multiplies_bfloat16
from demoe.model.checkpoint import read_state_dict, write_weights
from demoe.model.protocol import Trainable
from demoe.training.data.crops import SharpImages
from demoe.training.fit.blurs import Blurs
from demoe.training.fit.plan import TrainingPlan, learning_rate
from demoe.training.fit.plot import plot_metrics
from demoe.training.random import Draw

Report = Callable[[str], None]
STATE = "state.safetensors"
WEIGHTS = "weights.safetensors"
METRICS = "metrics.csv"
PLOT = "metrics.png"


class Lessons(Protocol):
    """What networks of a kind learn from, and how.

    Attributes
    ----------
    figure : str
        What tells beside the loss how well it goes: a column of ``metrics.csv``.
    """

    figure: str

    def begin(self, network: Any) -> None:
        """Prepare a network, which is in training mode."""

    def tasks(self, plan: TrainingPlan, step: int, batch: int, draw: Draw) -> list[Any]:
        """Return what is wrong with each image of a step."""

    def examples(self, images: SharpImages, tasks: list[Any], crop: int, draw: Draw) -> Any:
        """Damage images so."""

    def losses(
        self, network: Any, examples: Any, progress: float, plan: TrainingPlan, draw: Draw
    ) -> tuple[Tensor, float]:
        """Return the loss of one batch, and the other figure."""


def train(
    network: Any,
    images: SharpImages,
    plan: TrainingPlan,
    folder: Path,
    *,
    lessons: Lessons | None = None,
    resume: bool = False,
    report: Report = print,
) -> Any:
    """Train a network and return its smoothed copy, ready for use.

    Parameters
    ----------
    network : Trainable
        Trained in place, on the device where it is.
    images : SharpImages
        Sharp training images, on the same device.
    plan : TrainingPlan
        Schedule.
    folder : Path
        Gets ``state.safetensors`` (to go on from), ``weights.safetensors`` (the smoothed network
        in half precision), ``metrics.csv`` and its picture ``metrics.png``.
    lessons : Lessons, optional
        What it learns from; `Blurs` by default.
    resume : bool
        Go on from the state in ``folder``.
    report : callable
        Told a line now and then.

    Raises
    ------
    WeightsError
        If there is no state to resume, or one of another architecture.
    OutputError
        If the folder cannot be written.
    """
    keep_freed_memory()
    device = next(network.parameters()).device
    on_gpu = device.type == "cuda"
    network.to(memory_format=torch.channels_last)
    network.train().requires_grad_(True)
    lessons = lessons or Blurs()
    lessons.begin(network)
    smooth = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=plan.rate, betas=(0.9, 0.95), weight_decay=1e-4, fused=True
    )
    step, progress = 0, plan.start
    if resume:
        step, progress = _load_state(folder / STATE, network, smooth, optimiser)
        report(f"going on at step {step}, {100 * progress:.0f} % of the schedule")
    first_progress = progress
    began = saved = told = time.monotonic()
    sums: list[tuple[float, float]] = []
    workers = _Workers(
        network, images, plan, lessons, 1 if on_gpu else torch.get_num_threads(), step
    )
    try:
        with workers:
            while progress < plan.stop:
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate(plan, progress)
                sums.append(workers.gradients(step, progress))
                torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
                optimiser.step()
                _follow(smooth, network, min(plan.ema, (1 + step) / (10 + step)))
                step += 1
                now = time.monotonic()
                progress = first_progress + (now - began) / (60 * plan.minutes)
                if now - told > 20 or progress >= plan.stop:
                    told = now
                    loss, figure = (sum(column) / len(sums) for column in zip(*sums, strict=True))
                    report(
                        f"step {step}  {100 * progress:5.1f} %  loss {loss:.4f}  "
                        f"{lessons.figure} {figure:.2f}  {(now - began) / 60:.1f} min"
                    )
                    _log(
                        folder / METRICS,
                        {
                            "step": step,
                            "progress": f"{progress:.4f}",
                            "loss": f"{loss:.5f}",
                            lessons.figure: f"{figure:.3f}",
                        },
                    )
                    sums.clear()
                if now - saved > plan.save_every_s:
                    saved = now
                    _save(folder, network, smooth, optimiser, step, progress, plan)
    except KeyboardInterrupt:
        _save(folder, network, smooth, optimiser, step, progress, plan)
        raise
    _save(folder, network, smooth, optimiser, step, progress, plan)
    return smooth.eval()


class _Workers:
    """Threads that share each batch, every one with whole images and operations of its own.

    On a CPU that is about twice as fast as sharing every single operation, whose threads wait for
    each other thousands of times a step, and long when another program takes one of the cores.
    """

    def __init__(
        self,
        network: Any,
        images: SharpImages,
        plan: TrainingPlan,
        lessons: Lessons,
        count: int,
        step: int,
    ) -> None:
        count = max(1, min(count, plan.shape(0)[0] // 2, plan.shape(1)[0] // 2))
        self.network, self.images = network, images
        self.plan, self.lessons = plan, lessons
        self.parameters = list(network.parameters())
        # One stream of random numbers a worker, so that a seed gives the same batches each time.
        self.draws = [
            Draw((plan.seed * 1_000_003 + step) * 1009 + number) for number in range(count)
        ]
        self.device = self.parameters[0].device
        self.low_precision = self.device.type == "cuda" or multiplies_bfloat16()

    def __enter__(self) -> _Workers:
        self.pool = ThreadPoolExecutor(len(self.draws))
        self.threads = torch.get_num_threads()
        torch.set_num_threads(max(1, self.threads // len(self.draws)))
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self.threads)

    def gradients(self, step: int, progress: float) -> tuple[float, float]:
        """Set the gradients of one step; return the loss and the other figure."""
        batch, crop = self.plan.shape(progress)
        tasks = self.lessons.tasks(self.plan, step, batch, self.draws[0])
        shares = [tasks[number :: len(self.draws)] for number in range(len(self.draws))]
        futures = [
            self.pool.submit(self._share, share, crop, progress, draw)
            for share, draw in zip(shares, self.draws, strict=True)
        ]
        results = [future.result() for future in futures]
        parts = [len(share) / len(tasks) for share in shares]
        for index, parameter in enumerate(self.parameters):
            parameter.grad = None
            for result, part in zip(results, parts, strict=True):
                gradient = result[0][index]
                if gradient is None:
                    continue
                if parameter.grad is None:
                    parameter.grad = gradient.mul_(part)
                else:
                    parameter.grad.add_(gradient, alpha=part)
        loss = sum(r[1] * part for r, part in zip(results, parts, strict=True))
        figure = sum(r[2] * part for r, part in zip(results, parts, strict=True))
        return loss, figure

    def _share(
        self, tasks: list[Any], crop: int, progress: float, draw: Draw
    ) -> tuple[tuple[Tensor | None, ...], float, float]:
        examples = self.lessons.examples(self.images, tasks, crop, draw)
        # Casts of shared weights are not kept: a cache would be shared among the threads.
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.low_precision, cache_enabled=False
        ):
            loss, figure = self.lessons.losses(self.network, examples, progress, self.plan, draw)
        found = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        return found, float(loss.detach()), figure


@torch.no_grad()
def _follow(smooth: Trainable, network: Trainable, decay: float) -> None:
    """Move the smoothed copy a step towards the network; buffers are copied."""
    torch._foreach_lerp_(list(smooth.parameters()), list(network.parameters()), 1 - decay)
    for mine, theirs in zip(smooth.buffers(), network.buffers(), strict=True):
        mine.copy_(theirs)


def _log(path: Path, values: Mapping[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(values)
            writer.writerow(values.values())
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error


def _save(
    folder: Path,
    network: Trainable,
    smooth: Trainable,
    optimiser: torch.optim.Optimizer,
    step: int,
    progress: float,
    plan: TrainingPlan,
) -> None:
    state = {f"network.{k}": v for k, v in network.state_dict().items()}
    state |= {f"smooth.{k}": v for k, v in smooth.state_dict().items()}
    for index, moments in optimiser.state_dict()["state"].items():
        state |= {f"adam.{index}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    facts = {"step": step, "progress": progress, "plan": asdict(plan)}
    write_weights(folder / STATE, state, {"training": json.dumps(facts)})
    write_weights(folder / WEIGHTS, smooth.state_dict(), {"training": json.dumps(facts)}, half=True)
    if (folder / METRICS).exists():
        plot_metrics(folder / METRICS, folder / PLOT)


def steps_done(folder: Path) -> int:
    """Return the number of steps of the training in a folder, over all of its pieces."""
    return int(json.loads(read_state_dict(folder / STATE)[1]["training"])["step"])


def _load_state(
    path: Path, network: Trainable, smooth: Trainable, optimiser: torch.optim.Optimizer
) -> tuple[int, float]:
    state, metadata = read_state_dict(path)

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

    try:
        facts = json.loads(metadata["training"])
        network.load_state_dict(part("network."))
        smooth.load_state_dict(part("smooth."))
    except (KeyError, ValueError, RuntimeError):
        raise WeightsError(
            f"The training state {path} belongs to another architecture; "
            "start anew in another folder."
        ) from None
    wanted = optimiser.state_dict()
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in part("adam.").items():
        index, name = key.split(".")
        moments.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": moments, "param_groups": wanted["param_groups"]})
    return int(facts["step"]), float(facts["progress"])
