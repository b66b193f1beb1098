"""Train network and router on blur that is synthesised as it is needed."""

from __future__ import annotations

import copy
import csv
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from demoe.allocator import keep_freed_memory
from demoe.errors import OutputError, RecipeError, WeightsError
from demoe.model.checkpoint import read_state_dict, write_weights
from demoe.model.network import DeMoENet
from demoe.recipe import TASKS
from demoe.training.data import SharpImages
from demoe.training.degradations import degrade
from demoe.training.random import Draw

Report = Callable[[str], None]

STATE = "state.safetensors"
WEIGHTS = "weights.safetensors"
METRICS = "metrics.csv"


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how to train.

    Parameters
    ----------
    minutes : float
        Time for the whole schedule; the learning rate follows it down to zero.
    start, stop : float
        Part of the schedule to do in this call, as fractions of ``minutes``; a schedule can be
        run in pieces on a machine that is lent for a short time.
    batch, crop : int
        Images a step and their side in pixels.
    rate : float
        Highest learning rate.
    router_weight : float
        Weight of the router's cross entropy beside the restoration loss.
    sharp_share : float
        Share of images that are sharp already and must stay as they are.
    ema : float
        Share of the smoothed weights that a step keeps, once there have been many.
    seed : int
        Seed of data, degradations and initial weights.
    save_every_s : float
        Seconds between two saves of the state.

    Raises
    ------
    RecipeError
        If a field is out of range.
    """

    minutes: float = 60.0
    start: float = 0.0
    stop: float = 1.0
    batch: int = 10
    crop: int = 128
    rate: float = 1e-3
    router_weight: float = 0.05
    sharp_share: float = 0.08
    ema: float = 0.999
    seed: int = 0
    save_every_s: float = 180.0

    def __post_init__(self) -> None:
        """Check what would fail late, or never end."""
        if not 0 < self.minutes < math.inf:
            raise RecipeError(f"minutes must be a number above 0, not {self.minutes}.")
        if not 0 <= self.start < self.stop <= 1:
            raise RecipeError(
                f"start and stop must be 0 <= start < stop <= 1, not {self.start} and {self.stop}."
            )
        if self.batch < 2 or self.crop < 16:
            raise RecipeError(
                "A batch needs at least 2 images of at least 16 pixels a side, not "
                f"{self.batch} of {self.crop}."
            )
        if not 0 < self.rate < math.inf:
            raise RecipeError(f"rate must be a number above 0, not {self.rate}.")


def restoration_loss(restored: Tensor, target: Tensor) -> Tensor:
    """Return the mean over images of log10 of the mean squared error (NAFNet's PSNR loss).

    The constant (33 dB) keeps images that are nearly right from outweighing all others: without
    it a network learns above all to leave sharp and dark images alone.
    """
    error = (restored - target).square().mean(dim=(1, 2, 3))
    return (error + 5e-4).log10().mean()


def learning_rate(plan: TrainingPlan, progress: float) -> float:
    """Return the rate at a point of the schedule: short warm-up, then half a cosine."""
    warm = min(1.0, progress / 0.01 + 0.02)
    return plan.rate * warm * (0.5 + 0.5 * math.cos(math.pi * min(1.0, progress))) + 1e-7


def train(
    network: DeMoENet,
    images: SharpImages,
    plan: TrainingPlan,
    folder: Path,
    *,
    resume: bool = False,
    report: Report = print,
) -> DeMoENet:
    """Train a network and return its smoothed copy, ready for use.

    Parameters
    ----------
    network : DeMoENet
        Trained in place, on the device where it is.
    images : SharpImages
        Sharp training images, on the same device.
    plan : TrainingPlan
        Schedule.
    folder : Path
        Gets ``state.safetensors`` (to go on from), ``weights.safetensors`` (the smoothed network)
        and ``metrics.csv``.
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
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's gap
    network.train().requires_grad_(True)
    smooth = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=plan.rate, betas=(0.9, 0.95), weight_decay=1e-4
    )
    step, progress = 0, plan.start
    if resume:
        step, progress = _load_state(folder / STATE, network, smooth, optimiser)
        report(f"going on at step {step}, {100 * progress:.0f} % of the schedule")
    first_progress = progress
    draw = Draw(plan.seed * 1_000_003 + step)
    began = saved = told = time.monotonic()
    sums: list[float] = []
    try:
        while progress < plan.stop:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(plan, progress)
            tasks = _tasks(plan, step, draw)
            data = degrade(images.batch(plan.batch, plan.crop, draw), tasks, draw)
            with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
                loss, right = _losses(
                    network, data.image, data.target, data.task, progress, plan, draw
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
            optimiser.step()
            _follow(smooth, network, min(plan.ema, (1 + step) / (10 + step)))
            step += 1
            now = time.monotonic()
            progress = first_progress + (now - began) / (60 * plan.minutes)
            sums.append(float(loss.detach()))
            if now - told > 20 or progress >= plan.stop:
                told = now
                mean = sum(sums) / len(sums)
                report(
                    f"step {step}  {100 * progress:5.1f} %  loss {mean:.4f}  router {right:.2f}  "
                    f"{(now - began) / 60:.1f} min"
                )
                _log(folder / METRICS, step, progress, mean, right)
                sums.clear()
            if now - saved > plan.save_every_s:
                saved = now
                _save(folder, network, smooth, optimiser, step, progress, plan)
    except KeyboardInterrupt:
        _save(folder, network, smooth, optimiser, step, progress, plan)
        raise
    _save(folder, network, smooth, optimiser, step, progress, plan)
    return smooth.eval()


def _tasks(plan: TrainingPlan, step: int, draw: Draw) -> list[int]:
    """Give every task its equal share, a few images being sharp."""
    tasks = [(step * plan.batch + i) % len(TASKS) for i in range(plan.batch)]
    return [-1 if draw.chance(plan.sharp_share) else task for task in tasks]


def _losses(
    network: DeMoENet,
    image: Tensor,
    target: Tensor,
    task: Tensor,
    progress: float,
    plan: TrainingPlan,
    draw: Draw,
) -> tuple[Tensor, float]:
    """Return the loss of one batch, and the share of images that the router gets right."""
    features, skips = network.encode(network.pad(image))
    scores = network.mlp_branch.logits(features).float()
    known = task >= 0
    gates = F.one_hot(task.clamp_min(0), network.config.experts)
    # Sharp images may reach any expert, and so may, later on, what the router mistakes.
    stray = draw.uniform_(len(task)).to(task.device) < (0.3 if progress > 0.5 else 0.0)
    wild = torch.randint(network.config.experts, task.shape, generator=draw.generator)
    chosen = torch.where(known, scores.argmax(dim=1), wild.to(task.device))
    gates = torch.where((stray | ~known)[:, None], F.one_hot(chosen, network.config.experts), gates)
    weights = gates.to(features.dtype)[:, :, None, None]
    size = (image.shape[2], image.shape[3])
    restored = network.decode(features, skips, weights, size).float() + image
    loss = restoration_loss(restored, target)
    if known.any():
        loss = loss + plan.router_weight * F.cross_entropy(scores[known], task[known])
    right = (scores.argmax(dim=1) == task)[known].float().mean()
    return loss, float(right.detach())


@torch.no_grad()
def _follow(smooth: DeMoENet, network: DeMoENet, decay: float) -> None:
    """Move the smoothed copy a step towards the network; buffers are copied."""
    torch._foreach_lerp_(list(smooth.parameters()), list(network.parameters()), 1 - decay)
    for mine, theirs in zip(smooth.buffers(), network.buffers(), strict=True):
        mine.copy_(theirs)


def fit_router(
    network: DeMoENet,
    images: SharpImages,
    plan: TrainingPlan,
    *,
    samples: int = 3000,
    steps: int = 500,
    report: Report = print,
) -> None:
    """Train the router alone, to convergence, on features of the finished encoder.

    Batch statistics of the small batches of joint training mislead the router in evaluation mode;
    here batches are large, because features are computed once and kept.
    """
    device = next(network.parameters()).device
    network.eval()
    draw = Draw(plan.seed + 77_777)
    # The largest that there are: windows of later decisions are larger than training crops.
    multiple = network.config.multiple
    crop = images.largest_crop // multiple * multiple
    kept, tasks = [], []
    with torch.no_grad():
        for start in range(0, samples, plan.batch):
            wanted = [(start + i) % len(TASKS) for i in range(plan.batch)]
            data = degrade(images.batch(plan.batch, crop, draw), wanted, draw)
            kept.append(network.encode(network.pad(data.image))[0].half())
            tasks.append(data.task)
    features, labels = torch.cat(kept), torch.cat(tasks)
    router = network.mlp_branch.train().requires_grad_(True)
    optimiser = torch.optim.AdamW(router.parameters(), lr=1e-3, weight_decay=1e-2)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        rows = torch.randint(len(labels), (128,), generator=draw.generator).to(device)
        scores = router.logits(features[rows].float())
        loss = F.cross_entropy(scores, labels[rows], label_smoothing=0.05)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step % 100 == 99:
            right = (scores.argmax(dim=1) == labels[rows]).float().mean()
            now = float(loss.detach())
            report(f"router step {step + 1}: loss {now:.3f}, right {float(right):.2f}")
    network.eval().requires_grad_(False)


def _log(path: Path, step: int, progress: float, loss: float, right: float) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "progress", "loss", "router"])
            writer.writerow([step, f"{progress:.4f}", f"{loss:.5f}", f"{right:.3f}"])
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error


def _save(
    folder: Path,
    network: DeMoENet,
    smooth: DeMoENet,
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
    write_weights(folder / WEIGHTS, smooth.state_dict(), {"training": json.dumps(facts)})


def _load_state(
    path: Path, network: DeMoENet, smooth: DeMoENet, optimiser: torch.optim.Optimizer
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
