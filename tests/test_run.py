"""source -> TileStore -> finished file: what is written, what is kept, what is refused."""

from __future__ import annotations

import dataclasses
import errno
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from tiny import tiny_weights
from zarr.storage import LocalStore

import demoe
from demoe.errors import Cancelled, ImageError, OutputError, RecipeError

SHAPE = (2, 96, 130)
TILES = 2 * 2 * 3


@pytest.fixture(scope="module")
def recipe(weights: Path) -> demoe.Recipe:
    return demoe.Recipe(
        model=str(weights), tile=64, halo=16, pitch=32, window=64, routing="local", device="cpu"
    )


def stack(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ramp = np.linspace(500, 40000, SHAPE[2])
    return (ramp * rng.uniform(0.5, 1.5, SHAPE)).astype(np.uint16)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "stack.ome.tif"
    sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 1.5}
    units = {f"{name}Unit": "µm" for name in sizes}
    tifffile.imwrite(path, stack(), ome=True, metadata={"axes": "ZYX", **sizes, **units})
    return path


@pytest.fixture(scope="module")
def expected(source: Path, recipe: demoe.Recipe) -> np.ndarray:
    return np.asarray(demoe.deblur(source, recipe=recipe).image)


class Witness:
    """Remembers progress, and may stop the run."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.calls: list[tuple[int, int, str]] = []
        self.stop = threading.Event()
        self.stop_after = stop_after

    def __call__(self, done: int, total: int, message: str) -> None:
        self.calls.append((done, total, message))
        if self.stop_after is not None and done >= self.stop_after:
            self.stop.set()


def kept(target: Path) -> Path:
    return target.with_name(f".{target.name}.demoe-run")


def interrupt(source: Any, target: Path, recipe: demoe.Recipe, after: int = 2) -> None:
    witness = Witness(stop_after=after)
    with pytest.raises(Cancelled, match=rf"{after} of {TILES} tiles done; resume goes on"):
        demoe.run(source, target, recipe, progress=witness, cancel=witness.stop)


# -- what is written ------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".ome.zarr", ".ome.tif"])
def test_a_stack_becomes_a_file_with_all_that_belongs_to_it(
    tmp_path: Path, source: Path, recipe: demoe.Recipe, expected: np.ndarray, suffix: str
) -> None:
    target = tmp_path / f"out{suffix}"
    witness = Witness()
    report = demoe.run(source, target, recipe, progress=witness)

    back = demoe.open_image(target)
    np.testing.assert_array_equal(back.data, expected)
    assert (expected != stack()).mean() > 0.9
    assert back.axes == "ZYX"
    assert back.scale == pytest.approx({"Z": 1.5, "Y": 0.25, "X": 0.25})
    assert set(back.units.values()) == {"micrometer"}

    result = demoe.deblur(source, recipe=recipe)
    if suffix == ".ome.zarr":
        group = zarr.open_group(target, mode="r")
        experts = demoe.open_image(target / "labels" / "expert_map")
        record = dict(group.attrs["demoe"])
        gates = group["demoe/gates"][...]
        np.testing.assert_array_equal(gates, np.asarray(result.gates))
        sure = demoe.open_image(target / "demoe" / "confidence")
        assert sure.axes == "ZYX"
    else:
        experts = demoe.open_image(tmp_path / "out.experts.tif")
        sure = demoe.open_image(tmp_path / "out.confidence.tif")
        assert sure.scale == experts.scale
        record = json.loads((tmp_path / "out.demoe.json").read_text())
    np.testing.assert_array_equal(experts.data, result.expert_map)
    np.testing.assert_array_equal(sure.data, result.confidence)
    assert experts.scale == pytest.approx({"Z": 1.5, "Y": 8.0, "X": 8.0})
    assert set(experts.units.values()) == {"micrometer"}
    assert record["weights"]["sha256"] == report.provenance["weights"]["sha256"]
    assert demoe.Recipe.from_json(json.dumps(record["recipe"])) == recipe

    assert report.output == target
    assert (report.tiles, report.computed) == (TILES, TILES)
    assert report.megapixels == pytest.approx(2 * 96 * 130 / 1e6)
    assert sum(report.shares.values()) == pytest.approx(1)
    counts = np.bincount(np.asarray(result.expert_map).ravel(), minlength=6)[1:]
    assert list(report.shares.values()) == pytest.approx(list(counts / counts.sum()))
    assert not kept(target).exists()

    done = [call[0] for call in witness.calls]
    assert done == sorted(done)
    assert done[0] == 0
    assert set(range(TILES + 1)) == set(done)
    assert {call[1] for call in witness.calls} == {TILES}
    assert witness.calls[-1][2] == f"writing {target.name}, 100%"


def test_a_plane_becomes_a_picture(tmp_path: Path, recipe: demoe.Recipe) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (96, 70, 3), dtype=np.uint8)
    demoe.run(rgb, tmp_path / "out.png", recipe)
    back = demoe.open_image(tmp_path / "out.png")
    np.testing.assert_array_equal(back.data, demoe.deblur(rgb, recipe=recipe).image)
    assert {p.name for p in tmp_path.iterdir()} == {
        "out.png",
        "out.experts.tif",
        "out.confidence.tif",
        "out.demoe.json",
    }


@pytest.mark.parametrize("suffix", [".ome.zarr", ".tif", ".png"])
def test_one_pixel(tmp_path: Path, recipe: demoe.Recipe, suffix: str) -> None:
    target = tmp_path / f"out{suffix}"
    report = demoe.run(np.full((1, 1), 7, np.uint8), target, recipe)
    assert demoe.open_image(target).shape == (1, 1)
    assert (report.tiles, report.megapixels) == (1, 1e-6)


def test_a_cluster_in_this_process_computes_tiles_and_corrections(
    tmp_path: Path, source: Path, recipe: demoe.Recipe, expected: np.ndarray
) -> None:
    from distributed import Client, LocalCluster

    target = tmp_path / "out.ome.zarr"
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        report = demoe.run(source, target, recipe, client=client)
        edited = np.array(demoe.open_image(target / "labels" / "expert_map").data)
        edited[0, 0, 0] = edited[0, 0, 0] % 5 + 1
        correction = {"earlier": target, "expert_map": edited}
        there = demoe.run(source, tmp_path / "there.tif", client=client, **correction)
    here = demoe.run(source, tmp_path / "here.tif", **correction)
    assert 0 < there.computed == here.computed < TILES
    np.testing.assert_array_equal(*(demoe.open_image(done.output).data for done in (there, here)))
    assert report.computed == TILES
    np.testing.assert_array_equal(demoe.open_image(target).data, expected)
    result = demoe.deblur(source, recipe=recipe)
    found = zarr.open_group(target, mode="r")["demoe/gates"][...]
    np.testing.assert_array_equal(found, np.asarray(result.gates))


def test_a_cluster_finds_the_same_of_a_known_blur(
    tmp_path: Path, source: Path, recipe: demoe.Recipe
) -> None:
    from distributed import Client, LocalCluster

    how = recipe.replace(psf={"sigma": 1.5}, routing="auto")
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        demoe.run(source, tmp_path / "there.ome.zarr", how, client=client)
    demoe.run(source, tmp_path / "here.ome.zarr", how)
    for name in ("0", "demoe/consistency", "demoe/kernels", "labels/expert_map/0"):
        found = [
            zarr.open_group(tmp_path / f"{where}.ome.zarr", mode="r")[name][...]
            for where in ("there", "here")
        ]
        np.testing.assert_array_equal(*found)


def test_a_painted_map_is_used(tmp_path: Path, recipe: demoe.Recipe) -> None:
    painted = np.array([[3, 5]])
    plane = stack()[0]
    report = demoe.run(plane, tmp_path / "out.tif", recipe, expert_map=painted)
    experts = np.asarray(demoe.open_image(tmp_path / "out.experts.tif").data)
    assert set(experts[:, :2].ravel()) == {3}
    assert set(experts[:, 3:].ravel()) == {5}
    assert report.shares["local_motion"] + report.shares["low_light"] == pytest.approx(1)


def test_the_output_may_take_the_place_of_the_source(tmp_path: Path, recipe: demoe.Recipe) -> None:
    place = tmp_path / "stack.tif"
    tifffile.imwrite(place, stack(), metadata={"axes": "ZYX"})
    before = demoe.deblur(stack(), "ZYX", recipe=recipe)
    wanted, experts = np.asarray(before.image), np.asarray(before.expert_map)
    report = demoe.run(place, place, recipe, axes="ZYX", overwrite=True)
    np.testing.assert_array_equal(tifffile.imread(place), wanted)
    counts = np.bincount(experts.ravel(), minlength=6)[1:]
    assert list(report.shares.values()) == pytest.approx(list(counts / counts.sum()))


# -- interrupted runs -----------------------------------------------------------------------


def test_a_cancelled_run_is_kept_and_resumed(
    tmp_path: Path, source: Path, recipe: demoe.Recipe, expected: np.ndarray
) -> None:
    target = tmp_path / "out.ome.zarr"
    interrupt(source, target, recipe, after=5)
    assert not target.exists()
    assert kept(target).is_dir()
    with pytest.raises(OutputError, match="go on with resume, or drop it"):
        demoe.run(source, target, recipe)
    witness = Witness()
    report = demoe.run(source, target, recipe, resume=True, progress=witness)
    assert (report.tiles, report.computed) == (TILES, TILES - 5)
    assert witness.calls[0][0] == 5
    np.testing.assert_array_equal(demoe.open_image(target).data, expected)
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


def test_a_run_cancelled_while_writing_has_nothing_left_to_compute(
    tmp_path: Path, source: Path, recipe: demoe.Recipe, expected: np.ndarray
) -> None:
    target = tmp_path / "out.ome.tif"
    stop = threading.Event()

    def progress(done: int, total: int, message: str) -> None:
        if message.endswith(", 50%"):
            stop.set()

    with pytest.raises(Cancelled):
        demoe.run(source, target, recipe, progress=progress, cancel=stop)
    assert [p.name for p in tmp_path.iterdir()] == [kept(target).name]
    assert demoe.run(source, target, recipe, resume=True).computed == 0
    np.testing.assert_array_equal(demoe.open_image(target).data, expected)


def test_a_run_cancelled_before_its_first_tile_leaves_nothing(
    tmp_path: Path, source: Path, recipe: demoe.Recipe
) -> None:
    witness = Witness()
    witness.stop.set()
    with pytest.raises(Cancelled, match="0 of 12"):
        demoe.run(source, tmp_path / "out.tif", recipe, cancel=witness.stop)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, sys, torch, demoe
torch.set_num_threads(1)
source, target, recipe = sys.argv[1:]
def progress(done, total, message):
    if done == 2:
        os._exit(9)
demoe.run(source, target, demoe.Recipe.from_json(recipe), progress=progress)
"""


