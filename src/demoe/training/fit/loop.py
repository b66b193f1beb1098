"""Train network and router on blur that is synthesised as it is needed."""

from __future__ import annotations

import copy
import csv
import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from demoe.choices import TASKS
from demoe.errors import OutputError, RecipeError, WeightsError
from demoe.model.backends.allocator import keep_freed_memory
from demoe.model.backends.half import multiplies_bfloat16
from demoe.model.checkpoint import read_state_dict, write_weights
from demoe.model.protocol import Pupil
from demoe.training.blur.composites import blend
from demoe.training.blur.degradations import degrade
from demoe.training.data.crops import SharpImages
from demoe.training.fit.plot import plot_metrics
from demoe.training.random import Draw

Report = Callable[[str], None]
Kinds = tuple[int, ...]
"""What an image carries, as indices into ``TASKS``: nothing if it is sharp, one blur, or two."""

STATE = "state.safetensors"
WEIGHTS = "weights.safetensors"
METRICS = "metrics.csv"
PLOT = "metrics.png"

LAST_PART = 0.8
"""Point of the schedule from which crops have their last size."""
STRAY = 0.1
"""Share of images that reach the router's choice instead of their own kind's expert, in the second
half of the schedule: each expert has to bear what the router mistakes, but more would make all
experts alike."""
CELLS = (16, 32, 64)
"""Pixels a side of the cells in which experts change within an image of several blurs."""
LEVEL_WEIGHT, FREQUENCY_WEIGHT = 3.0, 0.5
"""Weights of the two smaller terms of the loss."""


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
    last_crop : int
        Side of the crops in the last fifth of the schedule, fewer a step so that it takes as
        long; 0 for the same side throughout.
    rate : float
        Highest learning rate.
    router_weight : float
        Weight of the router's cross entropy beside the restoration loss.
    sharp_share : float
        Share of images that are sharp already and must stay as they are.
    mixed_share : float
        Share of images that carry two blurs, each in a region that reaches its own expert.
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
    last_crop: int = 0
    rate: float = 1e-3
    router_weight: float = 0.1
    sharp_share: float = 0.08
    mixed_share: float = 0.0
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
        if self.last_crop and self.last_crop < self.crop:
            raise RecipeError(
                f"Crops grow: the last ones cannot be {self.last_crop} px where the first are "
                f"{self.crop} px."
            )
        if not 0 <= self.mixed_share <= 1:
            raise RecipeError(f"mixed_share must be from 0 to 1, not {self.mixed_share}.")
        if not 0 < self.rate < math.inf:
            raise RecipeError(f"rate must be a number above 0, not {self.rate}.")

    def shape(self, progress: float) -> tuple[int, int]:
        """Return images a step and their side in pixels, at a point of the schedule."""
        if not self.last_crop or progress < LAST_PART:
            return self.batch, self.crop
        return max(2, round(self.batch * (self.crop / self.last_crop) ** 2)), self.last_crop


def restoration_loss(restored: Tensor, target: Tensor) -> Tensor:
    """Return how far images (N, 3, H, W) are from their targets, in three terms.

    The mean over images of log10 of the mean squared error (NAFNet's PSNR loss); the error of
    local means, so that no picture gets brighter or darker; and the mean size of the error's
    Fourier coefficients (as Cho et al., ICCV 2021), which counts fine detail as much as coarse.
    The constant (33 dB) keeps images that are nearly right from outweighing all others: without
    it a network learns above all to leave sharp and dark images alone.
    """
    error = restored - target
    squared = (error.square().mean(dim=(1, 2, 3)) + 5e-4).log10().mean()
    means = F.avg_pool2d(error, min(32, *error.shape[2:])).abs().mean()
    waves = torch.fft.rfft2(error, norm="ortho").abs().mean()
    loss: Tensor = squared + LEVEL_WEIGHT * means + FREQUENCY_WEIGHT * waves
    return loss


def learning_rate(plan: TrainingPlan, progress: float) -> float:
    """Return the rate at a point of the schedule: short warm-up, then half a cosine."""
    warm = min(1.0, progress / 0.01 + 0.02)
    return plan.rate * warm * (0.5 + 0.5 * math.cos(math.pi * min(1.0, progress))) + 1e-7


