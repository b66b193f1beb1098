"""Images that are put together on the disk: by blocks of any shape, in any order of axes."""

from __future__ import annotations

import itertools
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from cells import build

from demoe.errors import Cancelled
from demoe.image.lazy_image import LazyImage
from demoe.io import open_image, write_image
from demoe.io._levels import coarsen
from demoe.io.mosaic import Mosaic, Tiles

RNG = np.random.default_rng(11)


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no image be small enough to be computed in memory."""
    monkeypatch.setattr("demoe.io._write.IN_MEMORY", 0)
    monkeypatch.setattr("demoe.io._write.load", lambda *_: 1 / 0)


SHAPES = [
    ((70, 90), "YX", (30, 40), (".ome.zarr", ".ome.tif")),
    ((2, 600, 700), "CYX", (1, 448, 448), (".ome.zarr", ".ome.tif")),
    ((2, 3, 30, 40), "ZTYX", (2, 2, 30, 40), (".ome.zarr", ".ome.tif")),
    ((70, 90, 3), "YXS", (64, 64, 1), (".ome.zarr", ".ome.tif")),
    ((30, 40, 5), "YXZ", (30, 40, 1), (".ome.zarr",)),
    ((30, 40), "XY", (20, 20), (".ome.zarr",)),
    ((2, 30, 40, 3), "CYXS", (1, 20, 40, 3), (".ome.tif",)),
]


@pytest.mark.parametrize(
    ("shape", "axes", "chunks", "suffix"),
    [(*case[:3], suffix) for case in SHAPES for suffix in case[3]],
)
@pytest.mark.usefixtures("no_memory")
def test_blocks_of_any_shape_come_back(tmp_path: Path, shape, axes, chunks, suffix) -> None:
    pixels = RNG.integers(0, 60000, shape, dtype=np.uint16)
    path = write_image(tmp_path / f"out{suffix}", build(pixels, axes, chunks))
    back = open_image(path)
    assert back.axes == axes
    np.testing.assert_array_equal(back.data, pixels)
    assert [place.name for place in tmp_path.iterdir()] == [path.name]


@pytest.mark.usefixtures("no_memory")
@pytest.mark.parametrize("suffix", [".ome.zarr", ".ome.tif"])
def test_levels_of_what_lies_on_the_disk_are_those_of_what_lies_in_memory(
    tmp_path: Path, suffix: str
) -> None:
    pixels = RNG.integers(0, 60000, (2501, 4300), dtype=np.uint16)
    path = write_image(tmp_path / f"out{suffix}", build(pixels, "YX", (1000, 1300)))
    levels = [pixels]
    while max(levels[-1].shape) > 512:
        levels.append(coarsen(levels[-1]))
    if suffix == ".ome.tif":
        with tifffile.TiffFile(path) as file:
            found = [level.asarray() for level in file.series[0].levels]
    else:
        root = zarr.open_group(path, mode="r")
        found = [root[str(number)][...] for number in range(len(levels))]
    assert len(found) == len(levels) == 5
    for one, other in zip(found, levels, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_large_plane_is_stored_in_shards(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (2100, 4200, 3), dtype=np.uint8)
    path = write_image(tmp_path / "out.ome.zarr", LazyImage.from_array(pixels))
    root = zarr.open_group(path, mode="r")
    assert (root["0"].chunks, root["0"].shards) == ((1, 512, 512), (3, 2048, 2048))
    assert root["1"].shards == (3, 1536, 2048)
    assert len([p for p in (path / "0" / "c").rglob("*") if p.is_file()]) == 2 * 3
    np.testing.assert_array_equal(open_image(path).data, pixels)


@pytest.mark.usefixtures("no_memory")
@pytest.mark.parametrize("suffix", [".ome.zarr", ".ome.tif"])
@pytest.mark.parametrize("share", [0.2, 0.95])
def test_who_stops_leaves_nothing(tmp_path: Path, suffix: str, share: float) -> None:
    image = build(RNG.integers(0, 9, (600, 2300), dtype=np.uint8), "YX", (100, 500))
    calls: list[int] = []

    def progress(done: int, total: int, message: str) -> None:
        calls.append(done)
        if done >= share * total:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        write_image(tmp_path / f"out{suffix}", image, progress=progress)
    assert calls == sorted(calls)
    assert list(tmp_path.iterdir()) == []


def test_tiles_that_were_kept_in_any_order_are_read_at_any_time(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 60000, (2, 2100, 2200), dtype=np.uint16)
    lazy = da.from_array(pixels, chunks=((1, 1), (900, 900, 300), (1500, 700)))
    mosaic = Mosaic(tmp_path / "tiles", tmp_path / "image", "ZYX", lazy.chunks)
    mosaic.create(pixels.dtype)
    done = Tiles(mosaic.grid)
    order = RNG.permutation(list(itertools.product(*map(range, mosaic.grid)))).tolist()
    for index in map(tuple, order):
        mosaic.put(index, lazy.blocks[index].compute())
        done.add(index)
        for shard in mosaic.ready(index, done):
            mosaic.pack(shard)
        for known in done:
            box = mosaic.box(known)
            np.testing.assert_array_equal(mosaic.read(box), pixels[box])
    assert list(mosaic.tiles.iterdir()) == []
    assert all(map(mosaic.shards.has, mosaic.shards))
    np.testing.assert_array_equal(mosaic.read(np.s_[0:2, 890:2060, 0:2200]), pixels[:, 890:2060])


def test_a_set_of_tiles_is_a_set() -> None:
    tiles = Tiles((2, 3))
    for index in ((1, 2), (0, 1), (1, 2)):
        tiles.add(index)
    assert tiles == {(0, 1), (1, 2)} and len(tiles) == 2 and list(tiles) == [(0, 1), (1, 2)]
    assert (0, 0) not in tiles and tiles - {(0, 1)} == {(1, 2)}
    tiles.discard((0, 1))
    tiles.discard((0, 1))
    assert len(tiles) == 1 and tiles.hold_all([range(1, 2), range(2, 3)])
    assert not tiles.hold_all([range(0, 2), range(2, 3)])