def test_a_killed_process_is_resumed_by_another(
    tmp_path: Path, source: Path, recipe: demoe.Recipe, expected: np.ndarray
) -> None:
    target = tmp_path / "out.ome.zarr"
    command = [sys.executable, "-c", KILLED, str(source), str(target), recipe.to_json()]
    killed = subprocess.run(command, capture_output=True, text=True)
    assert killed.returncode == 9, killed.stderr
    assert not target.exists()
    journal = kept(target) / "done"
    content = journal.read_bytes()
    journal.write_bytes(content + content[:5])  # killed while it noted the third tile
    report = demoe.run(source, target, recipe, resume=True)
    assert report.computed == TILES - 2
    np.testing.assert_array_equal(demoe.open_image(target).data, expected)


def test_resume_without_an_interrupted_run_begins(
    tmp_path: Path, source: Path, recipe: demoe.Recipe
) -> None:
    report = demoe.run(source, tmp_path / "out.tif", recipe, resume=True)
    assert report.computed == TILES


@pytest.mark.parametrize("other", ["recipe", "image", "weights", "axes", "map"])
def test_resume_refuses_another_job(
    tmp_path: Path, source: Path, recipe: demoe.Recipe, other: str
) -> None:
    target = tmp_path / "out.ome.zarr"
    interrupt(source, target, recipe)
    changes: dict[str, Any] = {"recipe": recipe}
    image: Any = source
    if other == "recipe":
        changes = {"recipe": recipe.replace(top_k=2)}
    elif other == "weights":
        path = tiny_weights(tmp_path / "other.safetensors", seed=1)
        changes = {"recipe": recipe.replace(model=str(path))}
    elif other == "axes":
        changes["axes"] = "TYX"
    elif other == "map":
        changes["expert_map"] = np.array([[2]])
    else:
        image = tmp_path / "other.tif"
        tifffile.imwrite(image, stack(1), metadata={"axes": "ZYX"})
    said = {
        "recipe": (OutputError, "top_k is 2 but was 1; resume with the same settings"),
        "image": (ImageError, "other pixels now than when tiles of it were computed"),
        "weights": (OutputError, "the network is [0-9a-f]{12} but was [0-9a-f]{12}"),
        "axes": (OutputError, r"the image is TYX 2 x 96 x 130 uint16 but was ZYX 2 x 96 x 130"),
        "map": (OutputError, "the painted expert map is [0-9a-f]{12} but was none"),
    }
    kind, words = said[other]
    with pytest.raises(kind, match=words):
        demoe.run(image, target, resume=True, **changes)
    assert demoe.run(source, target, recipe, resume=True).computed == TILES - 2


