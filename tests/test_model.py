"""The network: agreement with the published one, gates in space, and how far it looks."""

from __future__ import annotations

import ast
import copy
import functools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import CONFIG, tiny_network, tiny_weights
from torch import Tensor, nn

from demoe.choices import TASKS, named, names_of, to_record
from demoe.errors import DeviceError, WeightsError
from demoe.model import load_model
from demoe.model.architectures import choices_in
from demoe.model.checkpoint import read_state_dict, write_weights
from demoe.model.demoe.blocks import ExpertMixture
from demoe.model.demoe.config import NetworkConfig
from demoe.model.demoe.network import DeMoENet
from demoe.model.demoe.receptive_field import encoder_reach, exact_halo, reach
from demoe.model.loading import Model, choose_device
from demoe.model.mixing import keep_top, spread_gates
from demoe.model.nafnet import NAFBlock

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(DATA / "demoe_w4.safetensors")


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(DATA / "demoe_w4.safetensors", "cpu")


@functools.cache
def _tiny() -> DeMoENet:
    return tiny_network()


@pytest.fixture
def network() -> DeMoENet:
    return copy.deepcopy(_tiny())


@pytest.fixture
def picture() -> Tensor:
    return torch.rand(1, 3, 48, 80)


# -- the published network ------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 5])
def test_automatic_results_are_the_published_ones(model, golden, k, monkeypatch) -> None:
    monkeypatch.setattr(model.network, "top_k", k)
    restored, gates = model.network(golden["input"])
    torch.testing.assert_close(gates, golden["gates.auto"], atol=1e-5, rtol=0)
    torch.testing.assert_close(restored, golden[f"output.auto.k{k}"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("task", TASKS)
def test_manual_results_are_the_published_ones(model, golden, task) -> None:
    gates = torch.eye(len(TASKS))[[TASKS.index(task)] * 2]
    restored, used = model.network(golden["input"], gates)
    torch.testing.assert_close(restored, golden[f"output.{task}"], atol=1e-5, rtol=0)
    assert used is gates


def test_the_golden_results_differ_from_each_other(golden) -> None:
    outputs = [golden[key] for key in sorted(golden) if key.startswith("output.")]
    assert len(outputs) == 3 + len(TASKS)
    manual = [golden[f"output.{task}"] for task in TASKS]
    for number, one in enumerate(manual):
        assert all((one - other).abs().max() > 1e-4 for other in manual[number + 1 :])


def test_keys_shapes_and_size_are_those_of_the_released_network() -> None:
    lines = (DATA / "demoe_official_keys.txt").read_text().splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    with torch.device("meta"):
        network = DeMoENet(NetworkConfig())
    state = network.state_dict()
    assert {key: (tuple(v.shape), str(v.dtype)) for key, v in state.items()} == {
        key: (ast.literal_eval(shape), f"torch.{dtype}") for key, shape, dtype in rows
    }
    assert len(state) == 808
    assert sum(parameter.numel() for parameter in network.parameters()) == 20_150_665


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (1, 33), (37, 53)])
def test_any_size_keeps_its_shape(network, size) -> None:
    restored, gates = network(torch.rand(2, 3, *size))
    assert restored.shape == (2, 3, *size)
    assert restored.isfinite().all()
    torch.testing.assert_close(gates.sum(1), torch.ones(2))


def test_pictures_of_a_batch_do_not_meet(network) -> None:
    batch = torch.rand(5, 3, 32, 48)
    gates = torch.eye(5)  # another expert for each
    together = network(batch, gates)[0]
    for number in range(5):
        alone = network(batch[number : number + 1], gates[number : number + 1])[0]
        torch.testing.assert_close(together[number : number + 1], alone, atol=1e-6, rtol=0)


# -- gates ----------------------------------------------------------------------------------------


def test_keep_top_keeps_the_largest_and_scales_them() -> None:
    gates = torch.tensor([[0.1, 0.4, 0.2, 0.3, 0.0]])
    torch.testing.assert_close(keep_top(gates, 1), torch.tensor([[0.0, 1, 0, 0, 0]]))
    torch.testing.assert_close(keep_top(gates, 2), torch.tensor([[0, 4.0, 0, 3, 0]]) / 7)
    torch.testing.assert_close(keep_top(gates, 5), gates)
    field = torch.rand(2, 5, 3, 4)
    kept = keep_top(field, 2)
    assert ((kept > 0).sum(1) == 2).all()
    torch.testing.assert_close(kept.sum(1), torch.ones(2, 3, 4))


