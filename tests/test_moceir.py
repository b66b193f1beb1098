"""MoCE-IR: agreement with the published network, and what it can do here that that one cannot."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_moceir import SMALL, small_network
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from demoe.choices import names_of
from demoe.errors import WeightsError
from demoe.model import load_model
from demoe.model.architectures import build, choices_in
from demoe.model.checkpoint import write_weights
from demoe.model.loading import Model
from demoe.model.mixing import keep_top
from demoe.model.moceir.config import NetworkConfig, choices_of, detect_config
from demoe.model.moceir.flops import flops_per_pixel, held_flops
from demoe.model.moceir.network import MoCEIRNet
from demoe.model.moceir.receptive_field import exact_halo, reach
from demoe.model.moceir.tenant import SLIM, MoCEIR

DATA = Path(__file__).parent / "data"
ONE = "moceir_d8"
"""Four levels and experts, one at work: a small copy of the published design."""

FILES = (ONE, "moceir_d16_k2")
"""The other has two at work, and takes every other option."""

TOLERANCE = 5e-5


@pytest.fixture(scope="module", params=FILES)
def golden(request) -> tuple[Model, dict[str, Tensor]]:
    path = DATA / f"{request.param}.safetensors"
    return load_model(path, "cpu"), load_file(path)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(DATA / f"{ONE}.safetensors", "cpu")


@pytest.fixture
def network() -> MoCEIRNet:
    return small_network()


def cases(values: dict[str, Tensor]) -> list[str]:
    return [key.removeprefix("output.") for key in values if key.startswith("output.")]


def published_keys() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of MoCE-IR-S."""
    lines = (DATA / "moceir_s_keys.txt").read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return {name: tuple(map(int, shape.strip("(),").split(","))) for name, shape, _ in rows}


# -- the published network ------------------------------------------------------------------------