def test_a_source_that_changed_is_another_image(tmp_path: Path, recipe: demoe.Recipe) -> None:
    place = tmp_path / "stack.tif"
    tifffile.imwrite(place, stack(0), metadata={"axes": "ZYX"})
    interrupt(place, tmp_path / "out.ome.zarr", recipe)
    tifffile.imwrite(place, stack(1), metadata={"axes": "ZYX"})
    with pytest.raises(ImageError, match="other pixels now"):
        demoe.run(place, tmp_path / "out.ome.zarr", recipe, resume=True)


@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr", "zarr file"])
def test_arrays_can_be_resumed_too(tmp_path: Path, recipe: demoe.Recipe, kind: str) -> None:
    place = tmp_path / "source.zarr"
    array: Any = stack()
    if kind == "dask":
        array = da.from_array(array, chunks=(1, 50, 50))
    if kind.startswith("zarr"):
        zarr.save_array(place, array)
    target = tmp_path / "out.tif"

    def again() -> Any:
        if kind == "zarr":
            return zarr.open_array(place, mode="r")
        return place if kind == "zarr file" else array

    witness = Witness(stop_after=3)
    with pytest.raises(Cancelled):
        demoe.run(again(), target, recipe, axes="ZYX", progress=witness, cancel=witness.stop)
    report = demoe.run(again(), target, recipe, axes="ZYX", resume=True)
    assert report.computed == TILES - 3