@pytest.mark.parametrize("cells", [(1, 1), (3, 5), (2, 1), (11, 7)])
@pytest.mark.parametrize("k", [1, 5])
def test_a_constant_field_of_any_resolution_is_one_decision(picture, network, cells, k) -> None:
    network.top_k = k
    gates = torch.softmax(torch.randn(1, 5), 1)
    field = gates[:, :, None, None].expand(-1, -1, *cells)
    torch.testing.assert_close(
        network(picture, field)[0], network(picture, gates)[0], atol=2e-6, rtol=0
    )


def test_gates_change_linearly_between_the_centres_of_cells() -> None:
    ramp = (torch.arange(4) + 0.5) / 4
    field = torch.stack([ramp, 1 - ramp])[None, :, None].expand(1, 2, 3, 4)
    spread = spread_gates(field, (48, 64), (48, 64))
    assert spread.shape == (1, 2, 48, 64)
    torch.testing.assert_close(spread.sum(1), torch.ones(1, 48, 64))
    at = (torch.arange(64) + 0.5) / 64
    expected = at.clamp(0.125, 0.875)  # beyond the outermost centres the outermost value holds
    torch.testing.assert_close(spread[0, 0], expected.expand(48, 64), atol=1e-6, rtol=0)


def test_padding_takes_the_nearest_cell() -> None:
    field = torch.eye(2)[None, :, None]  # expert 0 left, expert 1 right
    spread = spread_gates(field, (1, 12), (1, 8))
    torch.testing.assert_close(spread[0, 1, 0, 6:], torch.ones(6), atol=1e-6, rtol=0)
    torch.testing.assert_close(spread[0, 0, 0, :2], torch.ones(2), atol=1e-6, rtol=0)


def test_a_field_leads_smoothly_from_one_expert_to_another(network) -> None:
    network = hold_pooling(network).double()
    # A smooth picture, so that what jumps is the choice of experts.
    waves = torch.sin(torch.arange(640, dtype=torch.float64) / 40) * 0.3 + 0.5
    picture = waves.expand(1, 3, 16, 640)
    first, last = torch.eye(5, dtype=torch.float64)[[0, 3]][:, None]
    # Four cells of one expert, four of the other: the change happens within the middle two.
    field = torch.stack([first[0]] * 4 + [last[0]] * 4, dim=1)[None, :, None]
    mixed = network(picture, field)[0]
    as_first, as_last = network(picture, first)[0], network(picture, last)[0]
    apart = 280 - reach(CONFIG)
    torch.testing.assert_close(mixed[..., :apart], as_first[..., :apart])
    torch.testing.assert_close(mixed[..., -apart:], as_last[..., -apart:])
    assert (as_last - as_first).abs().mean() > 1e-3
    # Cutting one into the other makes all of the difference within one cell of 16 pixels; the
    # field spreads it over the 80 pixels between two centres. Pixels of equal places in their
    # cells are compared, because random networks draw a pattern on each cell.
    seam = torch.cat([as_first[..., :320], as_last[..., 320:]], dim=3) - as_first
    smooth, hard = (
        (part[..., 16:] - part[..., :-16]).abs().mean(dim=(0, 1, 2))[264:360].max()
        for part in (mixed - as_first, seam)
    )
    assert smooth < 0.5 * hard


def test_top_k_is_taken_at_each_place(picture, network) -> None:
    field = torch.tensor([[0.5, 0.2], [0.3, 0.1], [0.2, 0.7], [0, 0], [0, 0]])[None, :, None]
    best = torch.zeros_like(field)
    best[0, 0, 0, 0] = best[0, 2, 0, 1] = 1
    torch.testing.assert_close(network(picture, field)[0], network(picture, best)[0])
    network.top_k = 2
    assert (network(picture, field)[0] - network(picture, best)[0]).abs().max() > 1e-5


