"""A network after the idea of MiM-DiT: what it promises, and what a file may say of it."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_mimdit import SMALL, small_network, small_weights
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from demoe.choices import names_of
from demoe.errors import WeightsError
from demoe.model import load_model
from demoe.model.architectures import build, choices_in
from demoe.model.mimdit.config import NetworkConfig, detect_config
from demoe.model.mimdit.flops import flops_per_pixel
from demoe.model.mimdit.network import MiMDiTNet
from demoe.model.mimdit.receptive_field import reach
from demoe.model.mimdit.tenant import MiMDiT, adopt, fresh, plain, pupil, slim

NAMES = ("spatial", "channel", "window", "se")


@pytest.fixture
def network() -> MiMDiTNet:
    return small_network()


def shapes_of(network: MiMDiTNet) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def count_of(network: MiMDiTNet) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def kinds_of_pictures(count: int = 4, side: int = 32) -> Tensor:
    """Dark and bright, smooth and noisy ones: (count, 3, side, side)."""
    torch.manual_seed(3)
    shade = torch.linspace(0.1, 0.9, count)[:, None, None, None]
    noise = torch.tensor([0.02, 0.3]).repeat(count)[:count, None, None, None]
    ramp = torch.linspace(0.5, 1, side)[None, None, None, :]
    return (shade * ramp + noise * torch.randn(count, 3, side, side)).clamp(0, 1)


# -- without training -----------------------------------------------------------------------------


@pytest.mark.parametrize("dense", [False, True])
def test_a_fresh_network_changes_nothing(dense: bool) -> None:
    network = fresh(48, dense=dense).eval()
    x = torch.rand(1, 3, 33, 50)
    assert torch.equal(network(x)[0], x)
    assert torch.equal(network.in_steps(3)(x)[0], x)


def test_a_fresh_one_is_small_and_its_dense_twin_as_large() -> None:
    mixed, dense = fresh(), fresh(dense=True)
    assert count_of(mixed) < 2_500_000
    one_number_more = mixed.config.blocks * (2 * mixed.config.width + 9)
    assert abs(count_of(mixed) - count_of(dense)) <= one_number_more / 2
    with pytest.raises(WeightsError, match="multiple of 48, not 50"):
        fresh(50)


def test_what_is_injected_begins_neutral() -> None:
    torch.manual_seed(0)
    network = MiMDiTNet(SMALL).eval()
    torch.nn.init.normal_(network.head.narrow.weight)
    x = torch.rand(1, 3, 32, 32)
    before, _ = network(x)
    assert (before - x).abs().max() > 0.01  # the backbone does something
    for name, parameter in network.named_parameters():
        if "mixture" in name or name.startswith("condition"):
            torch.nn.init.normal_(parameter)
    assert torch.equal(network(x)[0], before)
    assert torch.equal(network(x, torch.tensor([[0.0, 0, 0, 1]]))[0], before)
    torch.nn.init.normal_(network.blocks[0].inject.weight)
    assert (network(x)[0] - before).abs().max() > 0.01


# -- training -------------------------------------------------------------------------------------


def test_every_part_gets_a_gradient() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    network = small_network().requires_grad_(True)
    for name, parameter in network.named_parameters():
        if "router" in name:  # undecided, so that noise lets all have their turn
            torch.nn.init.normal_(parameter, std=0.01)
    x = kinds_of_pictures(8)
    without = {name for name, _ in network.named_parameters()}
    for _ in range(12):
        restored, _ = network.learn(x, generator=generator)
        network.zero_grad()
        (restored - x.flip(3)).square().mean().backward()
        without -= {
            name
            for name, parameter in network.named_parameters()
            if parameter.grad is not None and parameter.grad.abs().max() > 0
        }
    assert not without


def test_a_router_learns_from_the_result_which_sub_expert_to_take() -> None:
    """Its probability scales what a sub-expert gives, so also of one alone at work."""
    network = small_network().requires_grad_(True)
    x = kinds_of_pictures(2)
    restored, _ = network.learn(x)
    (restored - x).square().mean().backward()
    for block in network.blocks:
        for group in block.mixture.groups:
            assert group.router.weight.grad.abs().max() > 0


def test_balance_is_within_groups_alone() -> None:
    network = small_network().requires_grad_(True)
    _, uneven = network.learn(kinds_of_pictures(8))
    assert uneven > 0.1
    uneven.backward()
    learnt = {name for name, one in network.named_parameters() if one.grad is not None}
    groups, blocks = range(4), range(2)
    routers = {f"blocks.{b}.mixture.groups.{g}.router" for b in blocks for g in groups}
    assert learnt == {f"{one}.{part}" for one in routers for part in ("weight", "bias")}


def test_balance_makes_all_sub_experts_work() -> None:
    network = small_network()
    for block in network.blocks:
        for group in block.mixture.groups:
            group.router.bias[0] += 2  # nearly always the first
    network.requires_grad_(True)
    x = kinds_of_pictures(12)

    def shares() -> Tensor:
        with torch.no_grad():
            return (network.decisions(x).intra > 0).float().mean(dim=0)

    before = shares()
    routers = [parameter for name, parameter in network.named_parameters() if "groups" in name]
    optimiser = torch.optim.Adam(routers, lr=0.05)
    for _ in range(50):
        optimiser.zero_grad()
        network.learn(x)[1].backward()
        optimiser.step()
    after = shares()
    assert before.amax(dim=2).mean() > 0.8
    assert after.amax(dim=2).mean() < 0.6


def test_it_learns_to_restore() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    network = MiMDiTNet(SMALL).train()
    target = torch.rand(4, 3, 32, 32).mul(0.4)
    x = target + 0.3
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        restored, more = network.practise(x, torch.ones(4, 1), generator)
        loss = (restored - target).square().mean()
        losses.append(loss.item())
        optimiser.zero_grad()
        (loss + more).backward()
        optimiser.step()
    assert losses[-1] < 0.1 * losses[0]


def test_a_step_is_learnt_from_anywhere_on_the_way(network) -> None:
    x, target = torch.rand(2, 3, 40, 24), torch.rand(2, 3, 40, 24)
    at_once, _ = network.learn(x)
    begun, _ = network.learn(x, target, torch.zeros(2))
    torch.testing.assert_close(begun, at_once, atol=1e-6, rtol=0)
    time = torch.tensor([0.25, 0.75])
    found, _ = network.learn(x, target, time)
    for number in range(2):
        share = float(time[number])
        on_its_way = torch.lerp(x, target, share)[number : number + 1]
        v, _ = network.velocity(
            network.pad(on_its_way), network.pad(x[number : number + 1]), time[number : number + 1]
        )
        wanted = on_its_way + (1 - share) * v[:, :, :40, :24]
        torch.testing.assert_close(found[number : number + 1], wanted, atol=1e-5, rtol=0)


# -- the bare module ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (7, 30), (33, 16)])
@pytest.mark.parametrize("steps", [1, 2])
def test_pictures_of_any_size(network, size: tuple[int, int], steps: int) -> None:
    restored, gates = network.in_steps(steps)(torch.rand(2, 3, *size))
    assert restored.shape == (2, 3, *size)
    assert gates.shape == (2, 2 * steps, 4)
    torch.testing.assert_close(gates.sum(dim=2), torch.ones(2, 2 * steps))
    assert restored.isfinite().all()


def test_both_levels_are_told(network) -> None:
    x = kinds_of_pictures()
    _, gates = network(x)
    decisions = network.decisions(x)
    torch.testing.assert_close(decisions.inter, gates)
    assert decisions.intra.shape == (4, 2, 4, 3)
    assert ((decisions.intra > 0).sum(dim=3) == 1).all()  # sparse
    assert (decisions.intra.amax(dim=3) < 1).all()  # a probability, not scaled to 1
    assert (gates > 0).all()  # dense
    assert gates.std(dim=0).max() > 0.05  # pictures are told apart
    chosen = decisions.intra.argmax(dim=3).flatten(1)
    assert len({tuple(row) for row in chosen.tolist()}) > 1
    two = small_network(replace(SMALL, top_k=2))
    assert ((two.decisions(x).intra > 0).sum(dim=3) == 2).all()


def test_batches_give_what_single_pictures_give(network) -> None:
    x = kinds_of_pictures()
    together, gates = network(x)
    for number in range(len(x)):
        alone, own = network(x[number : number + 1])
        torch.testing.assert_close(together[number : number + 1], alone, atol=2e-5, rtol=0)
        torch.testing.assert_close(gates[number : number + 1], own, atol=1e-5, rtol=0)


def test_the_same_picture_gives_the_same_always(network) -> None:
    x = torch.rand(1, 3, 40, 48)
    assert torch.equal(network(x)[0], network(x)[0])


def test_gates_that_are_given_are_taken(network) -> None:
    x = torch.rand(1, 3, 48, 64)
    restored, gates = network(x)
    torch.testing.assert_close(network(x, gates)[0], restored, atol=1e-6, rtol=0)
    everywhere = gates[..., None, None].expand(-1, -1, -1, 3, 4)
    torch.testing.assert_close(network(x, everywhere)[0], restored, atol=1e-5, rtol=0)
    one = torch.tensor([[0.0, 1, 0, 0]])
    alone, used = network(x, one)
    assert torch.equal(used, one[:, None].expand(-1, 2, -1))
    assert (alone - restored).abs().max() > 1e-3


def test_more_steps_go_the_same_way_in_pieces(network) -> None:
    x, (y, gates) = torch.rand(1, 3, 32, 32), (None, None)
    y = x
    for step in range(3):
        v, _ = network.velocity(y, x, torch.tensor([step / 3]))
        y = y + v / 3
    restored, gates = network.in_steps(3)(x)
    torch.testing.assert_close(restored, y, atol=1e-6, rtol=0)
    assert (restored - network(x)[0]).abs().max() > 1e-3
    assert (gates[:, :2] - gates[:, 2:4]).abs().max() > 1e-4  # routers hear of time


# -- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        replace(SMALL, top_k=3, steps=4),
        replace(SMALL, patch=4, window=4, blocks=3, experts=5, tail=3),
        replace(SMALL, dense=7),
        NetworkConfig(),
    ],
)
def test_it_comes_back_from_its_file(tmp_path: Path, config: NetworkConfig) -> None:
    path = small_weights(tmp_path / "small.safetensors", config)
    network, again = small_network(config), load_model(path, "cpu")
    found = again.network.config
    ours = ("experts", "rank", "group_heads") if config.dense else ()
    assert replace(found, **{name: getattr(config, name) for name in ours}) == config
    assert again.architecture.name == "mimdit"
    assert not again.network.training
    assert names_of(choices_in(path)) == (("dense",) if config.dense else NAMES)
    x = torch.rand(1, 3, 20, 24)
    torch.testing.assert_close(again.network(x)[0], network(x)[0], atol=1e-5, rtol=0)


def test_what_a_file_does_not_say_is_one(network) -> None:
    config = detect_config(shapes_of(network), {})
    assert (config.top_k, config.steps) == (1, 1)


def test_files_that_do_not_fit_are_refused_in_a_sentence(network) -> None:
    state, shapes = network.state_dict(), shapes_of(network)
    for config, words in (
        ('{"topk": 4}', "Of 3 sub-experts, 1 to 3 can work at once, not 4"),
        ('{"topk": "one"}', "can work at once"),
        ('{"topk": true}', "can work at once"),
        ('{"steps": 0}', "1 to 32 steps, not 0"),
        ('{"steps": 1000000000}', "1 to 32 steps"),
        ('{"steps": 2.5}', "1 to 32 steps"),
        ("[", "is damaged"),
        ("[" * 100_000, "nested"),
        ("[1]", "must be a JSON object"),
    ):
        with pytest.raises(WeightsError, match=words):
            detect_config(shapes, {"config": config})
    less = {key: value for key, value in state.items() if key != "stem.bias"}
    with pytest.raises(WeightsError, match=r"missing: stem\.bias"):
        build(less, {})
    with pytest.raises(WeightsError, match=r"stem\.weight is missing"):
        build({k: v for k, v in state.items() if not k.startswith("stem")}, {})
    for key, shape, words in (
        ("stem.weight", (8, 10**9, 3, 3), r"stem\.weight has the shape"),
        ("stem.weight", (8, 27, 3, 3), "power of two from 2 to 16, not 3"),
        ("blocks.0.attention.table", (2, 3999, 3999), "power of two from 2 to 32, not 2000"),
        ("blocks.0.attention.table", (3, 15, 15), "8 numbers cannot be shared among 3 heads"),
        ("blocks.0.attention.table", (0, 15, 15), "has the shape"),
        ("time.2.weight", (5, 5), "an even number of numbers, not 5"),
        ("blocks.0.inject.weight", (), "has the shape"),
    ):
        with pytest.raises(WeightsError, match=words):
            detect_config(shapes | {key: shape}, {})
    for key in ("blocks.0.mixture.groups.0.experts.998.x", "blocks.400.x"):
        with pytest.raises(WeightsError, match="1 to 512 sub-experts of a kind"):
            detect_config(shapes | {key: (1,)}, {})


def test_damaged_files_end_in_a_sentence(network) -> None:
    state, draw = network.state_dict(), random.Random(0)
    for _ in range(60):
        damaged = dict(state)
        for key in draw.sample(sorted(damaged), 3):
            sides = list(damaged.pop(key).shape)
            if draw.random() < 0.7:
                sides[draw.randrange(len(sides))] = draw.choice([0, 1, 2, 3, 5, 7, 15, 64, 5000])
                damaged[key] = torch.zeros(1).expand(sides)
        with pytest.raises(WeightsError):
            build(damaged, {})


# -- the tenant -----------------------------------------------------------------------------------


def test_it_decides_and_restores_as_the_bare_network(network) -> None:
    tenant = MiMDiT(network)
    assert names_of(tenant.choices) == NAMES
    assert (tenant.multiple, tenant.layers, tenant.dense) == (16, 2, True)
    x = kinds_of_pictures(8)
    restored, gates = network(x)
    torch.testing.assert_close(tenant.route(x), gates.flatten(1), atol=1e-5, rtol=0)
    decided = tenant.decide(x[:1])
    torch.testing.assert_close(decided, gates[0].flatten(), atol=1e-5, rtol=0)
    found = tenant.restore(x[:1], decided[None])
    torch.testing.assert_close(found, restored[:1], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("config", "exact", "halo"),
    [
        (SMALL, 20, 32),
        (replace(SMALL, steps=2), 36, 48),
        (replace(SMALL, blocks=3, patch=4, window=4), 40, 48),
        (replace(SMALL, dense=9), 18, 32),
    ],
    ids=["one step", "two steps", "three blocks", "dense"],
)
def test_tiles_equal_the_whole_at_the_exact_halo(
    config: NetworkConfig, exact: int, halo: int
) -> None:
    tenant, grid = MiMDiT(small_network(config)), config.multiple
    core, choices = grid, len(tenant.choices)
    assert (reach(config), tenant.halo) == (exact, halo)
    # No multiples of the window below and at the right.
    x = torch.rand(1, 3, 2 * halo + 2 * core + 5, 2 * halo + 3 * core - 3)
    cells = [-(-side // grid) for side in x.shape[2:]]
    field = torch.rand(1, config.layers, choices, *cells).softmax(dim=2).flatten(1, 2)
    statistics = tenant.survey(x, field, every=True)
    whole = tenant.restore(x, field, statistics)
    assert (whole - x).abs().max() > 0.1
    part = tenant.restore(x[:, :, core:, core:], field[:, :, 1:, 1:], statistics)
    wanted = whole[:, :, core + halo :, core + halo :]
    torch.testing.assert_close(part[:, :, halo:, halo:], wanted, atol=1e-6, rtol=0)
    size = (halo + core, halo + core)
    first = tenant.restore(
        x[:, :, : size[0], : size[1]], field[:, :, : size[0] // grid, : size[1] // grid], statistics
    )
    torch.testing.assert_close(
        first[:, :, :core, :core], whole[:, :, :core, :core], atol=1e-6, rtol=0
    )
    short = halo - grid  # no less will do
    less = part[:, :, short:, short:] - whole[:, :, core + short :, core + short :]
    assert less.abs().max() > 1e-6


def test_nothing_is_pooled_once_it_is_held(network, monkeypatch) -> None:
    tenant = MiMDiT(network)
    x = torch.rand(1, 3, 48, 64)
    weights = tenant.decide(x)[None]
    wanted = tenant.restore(x, weights)
    statistics = tenant.survey(x, weights)
    # In each block: which sub-experts of four groups work, a matrix, and factors.
    assert len(statistics) == 2 * (4 + 1 + 1)

    def fail(*_):
        raise AssertionError("something was pooled")

    monkeypatch.setattr("demoe.model.mimdit.pooled.Pooled.mean", fail)
    monkeypatch.setattr("demoe.model.mimdit.pooled.Pooled.sum", fail)
    held = tenant.restore(x, weights, statistics)
    torch.testing.assert_close(held, wanted, atol=5e-6, rtol=0)


def test_parts_of_a_picture_are_surveyed_as_one(network) -> None:
    tenant = MiMDiT(network)
    x = torch.rand(1, 3, 32, 32)
    weights = tenant.decide(x)[None]
    torch.testing.assert_close(tenant.decide(torch.cat([x, x])), tenant.decide(x))
    once = tenant.survey(x, weights)
    twice = tenant.survey(torch.cat([x, x]), weights.expand(2, -1))
    assert once.keys() == twice.keys()
    for name, value in once.items():
        torch.testing.assert_close(twice[name], value, atol=1e-5, rtol=1e-4)
    both = torch.cat([x, 0.2 * x])
    other = tenant.survey(both, weights.expand(2, -1))
    assert any((other[name] - one).abs().max() > 1e-4 for name, one in once.items())
    each = tenant.survey(both, None, every=True)  # each decides for itself
    assert tenant.restore(x, weights, each).isfinite().all()


def test_each_place_has_its_own_group(network) -> None:
    tenant = MiMDiT(network)
    x = torch.rand(1, 3, 64, 160)
    one_hot = torch.eye(4)
    statistics = tenant.survey(x, tenant.decide(x)[None], every=True)
    alone = [tenant.restore(x, one_hot[n : n + 1], statistics) for n in (1, 3)]
    assert (alone[0] - alone[1]).abs().max() > 1e-3
    field = torch.zeros(1, 4, 4, 10)
    field[:, 1, :, :5], field[:, 3, :, 5:] = 1, 1
    mixed = tenant.restore(x, field, statistics)
    distance = 16 + tenant.halo  # weights go over within a cell
    left, right = slice(0, 80 - distance), slice(80 + distance, None)
    torch.testing.assert_close(mixed[..., left], alone[0][..., left], atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed[..., right], alone[1][..., right], atol=1e-6, rtol=0)


def test_a_calibration_sees_the_mixture_and_each_group(network) -> None:
    tenant = plain(network)
    x = torch.rand(1, 3, 40, 36)
    found, statistics = tenant.restore_each(x)
    held, same = tenant.restore_each(torch.cat([x, x]), statistics)
    assert same is statistics
    torch.testing.assert_close(held[:, 1:], found, atol=5e-6, rtol=0)
    wanted, _ = network(x)
    torch.testing.assert_close(found[0], wanted, atol=5e-6, rtol=0)
    for number, gates in enumerate(torch.eye(4), start=1):
        wanted, _ = network(x, gates[None])
        torch.testing.assert_close(found[number], wanted, atol=5e-6, rtol=0)


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, top_k=2), replace(SMALL, dense=9)])
def test_arithmetic_is_what_is_done(config: NetworkConfig) -> None:
    tenant = MiMDiT(small_network(config))
    network = tenant.network

    def operations(work, side: int) -> int:
        with FlopCounterMode(display=False) as counter:
            work(torch.rand(1, 3, side, side))
        return counter.get_total_flops()

    def per_pixel(work) -> float:
        """Without what a picture costs at its borders, where shifted windows go beyond it."""
        small, middle, large = (operations(work, side) for side in (32, 64, 96))
        return (large - 2 * middle + small) / (96**2 - 2 * 64**2 + 32**2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.nn.functional.scaled_dot_product_attention", step_by_step)
        assert per_pixel(network) == pytest.approx(flops_per_pixel(config), rel=1e-9)
        x = torch.rand(1, 3, 32, 32)
        weights = tenant.decide(x)[None]
        statistics = tenant.survey(x, weights)
        counted = per_pixel(lambda x: tenant.restore(x, weights, statistics))
        assert counted == pytest.approx(flops_per_pixel(config, held=True), rel=1e-9)


def step_by_step(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """Attend in products that PyTorch counts; its own attention on a CPU it does not."""
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    return (scores if attn_mask is None else scores + attn_mask).softmax(dim=-1) @ v


def test_pupils_and_slim_ones_are_of_the_same_kind(network) -> None:
    begun = pupil(network)
    assert all(parameter.requires_grad for parameter in begun.parameters())
    x = torch.rand(1, 3, 20, 20)
    torch.testing.assert_close(begun.eval()(x)[0], network(x)[0], atol=1e-5, rtol=0)
    small = slim(network)
    assert small(x)[0].shape == x.shape
    assert names_of(MiMDiT(small).choices) == NAMES
    with pytest.raises(WeightsError, match="can begin as no other"):
        adopt({}, "other.safetensors")