def test_overwrite_drops_an_interrupted_run(
    tmp_path: Path, source: Path, recipe: demoe.Recipe
) -> None:
    target = tmp_path / "out.ome.zarr"
    interrupt(source, target, recipe)
    assert demoe.run(source, target, recipe, overwrite=True).computed == TILES


def test_an_interrupted_overwrite_is_resumed(
    tmp_path: Path, source: Path, recipe: demoe.Recipe, expected: np.ndarray
) -> None:
    target = tmp_path / "out.tif"
    demoe.run(np.zeros((64, 64), np.uint8), target, recipe)
    witness = Witness(stop_after=4)
    with pytest.raises(Cancelled):
        demoe.run(source, target, recipe, overwrite=True, progress=witness, cancel=witness.stop)
    assert demoe.open_image(target).shape == (64, 64)
    report = demoe.run(source, target, recipe, resume=True, overwrite=True)
    assert report.computed == TILES - 4
    np.testing.assert_array_equal(demoe.open_image(target).data, expected)


# -- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".ome.zarr", ".ome.tif"])
def test_an_existing_output_is_kept(tmp_path: Path, recipe: demoe.Recipe, suffix: str) -> None:
    target = tmp_path / f"out{suffix}"
    demoe.run(np.zeros((20, 30), np.uint8), target, recipe)
    with pytest.raises(OutputError, match="exists already"):
        demoe.run(np.full((40, 30), 5, np.uint8), target, recipe)
    assert demoe.open_image(target).shape == (20, 30)
    demoe.run(np.full((40, 30), 5, np.uint8), target, recipe, overwrite=True)
    assert demoe.open_image(target).shape == (40, 30)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing/out.tif", "there is no folder .*missing"),
        ("file/out.tif", "there is no folder .*file"),
        ("out.gif", "suffix that cannot be written"),
        ("out.png", r"out\.png"),
    ],
)
def test_outputs_that_cannot_be_are_refused_before_any_work(
    tmp_path: Path, source: Path, recipe: demoe.Recipe, name: str, message: str
) -> None:
    (tmp_path / "file").write_text("not a folder")
    witness = Witness()
    with pytest.raises(OutputError, match=message):
        demoe.run(source, tmp_path / name, recipe, progress=witness)
    assert witness.calls == []
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_workers_are_counted_from_one(tmp_path: Path, recipe: demoe.Recipe) -> None:
    with pytest.raises(RecipeError, match="at least 1, not 0"):
        demoe.run(stack()[0], tmp_path / "out.tif", recipe, workers=0)


def full_disk(monkeypatch: pytest.MonkeyPatch, where: str, after: int = 0) -> None:
    """Let the disk be found full where something is written under a name that holds some text."""
    write_bytes, set_ = Path.write_bytes, LocalStore.set
    count = 0

    def check(place: str) -> None:
        nonlocal count
        if where in place:
            count += 1
            if count > after:
                raise OSError(errno.ENOSPC, "No space left on device")

    def to_file(self: Path, content: Any) -> int:
        check(str(self))
        return write_bytes(self, content)

    async def to_zarr(self: LocalStore, key: str, value: Any, **options: Any) -> None:
        check(f"{self.root}/{key}")
        await set_(self, key, value, **options)

    monkeypatch.setattr(Path, "write_bytes", to_file)
    monkeypatch.setattr(LocalStore, "set", to_zarr)


