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
from demoe.image.lazy_image import LazyImage
from demoe.io.mosaic import Mosaic
from demoe.plan.tiling import Box

VALUES = np.arange(6 * 10, dtype=np.uint16).reshape(6, 10)
INDICES = [(row, col) for row in range(2) for col in range(3)]


def lazy(values: np.ndarray = VALUES, side: tuple[int, int] = (4, 4)) -> LazyImage:
    return LazyImage.from_array(da.from_array(values, chunks=side))


@pytest.fixture
def image() -> LazyImage:
    return lazy()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".out.tif.demoe-run"


def fill(store: TileStore, image: LazyImage, indices: list[tuple[int, ...]]) -> None:
    for index in indices:
        store.put(index, image.data.blocks[index].compute())


def shards(folder: Path) -> list[Path]:
    """Return the files of the array that is put together."""
    return sorted(p for p in folder.glob("image-*/0/c/**/*") if p.is_file())


def tiles(folder: Path) -> list[Path]:
    """Return the files of tiles that are not in the array yet."""
    return sorted(folder.glob("tiles-*/*"))


def test_tiles_come_back_and_are_known_as_done(folder: Path, image: LazyImage) -> None:
    with TileStore.create(folder, image) as store:
        fill(store, image, INDICES)
        assert store.done == set(INDICES)
        stored = store.as_dask()
        assert stored.chunks == image.data.chunks
        np.testing.assert_array_equal(stored, VALUES)


def test_resume_knows_what_was_done_and_goes_on(folder: Path, image: LazyImage) -> None:
    with TileStore.create(folder, image) as store:
        fill(store, image, INDICES[:2])
    with TileStore.resume(folder, image) as store:
        assert store.done == set(INDICES[:2])
        fill(store, image, INDICES[2:])
        np.testing.assert_array_equal(store.as_dask(), VALUES)
    with TileStore.resume(folder, image) as store:
        assert store.done == set(INDICES)


def test_create_drops_what_was_there(folder: Path, image: LazyImage) -> None:
    with TileStore.create(folder, image) as store:
        fill(store, image, INDICES)
    with TileStore.create(folder, image) as store:
        assert store.done == set()
        with pytest.raises(LostTile):
            store.as_dask().compute()


def test_an_entry_that_was_cut_off_does_not_count(folder: Path, image: LazyImage) -> None:
    with TileStore.create(folder, image) as store:
        fill(store, image, INDICES[:3])
    journal = folder / "done"
    journal.write_bytes(journal.read_bytes()[:-3])
    with TileStore.resume(folder, image) as store:
        assert store.done == set(INDICES[:2])
        fill(store, image, INDICES[2:])  # entries after the cut one are whole again
    with TileStore.resume(folder, image) as store:
        assert store.done == set(INDICES)
        np.testing.assert_array_equal(store.as_dask(), VALUES)


@pytest.mark.parametrize("damage", ["absent", "short", "empty", "changed"])
def test_pixels_lost_with_the_machine_are_computed_again(
    folder: Path, image: LazyImage, damage: str
) -> None:
    with TileStore.create(folder, image) as store:
        fill(store, image, INDICES[:-1])
    spoil(next(place for place in tiles(folder) if place.name == "1-0"), damage)
    with TileStore.resume(folder, image) as store:
        assert store.done == set(INDICES[:-1]) - {(1, 0)}
        fill(store, image, [(1, 0), INDICES[-1]])
        np.testing.assert_array_equal(store.as_dask(), VALUES)


def spoil(place: Path, damage: str) -> None:
    content = place.read_bytes()
    if damage == "absent":
        place.unlink()
    elif damage == "changed":
        place.write_bytes(content[:9] + bytes([content[9] ^ 255]) + content[10:])
    else:
        place.write_bytes(content[:-5] if damage == "short" else b"")


WIDE = np.random.default_rng(0).integers(0, 60000, (2, 2100, 4200)).astype(np.uint16)
"""Of 2 x 2 x 3 shards; its tiles lie across their borders."""


@pytest.fixture
def wide() -> LazyImage:
    return LazyImage.from_array(da.from_array(WIDE, chunks=(1, 1500, 1300)), "ZYX")


def test_a_shard_is_packed_when_its_tiles_are_there_and_they_go_when_all_of_theirs_are(
    folder: Path, wide: LazyImage
) -> None:
    with TileStore.create(folder, wide) as store:
        fill(store, wide, [(0, 0, 0), (0, 0, 1)])
        assert shards(folder) == []  # the first shard has rows of other tiles
        fill(store, wide, [(0, 1, 0), (0, 1, 1)])
        # Two shards are complete; of the tiles, two reach beyond them.
        assert [place.relative_to(place.parents[2]).as_posix() for place in shards(folder)] == [
            "0/0/0",
            "0/1/0",
        ]
        assert [place.name for place in tiles(folder)] == ["0-0-1", "0-1-1"]
        np.testing.assert_array_equal(
            store.read(np.s_[0:1, 900:2100, 0:2600]), WIDE[:1, 900:, :2600]
        )
        with pytest.raises(LostTile):
            store.read(np.s_[0:1, 0:10, 2590:2610])
    with TileStore.resume(folder, wide) as store:
        assert store.done == {(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)}
        fill(store, wide, list(store.missing()))
        assert tiles(folder) == []
        assert len(shards(folder)) == 2 * 2 * 3
        assert list(store.unpacked()) == []
        np.testing.assert_array_equal(store.as_dask(), WIDE)


