"""The training loop, the router's fit, the figures, and what is kept on disk."""

from __future__ import annotations

import copy
import csv
import errno
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from figures import made_scores
from PIL import Image
from safetensors import safe_open
from tiny import tiny_network

import demoe
from demoe.choices import TASKS
from demoe.errors import ImageError, OutputError, RecipeError, WeightsError
from demoe.model.checkpoint import read_state_dict, write_weights
from demoe.model.demoe.config import NetworkConfig
from demoe.model.demoe.network import DeMoENet
from demoe.model.demoe.tenant import plain
from demoe.training.blur.degradations import MARGIN, degrade
from demoe.training.data.crops import SharpImages
from demoe.training.data.pack import PackSource, SourceFile, make_pack
from demoe.training.data.procedural import procedural_images
from demoe.training.evaluate.evaluation import evaluate
from demoe.training.evaluate.scores import Scores
from demoe.training.fit import blurs, loop, plot
from demoe.training.fit.card import model_card
from demoe.training.fit.loop import train
from demoe.training.fit.loss import restoration_loss
from demoe.training.fit.plan import TrainingPlan, learning_rate
from demoe.training.fit.plot import plot_metrics
from demoe.training.fit.router import fit_router
from demoe.training.random import Draw

CONFIG = NetworkConfig(4, (1, 1), 1, (1, 1), router_width=32, router_hidden=16)
SIDE = 80


@pytest.fixture(scope="module")
def images() -> SharpImages:
    return SharpImages(procedural_images(10, SIDE, seed=0))


@pytest.fixture
def network() -> DeMoENet:
    torch.manual_seed(0)
    made = DeMoENet(CONFIG)
    for parameter in made.ending.parameters():
        torch.nn.init.zeros_(parameter)
    return made


