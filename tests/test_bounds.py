"""What happens where memory is short, where the network fails, and where there is nothing to do."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_weights

import demoe
from demoe.errors import DeviceError, RecipeError
from demoe.model.demoe.config import NetworkConfig
from demoe.model.demoe.receptive_field import exact_halo
from demoe.model.demoe.tenant import DeMoE

CONFIG = NetworkConfig(4, (1, 0), 1, (0, 1), router_width=16, router_hidden=8)
HALO = 32
"""Exact for networks of this design."""

FIELDS = {"tile": 128, "halo": HALO, "pitch": 32, "window": 64, "device": "cpu"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert exact_halo(CONFIG) <= HALO
    return tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors", config=CONFIG)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).random((300, 340, 3), dtype=np.float32)


def deblurred(image: np.ndarray, weights: Path, **fields: Any) -> demoe.Deblurred:
    axes = "YXS" if image.ndim == 3 else "YX"
    return demoe.deblur(image, axes, model=weights, intensity="full", **{**FIELDS, **fields})


# -- memory ----------------------------------------------------------------------------------------


class Small:
    """A device that has memory for so many pixels."""

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels
        self.refused = 0
        self.restore = DeMoE.restore

    def __call__(self, tenant: DeMoE, x: torch.Tensor, *args: Any, **named: Any) -> torch.Tensor:
        if x.shape[2] * x.shape[3] > self.pixels:
            self.refused += 1
            raise torch.OutOfMemoryError("out of memory")
        return self.restore(tenant, x, *args, **named)


@pytest.mark.parametrize("routing", ["local", "image", "defocus"])
def test_where_memory_is_short_tiles_are_halved_with_the_same_result(
    weights, picture, monkeypatch, caplog, routing
) -> None:
    wanted = np.asarray(deblurred(picture, weights, routing=routing).image)
    device = Small(140 * 200)
    monkeypatch.setattr(DeMoE, "restore", lambda *args, **named: device(*args, **named))
    out = deblurred(picture, weights, routing=routing)
    with caplog.at_level(logging.WARNING, "demoe"):
        found = out.image.compute(scheduler="synchronous")
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert math.prod(out.plan.shape) == 9
    assert device.refused == 1  # and not once a tile
    assert "192 x 192 pixels" in caplog.text
    assert "Going on with half of it at a time" in caplog.text


def test_a_picture_of_one_tile_that_does_not_fit_is_an_error(weights, picture, monkeypatch) -> None:
    device = Small(100)
    monkeypatch.setattr(DeMoE, "restore", lambda *args, **named: device(*args, **named))
    with pytest.raises(DeviceError, match="340 x 300 pixels; choose a smaller tile"):
        np.asarray(deblurred(picture, weights, tile=512).image)


def test_a_device_too_small_for_any_tile_is_an_error(weights, picture, monkeypatch) -> None:
    device = Small(100)
    monkeypatch.setattr(DeMoE, "restore", lambda *args, **named: device(*args, **named))
    with pytest.raises(DeviceError, match="too little memory for a tile of"):
        deblurred(picture, weights).image.compute(scheduler="synchronous")


# -- failures of the network -----------------------------------------------------------------------


def failing(value: float) -> Any:
    """Return a `DeMoE.restore` that fails where the picture is marked by blue alone."""
    restore = DeMoE.restore

    def fail(tenant: DeMoE, x: torch.Tensor, *args: Any, **named: Any) -> torch.Tensor:
        marked = (x[:, :1] == 0) & (x[:, 1:2] == 0) & (x[:, 2:] == 1)
        return torch.where(marked, value, restore(tenant, x, *args, **named))

    return fail


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 40.0, -40.0])
@pytest.mark.parametrize("tile", [512, 128, 64])
def test_where_the_network_fails_the_source_stays(
    weights, picture, monkeypatch, tile, value
) -> None:
    image = picture.copy()
    image[70:90, 100:120] = (0, 0, 1)  # on four cells of 32 pixels
    image[299, 339] = (0, 0, 1)
    wanted = np.asarray(deblurred(image, weights, tile=tile, routing="defocus").image)
    monkeypatch.setattr(DeMoE, "restore", failing(value))
    out = deblurred(image, weights, tile=tile, routing="defocus")
    found = out.image.compute(scheduler="synchronous")
    cells = np.zeros((10, 11), bool)
    cells[2, 3] = cells[9, 10] = True
    pixels = cells.repeat(32, axis=0).repeat(32, axis=1)[:300, :340]
    np.testing.assert_array_equal(found[pixels], image[pixels])
    np.testing.assert_allclose(found[~pixels], wanted[~pixels], atol=1e-6)
    np.testing.assert_array_equal(np.asarray(out.expert_map) == 0, cells)


@pytest.mark.parametrize("suffix", [".ome.zarr", ".tif"])
def test_failures_are_counted_and_survive_an_interruption(
    weights, picture, monkeypatch, tmp_path, suffix
) -> None:
    image = (picture * 255).astype(np.uint8)
    image[70:90, 100:120] = (0, 0, 255)
    monkeypatch.setattr(DeMoE, "restore", failing(float("nan")))
    target = tmp_path / f"out{suffix}"
    recipe = demoe.Recipe(model=str(weights), routing="defocus", **FIELDS)

    class Stop:
        asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            return self.asked > 5

    with pytest.raises(demoe.Cancelled):
        demoe.run(image, target, recipe, axes="YXS", cancel=Stop())
    report = demoe.run(image, target, recipe, axes="YXS", resume=True)
    assert 0 < report.computed < report.tiles
    assert report.failed == 1
    assert report.skipped == pytest.approx(1 / 110)
    assert report.shares["defocus"] == 1


# -- nothing to do ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def field() -> np.ndarray:
    """A plane of background, with structure in one corner."""
    image = np.full((400, 520), 1000, np.uint16)
    image[300:380, 400:500] = np.random.default_rng(1).integers(1000, 60000, (80, 100))
    return image


@pytest.mark.parametrize("tile", ["auto", 128])
@pytest.mark.parametrize("routing", ["local", "defocus"])
def test_flat_background_is_passed_by(weights, field, tile, routing) -> None:
    fields = {"tile": tile, "routing": routing, "pitch": 64, "window": 128}
    out = deblurred(field, weights, skip_flat=True, **fields)
    found = np.asarray(out.image)
    experts = np.asarray(out.expert_map)
    assert experts[:3].max() == experts[:, :5].max() == 0
    assert (experts[5, 7:] > 0).all()
    np.testing.assert_array_equal(found[:180], field[:180])
    full = deblurred(field, weights, **{**fields, "tile": 128})
    np.testing.assert_allclose(found[300:380, 400:500], full.image[300:380, 400:500], atol=1)
    pixels = (experts > 0).repeat(64, axis=0).repeat(64, axis=1)[:400, :520]
    np.testing.assert_allclose(found[pixels], np.asarray(full.image)[pixels], atol=1)


def test_what_a_person_painted_is_not_passed_by(weights, field) -> None:
    painted = np.zeros((13, 17), np.uint8)
    painted[1, 2] = 3
    out = deblurred(field, weights, skip_flat=True, expert_map=painted, routing="image")
    assert np.asarray(out.expert_map)[1, 2] == 3
    assert np.asarray(out.expert_map)[0, 0] == 0
    assert (np.asarray(out.image)[32:64, 64:96] != field[32:64, 64:96]).any()


def test_skipping_says_how_much(weights, field, tmp_path) -> None:
    recipe = demoe.Recipe(model=str(weights), routing="defocus", skip_flat=True, device="cpu")
    report = demoe.run(field, tmp_path / "out.tif", recipe)
    assert 0.5 < report.skipped < 0.95
    assert report.failed == 0
    assert report.shares == {t: float(t == "defocus") for t in demoe.TASKS}
    blank = demoe.run(np.zeros((300, 300), np.uint8), tmp_path / "blank.tif", recipe)
    assert blank.skipped == 1
    assert sum(blank.shares.values()) == 0


def test_skipping_is_yes_or_no() -> None:
    with pytest.raises(RecipeError, match="skip_flat must be true or false, not 'no'"):
        demoe.Recipe(skip_flat="no")
