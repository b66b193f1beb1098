"""Runs on worker processes: the same pixels, whoever dies meanwhile."""

from __future__ import annotations

import builtins
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import dask
import numpy as np
import pytest
import tifffile
import zarr

import demoe
from demoe.errors import Cancelled, DeviceError, ImageError, OutputError, RecipeError
from demoe.execution import pool
from demoe.execution.pool import processes

distributed = pytest.importorskip("distributed")

SHAPE = (2, 170, 230)
TILES = 2 * 3 * 4


@pytest.fixture(scope="module")
def recipe(weights: Path) -> demoe.Recipe:
    return demoe.Recipe(
        model=str(weights), tile=64, halo=16, pitch=32, window=64, routing="local", device="cpu"
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("in") / "stack.tif"
    values = np.random.default_rng(0).integers(500, 60000, SHAPE, dtype=np.uint16)
    tifffile.imwrite(path, values, metadata={"axes": "ZYX"})
    return path


@pytest.fixture(scope="module")
def expected(source: Path, recipe: demoe.Recipe) -> np.ndarray:
    return np.asarray(demoe.deblur(source, recipe=recipe).image)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with processes(2) as client:
        yield client


def pids(client: Any) -> list[int]:
    return sorted(client.run(os.getpid).values())


@pytest.mark.parametrize("suffix", [".ome.zarr", ".tif"])
def test_worker_processes_compute_and_keep_all_tiles(
    tmp_path: Path,
    source: Path,
    recipe: demoe.Recipe,
    expected: np.ndarray,
    client: Any,
    suffix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert len(pids(client)) == 2 and os.getpid() not in pids(client)
    # No pixel is computed or kept in this process.
    monkeypatch.setattr(pool, "compute_tile", lambda *_: 1 / 0)
    monkeypatch.setattr("demoe.io.mosaic.Mosaic.put", lambda *_: 1 / 0)
    monkeypatch.setattr("demoe.io.mosaic.Mosaic.pack", lambda *_: 1 / 0)
    calls: list[tuple[int, int, str]] = []
    target = tmp_path / f"out{suffix}"
    report = demoe.run(
        source, target, recipe, client=client, progress=lambda *call: calls.append(call)
    )
    assert report.computed == report.tiles == TILES
    np.testing.assert_array_equal(demoe.open_image(target).data, expected)
    done = [call[0] for call in calls]
    assert done == sorted(done) and done[-1] == TILES
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_workers_are_started_and_ended(
    tmp_path: Path, source: Path, recipe: demoe.Recipe, expected: np.ndarray
) -> None:
    target = tmp_path / "out.tif"
    report = demoe.run(source, target, recipe, workers=2)
    assert report.computed == TILES
    np.testing.assert_array_equal(demoe.open_image(target).data, expected)


def test_what_is_stored_beside_is_the_same_too(
    tmp_path: Path, source: Path, recipe: demoe.Recipe, client: Any
) -> None:
    there = demoe.run(source, tmp_path / "there.ome.zarr", recipe, client=client)
    here = demoe.run(source, tmp_path / "here.ome.zarr", recipe)
    for name in ("demoe/gates", "demoe/confidence", "labels/expert_map/0"):
        found = [zarr.open_group(one.output, mode="r")[name][...] for one in (there, here)]
        np.testing.assert_array_equal(*found)
    assert (there.shares, there.failed) == (here.shares, here.failed)


def test_a_worker_that_dies_costs_its_own_tiles(
    tmp_path: Path, source: Path, recipe: demoe.Recipe, expected: np.ndarray, client: Any
) -> None:
    before = pids(client)
    noted: list[int] = []

    def progress(done: int, total: int, message: str) -> None:
        if done >= 6 and not noted:
            noted.append(done)
            os.kill(before[0], signal.SIGKILL)

    target = tmp_path / "out.ome.zarr"
    report = demoe.run(source, target, recipe, client=client, progress=progress)
    assert noted and report.computed == TILES  # each is noted once, and none is missing
    np.testing.assert_array_equal(demoe.open_image(target).data, expected)
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    client.wait_for_workers(2, timeout=120)
    assert before[0] not in pids(client)


def test_a_run_is_cancelled_there_and_finished_here(
    tmp_path: Path, source: Path, recipe: demoe.Recipe, expected: np.ndarray, client: Any
) -> None:
    stop = threading.Event()

    def progress(done: int, total: int, message: str) -> None:
        if done >= 5:
            stop.set()

    target = tmp_path / "out.ome.zarr"
    with pytest.raises(Cancelled, match="resume goes on") as e:
        demoe.run(source, target, recipe, client=client, progress=progress, cancel=stop)
    done = int(str(e.value).split()[2])
    assert 5 <= done < TILES
    assert demoe.run(source, target, recipe, resume=True).computed == TILES - done
    np.testing.assert_array_equal(demoe.open_image(target).data, expected)


def test_a_tile_that_kills_every_worker_is_an_error(
    tmp_path: Path, source: Path, recipe: demoe.Recipe
) -> None:
    deadly = demoe.open_image(source).data.map_blocks(
        _die, dtype="uint16", meta=np.empty((0, 0, 0), "u2")
    )
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        processes(1) as alone,
        pytest.raises(DeviceError, match="died again and again"),
    ):
        broken = demoe.LazyImage.from_array(deadly, "ZYX")
        demoe.run(broken, tmp_path / "out.ome.zarr", recipe, client=alone, intensity="full")


def _die(block: np.ndarray) -> np.ndarray:
    os._exit(1)


def test_a_run_whose_workers_are_gone_ends(tmp_path: Path, source: Path, monkeypatch) -> None:
    class Gone:
        workers: ClassVar = [{"a": 1}, {}]

        def nthreads(self):
            return self.workers.pop(0)

        def submit(self, *_, **__):
            return None

    monkeypatch.setattr(pool, "_COUNTED_SECONDS", -1.0)
    monkeypatch.setattr(pool, "LOST_SECONDS", -1.0)
    with pool.pool_for(None, None, Gone()) as found:
        assert found.at_once == 2
        with pytest.raises(DeviceError, match="All workers are gone") as caught:
            found.at_once  # noqa: B018
    assert "resume" in str(caught.value)


def test_an_error_in_a_tile_is_told(tmp_path: Path, recipe: demoe.Recipe, client: Any) -> None:
    plane = np.linspace(0, 1, 96 * 130, dtype=np.float32).reshape(96, 130)
    plane[90, 120] = np.nan
    target = tmp_path / "out.ome.zarr"
    with pytest.raises(ImageError, match="not finite at row 90, column 120"):
        demoe.run(plane, target, recipe, client=client, intensity=(0, 1), routing="defocus")
    assert not target.exists()


def test_workers_that_do_not_see_the_folder_are_told_of(
    tmp_path: Path, source: Path, recipe: demoe.Recipe, client: Any
) -> None:
    def elsewhere() -> None:
        import demoe.io.mosaic

        class Absent:
            def is_dir(self) -> bool:
                return False

            parent = "/data"

        demoe.io.mosaic.Mosaic.tiles = property(lambda self: Absent(), lambda self, value: None)

    def back() -> None:
        import demoe.io.mosaic

        del demoe.io.mosaic.Mosaic.tiles

    client.run(elsewhere)
    try:
        with pytest.raises(OutputError, match=r"does not see the folder /data; .* all workers"):
            demoe.run(source, tmp_path / "out.ome.zarr", recipe, client=client)
    finally:
        client.run(back)
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_workers_are_refused_in_a_sentence(
    tmp_path: Path, source: Path, recipe: demoe.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name == "distributed":
            raise ImportError(name)
        return find(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(RecipeError, match=r"2 workers need .* install napari-demoe\[cluster\]"):
        demoe.run(source, tmp_path / "out.tif", recipe, workers=2)


def _threads() -> tuple[int, int]:
    import torch

    return torch.get_num_threads(), int(os.environ["OMP_NUM_THREADS"])


def test_worker_processes_share_the_cores(client: Any) -> None:
    share = max(1, (os.cpu_count() or 1) // 2)
    assert set(client.run(_threads).values()) == {(share, share)}


def test_threads_of_workers_are_not_those_of_the_process_that_starts_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with processes(1, threads=1) as alone:
        assert list(alone.run(_threads).values()) == [(1, 1)]
        # Dask's own would make each layer of a network take its memory anew.
        kept = alone.run(lambda: os.environ.get("MALLOC_TRIM_THRESHOLD_"))
        assert set(kept.values()) == {os.environ.get("MALLOC_TRIM_THRESHOLD_")}
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ


def test_what_tiles_share_is_found_once(
    tmp_path: Path, recipe: demoe.Recipe, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plane that is surveyed by samples, and decided on in 2 x 2 blocks."""
    asked = tmp_path / "asked"

    def count() -> None:
        from demoe.engine.runner import TileRunner

        for name in ("survey", "route_windows"):

            def counted(self: Any, *rest: Any, _name: str = name, **more: Any) -> Any:
                with asked.open("a") as file:
                    file.write(f"{_name}\n")
                return getattr(TileRunner, f"_{_name}")(self, *rest, **more)

            setattr(TileRunner, f"_{name}", getattr(TileRunner, name))
            setattr(TileRunner, name, counted)

    def back() -> None:
        from demoe.engine.runner import TileRunner

        for name in ("survey", "route_windows"):
            setattr(TileRunner, name, getattr(TileRunner, f"_{name}"))

    source = tmp_path / "in.tif"
    values = np.random.default_rng(0).integers(500, 60000, (1040, 1040), dtype=np.uint16)
    tifffile.imwrite(source, values)
    wide = recipe.replace(tile=512, pitch=64, window=128, psf=None)
    client.run(count)
    try:
        demoe.run(source, tmp_path / "out.ome.zarr", wide, client=client)
    finally:
        client.run(back)
    said = asked.read_text().split()
    assert said.count("survey") == 1
    expected = np.asarray(demoe.deblur(source, recipe=wide).image)
    np.testing.assert_array_equal(demoe.open_image(tmp_path / "out.ome.zarr").data, expected)
    # As often as by one process: each block asks twice at most.
    assert said.count("route_windows") <= 2 * 4