def one_second_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the schedule count steps: its clock is read once at the start and once a step."""
    seconds = iter(range(10**6))
    clock = SimpleNamespace(monotonic=lambda: float(next(seconds)))
    monkeypatch.setattr(loop, "time", clock)


def quiet(text: str) -> None:
    pass


# -- the loop -------------------------------------------------------------------------------


def test_training_learns_a_fixed_set(
    tmp_path: Path, network: DeMoENet, images: SharpImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_second_a_step(monkeypatch)
    tasks = [*range(len(TASKS))] * 2
    fixed = degrade(images.batch(len(tasks), 32, Draw(0), augment=False), tasks, Draw(0))
    monkeypatch.setattr(blurs, "degrade", lambda *arguments: fixed)

    @torch.no_grad()
    def loss_of(trained: DeMoENet) -> float:
        one_hot = torch.nn.functional.one_hot(fixed.task, len(TASKS)).float()
        restored, _ = copy.deepcopy(trained).eval()(fixed.image, one_hot)
        return float(restoration_loss(restored, fixed.target))

    before = loss_of(network)
    plan = TrainingPlan(minutes=1.6, batch=len(tasks), crop=32, rate=1e-2, sharp_share=0.0)
    smooth = train(network, images, plan, tmp_path, report=quiet)
    # Logarithms to the base of ten: an error of less than 87 % of what it was.
    assert loss_of(network) < before - 0.06
    assert loss_of(smooth) < before - 0.06
    assert not smooth.training
    assert not any(parameter.requires_grad for parameter in smooth.parameters())
    with (tmp_path / "metrics.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0]


def test_resume_goes_on_with_steps_and_schedule(
    tmp_path: Path, network: DeMoENet, images: SharpImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_second_a_step(monkeypatch)
    seen: list[float] = []

    def rate(plan: TrainingPlan, progress: float) -> float:
        seen.append(progress)
        return learning_rate(plan, progress)

    monkeypatch.setattr(loop, "learning_rate", rate)
    plan = TrainingPlan(minutes=0.5, batch=2, crop=16)
    train(network, images, replace(plan, stop=0.4), tmp_path, report=quiet)
    assert seen == pytest.approx([step / 30 for step in range(12)])
    first = read_state_dict(tmp_path / "state.safetensors")[0]

    said: list[str] = []
    other = DeMoENet(CONFIG)
    train(other, images, plan, tmp_path, resume=True, report=said.append)
    assert said[0] == "going on at step 12, 40 % of the schedule"
    assert seen[12:] == pytest.approx([step / 30 for step in range(12, 30)])
    tensors, metadata = read_state_dict(tmp_path / "state.safetensors")
    facts = json.loads(metadata["training"])
    assert (facts["step"], facts["progress"]) == (30, pytest.approx(1.0))
    assert facts["plan"]["minutes"] == 0.5
    assert float(tensors["adam.0.step"]) == 30  # the optimiser's memory went on as well
    assert float(first["adam.0.step"]) == 12
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [12, 30]
    assert float(rows[-1]["progress"]) == pytest.approx(1.0)


def test_a_resumed_network_is_the_one_that_was_saved(
    tmp_path: Path, network: DeMoENet, images: SharpImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_second_a_step(monkeypatch)
    plan = TrainingPlan(minutes=0.1, batch=2, crop=16, rate=1e-2)
    smooth = train(network, images, plan, tmp_path, report=quiet)
    again = DeMoENet(CONFIG)
    smooth_again = train(again, images, plan, tmp_path, resume=True, report=quiet)  # nothing to do
    for one, two in ((network, again), (smooth, smooth_again)):
        for name, value in one.state_dict().items():
            assert torch.equal(value, two.state_dict()[name]), name
    weights = read_state_dict(tmp_path / "weights.safetensors")[0]
    for name, value in smooth.state_dict().items():
        torch.testing.assert_close(value, weights[name], atol=1e-6, rtol=1e-3)  # half precision
    with Image.open(tmp_path / "metrics.png") as picture:
        assert picture.size == (900, 600)


def test_metrics_are_drawn(tmp_path: Path) -> None:
    table, picture = tmp_path / "metrics.csv", tmp_path / "metrics.png"
    table.write_text("step,progress,loss,router\n10,0.1,-1.0,0.2\n20,0.2,-2.0,0.6\n")
    plot_metrics(table, picture)
    with Image.open(picture) as drawn:
        pixels = np.asarray(drawn)
    blue = (pixels[..., 2] > 140) & (pixels[..., 0] < 60)
    left, right = slice(100, 250), slice(700, 850)
    # The loss goes down: its line is higher on the left.
    assert np.nonzero(blue[:280, left])[0].mean() < np.nonzero(blue[:280, right])[0].mean() - 40
    assert np.nonzero(blue[280:, left])[0].mean() > np.nonzero(blue[280:, right])[0].mean() + 40
    before = picture.read_bytes()
    table.write_text("step,progress,loss,router\nten,0.1,-1.0,0.2\n")
    with pytest.raises(OutputError, match=r"metrics\.png cannot be drawn"):
        plot_metrics(table, picture)
    assert picture.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_without_matplotlib_training_draws_no_picture_and_says_so_once(
    tmp_path: Path,
    network: DeMoENet,
    images: SharpImages,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    plot._say_missing.cache_clear()
    one_second_a_step(monkeypatch)
    plan = TrainingPlan(minutes=0.2, batch=2, crop=16, save_every_s=4.5)
    train(network, images, plan, tmp_path, report=quiet)
    assert [record.getMessage() for record in caplog.records] == [
        "A picture of the metrics needs matplotlib: `pip install 'napari-demoe[train]'`."
    ]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"metrics.csv", "state.safetensors", "weights.safetensors"}


def test_a_full_disk_ends_training_with_the_last_state_kept(
    tmp_path: Path, network: DeMoENet, images: SharpImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_second_a_step(monkeypatch)
    plan = TrainingPlan(minutes=0.2, batch=2, crop=16, save_every_s=4.5)
    write, written = Path.write_bytes, []

    def full(self: Path, data: bytes) -> int:
        written.append(self.name)
        if len(written) > 2:  # the first state and its weights have found room
            write(self, data[:1000])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match=r"state\.safetensors.*No space left"):
            train(network, images, plan, tmp_path, report=quiet)
    facts = json.loads(read_state_dict(tmp_path / "state.safetensors")[1]["training"])
    assert facts["step"] == loop.steps_done(tmp_path) == 5
    assert not list(tmp_path.glob(".*"))
    said: list[str] = []
    train(DeMoENet(CONFIG), images, plan, tmp_path, resume=True, report=said.append)
    assert said[0].startswith("going on at step 5,")


def test_the_state_is_saved_now_and_then(
    tmp_path: Path, network: DeMoENet, images: SharpImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_second_a_step(monkeypatch)
    steps: list[int] = []
    save = loop._save

    def noted(*arguments: object) -> None:
        steps.append(arguments[4])  # type: ignore[arg-type]
        save(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "_save", noted)
    plan = TrainingPlan(minutes=0.2, batch=2, crop=16, save_every_s=4.5)
    train(network, images, plan, tmp_path, report=quiet)
    assert steps == [5, 10, 12]


@pytest.mark.parametrize("what", ["nothing", "another width", "plain weights", "damaged"])
def test_resume_refuses_what_does_not_fit(
    tmp_path: Path, network: DeMoENet, images: SharpImages, what: str
) -> None:
    plan = TrainingPlan(minutes=1e-6, batch=2, crop=16)
    if what in ("another width", "damaged"):
        train(network, images, plan, tmp_path, report=quiet)
    state = tmp_path / "state.safetensors"
    if what == "another width":
        network = DeMoENet(replace(CONFIG, width=8))
    elif what == "plain weights":
        write_weights(state, network.state_dict(), {})
    elif what == "damaged":
        state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"state\.safetensors") as error:
        train(network, images, plan, tmp_path, resume=True, report=quiet)
    expected = {"nothing": "no weights file", "damaged": "neither a complete"}
    assert expected.get(what, "belongs to another architecture") in str(error.value)


def test_tasks_get_equal_shares_and_a_few_images_are_sharp() -> None:
    plan = TrainingPlan(batch=7, sharp_share=0.0)
    drawn = [task for step in range(10) for task in blurs.tasks(plan, step, 7, Draw(step))]
    assert [drawn.count((task,)) for task in range(5)] == [14] * 5
    plan = TrainingPlan(batch=10, sharp_share=0.2)
    drawn = [task for step in range(60) for task in blurs.tasks(plan, step, 10, Draw(step))]
    assert 0.12 < drawn.count(()) / len(drawn) < 0.28
    plan = TrainingPlan(batch=10, sharp_share=0.0, mixed_share=0.3)
    drawn = [task for step in range(60) for task in blurs.tasks(plan, step, 10, Draw(step))]
    several = [kinds for kinds in drawn if len(kinds) == 2]
    assert all(len(set(kinds)) == 2 and set(kinds) <= set(range(5)) for kinds in several)
    assert 0.22 < len(several) / len(drawn) < 0.38


def test_regions_of_an_image_reach_the_expert_of_their_blur(
    network: DeMoENet, images: SharpImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[torch.Tensor] = []

    def noted(features, skips, weights, size):
        given.append(weights)
        return torch.zeros(len(weights), 3, *size)

    monkeypatch.setattr(network, "decode", noted)
    examples = blurs.examples(images, [(0, 3), (2,), ()], 32, Draw(0))
    assert examples.image.shape == examples.target.shape == (3, 3, 32, 32)
    blurs.losses(network, examples, 0.0, TrainingPlan(), Draw(0))
    local, sharp, mixed = given[0]
    assert torch.equal(local.flatten(1).amax(1), torch.tensor([0.0, 0, 1, 0, 0]))
    assert sharp.flatten(1).amax(1).sum() == 1  # any expert, but one
    assert torch.equal(mixed.argmax(0), examples.shares[2].argmax(0))
    assert torch.equal(mixed.sum(0), torch.ones_like(mixed[0]))
    assert set(mixed.argmax(0).flatten().tolist()) <= {0, 3}


def test_sharp_images_teach_the_router_nothing(network: DeMoENet, images: SharpImages) -> None:
    draw, plan = Draw(0), TrainingPlan(batch=4, crop=32)
    data = blurs.examples(images, [()] * 4, 32, draw)
    loss, _ = blurs.losses(network, data, 0.0, plan, draw)
    loss.backward()
    assert all(
        parameter.grad is None or not parameter.grad.any()
        for parameter in network.mlp_branch.parameters()
    )
    assert float(loss.detach()) == pytest.approx(float(restoration_loss(data.image, data.target)))


def test_the_learning_rate_warms_up_and_ends_at_nothing() -> None:
    plan = TrainingPlan(rate=1e-3)
    rates = [learning_rate(plan, step / 1000) for step in range(1001)]
    assert rates[0] < 0.05e-3
    assert max(rates) == pytest.approx(1e-3, rel=0.01)
    assert rates.index(max(rates)) <= 12
    assert all(a > b for a, b in itertools.pairwise(rates[15:]))
    assert rates[-1] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"minutes": 0},
        {"minutes": -3},
        {"minutes": float("nan")},
        {"start": 0.5, "stop": 0.5},
        {"start": -0.1},
        {"stop": 1.5},
        {"batch": 1},
        {"crop": 8},
        {"rate": 0},
        {"crop": 128, "last_crop": 96},
        {"mixed_share": 1.1},
        {"mixed_share": float("nan")},
    ],
    ids=str,
)
def test_plans_that_cannot_be_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=r"must be|needs|cannot be"):
        TrainingPlan(**fields)  # type: ignore[arg-type]


def test_crops_grow_at_the_same_cost() -> None:
    plan = TrainingPlan(batch=18, crop=64, last_crop=96)
    assert plan.shape(0.0) == plan.shape(0.79) == (18, 64)
    assert plan.shape(0.8) == plan.shape(1.0) == (8, 96)
    assert TrainingPlan(batch=4, crop=64).shape(1.0) == (4, 64)
    assert TrainingPlan(batch=3, crop=64, last_crop=256).shape(1.0) == (2, 256)


def test_the_loss_sees_level_and_detail() -> None:
    target = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    noise = 0.02 * torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    noise = noise - noise.mean(dim=(2, 3), keepdim=True)
    shift = torch.full_like(noise, float(noise.square().mean().sqrt()))
    at_rest = float(restoration_loss(target, target))
    # Of two errors with the same mean square, one that makes the picture brighter is worse.
    assert at_rest < float(restoration_loss(target + noise, target))
    assert float(restoration_loss(target + noise, target)) < float(
        restoration_loss(target + shift, target)
    )


def test_threads_share_a_batch_without_changing_it(
    network: DeMoENet, images: SharpImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "multiplies_bfloat16", lambda: False)
    plan = TrainingPlan(batch=4, crop=24, sharp_share=0.0)
    network.mlp_branch.eval()
    with torch.no_grad():
        network.ending.weight.normal_(0, 0.01)
    blurred: list[tuple[Draw, object]] = []

    def noted(images: SharpImages, tasks: list, crop: int, draw: Draw) -> object:
        blurred.append((draw, blurs.examples(images, tasks, crop, draw)))
        return blurred[-1][1]

    lessons = blurs.Blurs()
    monkeypatch.setattr(lessons, "examples", noted)
    workers = loop._Workers(network, images, plan, lessons, 2, 0)
    threads = torch.get_num_threads()
    with workers:
        loss, right = workers.gradients(0, 0.0)
    assert torch.get_num_threads() == threads
    assert 0 <= right <= 1
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad(set_to_none=True)
    blurred.sort(key=lambda pair: workers.draws.index(pair[0]))
    fields = ("image", "target", "shares")
    whole = blurs.Examples(*(torch.cat([getattr(d, f) for _, d in blurred]) for f in fields))
    assert sorted(whole.shares.argmax(dim=1).flatten().tolist()) == [0, 1, 2, 3]
    expected, _ = blurs.losses(network, whole, 0.0, plan, Draw(0))
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), abs=1e-4)
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad, atol=1e-5, rtol=1e-3)


def test_products_in_half_the_bits_give_nearly_the_same_gradients(
    network: DeMoENet, images: SharpImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.no_grad():
        network.ending.weight.normal_(0, 0.01)
    network.mlp_branch.eval()
    plan = TrainingPlan(batch=5, crop=32, sharp_share=0.0)
    found = {}
    for low in (False, True):
        monkeypatch.setattr(loop, "multiplies_bfloat16", lambda low=low: low)
        with loop._Workers(network, images, plan, blurs.Blurs(), 1, 0) as workers:
            loss, _ = workers.gradients(0, 0.0)
        gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
        found[low] = (loss, torch.cat(gradients))
    assert found[True][0] == pytest.approx(found[False][0], abs=0.02)
    same = torch.nn.functional.cosine_similarity(found[True][1], found[False][1], dim=0)
    assert float(same) > 0.98


# -- files ----------------------------------------------------------------------------------


def test_weights_survive_a_save_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.safetensors"
    write_weights(path, tiny_network(0).state_dict(), {"a": "1"})
    before = path.read_bytes()
    write = Path.write_bytes

    def half(self: Path, data: bytes) -> int:
        write(self, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        with pytest.raises(OutputError, match="No space left on device"):
            write_weights(path, tiny_network(1).state_dict(), {})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["weights.safetensors"]
    write_weights(path, tiny_network(1).state_dict(), {})
    assert path.read_bytes() != before


def test_half_precision_weights_run_nearly_the_same(tmp_path: Path) -> None:
    network = tiny_network()
    write_weights(tmp_path / "w.safetensors", network.state_dict(), {"card": "text"}, half=True)
    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        assert file.get_tensor("intro.weight").dtype == torch.float16
    model = demoe.load_model(tmp_path / "w.safetensors", "cpu")
    assert model.card == "text"
    x = torch.rand(1, 3, 48, 48)
    gates = torch.eye(5)[:1]
    with torch.inference_mode():
        wanted, found = network(x, gates)[0], model.network(x, gates)[0]
    torch.testing.assert_close(found, wanted, atol=5e-3, rtol=0)
    assert not torch.equal(found, wanted)


def test_a_log_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, network: DeMoENet, images: SharpImages
) -> None:
    (tmp_path / "file").write_text("no folder")
    plan = TrainingPlan(minutes=1e-6, batch=2, crop=16)
    with pytest.raises(OutputError, match=r"metrics\.csv cannot be written"):
        train(network, images, plan, tmp_path / "file", report=quiet)


# -- the router -----------------------------------------------------------------------------


def low_light_apart(scores: Scores) -> float:
    """Return how often low light is told from the rest, both counted alike."""
    dark = TASKS.index("low_light")
    found = scores.confusion[dark][dark] / sum(scores.confusion[dark])
    others = [row for task, row in enumerate(scores.confusion) if task != dark]
    wrong = sum(row[dark] for row in others) / sum(map(sum, others))
    return (found + 1 - wrong) / 2


def test_fitting_the_router_tells_low_light_from_the_rest() -> None:
    bright = procedural_images(40, SIDE, seed=3)
    # Photographs are rarely dark all over: what is left out of these makes the case a plain one.
    bright = (128 + bright.astype(np.float32) / 2.01).astype(np.uint8)
    pool, held_out = SharpImages(bright[:25]), SharpImages(bright[25:])
    torch.manual_seed(0)
    network = DeMoENet(CONFIG).eval()
    encoder = network.intro.weight.clone()
    before = evaluate(network, held_out, per_task=24, crop=32)
    said: list[str] = []
    fit_router(network, pool, samples=300, steps=300, crop=32, report=said.append)
    after = evaluate(network, held_out, per_task=24, crop=32)
    assert low_light_apart(before) < 0.7
    assert low_light_apart(after) > 0.8
    assert after.accuracy > before.accuracy
    assert said[0].startswith("router step 10: held-back loss ")
    assert said[-1].startswith("router: right ")
    assert torch.equal(network.intro.weight, encoder)  # the router alone has changed
    assert not network.training


# -- images and card ------------------------------------------------------------------------


def test_batches_are_cut_from_the_images(images: SharpImages) -> None:
    crop = 24
    batch = images.batch(6, crop, Draw(1), augment=False)
    side = crop + 2 * MARGIN
    assert batch.shape == (6, 3, side, side)
    assert batch.dtype == torch.float32
    pool = images.images.permute(0, 3, 1, 2).float() / 255
    room = SIDE - side
    for one in batch:
        assert any(
            torch.equal(one, image[:, top : top + side, left : left + side])
            for image in pool
            for top in range(room + 1)
            for left in range(room + 1)
        )
    assert torch.equal(batch, images.batch(6, crop, Draw(1), augment=False))
    varied = images.batch(40, crop, Draw(1))
    assert 0 <= float(varied.min()) <= float(varied.max()) <= 1


def test_a_crop_without_room_around_it_is_mirrored(images: SharpImages) -> None:
    whole = images.batch(4, SIDE, Draw(2), augment=False)
    pool = images.images.permute(0, 3, 1, 2).float() / 255
    inner = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    for one in whole:
        assert any(torch.equal(one[inner], image) for image in pool)
        assert torch.equal(one[:, MARGIN - 3], one[:, MARGIN + 3])
        assert torch.equal(one[:, :, -MARGIN - 1 + 5], one[:, :, -MARGIN - 1 - 5])


def test_too_few_images_and_too_large_crops() -> None:
    few = np.zeros((9, 64, 64, 3), np.uint8)
    with pytest.raises(ImageError, match="at least 10 sharp crops, but there are 9"):
        SharpImages(few)
    pool = SharpImages(np.zeros((10, 64, 64, 3), np.uint8))
    assert pool.largest_crop == 64
    assert pool.batch(1, 64, Draw(0)).shape[-1] == 64 + 2 * MARGIN
    with pytest.raises(ImageError, match=f"at most {pool.largest_crop} px do"):
        pool.batch(1, pool.largest_crop + 1, Draw(0))


def test_drawn_images_have_content_and_a_seed() -> None:
    first, again, other = (procedural_images(10, 64, seed) for seed in (1, 1, 2))
    assert first.shape == (10, 64, 64, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(axis=(1, 2, 3)).all()
    assert (first.std(axis=(1, 2, 3)) > 5).all()


def test_the_card_holds_figures_and_sources(tmp_path: Path) -> None:
    files = []
    for seed in range(4):
        blocks = np.random.default_rng(seed).integers(20, 236, (32, 32, 3), dtype=np.uint8)
        path = tmp_path / f"p{seed}.png"
        Image.fromarray(blocks.repeat(8, axis=0).repeat(8, axis=1)).save(path)
        files.append(SourceFile(path, PackSource(path.name, "pkg", "CC0-1.0", "A. Person")))
    pack = make_pack(files, tmp_path / "pack.safetensors", crop=64).path
    plan = TrainingPlan(minutes=7, batch=6, crop=40)
    tenant = plain(DeMoENet(CONFIG)), "DeMoE (a paper)"
    card = model_card(*tenant, plan, 1234, made_scores(), pack, tmp_path / "start.safetensors")
    assert made_scores().table() in card
    assert "Width 4; encoder blocks 1-1, middle 1, decoder 1-1; 5 experts" in card
    assert (
        "1,234 steps in a schedule of 7 minutes on one machine, batches of 6 crops of 40 px" in card
    )
    assert "began from the weights start.safetensors." in card
    rows = [line for line in card.splitlines() if "| CC0-1.0 |" in line]
    assert len(rows) == 4
    assert {row.split(" | ")[-1] for row in rows} == {"held out |", "trained on |"}
    assert str(tmp_path) not in card
    without = model_card(*tenant, plan, 1234, made_scores(), None)
    assert "CC0-1.0" not in without
    assert "began from" not in without