def test_only_experts_with_weight_are_run() -> None:
    mixture = ExpertMixture(4, 3)
    ran: list[int] = []
    for number, expert in enumerate(mixture.experts):
        expert.register_forward_hook(lambda *_, number=number: ran.append(number))
    x = torch.rand(2, 4, 8, 8)
    weights = torch.zeros(2, 3, 8, 8)
    weights[0, 0] = 1
    weights[1, 2, :, :4], weights[1, 0, :, 4:] = 1, 1
    out = mixture(x, weights)
    assert ran == [0, 2]
    torch.testing.assert_close(out[0], mixture.experts[0](x[:1])[0])


# -- how far it looks -----------------------------------------------------------------------------


def hold_pooling(network: DeMoENet) -> DeMoENet:
    """Let channel attention see a constant in place of the mean over the picture."""

    class Constant(nn.Module):
        def forward(self, y: Tensor) -> Tensor:
            return torch.ones_like(y[:, :, :1, :1])

    for module in network.modules():
        if hasattr(module, "sca"):
            module.sca[0] = Constant()
    return network


def measured_reach(network: DeMoENet, output_of, core: int, margin: int) -> int:
    """Pixels beyond a central square that the output in it depends on, by its gradient."""
    size = core + 2 * margin
    x = torch.rand(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    output_of(x)[..., margin : margin + core, margin : margin + core].square().sum().backward()
    touched = x.grad[0].abs().sum(0).nonzero()
    return max(
        margin - int(touched.min()),
        int(touched.max()) - (margin + core - 1),
    )


@pytest.mark.parametrize(
    "config",
    [
        NetworkConfig(4, (1,), 1, (1,), 2, 8, 4),
        NetworkConfig(4, (0,), 0, (0,), 1, 8, 4),
        NetworkConfig(4, (2, 0), 1, (3, 1), 1, 8, 4),
        NetworkConfig(4, (1, 2, 1), 0, (0, 2, 1), 1, 8, 4),
        NetworkConfig(4, (1, 1, 1, 1), 1, (1, 1, 1, 1), 1, 8, 4),
        NetworkConfig(4, (0, 1, 1), 1, (1, 0, 1), 1, 8, 4, keeps_level=True),
    ],
    ids=lambda c: f"{c.encoder_blocks}-{c.middle_blocks}-{c.decoder_blocks}{'k' * c.keeps_level}",
)
def test_the_reach_is_what_gradients_say(config: NetworkConfig) -> None:
    network = hold_pooling(tiny_network(config=config)).double()
    gates = torch.full((1, config.experts), 1 / config.experts, dtype=torch.float64)
    network.top_k = config.experts
    m = config.multiple
    margin = exact_halo(config) + m
    # A core of two cells, so that its edges are cell edges on every level.
    found = measured_reach(network, lambda x: network(x, gates)[0], 2 * m, margin)
    assert found == reach(config)
    assert exact_halo(config) % m == 0
    assert reach(config) <= exact_halo(config) < reach(config) + m


def test_the_reach_of_the_released_architecture() -> None:
    # Its far end weighs little, but gradients do reach 127 pixels (checked at width 4).
    assert (reach(NetworkConfig()), exact_halo(NetworkConfig())) == (127, 128)


def test_the_reach_of_the_encoder_is_what_gradients_say() -> None:
    config = NetworkConfig(4, (2, 1, 1), 1, (1, 1, 1), 1, 8, 4)
    network = hold_pooling(tiny_network(config=config)).double()
    m = config.multiple
    x = torch.rand(1, 3, 9 * m, 9 * m, dtype=torch.float64, requires_grad=True)
    network.encode(x)[0][..., 4, 4].square().sum().backward()
    touched = x.grad[0].abs().sum(0).nonzero()
    assert 4 * m - int(touched.min()) == encoder_reach(config)
    assert int(touched.max()) - (5 * m - 1) <= encoder_reach(config)


# -- models ---------------------------------------------------------------------------------------


def test_a_file_is_loaded_once(tmp_path: Path) -> None:
    path = tiny_weights(tmp_path / "a.safetensors")
    model = load_model(path, "cpu")
    assert load_model(str(path), "cpu") is model
    assert not model.network.training
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert (model.multiple, names_of(model.choices), model.path) == (16, TASKS, path)
    assert model.halo == exact_halo(CONFIG)
    before = model.sha256
    tiny_weights(path, seed=1)
    assert load_model(path, "cpu").sha256 != before


def test_a_model_restores_and_routes_as_its_network(tmp_path: Path, picture: Tensor) -> None:
    model = load_model(tiny_weights(tmp_path / "a.safetensors"), "cpu")
    picture = picture[:1]
    restored, gates = model.network(picture)
    torch.testing.assert_close(model.tenant.decide(picture), gates[0])
    mixing = keep_top(gates, 1)
    torch.testing.assert_close(model.tenant.restore(picture, mixing), restored)
    field = mixing[:, :, None, None].expand(-1, -1, 3, 5)
    torch.testing.assert_close(model.tenant.restore(picture, field), restored, atol=2e-6, rtol=0)


@pytest.mark.parametrize("cells", [(1, 1), (3, 5)])
def test_attention_of_the_picture_itself_changes_nothing(
    tmp_path: Path, picture: Tensor, cells: tuple[int, int]
) -> None:
    model = load_model(tiny_weights(tmp_path / "a.safetensors"), "cpu")
    picture = picture[:1]
    mixing = torch.softmax(torch.randn(1, 5, *cells), dim=1)
    attention = model.tenant.survey(picture, mixing, every=True)
    torch.testing.assert_close(
        model.tenant.restore(picture, mixing, attention), model.tenant.restore(picture, mixing)
    )


@pytest.mark.parametrize("count", [1, 16, 21])
def test_pictures_are_routed_each_by_itself(tmp_path: Path, count: int) -> None:
    model = load_model(tiny_weights(tmp_path / "a.safetensors"), "cpu")
    pictures = torch.rand(count, 3, 32, 40) * torch.linspace(0.1, 1, count)[:, None, None, None]
    alone = torch.cat([model.network(picture[None])[1] for picture in pictures])
    torch.testing.assert_close(model.tenant.route(pictures), alone, atol=1e-5, rtol=1e-5)
    assert count == 1 or (alone.amax(0) - alone.amin(0)).max() > 0.01


def test_experts_that_no_sample_needs_have_an_attention_too(
    tmp_path: Path, picture: Tensor
) -> None:
    model = load_model(tiny_weights(tmp_path / "a.safetensors"), "cpu")
    picture, one, other = picture[:1], torch.eye(5)[:1], torch.eye(5)[3:4]
    attention = model.tenant.survey(picture, one, every=True)
    tenant = model.tenant
    torch.testing.assert_close(
        tenant.restore(picture, one, attention), tenant.restore(picture, one)
    )
    assert set(attention) == {
        name for name, block in model.network.named_modules() if isinstance(block, NAFBlock)
    }
    assert model.tenant.restore(picture, other, attention).isfinite().all()


def test_samples_are_pooled_together(tmp_path: Path, picture: Tensor) -> None:
    model = load_model(tiny_weights(tmp_path / "a.safetensors"), "cpu")
    one = picture[:1]
    both = one.repeat(2, 1, 1, 1)
    torch.testing.assert_close(model.tenant.decide(both), model.tenant.decide(one))
    alone, twice = model.tenant.survey(one, None), model.tenant.survey(both, None)
    assert set(twice) == set(alone)
    for name, value in alone.items():
        torch.testing.assert_close(twice[name], value)


def test_other_numbers_of_experts_are_numbered_or_named_by_the_file(tmp_path: Path) -> None:
    config = NetworkConfig(4, (1,), 1, (1,), 3, 8, 4)
    path = tiny_weights(tmp_path / "three.safetensors", config=config)
    assert names_of(load_model(path, "cpu").choices) == ("expert_1", "expert_2", "expert_3")
    tensors, _ = read_state_dict(path)
    known = named(("haze", "rain", "snow"))
    write_weights(path, tensors, {"choices": json.dumps(to_record(known))})
    assert load_model(path, "cpu").choices == known == choices_in(path)
    for wrong in ("{", json.dumps(to_record(known[:2])), "[]", '[{"name": 1}]'):
        write_weights(path, tensors, {"choices": wrong})
        with pytest.raises(WeightsError, match=r"choices|experts wrongly"):
            load_model(path, "cpu")
        assert choices_in(path) is None


@pytest.mark.parametrize("device", ["cuda:99", "cuda:x", "gpu", "", "cudax"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(DeviceError, match=r"use (auto|cpu)"):
        choose_device(device)


def test_devices_that_are_there() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