def test_restored_pictures_and_decisions_are_the_published_ones(golden) -> None:
    model, values = golden
    for case in ("a", "b", "odd_zeros"):
        x = values["input.odd" if case == "odd_zeros" else f"input.{case}"]
        restored, gates = model.network(x)
        assert restored.shape == x.shape
        torch.testing.assert_close(restored, values[f"output.{case}"], atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(gates, values[f"gates.{case}"], atol=TOLERANCE, rtol=0)
        chosen = gates.topk(model.network.config.top_k).indices
        assert torch.equal(chosen, values[f"experts.{case}"])


def test_forced_and_disturbed_decisions_give_the_published_pictures(golden) -> None:
    model, values = golden
    given = [case for case in cases(values) if case.startswith("forced") or case == "noisy"]
    assert len(given) == len(model.choices) + 1
    for case in given:
        restored, used = model.network(values["input.a"][:1], values[f"gates.{case}"])
        torch.testing.assert_close(restored, values[f"output.{case}"], atol=TOLERANCE, rtol=0)
        assert torch.equal(used, values[f"gates.{case}"])
    for expert in range(len(model.choices)):  # one for all layers
        gates = torch.eye(len(model.choices))[expert][None]
        restored, _ = model.network(values["input.a"][:1], gates)
        wanted = values[f"output.forced{expert}"]
        torch.testing.assert_close(restored, wanted, atol=TOLERANCE, rtol=0)


def test_scores_and_fine_structure_are_the_published_ones(golden, monkeypatch) -> None:
    model, values = golden
    network = model.network
    found: dict[str, list[Tensor]] = {"logits": [], "frequencies": []}
    for layer in network.layers():
        router = layer.adapter.routing

        def noting(asked, frequencies, together, original=router.logits):
            scores = original(asked, frequencies, together)
            found["logits"].append(scores)
            found["frequencies"].append(frequencies)
            return scores

        monkeypatch.setattr(router, "logits", noting)
    network(values["input.a"])
    logits = torch.stack(found["logits"], dim=1)
    torch.testing.assert_close(logits, values["logits.a"], atol=5e-4, rtol=1e-4)
    wanted = values["freq_emb.a"]
    torch.testing.assert_close(found["frequencies"][0], wanted, atol=TOLERANCE, rtol=1e-5)


def test_a_training_would_get_the_published_picture(golden) -> None:
    model, values = golden
    restored, _ = model.network(values["train.input"], values["train.gates"])
    torch.testing.assert_close(restored, values["train.output"], atol=TOLERANCE, rtol=0)


def test_every_tensor_matters_for_what_is_compared(model) -> None:
    values = load_file(DATA / f"{ONE}.safetensors")
    x, network = values["input.a"], model.network
    torch.manual_seed(1)
    parts = ("freq_embed.mlp.0", "enc.1.0.layers.1.ffn.dwconv", "latent.layers.0.mixer.temperature")
    for part in (*parts, "dec.0.2.layers.0.mixer.q_dwconv", "dec.2.1", "refinement.layers.1"):
        state = {key: value.clone() for key, value in network.state_dict().items()}
        for key in state:
            if key.startswith(part):
                state[key] += 0.1 * state[key] + 0.02
        changed = build(state, {})[1]
        restored, gates = changed(x)
        different = (restored - values["output.a"]).abs().max() > 4 * TOLERANCE
        assert different or (gates - values["gates.a"]).abs().max() > 4 * TOLERANCE, part


def test_the_published_file_is_known_by_its_keys() -> None:
    shapes = published_keys()
    config = detect_config(shapes, {})
    assert config == NetworkConfig()
    with torch.device("meta"):
        small = MoCEIRNet(config)
        full = MoCEIRNet(
            replace(
                config,
                width=48,
                ranks=((24, 48, 96, 192), (12, 24, 48, 96), (6, 12, 24, 48)),
            )
        )
    assert {key: tuple(value.shape) for key, value in small.state_dict().items()} == shapes
    assert [sum(p.numel() for p in one.parameters()) for one in (small, full)] == [
        11_477_752,
        25_353_796,
    ]
    assert reach(config) == exact_halo(config) == 376
    assert names_of(choices_of(shapes, {})) == ("expert_1", "expert_2", "expert_3", "expert_4")


# -- files ----------------------------------------------------------------------------------------


def test_it_comes_back_from_its_file(tmp_path: Path, network) -> None:
    config = replace(SMALL, patches=(2, 8), top_k=2, centred=False, decoder_bias=True)
    network = small_network(config)
    path = tmp_path / "small.safetensors"
    write_weights(path, network.state_dict(), {"config": json.dumps(config.to_dict())})
    again = load_model(path, "cpu")
    assert again.network.config == config
    assert again.architecture.name == "moceir"
    assert [one.words for one in choices_in(path)] == ["expert 1, cheapest", "expert 2, costliest"]
    x = torch.rand(1, 3, 20, 24)
    torch.testing.assert_close(again.network(x)[0], network(x)[0], atol=1e-6, rtol=0)


def test_lightning_checkpoints_load_as_tensors_only(tmp_path: Path, network) -> None:
    state = {f"net.{key}": value for key, value in network.state_dict().items()}
    optimiser = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 2e-4}]}
    content = {
        "epoch": 119,
        "state_dict": state | {"loss_fn.weight": torch.ones(1)},
        "optimizer_states": [optimiser],
        "hyper_parameters": argparse.Namespace(dim=4, topk=1),
        "callbacks": {"ModelCheckpoint": {"best_model_path": "last.ckpt"}},
    }
    path = tmp_path / "last.ckpt"
    torch.save(content, path)
    x = torch.rand(1, 3, 16, 16)
    # Patches are not in such files: those of the published design are taken.
    wanted = small_network(replace(SMALL, patches=(4, 8)))
    torch.testing.assert_close(load_model(path, "cpu").network(x)[0], wanted(x)[0])
    content["hyper_parameters"] = replace  # a function
    torch.save(content, path)
    with pytest.raises(WeightsError, match="could run code"):
        load_model(path, "cpu")


