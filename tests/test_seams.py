"""Where tiles meet: tiled results against untiled ones, and the script that measures pooling."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import dask
import numpy as np
import pytest
import torch
from PIL import Image

import demoe
from demoe.bench.peers import photo
from demoe.model.loading import load_model


@pytest.fixture(scope="module", autouse=True)
def _in_this_thread():
    with dask.config.set(scheduler="synchronous"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEMOE_BACKEND", "torch")
        yield


@pytest.fixture(scope="module")
def pooling() -> ModuleType:
    """The script benchmarks/pooling.py."""
    path = Path(__file__).parents[1] / "benchmarks" / "pooling.py"
    spec = importlib.util.spec_from_file_location("benchmark_pooling", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there for their module
    spec.loader.exec_module(module)
    return module


def restored(image: Any, weights: Path, **fields: Any) -> Any:
    fields = {"model": weights, "device": "cpu", "routing": "defocus", **fields}
    return demoe.deblur(image, "YXS", **fields)


def assert_close(found: Any, wanted: Any, most: float) -> None:
    """Scan all pixels, and say how many differ by more than ``most``, and where."""
    difference = np.abs(np.asarray(found, np.float64) - np.asarray(wanted, np.float64)).max(axis=-1)
    rows, columns = np.nonzero(~(difference <= most))
    assert not len(rows), (
        f"{len(rows)} of {difference.size} pixels differ by more than {most:g}, at most by "
        f"{difference.max():g}: rows {rows.min()} to {rows.max()}, columns {columns.min()} to "
        f"{columns.max()}"
    )


# -- tiled against untiled ----------------------------------------------------------------


@pytest.mark.parametrize("tile", [64, 112, 208])
@pytest.mark.parametrize("routing", ["defocus", "local", "image"])
def test_tiles_of_any_size_give_the_whole(weights, tile, routing):
    image = photo(320)[:, :250].astype(np.float32) / 255
    exact = load_model(str(weights), "cpu").halo
    fields = {"routing": routing, "halo": exact, "intensity": "full"}
    tiled = restored(image, weights, tile=tile, **fields)
    whole = restored(image, weights, tile=320, **fields)
    assert tiled.plan.shape != whole.plan.shape == (1, 1)
    assert_close(tiled.image, whole.image, 1e-4)


def test_a_scan_tells_how_many_pixels_differ_and_where(weights):
    image = photo(256)
    whole = np.asarray(restored(image, weights, tile=256).image)
    wrong = whole.copy()
    wrong[40:50, 7] ^= 64
    with pytest.raises(
        AssertionError, match=r"10 of 65536 pixels .* by 64: rows 40 to 49, col.* 7 "
    ):
        assert_close(wrong, whole, 1)
    with pytest.raises(AssertionError, match="pixels differ"):  # a halo that is too small
        assert_close(restored(image, weights, tile=64, halo=0).image, whole, 1)


def test_differences_across_borders_are_those_one_pixel_further_in(weights, pooling):
    image = photo(1152)[:1040]  # so large that samples stand for the plane
    result = restored(image, weights, tile=256)
    tiled = np.asarray(result.image).astype(np.float32)
    whole = np.asarray(restored(image, weights, tile=2048).image).astype(np.float32)
    assert result.plan.shape == (5, 5)
    # What the picture shows at the borders differs by itself, so the untiled result is the measure.
    seam, step = pooling.seams(pooling.Way("", tiled / 255, whole / 255, result.plan.core_shape))
    assert abs(seam) < 0.02
    assert abs(step) < 0.5


# -- the script -----------------------------------------------------------------------------


def test_a_step_at_borders_is_a_seam(pooling):
    rng = np.random.default_rng(0)
    whole = rng.random((192, 160, 3), np.float32)
    levels = np.where(np.add.outer(np.arange(192) // 64, np.arange(160) // 80) % 2, 0.2, 0.0)
    seam, step = pooling.seams(
        pooling.Way("", whole + levels[..., None].astype(np.float32), whole, (64, 80))
    )
    assert seam > 0.02
    assert step == pytest.approx(255 * 0.2, rel=1e-3)
    assert pooling.seams(pooling.Way("", whole, whole, (64, 80))) == (0, 0)
    assert pooling.seams(pooling.Way("", whole, whole, (192, 160))) == (None, None)


@pytest.mark.parametrize("side", [1, 4, 9, 100])
def test_windows_are_as_wide_as_asked_and_stay_inside(pooling, side):
    x = torch.rand(1, 2, 23, 31, generator=torch.Generator().manual_seed(0))
    means = pooling.window_mean(x, side)
    high, wide = min(side, 23), min(side, 31)
    for row, col in ((0, 0), (11, 17), (22, 30)):
        top = min(max(row - high // 2, 0), 23 - high)
        left = min(max(col - wide // 2, 0), 31 - wide)
        window = x[0, :, top : top + high, left : left + wide]
        assert torch.allclose(means[0, :, row, col], window.mean((1, 2)), atol=1e-6)


def test_the_script_measures_every_way_of_pooling(pooling, weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pooling, "TILED", {"tile": {"pooling": "tile", "tile": 64}})
    monkeypatch.setattr(pooling, "WINDOWS", (32,))
    for name in ("one", "two"):
        Image.fromarray(photo(160)).save(tmp_path / f"{name}.png")
    target = tmp_path / "pooling.json"
    words = ["--sizes", "0.01", "0.0256", "1", "--model", str(weights), "--json", str(target)]
    words += ["--blurs", "defocus", "low_light"]
    assert pooling.main([str(tmp_path / "one.png"), str(tmp_path / "two.png"), *words]) == 0
    result = json.loads(target.read_text())
    ways = ["tile", "whole picture, untiled", "windows of 32, untiled"]
    assert [
        (row["photo"], row["megapixels"], row["blur"], row["pooling"]) for row in result["rows"]
    ] == [
        (photo, size, blur, way)
        for photo, blur in (("one", "defocus"), ("two", "low_light"))
        for size in (0.01, 0.0256)  # there is nothing to reduce to 1 MP
        for way in ways
    ]
    tiled = [row for row in result["rows"] if row["pooling"] == "tile"]
    assert all(row["seam"] is not None and row["step"] is not None for row in tiled)
    text = capsys.readouterr().out
    assert "2 of 0.01 MP, 2 of 0.0256 MP" in text
    gains = [row["gain"] for row in tiled if row["megapixels"] == 0.01]
    assert f"{sum(gains) / 2:+.3f}" in text
    assert result["sha256"][:12] in text
