"""The tiles done so far, on disk."""

from __future__ import annotations

import json
from pathlib import Path

import dask.array as da
import numpy as np
import pytest

from demoe.engine.reader import Read
from demoe.errors import OutputError
from demoe.execution.ledger import Ledger
from demoe.execution.store import LostTile, TileStore
from demoe.plan.tiling import Box

VALUES = np.arange(6 * 10, dtype=np.uint16).reshape(6, 10)
INDICES = [(row, col) for row in range(2) for col in range(3)]


@pytest.fixture
def array() -> da.Array:
    return da.from_array(VALUES, chunks=(4, 4), name="pixels-1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".out.tif.demoe-run"


def fill(store: TileStore, array: da.Array, indices: list[tuple[int, ...]]) -> None:
    for index in indices:
        store.put(index, array.blocks[index].compute())


def test_tiles_come_back_and_are_known_as_done(folder: Path, array: da.Array) -> None:
    with TileStore.create(folder, array) as store:
        fill(store, array, INDICES)
        assert store.done == set(INDICES)
        stored = store.as_dask()
        assert stored.chunks == array.chunks
        np.testing.assert_array_equal(stored, VALUES)


def test_resume_knows_what_was_done_and_goes_on(folder: Path, array: da.Array) -> None:
    with TileStore.create(folder, array) as store:
        fill(store, array, INDICES[:2])
    with TileStore.resume(folder, array) as store:
        assert store.done == set(INDICES[:2])
        fill(store, array, INDICES[2:])
        np.testing.assert_array_equal(store.as_dask(), VALUES)
    with TileStore.resume(folder, array) as store:
        assert store.done == set(INDICES)


def test_create_drops_what_was_there(folder: Path, array: da.Array) -> None:
    with TileStore.create(folder, array) as store:
        fill(store, array, INDICES)
    with TileStore.create(folder, array) as store:
        assert store.done == set()
        with pytest.raises(LostTile):
            store.as_dask().compute()


def test_an_entry_that_was_cut_off_does_not_count(folder: Path, array: da.Array) -> None:
    with TileStore.create(folder, array) as store:
        fill(store, array, INDICES[:3])
    journal = folder / "done"
    journal.write_bytes(journal.read_bytes()[:-3])
    with TileStore.resume(folder, array) as store:
        assert store.done == set(INDICES[:2])
        fill(store, array, INDICES[2:])  # entries after the cut one are whole again
    with TileStore.resume(folder, array) as store:
        assert store.done == set(INDICES)
        np.testing.assert_array_equal(store.as_dask(), VALUES)


@pytest.mark.parametrize("damage", ["absent", "short", "empty", "changed"])
def test_pixels_lost_with_the_machine_are_computed_again(
    folder: Path, array: da.Array, damage: str
) -> None:
    with TileStore.create(folder, array) as store:
        fill(store, array, INDICES)
    chunk = folder / "pixels.zarr" / "c" / "1" / "0"
    content = chunk.read_bytes()
    if damage == "absent":
        chunk.unlink()
    elif damage == "changed":
        chunk.write_bytes(content[:-6] + bytes([content[-6] ^ 255]) + content[-5:])
    else:
        chunk.write_bytes(content[:-5] if damage == "short" else b"")
    with TileStore.resume(folder, array) as store:
        assert store.done == set(INDICES) - {(1, 0)}


def test_tiles_of_zeros_count_as_done(folder: Path) -> None:
    zeros = da.zeros((6, 10), chunks=(4, 4), dtype=np.float32, name="zeros-1")
    with TileStore.create(folder, zeros) as store:
        fill(store, zeros, INDICES)
    with TileStore.resume(folder, zeros) as store:
        assert store.done == set(INDICES)


@pytest.mark.parametrize(
    "other",
    [
        da.from_array(VALUES, chunks=(2, 4), name="pixels-1"),
        da.from_array(VALUES[:5], chunks=(4, 4), name="pixels-1"),
        da.from_array(VALUES.astype(np.float32), chunks=(4, 4), name="pixels-1"),
    ],
    ids=["tile", "shape", "dtype"],
)
def test_a_store_of_something_else_is_refused(
    folder: Path, array: da.Array, other: da.Array
) -> None:
    with TileStore.create(folder, array) as store:
        fill(store, array, INDICES[:2])
    with pytest.raises(OutputError, match="another size or type or has other tiles"):
        TileStore.resume(folder, other)
    with TileStore.resume(folder, array) as store:  # refused, not destroyed
        assert store.done == set(INDICES[:2])


@pytest.mark.parametrize("rest", ["nothing", "no description", "half a description"])
def test_resume_of_what_never_began_begins(folder: Path, array: da.Array, rest: str) -> None:
    if rest != "nothing":
        with TileStore.create(folder, array) as store:
            fill(store, array, INDICES[:1])
        (folder / "run.json").unlink()
    if rest == "half a description":
        (folder / "run.json").write_text(json.dumps({"name": "pixels-1"})[:9])
    with TileStore.resume(folder, array) as store:
        assert store.done == set()


def test_a_store_that_cannot_be_made_leaves_nothing(
    folder: Path, array: da.Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Path, *args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fails)
    with pytest.raises(OSError, match="No space left"):
        TileStore.create(folder, array)
    assert not folder.exists()


def test_delete_removes_everything(folder: Path, array: da.Array) -> None:
    store = TileStore.create(folder, array)
    fill(store, array, INDICES)
    store.delete()
    assert not folder.exists()


READS = [Read((0, 1, n), Box(n, 2, 30 + n, 40), bytes([n] * 16)) for n in range(5)]


@pytest.mark.parametrize("damage", ["none", "cut off", "zeros", "changed"])
def test_a_ledger_keeps_what_is_whole(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "reads"
    ledger = Ledger(path)
    ledger.add(READS[:2])
    ledger.add(READS[2:4])
    assert list(ledger) == READS[:4]
    ledger.close()
    content = path.read_bytes()
    size = len(content) // 4
    if damage == "cut off":
        path.write_bytes(content[:-5])
    elif damage == "zeros":  # as a disk may hold it after a power cut
        path.write_bytes(content[: 3 * size] + bytes(size))
    elif damage == "changed":
        path.write_bytes(content[: 3 * size] + b"?" + content[3 * size + 1 :])
    ledger = Ledger(path)
    whole = READS[: 4 if damage == "none" else 3]
    assert list(ledger) == whole
    ledger.add(READS[4:])
    assert list(ledger) == [*whole, READS[4]]
    ledger.close()


def test_what_was_read_for_a_tile_comes_before_it(folder: Path, array: da.Array) -> None:
    with TileStore.create(folder, array) as store:
        store.put((0, 0), VALUES[:4, :4], reads=READS[:2])
    with TileStore.resume(folder, array) as store:
        assert list(store.reads) == READS[:2]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Ledger, "add", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                store.put((0, 1), VALUES[:4, 4:8], reads=READS[2:])
    with TileStore.resume(folder, array) as store:
        assert store.done == {(0, 0)}


def test_a_description_comes_back(folder: Path, array: da.Array) -> None:
    assert TileStore.description(folder) is None
    with TileStore.create(folder, array, {"recipe": 1}) as store:
        assert TileStore.description(folder) == {"recipe": 1}
        store.describe({"recipe": 2})
    with TileStore.resume(folder, array, {"recipe": 3}):
        assert TileStore.description(folder) == {"recipe": 2}


@pytest.mark.parametrize(
    "key", [np.s_[1:5, 3:9], np.s_[::2, ::-3], np.s_[5:0:-2, 4], np.s_[..., 9]]
)
def test_stored_tiles_are_sliced_as_arrays_are(
    folder: Path, array: da.Array, key: tuple[slice | int, ...]
) -> None:
    with TileStore.create(folder, array) as store:
        fill(store, array, INDICES)
        np.testing.assert_array_equal(store.as_dask()[key], VALUES[key])
