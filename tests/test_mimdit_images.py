"""Images restored by a MiM-DiT-like network: maps, paint, tiles, files, the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from small_mimdit import SMALL, small_weights

import demoe
from demoe.choices import names_of
from demoe.cli import main
from demoe.errors import RecipeError
from demoe.io.record import choices_of

pytestmark = pytest.mark.usefixtures("in_this_thread")

FIELDS = {"tile": 64, "pitch": 16, "window": 32}
NAMES = ["spatial", "channel", "window", "se"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return small_weights(tmp_path_factory.mktemp("weights") / "small.safetensors")


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """From dark and smooth to bright and noisy; its sides are no multiples of a window."""
    rng = np.random.default_rng(0)
    shade = np.linspace(0, 1, 187) ** 2
    return (shade * (0.5 + rng.random((139, 187)))).clip(0, 1).astype(np.float32)


def restored(picture, weights, **fields):
    return demoe.deblur(picture, model=weights, intensity=(0.0, 1.0), **{**FIELDS, **fields})


def test_one_tile_is_what_the_bare_network_gives(weights, picture):
    out = restored(picture, weights, routing="image", tile=256)
    x = torch.from_numpy(picture)[None, None].expand(-1, 3, -1, -1)
    wanted, gates = demoe.load_model(weights).network(x)
    found = out.image.compute()
    np.testing.assert_allclose(found, wanted[0].mean(dim=0).numpy(), atol=5e-5)
    mean = gates[0].mean(dim=0).numpy()
    np.testing.assert_allclose(out.gates.compute()[:, 4, 5], mean, atol=1e-5)
    assert (out.expert_map.compute() == mean.argmax() + 1).all()
    assert mean.max() < 0.9  # all groups work, though top_k is 1


@pytest.mark.parametrize(
    ("routing", "steps", "halo"), [("image", 1, 32), ("local", 1, 32), ("local", 2, 48)]
)
def test_tiles_equal_the_whole(tmp_path, picture, routing, steps, halo):
    weights = small_weights(tmp_path / "small.safetensors", replace(SMALL, steps=steps))
    tiled, whole = (restored(picture, weights, routing=routing, tile=tile) for tile in (64, 256))
    assert tiled.image.numblocks == (3, 3)
    assert whole.image.numblocks == (1, 1)
    assert tiled.plan.halo == halo
    found, wanted = tiled.image.compute(), whole.image.compute()
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert np.abs(wanted - picture).max() > 0.05  # something was done
    np.testing.assert_array_equal(tiled.expert_map.compute(), whole.expert_map.compute())


@pytest.mark.parametrize("routing", ["image", "local"])
def test_tiles_do_not_matter_where_samples_stand_for_a_plane(
    weights, picture, routing, monkeypatch
):
    monkeypatch.setattr("demoe.routing.router.SURVEYED_WHOLE", 1)
    monkeypatch.setattr("demoe.routing.router.SAMPLE", 48)
    small, large = (restored(picture, weights, routing=routing, tile=tile) for tile in (64, 96))
    assert small.image.numblocks != large.image.numblocks
    np.testing.assert_allclose(small.image.compute(), large.image.compute(), atol=1e-4)


@pytest.mark.parametrize("routing", ["image", "local"])
def test_paint_gives_a_place_to_one_group_and_changes_nothing_elsewhere(weights, picture, routing):
    before = restored(picture, weights, routing=routing)
    painted = np.zeros((9, 12), np.uint8)
    painted[:, 0], painted[0, 11] = 2, 4
    after = before.corrected(painted)
    gates = after.gates.compute()
    np.testing.assert_array_equal(gates[:, 3, 0], [0, 1, 0, 0])
    np.testing.assert_array_equal(gates[:, 0, 11], [0, 0, 0, 1])
    bare = painted == 0
    np.testing.assert_array_equal(gates[:, bare], before.gates.compute()[:, bare])
    found, old = after.image.compute(), before.image.compute()
    assert np.abs(found - old)[:, :16].max() > 1e-3
    full = restored(picture, weights, routing=routing, expert_map=painted)
    np.testing.assert_array_equal(found, full.image.compute())
    distance = 16 + 16 + 32  # the cells that weights go over in, and what the network looks around
    far = np.s_[distance:, distance : 187 - distance]
    np.testing.assert_allclose(found[far], old[far], atol=1e-6)


def test_places_decide_each_by_themselves(weights, picture):
    out = restored(picture, weights, routing="local")
    gates = out.gates.compute()
    assert gates.shape == (4, 9, 12)
    np.testing.assert_allclose(gates.sum(axis=0), 1, atol=1e-6)
    assert gates.std(axis=(1, 2)).max() > 0.01
    assert list(names_of(out.choices)) == NAMES


@pytest.mark.parametrize("tile", [64, 256])
def test_the_second_level_is_told(weights, picture, tile):
    out = restored(np.stack([picture, 1 - picture]), weights, routing="image", tile=tile)
    network = demoe.load_model(weights).network
    for number, one in enumerate((picture, 1 - picture)):
        x = torch.from_numpy(one)[None, None].expand(-1, 3, -1, -1)
        gates = out.sub_gates((number,))
        wanted = network.decisions(x).intra[0].numpy()
        np.testing.assert_allclose(gates, wanted, atol=1e-5)
        assert ((gates > 0).sum(axis=2) == 1).all()
    assert restored(picture, weights, pooling="tile").sub_gates() is None
    assert restored(picture, "default").sub_gates() is None


def test_a_group_is_named(weights, picture):
    named = restored(picture, weights, routing="channel")
    assert (named.expert_map.compute() == 2).all()
    x = torch.from_numpy(picture)[None, None].expand(-1, 3, -1, -1)
    wanted, _ = demoe.load_model(weights).network(x, torch.tensor([[0.0, 1, 0, 0]]))
    np.testing.assert_allclose(named.image.compute(), wanted[0].mean(dim=0), atol=1e-4)
    with pytest.raises(RecipeError, match="its choices are spatial, channel, window, se"):
        demoe.deblur(picture, model=weights, routing="noise")


def test_a_network_without_a_mixture_is_tiled_as_well(tmp_path, picture):
    weights = small_weights(tmp_path / "dense.safetensors", replace(SMALL, dense=9))
    tiled, whole = (restored(picture, weights, tile=tile) for tile in (64, 256))
    np.testing.assert_allclose(tiled.image.compute(), whole.image.compute(), atol=1e-4)
    assert (tiled.expert_map.compute() == 1).all()


def test_files_and_the_command_line_know_its_groups(weights, picture, tmp_path, capsys):
    source, target = tmp_path / "in.tif", tmp_path / "out.ome.zarr"
    tifffile.imwrite(source, (picture * 65535).astype(np.uint16))
    command = ["run", str(source), str(target), "--model", str(weights), "--quiet", "--json"]
    options = ["--tile", "64", "--pitch", "16", "--window", "32", "--routing", "local"]
    assert main([*command, *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["shares"]) == NAMES
    assert list(names_of(choices_of(target))) == NAMES
    assert main(["info", str(source), "--model", str(weights), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["choices"] == NAMES
    assert main(["models", "import", str(weights), "mine"]) == 0
    assert list(names_of(demoe.load_model("mine").choices)) == NAMES
