"""Training networks for several kinds of damage: their lessons, loop, words, and finished files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import demoe
from demoe.choices import DAMAGES, INSTRUCTIONS, names_of, to_record
from demoe.cli import main
from demoe.errors import WeightsError
from demoe.model.architectures import ARCHITECTURES, build
from demoe.model.checkpoint import read_state_dict, write_weights
from demoe.model.instructir.tenant import pupil
from demoe.model.loading import load_model
from demoe.model.moceir.balance import imbalance
from demoe.training.damage.damages import KINDS, Wrong
from demoe.training.data.crops import SharpImages
from demoe.training.data.procedural import procedural_images
from demoe.training.evaluate.damages import PLAIN, damaged_images, evaluate_damages
from demoe.training.fit import finish, loop, whole
from demoe.training.fit.damages import Damages
from demoe.training.fit.plan import TrainingPlan
from demoe.training.fit.whole import starting_network, train_weights
from demoe.training.random import Draw
from demoe.training.words.instructing import sentences, share_understood, teach_words

APPRENTICES = [name for name, one in ARCHITECTURES.items() if one.learns]
WIDTHS = {"instructir": 4, "moceir": 4, "mimdit": 48}
"""Of networks that train in seconds."""

DEFAULT = Path(demoe.__file__).parent / "weights" / "default.safetensors"


@pytest.fixture(scope="module")
def images() -> SharpImages:
    return SharpImages(procedural_images(10, 96, seed=0))


def quiet(text: str) -> None:
    pass


# -- lessons ----------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [True, False])
def test_kinds_get_equal_shares_and_some_images_are_told_something_else(told: bool) -> None:
    lessons = Damages(told=told)
    plan = TrainingPlan(batch=10, sharp_share=0.1, mixed_share=0.2)
    drawn = [w for step in range(100) for w in lessons.tasks(plan, step, 10, Draw(step))]
    counts = [sum(kind in one.kinds for one in drawn) for kind in KINDS]
    assert max(counts) < 1.25 * min(counts)
    assert 0.07 < sum(not one.kinds for one in drawn) / len(drawn) < 0.13
    assert 0.12 < sum(len(one.kinds) == 2 for one in drawn) / len(drawn) < 0.25
    mistold = [one for one in drawn if one.kinds and not set(one.asked) & set(one.kinds)]
    partly = [one for one in drawn if len(one.kinds) == 2 and len(one.asked) == 1]
    assert bool(mistold) == bool(partly) == told
    assert all(len(one.asked) == 1 for one in mistold)
    if not told:
        assert all(one.asked == one.kinds for one in drawn)


def test_a_plan_without_mixtures_or_sharp_images_has_none() -> None:
    plan = TrainingPlan(batch=8, sharp_share=0.0, mixed_share=0.0)
    drawn = Damages(("haze", "rain"), told=False).tasks(plan, 0, 8, Draw(0))
    assert drawn == [Wrong(("haze",), ("haze",)), Wrong(("rain",), ("rain",))] * 4


# -- networks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", APPRENTICES)
def test_an_untrained_network_leaves_pictures_alone_and_learns_everywhere(
    name: str, images: SharpImages
) -> None:
    torch.manual_seed(0)
    _, network = starting_network(name, None, WIDTHS[name])
    network.train()
    told = torch.eye(len(KINDS))[:4]
    x = images.batch(4, 32, Draw(0))[..., 22:-22, 22:-22]
    restored, _ = network.practise(x, told, torch.Generator().manual_seed(0))
    torch.testing.assert_close(restored, x)
    with torch.no_grad():  # as after some steps: what begins at zero has moved
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    missed = {name for name, _ in network.named_parameters()}
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    for seed in range(80):  # balance brings experts to work that are not chosen at first
        optimiser.zero_grad(set_to_none=True)
        restored, more = network.practise(x, told, torch.Generator().manual_seed(seed))
        (restored.square().mean() + more).backward()
        missed -= {n for n, p in network.named_parameters() if p.grad is not None and p.grad.any()}
        if not missed:
            break
        optimiser.step()
    assert not missed, sorted(missed)


def test_a_told_network_can_begin_as_one_for_blur(images: SharpImages) -> None:
    _, network = starting_network("instructir", DEFAULT, 16)
    assert network.config.width == 16
    assert network.choices == DAMAGES
    tensors, _ = read_state_dict(DEFAULT)
    begun = network.state_dict()
    last = "decoders.0.1.conv1.weight"
    assert torch.equal(begun[last], tensors["experts.1.experts.0.conv1.weight"])
    assert torch.equal(begun["intro.weight"], tensors["intro.weight"])
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        answers = [network(x, one[None]) for one in network.stored]
    assert all(torch.equal(answers[0], other) for other in answers)  # it is not told yet
    with pytest.raises(WeightsError, match="can begin as no other"):
        starting_network("moceir", DEFAULT, 16)


def test_instructions_lie_at_right_angles() -> None:
    stored = starting_network("instructir", None, 8)[1].stored
    torch.testing.assert_close(stored @ stored.T, torch.eye(len(DAMAGES)), atol=1e-5, rtol=0)


def test_what_was_not_offered_can_be_learnt_again() -> None:
    begun = demoe.load_model("instructir-small").network
    begun.offer(["haze", "noise"])
    kept = [KINDS.index(name) for name in names_of(begun.choices)]
    offered = begun.stored.clone()
    stored = pupil(begun).stored
    torch.testing.assert_close(stored @ stored.T, torch.eye(len(DAMAGES)), atol=1e-3, rtol=0)
    assert torch.equal(stored[kept], offered)
    begun.choices = INSTRUCTIONS[2:6]  # one of them is not trained here
    with pytest.raises(WeightsError, match="and no others: noise, blur"):
        pupil(begun)


def test_the_balance_is_best_where_work_is_shared() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(40, 1, 4, generator=generator) / 4
    even = torch.ones(1, 4)

    def found(clean: torch.Tensor, complexity: torch.Tensor = even) -> float:
        return float(imbalance((clean + noise).softmax(dim=2), noise, complexity, 1))

    shared = found(torch.zeros(40, 1, 4))
    lonely = found(torch.tensor([4.0, 0, 0, 0]).expand(40, 1, 4))
    taking_turns = found(2 * torch.eye(4)[torch.arange(40) % 4][:, None])
    assert shared < 0.1 < lonely
    assert taking_turns < 0.1
    # Costly experts are to get less: evenly shared work is no longer the best.
    alike, still = torch.full((8, 1, 4), 0.25), torch.zeros(8, 1, 4)
    costs = torch.tensor([[0.25, 0.5, 0.75, 1.0]])
    assert float(imbalance(alike, still, even, 1)) == pytest.approx(0, abs=1e-6)
    assert float(imbalance(alike, still, costs, 1)) > 0.1


def test_what_gains_too_little_is_not_offered(
    images: SharpImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = finish.evaluate_damages

    def better(*arguments: Any, **settings: Any) -> Any:
        """Measure, and let two kinds gain."""
        found = measured(*arguments, **settings)
        kinds = {
            kind: replace(score, after={k: v + 2 for k, v in score.after.items()})
            if kind in ("haze", "low_light")
            else score
            for kind, score in found.kinds.items()
        }
        return replace(found, kinds=kinds)

    monkeypatch.setattr(finish, "evaluate_damages", better)
    monkeypatch.setattr(finish, "find_measures", lambda device: ({}, []))
    monkeypatch.setattr(finish, "calibration_metadata", lambda tenant: {})
    monkeypatch.setattr(loop, "plot_metrics", lambda table, picture: None)
    monkeypatch.setattr(whole, "load_images", lambda pack, device: (images, images))
    plan = TrainingPlan(minutes=1e-3, batch=2, crop=16)
    for name in ("instructir", "moceir"):
        folder = tmp_path / name
        train_weights(plan, folder, network=name, width=4, per_task=1, device="cpu", report=quiet)
        model = load_model(folder / "model.safetensors", "cpu")
        assert model.offers == ("haze", "low_light")
        assert "not good enough to be offered: noise," in model.card
        if not model.tenant.decides:
            assert names_of(model.choices) == ("haze", "low_light")
            told = model.told(["it was a misty morning"])
            assert len(told.choices) == 3


# -- words ------------------------------------------------------------------------------------


def test_sentences_are_many_and_held_out_ones_are_others() -> None:
    learnt, held_out = sentences(held_out=False), sentences(held_out=True)
    assert sentences(held_out=False) == learnt
    for kind in KINDS:
        assert sum(one.kinds == (kind,) for one in learnt) > 200
        assert sum(one.kinds == (kind,) for one in held_out) > 30
    assert not {one.sentence for one in learnt} & {one.sentence for one in held_out}
    assert any(len(one.kinds) == 2 for one in learnt)


def test_a_network_learns_to_be_told_in_words() -> None:
    network = starting_network("instructir", None, 4)[1]
    said: list[str] = []
    understood = teach_words(network, report=said.append)
    assert understood > 0.85
    assert f"{understood:.1%}" in said[0]
    assert share_understood(network, sentences(held_out=True)) == understood
    with torch.no_grad():
        heard = network.hear(["please remove the fog", "It's far too DARK!", "noise and rain"])
        alone = network.hear(["It's far too DARK!"])
    torch.testing.assert_close(heard[1:2], alone)
    torch.testing.assert_close(heard.norm(dim=1), torch.ones(3))
    likeness = heard @ network.stored.T
    assert likeness.argmax(dim=1).tolist()[:2] == [KINDS.index("haze"), KINDS.index("low_light")]
    assert set(likeness[2].topk(2).indices.tolist()) == {KINDS.index("noise"), KINDS.index("rain")}


# -- from a command to a file ---------------------------------------------------------------------


@pytest.mark.parametrize("name", APPRENTICES)
def test_the_command_makes_weights_that_restore(
    name: str,
    images: SharpImages,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(whole, "load_images", lambda pack, device: (images, images))
    out = tmp_path / "training"
    train = ["train", "--network", name, "--out", str(out), "--width", str(WIDTHS[name])]
    train += [
        "--batch",
        "2",
        "--crop",
        "16",
        "--minutes",
        "0.01",
        "--device",
        "cpu",
        "--per-task",
        "1",
    ]
    assert main([*train, "--stop", "0.5"]) == 0
    assert main([*train, "--resume"]) == 0
    said = capsys.readouterr().out
    assert "going on at step" in said
    assert "| damage | images | damaged | restored | gain | SSIM |" in said
    file = out / "model.safetensors"
    model = load_model(file, "cpu")
    assert model.architecture.name == name
    scores = json.loads((out / "scores.json").read_text())
    learns = ARCHITECTURES[name].learns
    assert set(scores["kinds"]) == {*learns, *([PLAIN] if "noise" in learns else [])}
    assert model.card == (out / "model.md").read_text()
    assert f"demoe train --network {name}" in model.card
    picture = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    told = {} if model.tenant.decides else {"instructions": "take away the fog"}
    restored = np.asarray(demoe.deblur(picture, model=str(file), **told).image)
    assert restored.shape == picture.shape
    if not model.tenant.decides:
        assert names_of(model.choices) == KINDS
        # Words are read by what the file brings along; nothing else is asked for.
        assert "words.table" in read_state_dict(file)[0]


def test_evaluation_measures_the_right_instruction_and_every_wrong_one(
    images: SharpImages,
) -> None:
    architecture, network = starting_network("instructir", None, 4)
    tenant = architecture.room.plain(network)
    scores = evaluate_damages(tenant, images, ("noise", "haze"), per_kind=2, crop=32)
    assert set(scores.kinds) == {"noise", "haze", PLAIN}
    for score in scores.kinds.values():
        assert set(score.told) == set(KINDS)
        assert score.gain == pytest.approx(0, abs=1e-4)  # untrained: it leaves pictures alone
    damaged, target = damaged_images(images, PLAIN, 3, 48, 1)
    assert float((damaged - target).std()) == pytest.approx(25 / 255, rel=0.2)
    assert "| noise, sigma 25 | 2 |" in scores.table()
    assert scores.details().count("\n| ") == 4


def test_evaluation_tells_which_experts_are_chosen(images: SharpImages) -> None:
    architecture, network = starting_network("moceir", None, 4)
    tenant = architecture.room.plain(network)
    first, again = (
        evaluate_damages(tenant, images, ("rain",), per_kind=2, crop=32) for _ in range(2)
    )
    assert sum(first.kinds["rain"].choices) == pytest.approx(1)
    assert first.kinds == again.kinds
    assert "expert 4" in first.details()


def test_the_command_measures_and_draws(
    images: SharpImages,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from demoe.training.data import images as data

    monkeypatch.setattr(data, "load_held_out", lambda pack, device: images)
    network = starting_network("moceir", None, 4)[1]
    file = tmp_path / "network.safetensors"
    facts = {"config": json.dumps(network.config.to_dict()), "offers": '["rain", "haze"]'}
    write_weights(file, network.state_dict(), facts)
    measure = ["evaluate", "--model", str(file), "--per-task", "1", "--crop", "32"]
    sheet, figures = tmp_path / "sheet.png", tmp_path / "figures.json"
    assert main([*measure, "--sheet", str(sheet), "--json", str(figures)]) == 0
    said = capsys.readouterr().out
    assert "| rain | 1 |" in said
    assert "noise" not in said
    assert set(json.loads(figures.read_text())["kinds"]) == {"rain", "haze"}
    with Image.open(sheet) as picture:
        assert picture.width > 6 * 256
    assert main([*measure[:-2], "--mixed"]) == 2
    assert "this is about rain, haze" in capsys.readouterr().err


def test_the_demo_shows_what_a_network_offers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = starting_network("instructir", None, 4)[1]
    network.offer(["noise", "low_light"])
    record = json.dumps(to_record(network.choices))
    file = tmp_path / "network.safetensors"
    write_weights(file, network.state_dict(), {"choices": record})
    out = tmp_path / "demo"
    assert main(["demo", "--model", str(file), "--out", str(out), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "noise 100%" in said
    assert "low_light 100%" in said
    assert sorted(path.name for path in out.glob("*.ome.tif")) == [
        "pagoda_dark.ome.tif",
        "pagoda_noise.ome.tif",
    ]
    assert main(["demo", "--model", str(file), "--network", "demoe", "--out", str(out)]) == 2
    assert "give one of them" in capsys.readouterr().err


def test_a_damaged_encoder_is_one_sentence(tmp_path: Path) -> None:
    network = starting_network("instructir", None, 4)[1]
    network.new_ears()
    tensors = dict(network.state_dict())
    del tensors["words.table"]
    record = to_record(DAMAGES)
    with pytest.raises(WeightsError, match="sentence encoder"):
        build(tensors, {"choices": json.dumps(record)}, "a file")
