"""Brightness is kept: by a network that is made for it, and of any network on request."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_network

import demoe
from demoe.engine.runner import TileRunner
from demoe.model.architectures import build
from demoe.model.checkpoint import write_weights
from demoe.model.demoe.config import NetworkConfig
from demoe.model.level import keep_level
from demoe.model.loading import load_model
from demoe.training.fit.whole import starting_network

KEEPING = NetworkConfig(4, (1, 1), 1, (1, 1), router_width=16, router_hidden=8, keeps_level=True)


@pytest.mark.parametrize("size", [(64, 64), (50, 37), (5, 9)])
def test_the_mean_is_that_of_the_picture(size: tuple[int, int]) -> None:
    picture = torch.rand(2, 3, *size)
    darker = 0.6 * picture - 0.05 * torch.rand(2, 3, *size)
    kept = keep_level(darker, picture, 16)
    torch.testing.assert_close(kept.mean(dim=(2, 3)), picture.mean(dim=(2, 3)), atol=5e-3, rtol=0)
    # What is right already stays, to the last bits.
    torch.testing.assert_close(keep_level(picture, picture, 16), picture)


def test_each_place_keeps_its_own_level() -> None:
    picture = torch.full((1, 3, 128, 128), 0.2)
    picture[..., 64:] = 0.6
    kept = keep_level(picture + torch.linspace(-0.1, 0.1, 128), picture, 8)
    for columns in (slice(8, 40), slice(88, 120)):
        assert abs(kept[..., columns].mean() - picture[..., columns].mean()) < 4e-3


def test_darkness_stays_dark() -> None:
    nothing = torch.zeros(1, 3, 48, 48)
    assert keep_level(nothing, nothing, 16).abs().max() == 0
    assert keep_level(nothing - 0.2, nothing, 16).isfinite().all()
    below = nothing - 5
    torch.testing.assert_close(keep_level(below + 0.1, below, 16), below + 0.1)


def test_the_weights_say_that_their_network_keeps_levels(tmp_path: Path) -> None:
    network = tiny_network(config=KEEPING)
    torch.nn.init.constant_(network.ending.bias, 0.2)
    path = tmp_path / "keeping.safetensors"
    write_weights(path, network.state_dict(), {})
    model = load_model(path, "cpu")
    assert model.network.config == KEEPING
    assert build(network.state_dict(), {})[1].config.keeps_level

    picture = np.random.default_rng(0).random((44, 60, 3), np.float32)
    x = torch.from_numpy(picture).permute(2, 0, 1)[None]
    gates = torch.eye(5)[:1]
    wanted = network(x, gates)[0]
    assert abs(wanted.mean() - x.mean()) < 5e-3
    torch.testing.assert_close(model.tenant.restore(x, gates), wanted, atol=1e-5, rtol=0)
    # To ask for it once more changes nothing.
    both = [TileRunner(model, preserve=p).restore(picture, gates[0].numpy()) for p in (True, False)]
    np.testing.assert_array_equal(*both)


def test_tiles_of_such_a_network_equal_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "keeping.safetensors"
    write_weights(path, tiny_network(config=KEEPING).state_dict(), {})
    picture = np.random.default_rng(1).random((150, 201), np.float32)
    fields = {"model": path, "routing": "defocus", "halo": 32}
    assert load_model(path, "cpu").halo <= 32
    whole = np.asarray(demoe.deblur(picture, tile=256, **fields).image)
    tiled = np.asarray(demoe.deblur(picture, tile=64, **fields).image)
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_training_makes_networks_that_keep_levels(tmp_path: Path) -> None:
    before = tiny_network()
    path = tmp_path / "free.safetensors"
    write_weights(path, before.state_dict(), {})
    begun = starting_network("demoe", path, 4)[1]
    assert begun.config.keeps_level
    assert not before.config.keeps_level
    assert all(
        torch.equal(begun.state_dict()[name], tensor)
        for name, tensor in before.state_dict().items()
    )
    fresh = starting_network("demoe", None, 4)[1].eval()
    picture = torch.rand(1, 3, 32, 48)
    torch.testing.assert_close(fresh(picture)[0], picture)
    assert fresh.config.keeps_level