def test_a_disk_that_fills_up_while_computing_keeps_what_is_done(
    tmp_path: Path, source: Path, recipe: demoe.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.tif"
    with monkeypatch.context() as patch:
        full_disk(patch, "/tiles-", after=3)
        with pytest.raises(OutputError, match=r"disk is full; free .* with resume") as e:
            demoe.run(source, target, recipe)
    assert str(e.value).count(". ") == 0
    assert [p.name for p in tmp_path.iterdir()] == [kept(target).name]
    assert demoe.run(source, target, recipe, resume=True).computed == TILES - 3


def test_a_disk_that_is_full_from_the_start_leaves_nothing(
    tmp_path: Path, source: Path, recipe: demoe.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_disk(monkeypatch, ".demoe-run")
    with pytest.raises(OutputError, match="disk is full"):
        demoe.run(source, tmp_path / "out.tif", recipe)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["/0/c/", "/labels", "/demoe/gates", "/zarr.json"])
def test_a_disk_that_fills_up_while_writing_keeps_the_tiles(
    tmp_path: Path,
    source: Path,
    recipe: demoe.Recipe,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    target = tmp_path / "out.ome.zarr"
    with monkeypatch.context() as patch:
        full_disk(patch, where, after=1)
        with pytest.raises(OutputError, match="disk is full"):
            demoe.run(source, target, recipe)
    assert [p.name for p in tmp_path.iterdir()] == [kept(target).name]
    # The shard that could not be packed is of tiles that are kept.
    left = demoe.run(source, target, recipe, resume=True).computed
    assert left == 0 or (where == "/0/c/" and left < TILES // 2)


def test_an_error_in_a_tile_is_told_and_nothing_stands_under_the_name(
    tmp_path: Path, recipe: demoe.Recipe
) -> None:
    plane = np.linspace(0, 1, 96 * 130, dtype=np.float32).reshape(96, 130)
    plane[90, 120] = np.nan
    target = tmp_path / "out.ome.zarr"
    with pytest.raises(ImageError, match="not finite at row 90, column 120"):
        demoe.run(plane, target, recipe, intensity=(0, 1), routing="defocus")
    assert not target.exists()


# -- save -----------------------------------------------------------------------------------


def test_save_writes_a_lazy_result(
    tmp_path: Path, source: Path, recipe: demoe.Recipe, expected: np.ndarray
) -> None:
    witness = Witness()
    target = demoe.save(
        demoe.deblur(source, recipe=recipe), tmp_path / "out.ome.tif", progress=witness
    )
    back = demoe.open_image(target)
    np.testing.assert_array_equal(back.data, expected)
    assert back.scale["Z"] == 1.5
    assert {p.name for p in tmp_path.iterdir()} == {
        "out.ome.tif",
        "out.experts.tif",
        "out.confidence.tif",
        "out.demoe.json",
    }
    done = [call[0] for call in witness.calls]
    assert done == sorted(done)
    with pytest.raises(OutputError, match="exists already"):
        demoe.save(demoe.deblur(source, recipe=recipe), target)


def test_save_writes_what_a_person_made_of_a_result(
    tmp_path: Path, source: Path, recipe: demoe.Recipe, expected: np.ndarray
) -> None:
    result = demoe.deblur(source, recipe=recipe)
    brighter = dataclasses.replace(result, image=result.image // 2)
    demoe.save(brighter, tmp_path / "out.tif")
    np.testing.assert_array_equal(demoe.open_image(tmp_path / "out.tif").data, expected // 2)


def test_save_writes_an_image(tmp_path: Path, source: Path) -> None:
    image = demoe.open_image(source)
    target = demoe.save(image, tmp_path / "copy.ome.zarr")
    back = demoe.open_image(target)
    np.testing.assert_array_equal(back.data, stack())
    assert back.scale == pytest.approx(image.scale)


@pytest.mark.parametrize("what", ["result", "image"])
def test_a_save_that_is_stopped_leaves_nothing(
    tmp_path: Path, source: Path, recipe: demoe.Recipe, what: str
) -> None:
    thing: Any = demoe.open_image(source)
    if what == "result":
        thing = demoe.deblur(thing, recipe=recipe)
    witness = Witness()
    witness.stop.set()
    with pytest.raises(Cancelled, match="nothing is kept"):
        demoe.save(thing, tmp_path / "out.ome.zarr", cancel=witness.stop)
    assert list(tmp_path.iterdir()) == []