def test_files_that_do_not_fit_are_refused_in_a_sentence(network) -> None:
    state = network.state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    for config, words in (
        ('{"topk": 3}', "Of 2 experts, 1 to 2 can work at once, not 3"),
        ('{"topk": "one"}', "can work at once"),
        ('{"patches": [4]}', "same number of experts"),
        ('{"patches": [4, 0]}', "sides of 1 to"),
        ('{"patches": 4}', "a list of patches"),
        ("[", "is damaged"),
        ("[" * 100_000, "nested"),
        ("[1]", "must be a JSON object"),
    ):
        with pytest.raises(WeightsError, match=words):
            detect_config(shapes, {"config": config})
    less = {key: value for key, value in state.items() if key != "output.weight"}
    with pytest.raises(WeightsError, match=r"missing: output\.weight"):
        build(less, {})
    with pytest.raises(WeightsError, match=r"latent\.layers\.0\.mixer\.temperature is missing"):
        build({k: v for k, v in state.items() if not k.startswith("latent")}, {})
    with pytest.raises(WeightsError, match=r"patch_embed\.proj\.weight has the shape"):
        detect_config(shapes | {"patch_embed.proj.weight": (10**9, 3, 3, 3)}, {})
    with pytest.raises(WeightsError, match="4 channels cannot be shared among 3 heads"):
        detect_config(shapes | {"enc.0.0.layers.0.mixer.temperature": (3, 1, 1)}, {})


# -- the bare module ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (7, 30), (33, 16)])
def test_pictures_of_any_size(network, size: tuple[int, int]) -> None:
    restored, gates = network(torch.rand(2, 3, *size))
    assert restored.shape == (2, 3, *size)
    assert gates.shape == (2, 2, 2)
    assert restored.isfinite().all()


def test_batches_give_what_single_pictures_give(golden) -> None:
    model, values = golden
    x = torch.cat([values["input.a"], 0.1 * values["input.a"].flip(0, 3)])
    together, gates = model.network(x)
    chosen = {str((one > 0).tolist()) for one in gates}
    assert len(chosen) > 1  # or nothing would be mixed up
    for number in range(len(x)):
        alone, own = model.network(x[number : number + 1])
        torch.testing.assert_close(together[number : number + 1], alone, atol=2e-5, rtol=0)
        torch.testing.assert_close(gates[number : number + 1], own, atol=1e-5, rtol=0)


def test_the_same_picture_gives_the_same_always(model) -> None:
    x = torch.rand(1, 3, 40, 48)
    first, second = model.network(x), model.network(x)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_gates_for_places_are_gates_for_pictures_where_they_are_equal(model) -> None:
    x = torch.rand(1, 3, 48, 64)
    gates = torch.eye(4)[torch.tensor([3, 0, 1, 0, 2])][None]
    wanted, _ = model.network(x, gates)
    everywhere = gates[..., None, None].expand(-1, -1, -1, 3, 4)
    torch.testing.assert_close(model.network(x, everywhere)[0], wanted, atol=TOLERANCE, rtol=0)


# -- the tenant -----------------------------------------------------------------------------------


def mixing(tenant: MoCEIR, decided: Tensor, top_k: int = 1) -> Tensor:
    """Return weights (1, layers * E) of a decision, as the engine makes them."""
    return keep_top(decided.unflatten(0, (tenant.layers, -1)), top_k).flatten()[None]


def test_it_decides_and_restores_as_the_bare_network(model) -> None:
    values = load_file(DATA / f"{ONE}.safetensors")
    tenant = model.tenant
    assert tenant.decides
    assert (tenant.multiple, tenant.layers, len(tenant.choices)) == (8, 5, 4)
    probabilities = tenant.route(values["input.a"])
    assert probabilities.shape == (2, 20)
    torch.testing.assert_close(probabilities.unflatten(1, (5, 4)).sum(dim=2), torch.ones(2, 5))
    for number in range(2):
        x = values["input.a"][number : number + 1]
        decided = tenant.decide(x)
        torch.testing.assert_close(decided, probabilities[number], atol=1e-5, rtol=0)
        restored = tenant.restore(x, mixing(tenant, decided))
        wanted = values["output.a"][number : number + 1]
        torch.testing.assert_close(restored, wanted, atol=TOLERANCE, rtol=0)