def train(
    network: Pupil,
    images: SharpImages,
    plan: TrainingPlan,
    folder: Path,
    *,
    resume: bool = False,
    report: Report = print,
) -> Pupil:
    """Train a network and return its smoothed copy, ready for use.

    Parameters
    ----------
    network : Pupil
        Trained in place, on the device where it is.
    images : SharpImages
        Sharp training images, on the same device.
    plan : TrainingPlan
        Schedule.
    folder : Path
        Gets ``state.safetensors`` (to go on from), ``weights.safetensors`` (the smoothed network
        in half precision), ``metrics.csv`` and its picture ``metrics.png``.
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
    # The statistics of small batches mislead the router, so it keeps those of its last fit.
    network.router.eval()
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
    workers = _Workers(network, images, plan, 1 if on_gpu else torch.get_num_threads(), step)
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
                    loss, right = (sum(column) / len(sums) for column in zip(*sums, strict=True))
                    report(
                        f"step {step}  {100 * progress:5.1f} %  loss {loss:.4f}  "
                        f"router {right:.2f}  {(now - began) / 60:.1f} min"
                    )
                    _log(folder / METRICS, step, progress, loss, right)
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
        self, network: Pupil, images: SharpImages, plan: TrainingPlan, count: int, step: int
    ) -> None:
        count = max(1, min(count, plan.shape(0)[0] // 2, plan.shape(1)[0] // 2))
        self.network, self.images, self.plan = network, images, plan
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
        """Set the gradients of one step; return the loss and the router's share of right ones."""
        batch, crop = self.plan.shape(progress)
        tasks = _tasks(self.plan, step, batch, self.draws[0])
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
        right = sum(r[2] * part for r, part in zip(results, parts, strict=True))
        return loss, right

    def _share(
        self, tasks: list[Kinds], crop: int, progress: float, draw: Draw
    ) -> tuple[tuple[Tensor | None, ...], float, float]:
        examples = _examples(self.images, tasks, crop, draw)
        # Casts of shared weights are not kept: a cache would be shared among the threads.
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.low_precision, cache_enabled=False
        ):
            loss, right = _losses(self.network, examples, progress, self.plan, draw)
        found = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        return found, float(loss.detach()), right


def _tasks(plan: TrainingPlan, step: int, batch: int, draw: Draw) -> list[Kinds]:
    """Give every task its equal share, a few images being sharp, and some carrying two blurs."""
    return [_kinds((step * batch + i) % len(TASKS), plan, draw) for i in range(batch)]


def _kinds(task: int, plan: TrainingPlan, draw: Draw) -> Kinds:
    if draw.chance(plan.sharp_share):
        return ()
    if plan.mixed_share and draw.chance(plan.mixed_share):
        return task, (task + draw.integer(1, len(TASKS))) % len(TASKS)
    return (task,)


@dataclass(frozen=True)
class _Examples:
    """What a step learns from.

    Attributes
    ----------
    image, target : Tensor
        (N, 3, side, side) in [0, 1].
    shares : Tensor
        (N, 5, rows, cols): how much of each cell every task has to do with; 0 in sharp images.
    """

    image: Tensor
    target: Tensor
    shares: Tensor


def _examples(images: SharpImages, tasks: list[Kinds], crop: int, draw: Draw) -> _Examples:
    """Blur images, each in its own way, those with several blurs last."""
    plain = [kinds[0] if kinds else -1 for kinds in tasks if len(kinds) < 2]
    several = [kinds for kinds in tasks if len(kinds) > 1]
    found = []
    if plain:
        data = degrade(images.batch(len(plain), crop, draw), plain, draw)
        shares = F.one_hot(data.task + 1, len(TASKS) + 1)[:, 1:, None, None].to(data.image)
        found.append(_Examples(data.image, data.target, shares))
    cells = -(-crop // CELLS[draw.integer(0, len(CELLS))]) if several else 1
    for kinds in several:
        made = blend(lambda: images.batch(1, crop, draw), kinds, crop, draw)
        shares = F.adaptive_avg_pool2d(made.shares[None], cells)
        found.append(_Examples(made.image, made.target, shares))
    return _Examples(
        torch.cat([part.image for part in found]),
        torch.cat([part.target for part in found]),
        torch.cat([part.shares.expand(-1, -1, cells, cells) for part in found]),
    )


def _losses(
    network: Pupil, examples: _Examples, progress: float, plan: TrainingPlan, draw: Draw
) -> tuple[Tensor, float]:
    """Return the loss of one batch, and the share of single blurs that the router gets right."""
    image, shares, experts = examples.image, examples.shares, network.choice_count
    whole = shares.mean(dim=(2, 3))
    known = whole.amax(dim=1) > 0

    def choose(scores: Tensor) -> Tensor:
        gates = F.one_hot(shares.argmax(dim=1), experts).permute(0, 3, 1, 2)
        # Sharp images may reach any expert, and so may, later on, what the router mistakes.
        stray = draw.uniform_(len(image)).to(image.device) < (STRAY if progress > 0.5 else 0.0)
        wild = torch.randint(experts, (len(image),), generator=draw.generator).to(image.device)
        chosen = F.one_hot(torch.where(known, scores.argmax(dim=1), wild), experts)
        return torch.where((stray | ~known)[:, None, None, None], chosen[:, :, None, None], gates)

    restored, scores = network.learn(image, choose)
    loss = restoration_loss(restored, examples.target)
    if known.any():
        loss = loss + plan.router_weight * F.cross_entropy(scores[known], whole[known])
    single = whole.amax(dim=1) == 1
    hits = (scores.argmax(dim=1) == whole.argmax(dim=1))[single]
    return loss, float(hits.float().mean()) if single.any() else 1.0


@torch.no_grad()
def _follow(smooth: Pupil, network: Pupil, decay: float) -> None:
    """Move the smoothed copy a step towards the network; buffers are copied."""
    torch._foreach_lerp_(list(smooth.parameters()), list(network.parameters()), 1 - decay)
    for mine, theirs in zip(smooth.buffers(), network.buffers(), strict=True):
        mine.copy_(theirs)


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
    network: Pupil,
    smooth: Pupil,
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
    path: Path, network: Pupil, smooth: Pupil, optimiser: torch.optim.Optimizer
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