@pytest.mark.parametrize("damage", ["absent", "short", "empty", "changed"])
def test_a_shard_that_is_lost_or_damaged_is_made_again(
    folder: Path, wide: LazyImage, damage: str
) -> None:
    with TileStore.create(folder, wide) as store:
        fill(store, wide, list(store.missing()))
    spoil(next(place for place in shards(folder) if place.parts[-3:] == ("1", "1", "1")), damage)
    with TileStore.resume(folder, wide) as store:
        assert damage in ("short", "changed") or (1, 1, 3) not in store.done
        with pytest.raises(LostTile):
            store.as_dask()[1, 2000:].compute()
        store.check(pixels=True)
        # All that lie in it, also those of which a part lies in another.
        assert set(np.ndindex(2, 2, 4)) - store.done == {(1, 1, col) for col in (1, 2, 3)}
        fill(store, wide, list(store.missing()))
        np.testing.assert_array_equal(store.as_dask(), WIDE)
        assert tiles(folder) == []


def test_a_shard_that_was_not_packed_in_time_is_packed_later(
    folder: Path, wide: LazyImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, TileStore.create(folder, wide) as store:
        patch.setattr(Mosaic, "pack", lambda *_: None)  # as if the process had died before it
        fill(store, wide, list(store.missing()))
    assert len(tiles(folder)) == 16 and shards(folder) == []
    with TileStore.resume(folder, wide) as store:
        np.testing.assert_array_equal(store.as_dask(), WIDE)
        for shard in list(store.unpacked()):
            store.mosaic.pack(shard)
        assert tiles(folder) == []
        np.testing.assert_array_equal(store.as_dask(), WIDE)


def test_tiles_of_a_shard_come_one_after_the_other(folder: Path) -> None:
    image = LazyImage.from_array(da.zeros((4096, 4096), chunks=1024, dtype=np.uint8), "YX")
    with TileStore.create(folder, image) as store:
        store.done.add((0, 1))
        first = [(0, 0), (1, 0), (1, 1), (0, 2), (0, 3)]
        assert list(store.missing())[:5] == first
        assert len(list(store.missing())) == 15


def test_a_store_of_another_version_is_refused(folder: Path, image: LazyImage) -> None:
    TileStore.create(folder, image).close()
    said = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({k: said[k] for k in ("tiles", "described")}))
    with pytest.raises(OutputError, match="begun by another version"):
        TileStore.resume(folder, image)
    assert folder.exists()


def test_tiles_of_zeros_count_as_done(folder: Path) -> None:
    zeros = lazy(np.zeros((6, 10), np.float32))
    with TileStore.create(folder, zeros) as store:
        fill(store, zeros, INDICES)
        assert len(shards(folder)) == 1
    with TileStore.resume(folder, zeros) as store:
        assert store.done == set(INDICES)


@pytest.mark.parametrize(
    "other",
    [
        lazy(side=(2, 4)),
        lazy(VALUES[:5]),
        lazy(VALUES.astype(np.float32)),
    ],
    ids=["tile", "shape", "dtype"],
)
def test_a_store_of_something_else_is_refused(
    folder: Path, image: LazyImage, other: LazyImage
) -> None:
    with TileStore.create(folder, image) as store:
        fill(store, image, INDICES[:2])
    with pytest.raises(OutputError, match="another size or type or has other tiles"):
        TileStore.resume(folder, other)
    with TileStore.resume(folder, image) as store:  # refused, not destroyed
        assert store.done == set(INDICES[:2])


@pytest.mark.parametrize("rest", ["nothing", "no description", "half a description"])
def test_resume_of_what_never_began_begins(folder: Path, image: LazyImage, rest: str) -> None:
    if rest != "nothing":
        with TileStore.create(folder, image) as store:
            fill(store, image, INDICES[:1])
        (folder / "run.json").unlink()
    if rest == "half a description":
        (folder / "run.json").write_text(json.dumps({"name": "pixels-1"})[:9])
    with TileStore.resume(folder, image) as store:
        assert store.done == set()


def test_a_store_that_cannot_be_made_leaves_nothing(
    folder: Path, image: LazyImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Path, *args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fails)
    with pytest.raises(OSError, match="No space left"):
        TileStore.create(folder, image)
    assert not folder.exists()


def test_delete_removes_everything(folder: Path, image: LazyImage) -> None:
    store = TileStore.create(folder, image)
    fill(store, image, INDICES)
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


def test_what_was_read_for_a_tile_comes_before_it(folder: Path, image: LazyImage) -> None:
    with TileStore.create(folder, image) as store:
        store.put((0, 0), VALUES[:4, :4], reads=READS[:2])
    with TileStore.resume(folder, image) as store:
        assert list(store.reads) == READS[:2]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Ledger, "add", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                store.put((0, 1), VALUES[:4, 4:8], reads=READS[2:])
    with TileStore.resume(folder, image) as store:
        assert store.done == {(0, 0)}


def test_a_description_comes_back(folder: Path, image: LazyImage) -> None:
    assert TileStore.description(folder) is None
    with TileStore.create(folder, image, {"recipe": 1}) as store:
        assert TileStore.description(folder) == {"recipe": 1}
        store.describe({"recipe": 2})
    with TileStore.resume(folder, image, {"recipe": 3}):
        assert TileStore.description(folder) == {"recipe": 2}


@pytest.mark.parametrize(
    "key", [np.s_[1:5, 3:9], np.s_[::2, ::-3], np.s_[5:0:-2, 4], np.s_[..., 9]]
)
def test_stored_tiles_are_sliced_as_arrays_are(
    folder: Path, image: LazyImage, key: tuple[slice | int, ...]
) -> None:
    with TileStore.create(folder, image) as store:
        fill(store, image, INDICES)
        np.testing.assert_array_equal(store.as_dask()[key], VALUES[key])
