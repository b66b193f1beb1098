"""Images restored by a MoCE-IR network: maps, paint, tiles, files, the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from small_moceir import COSTS, small_weights

import demoe
from demoe.choices import names_of
from demoe.cli import main
from demoe.errors import RecipeError
from demoe.io.record import choices_of
from demoe.model.protocol import Arithmetic

pytestmark = pytest.mark.usefixtures("in_this_thread")

FIELDS = {"tile": 64, "pitch": 16, "window": 32}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return small_weights(tmp_path_factory.mktemp("weights") / "small.safetensors")


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """From dark and smooth to bright and noisy: (144, 192)."""
    rng = np.random.default_rng(0)
    shade = np.linspace(0, 1, 192) ** 2
    return (shade * (0.5 + rng.random((144, 192)))).clip(0, 1).astype(np.float32)


def restored(picture, weights, **fields):
    return demoe.deblur(picture, model=weights, intensity=(0.0, 1.0), **{**FIELDS, **fields})


def test_one_tile_is_what_the_bare_network_gives(weights, picture):
    out = restored(picture, weights, routing="image", tile=256)
    x = torch.from_numpy(picture)[None, None].expand(-1, 3, -1, -1)
    wanted, gates = demoe.load_model(weights).network(x)
    found = out.image.compute()
    np.testing.assert_allclose(found, wanted[0].mean(dim=0).numpy(), atol=5e-5)
    chosen = gates[0].argmax(dim=1).numpy() + 1
    layers = out.layer_map.compute()
    assert layers.shape == (2, 9, 12)
    assert (layers == chosen[:, None, None]).all()
    costs = np.mean([row[n - 1] for row, n in zip(COSTS, chosen, strict=True)])
    np.testing.assert_allclose(out.complexity.compute(), costs)


@pytest.mark.parametrize("routing", ["image", "local"])
def test_tiles_equal_the_whole(weights, picture, routing):
    tiled, whole = (restored(picture, weights, routing=routing, tile=tile) for tile in (64, 256))
    assert tiled.image.numblocks == (3, 3)
    assert whole.image.numblocks == (1, 1)
    assert tiled.plan.halo == 44
    found, wanted = tiled.image.compute(), whole.image.compute()
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert np.abs(wanted - picture).max() > 0.05  # something was done
    np.testing.assert_array_equal(tiled.layer_map.compute(), whole.layer_map.compute())


@pytest.mark.parametrize("routing", ["image", "local"])
def test_tiles_do_not_matter_where_samples_stand_for_a_plane(
    weights, picture, routing, monkeypatch
):
    monkeypatch.setattr("demoe.routing.router.SURVEYED_WHOLE", 1)
    monkeypatch.setattr("demoe.routing.router.SAMPLE", 48)
    small, large = (restored(picture, weights, routing=routing, tile=tile) for tile in (64, 96))
    assert small.image.numblocks != large.image.numblocks
    np.testing.assert_allclose(small.image.compute(), large.image.compute(), atol=1e-4)


def test_places_decide_each_by_themselves_layer_by_layer(weights, picture):
    out = restored(picture, weights, routing="local")
    gates, layers = out.gates.compute(), out.layer_map.compute()
    assert gates.shape == (2, 9, 12)
    np.testing.assert_allclose(gates.sum(axis=0), 1, atol=1e-6)
    assert len(np.unique(layers.reshape(2, -1), axis=1).T) > 1
    assert out.choices == demoe.load_model(weights).choices
    costs = np.array(COSTS)
    wanted = np.mean([costs[n][layers[n] - 1] for n in range(2)], axis=0)
    np.testing.assert_allclose(out.complexity.compute(), wanted, rtol=1e-6)


@pytest.mark.parametrize("routing", ["image", "local"])
def test_paint_forces_an_expert_in_all_layers_and_changes_nothing_elsewhere(
    weights, picture, routing
):
    before = restored(picture, weights, routing=routing)
    painted = np.zeros((9, 12), np.uint8)
    painted[:, 0], painted[0, 11] = 1, 2
    after = before.corrected(painted)
    layers = after.layer_map.compute()
    assert (layers[:, :, 0] == 1).all()
    assert (layers[:, 0, 11] == 2).all()
    bare = painted == 0
    np.testing.assert_array_equal(layers[:, bare], before.layer_map.compute()[:, bare])
    assert after.complexity.compute()[0, 0] == pytest.approx(np.mean([row[0] for row in COSTS]))
    full = restored(picture, weights, routing=routing, expert_map=painted)
    np.testing.assert_array_equal(after.image.compute(), full.image.compute())
    distance = 16 + 16 + 44  # the cells that weights go over in, and what the network looks around
    far = np.s_[distance:, distance : 192 - distance]
    np.testing.assert_allclose(after.image.compute()[far], before.image.compute()[far], atol=1e-6)


def test_an_expert_is_named(weights, picture):
    named = restored(picture, weights, routing="expert_2")
    assert (named.expert_map.compute() == 2).all()
    assert (named.layer_map.compute() == 2).all()
    assert (named.complexity.compute() == 1).all()
    by_hand = restored(picture, weights, routing="image", expert_map=np.full((9, 12), 2))
    # Near, not equal: what is pooled over the plane does not know of paint.
    np.testing.assert_allclose(named.image.compute(), by_hand.image.compute(), atol=1e-3)
    with pytest.raises(
        RecipeError, match="no choice 'defocus'; its choices are expert_1, expert_2"
    ):
        restored(picture, weights, routing="defocus")
    assert restored(picture, weights, top_k=2, tile=256).image.compute().any()


def test_a_sequence_decides_together(weights, picture):
    stack = np.stack([picture, picture[::-1], picture[:, ::-1]])
    out = restored(stack, weights, routing="local", smoothing=1, agreement=1, temperature=2.0)
    np.testing.assert_allclose(out.gates[1].compute().sum(axis=0), 1, atol=1e-6)
    assert out.layer_map.shape == (3, 2, 9, 12)
    assert out.complexity.shape == (3, 9, 12)


@pytest.mark.parametrize("suffix", [".ome.zarr", ".ome.tif"])
def test_files_bring_the_complexity_along(weights, picture, tmp_path, suffix):
    target = tmp_path / f"out{suffix}"
    report = demoe.run(picture, target, model=weights, intensity=(0.0, 1.0), **FIELDS)
    assert list(report.shares) == ["expert_1", "expert_2"]
    assert sum(report.shares.values()) == pytest.approx(1)
    assert choices_of(target) == demoe.load_model(weights).choices
    result = restored(picture, weights)
    counts = np.bincount(result.layer_map.compute().ravel(), minlength=3)[1:]
    np.testing.assert_allclose([*report.shares.values()], counts / counts.sum())
    beside = {".ome.zarr": target / "demoe/complexity", ".ome.tif": tmp_path / "out.complexity.tif"}
    stored = np.asarray(demoe.open_image(beside[suffix]).data)
    np.testing.assert_allclose(stored, result.complexity.compute(), rtol=1e-6)


def test_the_report_says_what_was_saved(weights, picture, tmp_path):
    costs = demoe.load_model(weights).tenant.arithmetic
    assert isinstance(costs, Arithmetic)
    most = costs.rest + sum(map(max, costs.choices))
    for name, tile, wanted in (
        ("expert_2", 256, 0.0),
        ("expert_1", 256, 1 - (costs.rest + sum(row[0] for row in costs.choices)) / most),
        ("expert_1", 64, 1 - costs.held / most),
        ("expert_2", 64, 1 - costs.held / most),
    ):
        fields = {**FIELDS, "routing": name, "tile": tile}
        report = demoe.run(picture, tmp_path / "a.tif", model=weights, overwrite=True, **fields)
        assert report.saved == pytest.approx(wanted, abs=1e-9)


def test_a_finished_output_is_corrected(weights, picture, tmp_path):
    source, target, after = (tmp_path / name for name in ("in.tif", "a.ome.zarr", "b.ome.zarr"))
    tifffile.imwrite(source, picture)
    fields = {"model": str(weights), "intensity": (0.0, 1.0), "routing": "expert_1", **FIELDS}
    demoe.run(source, target, **fields)
    painted = np.zeros((9, 12), np.uint8)
    painted[0, 0] = 2
    report = demoe.run(source, after, earlier=target, expert_map=painted)
    assert report.computed < report.tiles
    assert 0 < report.shares["expert_2"] < 0.05
    full = demoe.deblur(source, expert_map=painted, **fields)
    found = np.asarray(demoe.open_image(after).data)
    np.testing.assert_array_equal(found, full.image.compute())


def test_the_command_line_knows_it(weights, picture, tmp_path, capsys):
    source = tmp_path / "in.tif"
    tifffile.imwrite(source, picture)
    command = ["run", str(source), str(tmp_path / "out.tif"), "--model", str(weights), "--quiet"]
    assert main([*command, "--routing", "expert_2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["shares"] == {"expert_1": 0.0, "expert_2": 1.0}
    assert report["saved"] is not None
    assert main([*command, "--overwrite", "--routing", "image"]) == 0
    assert "of the arithmetic saved" in capsys.readouterr().out
    assert main(["info", str(source), "--model", str(weights), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["architecture"] == "moceir"
    assert facts["choices"] == ["expert_1", "expert_2"]
    assert main(["models", "import", str(weights), "mine"]) == 0
    assert names_of(demoe.load_model("mine").choices) == ("expert_1", "expert_2")
    assert main(["train", "--init", str(weights), "--out", str(tmp_path / "t")]) == 1
    assert "is no DeMoE network; one can begin as no other" in capsys.readouterr().err
