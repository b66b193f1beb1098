"""Estimates: from what earlier runs took on this machine, and without a look at the pixels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dask.array as da
import numpy as np
import pytest

import demoe
from demoe.execution import speeds
from demoe.execution.batch import run_each
from demoe.execution.estimate import as_text, describe, estimate
from demoe.execution.prospect import prospect_of
from demoe.image.lazy_image import LazyImage
from demoe.recipe import Recipe


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMOE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("demoe.execution.estimate._matrix_rate", lambda device: 1e11)


@pytest.fixture
def recipe(root: Path) -> Recipe:
    weights = root / "tests" / "data" / "demoe_w4.safetensors"
    return Recipe(model=str(weights), device="cpu", tile=64, halo=16, psf=None)


def untouchable(*shape: int) -> LazyImage:
    """An image that nobody may look at."""

    def refuse(block: np.ndarray) -> np.ndarray:
        raise AssertionError("pixels were read")

    blank = da.zeros(shape, dtype=np.uint16, chunks=shape)
    return LazyImage.from_array(da.map_blocks(refuse, blank, dtype=np.uint16, meta=blank._meta))


def test_an_estimate_reads_no_pixel_on_any_size(recipe: Recipe) -> None:
    small, huge = (
        estimate(untouchable(70, 100), recipe),
        estimate(untouchable(9, 60000, 90000), recipe),
    )
    assert small.tiles == 4
    assert huge.tiles == 9 * 938 * 1407
    assert huge.plan.core_shape == (64, 64)
    assert huge.disk == 9 * 60000 * 90000 * 2
    assert huge.tile_bytes == 64 * 64 * 2
    assert huge.memory < 1e9
    assert not huge.is_measured
    assert huge.provenance["routing"] == "local"


def test_what_a_run_took_is_what_the_next_is_said_to_take(recipe: Recipe) -> None:
    image = untouchable(640, 640)
    guess = estimate(image, recipe)
    speeds.note(guess.provenance, 10, 30.0)
    speeds.note(guess.provenance, 10, 10.0)
    first = estimate(image, recipe)
    assert first.is_measured
    assert first.seconds == pytest.approx(2.0)
    larger = estimate(image, recipe.replace(tile=128))  # more pixels a tile
    assert larger.is_measured
    assert larger.seconds == pytest.approx(2.0 * (160 / 96) ** 2)
    for other in ({"top_k": 2}, {"routing": "defocus"}, {"psf": {"sigma": 2.0}}):
        assert not estimate(image, recipe.replace(**other)).is_measured
    for _ in range(speeds.RUNS):
        speeds.note(guess.provenance, 10, 50.0)
    assert estimate(image, recipe).seconds == pytest.approx(5.0)  # what was before is forgotten


@pytest.mark.parametrize("tiles, seconds", [(0, 1.0), (3, 0.0), (3, float("nan"))])
def test_what_says_nothing_is_not_kept(recipe: Recipe, tiles: int, seconds: float) -> None:
    found = estimate(untouchable(100, 100), recipe)
    speeds.note(found.provenance, tiles, seconds)
    assert speeds.seconds_per_pixel(found.provenance) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 3}', '{"a": [[1]]}', '{"a": [[0, 1]]}'])
def test_a_damaged_file_counts_as_none_and_is_replaced(
    recipe: Recipe, tmp_path: Path, text: str
) -> None:
    (tmp_path / "cache").mkdir(exist_ok=True)
    (tmp_path / "cache" / "speeds.json").write_text(text)
    found = estimate(untouchable(100, 100), recipe)
    assert not found.is_measured
    speeds.note(found.provenance, 4, 8.0)
    assert estimate(untouchable(100, 100), recipe).seconds == pytest.approx(2.0)


def test_a_cache_that_cannot_be_written_hinders_nothing(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    found = estimate(untouchable(100, 100), recipe)
    monkeypatch.setenv("DEMOE_CACHE", str(tmp_path / "file"))
    speeds.note(found.provenance, 4, 8.0)
    assert speeds.seconds_per_pixel(found.provenance) is None


def test_a_run_from_the_command_line_is_kept(recipe: Recipe, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 60000, (70, 100), np.uint16)
    source = tmp_path / "noise.tif"
    demoe.save(LazyImage.from_array(pixels), source)
    before = describe(demoe.open_image(source), recipe)
    assert before["measured"] is False
    assert "earlier" not in as_text(before)
    from contextlib import nullcontext

    jobs = [(source, tmp_path / "out.tif")]
    (ended,) = run_each(jobs, recipe, watched=lambda *_: nullcontext(lambda *_: None))
    after = describe(demoe.open_image(source), recipe)
    assert after["measured"] is True
    assert after["seconds"] == pytest.approx(ended.report.seconds, abs=0.1)
    assert "as earlier runs on this machine" in as_text(after)


def test_another_process_is_asked_where_pytorch_is_not_loaded(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = untouchable(9, 640, 1000)
    here = prospect_of(image, recipe)
    monkeypatch.delitem(sys.modules, "torch")
    there = prospect_of(image, recipe)
    assert there.estimate.plan == here.estimate.plan
    assert there.estimate.tiles == 9 * 10 * 16
    assert there.estimate.memory == here.estimate.memory
    assert there.devices[-1][0] == "cpu"
    assert prospect_of(image, recipe.replace(top_k=77)) is None
    assert prospect_of(image, recipe, lambda: False) is None
    monkeypatch.setattr(sys, "executable", "no-such-python")
    assert prospect_of(image, recipe) is None


def test_who_asks_does_not_load_pytorch() -> None:
    code = "import sys, demoe.execution.prospect; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