def test_experts_do_not_run_once_matrices_are_held(model, monkeypatch) -> None:
    tenant = model.tenant
    x = torch.rand(1, 3, 64, 80)
    weights = mixing(tenant, tenant.decide(x))
    wanted = tenant.restore(x, weights)
    statistics = tenant.survey(x, weights)
    assert len(statistics) == 5 + 2 + 5 + 5  # encoder, refinement, and two a decoder block

    def fail(*_):
        raise AssertionError("an expert ran")

    for layer in tenant.network.layers():
        monkeypatch.setattr(layer.adapter, "alone", fail)
        monkeypatch.setattr(layer.adapter.routing, "logits", fail)
        monkeypatch.setattr(layer.mixer, "keys_and_values", fail)
    held = tenant.restore(x, weights, statistics)
    torch.testing.assert_close(held, wanted, atol=5e-6, rtol=0)


def test_tiles_equal_the_whole_at_the_exact_halo(network) -> None:
    tenant, core = MoCEIR(network), 16
    halo = tenant.halo
    assert reach(SMALL) == 42
    assert halo == 44
    x = torch.rand(1, 3, 2 * halo + 2 * core, 2 * halo + 3 * core)
    top = torch.rand(1, 4, *(side // 4 for side in x.shape[2:]))
    field = top.unflatten(1, (2, 2)).softmax(dim=2).flatten(1, 2)  # another mixture at each place
    statistics = tenant.survey(x, field, every=True)
    whole = tenant.restore(x, field, statistics)
    tile = x[:, :, core:, core:]
    part = tenant.restore(tile, field[:, :, core // 4 :, core // 4 :], statistics)
    wanted = whole[:, :, core + halo :, core + halo :]
    torch.testing.assert_close(part[:, :, halo:, halo:], wanted, atol=1e-6, rtol=0)
    short = halo - 8
    less = part[:, :, short:, short:] - whole[:, :, core + short :, core + short :]
    assert less.abs().max() > 1e-7  # no more than is needed


def test_tiles_of_a_network_as_deep_as_the_published_one_equal_the_whole() -> None:
    # A strip: how far it looks is the same along both axes.
    tenant, core = MoCEIR(small_network(replace(NetworkConfig(), width=8))), 16
    x = torch.rand(1, 3, 16, 2 * (tenant.halo + core))
    weights = mixing(tenant, tenant.decide(x))
    statistics = tenant.survey(x, weights)
    whole = tenant.restore(x, weights, statistics)
    assert whole.std() > 0.1
    right = tenant.restore(x[..., core:], weights, statistics)[..., 376:]
    left = tenant.restore(x[..., :-core], weights, statistics)[..., :-376]
    torch.testing.assert_close(right, whole[..., core + 376 :], atol=1e-5, rtol=0)
    torch.testing.assert_close(left, whole[..., : -core - 376], atol=1e-5, rtol=0)


def test_parts_of_a_picture_are_surveyed_as_one(network) -> None:
    tenant = MoCEIR(network)
    x = torch.rand(1, 3, 32, 32)
    weights = mixing(tenant, tenant.decide(x))
    torch.testing.assert_close(tenant.decide(torch.cat([x, x])), tenant.decide(x))
    once, twice = (tenant.survey(one, weights) for one in (x, torch.cat([x, x])))
    assert once.keys() == twice.keys()
    for name, matrix in once.items():
        torch.testing.assert_close(twice[name], matrix, atol=1e-5, rtol=1e-4)
    other = tenant.survey(torch.cat([x, torch.rand(1, 3, 32, 32)]), weights)
    assert any((other[name] - one).abs().max() > 1e-4 for name, one in once.items())


def test_a_survey_by_its_own_decisions_has_what_they_need(network) -> None:
    tenant = MoCEIR(network)
    windows = torch.rand(3, 3, 32, 32) * torch.tensor([0.1, 0.5, 1.0])[:, None, None, None]
    decided = tenant.route(windows)
    statistics = tenant.survey(windows, None)
    for number in range(3):
        restored = tenant.restore(windows[:1], mixing(tenant, decided[number]), statistics)
        assert restored.isfinite().all()
    assert len(tenant.survey(windows, None, every=True)) == 4 + 2 + 2 * 2


def test_each_place_has_its_own_expert(network) -> None:
    tenant = MoCEIR(network)
    x = torch.rand(1, 3, 64, 128)
    one_hot = torch.eye(2)
    statistics = tenant.survey(x, one_hot[:1], every=True)
    alone = [tenant.restore(x, one_hot[n : n + 1], statistics) for n in range(2)]
    assert (alone[0] - alone[1]).abs().max() > 1e-4
    field = torch.zeros(1, 4, 16, 32)
    field[:, ::2, :, :16], field[:, 1::2, :, 16:] = 1, 1  # in both layers
    mixed = tenant.restore(x, field, statistics)
    left, right = slice(0, 64 - tenant.halo), slice(64 + tenant.halo, None)
    torch.testing.assert_close(mixed[..., left], alone[0][..., left], atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed[..., right], alone[1][..., right], atol=1e-6, rtol=0)


def test_the_cheapest_and_the_costliest_expert_stand_for_all(model) -> None:
    tenant = model.tenant
    x = torch.rand(1, 3, 40, 36)
    found, statistics = tenant.restore_each(x)
    held, same = tenant.restore_each(x, statistics)
    assert same is statistics
    torch.testing.assert_close(held, found, atol=5e-6, rtol=0)
    assert len(found) == 2
    for one, expert in zip(found, (0, 3), strict=True):
        wanted = tenant.restore(x, torch.eye(4)[expert][None])
        torch.testing.assert_close(one, wanted, atol=5e-6, rtol=0)


def test_arithmetic_is_what_is_done() -> None:
    network = small_network(replace(SMALL, width=8, heads=(1, 2, 2)))
    config, tenant = network.config, MoCEIR(network)

    def operations(work, side: int) -> int:
        with FlopCounterMode(display=False) as counter:
            work(torch.rand(1, 3, side, side))
        return counter.get_total_flops()

    def per_pixel(work) -> float:
        return (operations(work, 64) - operations(work, 32)) / (64**2 - 32**2)

    frequencies = 2 * 9 * config.channels[-1] / config.multiple**2  # asked only where one decides
    for expert in range(2):
        gates = torch.eye(2)[expert][None]
        counted = per_pixel(lambda x, gates=gates: network(x, gates))
        assert counted + frequencies == pytest.approx(flops_per_pixel(config, expert), rel=1e-9)
    statistics = tenant.survey(torch.rand(1, 3, 32, 32), gates)
    counted = per_pixel(lambda x: tenant.restore(x, gates, statistics))
    assert counted == pytest.approx(held_flops(config), rel=1e-9)


def test_a_third_of_the_published_arithmetic_is_saved_by_holding() -> None:
    config = NetworkConfig()
    costs = [flops_per_pixel(config, expert) for expert in range(4)]
    assert costs == sorted(costs)
    assert held_flops(config) / 2e3 == pytest.approx(454, abs=1)
    assert 0.25 < 1 - held_flops(config) / costs[0] < 1 - held_flops(config) / costs[3] < 0.4


def test_complexity_is_read_from_the_file(golden) -> None:
    model, _ = golden
    complexity = torch.tensor(model.tenant.arithmetic.complexity)
    assert complexity.shape == (model.tenant.layers, len(model.choices))
    assert (complexity[:, -1] == 1).all()
    assert (complexity.diff(dim=1) > 0).all()


def test_a_slim_one_has_the_same_parts(network) -> None:
    model = load_model(DATA / f"{ONE}.safetensors", "cpu")
    slim = model.architecture.room.slim(model.network)
    assert slim.config == SLIM
    assert slim.multiple == model.multiple
    assert slim(torch.rand(1, 3, 20, 20))[0].shape == (1, 3, 20, 20)
