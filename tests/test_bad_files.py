"""Bad input and failing disks: one sentence that names the file, and nothing left behind."""

import asyncio
import errno
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask.array as da
import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from zarr.storage import LocalStore

from demoe.errors import AxesError, Cancelled, ImageError, OutputError
from demoe.image.lazy_image import LazyImage
from demoe.io import open_image, write_image

RNG = np.random.default_rng(11)


def noise(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return RNG.integers(0, np.iinfo(dtype).max, shape).astype(dtype)


def read_all(path: Path, **options: object) -> np.ndarray:
    return open_image(path, **options).data.compute()


def check_sentence(error: BaseException, path: Path) -> None:
    text = str(error)
    assert str(path) in text or path.name in text
    assert text.endswith(".") and "\n" not in text and len(text) < 500


def write_sample(path: Path, kind: str) -> Path:
    pixels = noise(200, 300)
    if kind == "png":
        path.write_bytes(imagecodecs.png_encode(pixels >> 8 if "8" in path.stem else pixels))
    elif kind == "png8":
        path.write_bytes(imagecodecs.png_encode((pixels >> 8).astype("uint8")))
    elif kind == "jpg":
        path.write_bytes(imagecodecs.jpeg8_encode((pixels >> 8).astype("uint8")))
    elif kind == "contiguous":
        tifffile.imwrite(path, pixels)
    elif kind == "stack":
        tifffile.imwrite(path, noise(6, 90, 100), photometric="minisblack")
    elif kind == "imagej":
        tifffile.imwrite(path, noise(6, 90, 100), imagej=True)
    elif kind == "tiles":
        tifffile.imwrite(path, pixels, tile=(64, 64), compression="zlib")
    elif kind == "strips":
        tifffile.imwrite(path, pixels, rowsperstrip=16, compression="lzw")
    else:
        write_image(path, LazyImage.from_array(noise(6, 90, 100)))
    return path


SAMPLES = {
    **{"png": ".png", "png8": ".png", "jpg": ".jpg", "contiguous": ".tif", "stack": ".tif"},
    **{"imagej": ".tif", "tiles": ".tif", "strips": ".tif", "ome": ".ome.tif"},
}


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("share", [0.03, 0.3, 0.7, 0.95])
def test_truncated_files(tmp_path: Path, kind: str, share: float) -> None:
    path = write_sample(tmp_path / f"a{SAMPLES[kind]}", kind)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ImageError) as caught:
        read_all(path)
    check_sentence(caught.value, path)


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_file_cut_after_it_was_opened(tmp_path: Path, kind: str) -> None:
    path = write_sample(tmp_path / f"a{SAMPLES[kind]}", kind)
    image = open_image(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ImageError) as caught:
        image.data.compute()
    check_sentence(caught.value, path)
    path.unlink()
    with pytest.raises(ImageError) as caught:
        image.data.compute()
    check_sentence(caught.value, path)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".bmp", ".webp", ".ome.tif"])
@pytest.mark.parametrize(
    "content", [b"", b"hello, this is text\n" * 50, b"II*\0\0\0\0\0", b"\x89PNG"]
)
def test_what_is_no_picture_at_all(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        read_all(path)
    check_sentence(caught.value, path)


def test_missing_and_unknown(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no file or folder"):
        open_image(tmp_path / "none.tif")
    (tmp_path / "a.xyz").write_bytes(b"x" * 100)
    with pytest.raises(ImageError, match=r"suffix.*\.tif"):
        open_image(tmp_path / "a.xyz")


@pytest.mark.parametrize(
    ("suffix", "package"),
    [("ndpi", "openslide-python"), ("MRC", "mrcfile"), ("jp2", "imagecodecs"), ("dcm", "pydicom")],
)
def test_what_opens_other_formats(tmp_path: Path, suffix: str, package: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"x" * 100)
    with pytest.raises(ImageError, match=f"by the package {package}:") as caught:
        open_image(path)
    check_sentence(caught.value, path)


def test_damaged_tags_do_not_crash(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "a.tif", "tiles")
    whole = path.read_bytes()
    survived = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        damaged = bytearray(whole)
        for at in rng.integers(0, 600, 3):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(bytes(damaged))
        try:
            read_all(path)
            survived += 1
        except (ImageError, AxesError) as error:
            check_sentence(error, path)
    assert survived < 60


def test_a_damaged_tile(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "a.tif", "tiles")
    with tifffile.TiffFile(path) as file:
        offset = file.pages.first.dataoffsets[3]
    damaged = bytearray(path.read_bytes())
    damaged[offset : offset + 40] = b"\xff" * 40
    path.write_bytes(bytes(damaged))
    image = open_image(path)
    with pytest.raises(ImageError, match=r"a\.tif"):
        image.data.compute()


@pytest.mark.parametrize("dtype", ["bool", "complex64"])
def test_values_that_are_no_intensities(tmp_path: Path, dtype: str) -> None:
    pixels = np.ones((20, 30), dtype)
    zarr.create_array(tmp_path / "a.zarr", data=pixels)
    with pytest.raises(ImageError, match=dtype):
        open_image(tmp_path / "a.zarr")
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    with pytest.raises(ImageError, match="bilevel" if dtype == "bool" else dtype):
        open_image(tmp_path / "a.tif")


def test_five_dimensions_without_axes(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=noise(1, 2, 3, 20, 30))
    with pytest.raises(AxesError, match="axes="):
        open_image(tmp_path / "a.zarr")
    assert open_image(tmp_path / "a.zarr", axes="TCZYX").n_planes == 6
    with pytest.raises(AxesError, match="'Q'"):
        open_image(tmp_path / "a.zarr", axes="QCZYX")


def test_empty_arrays(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=(0, 30), chunks=(1, 30), dtype="uint8")
    with pytest.raises(ImageError, match=r"a\.zarr"):
        open_image(tmp_path / "a.zarr")
    zarr.create_array(tmp_path / "line.zarr", shape=(30,), chunks=(30,), dtype="uint8")
    with pytest.raises(ImageError, match=r"line\.zarr"):
        open_image(tmp_path / "line.zarr")


def test_zarr_without_an_image(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "a.zarr")
    with pytest.raises(ImageError, match="multiscales"):
        open_image(tmp_path / "a.zarr")
    (tmp_path / "b.zarr").mkdir()
    with pytest.raises(ImageError, match=r"no zarr\.json"):
        open_image(tmp_path / "b.zarr")
    (tmp_path / "c.zarr").write_text("a file")
    with pytest.raises(ImageError, match=r"c\.zarr"):
        open_image(tmp_path / "c.zarr")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"zarr_format": 3}', '{"zarr_format": 9}']
)
@pytest.mark.parametrize("marker", ["zarr.json", ".zgroup", ".zarray"])
def test_broken_zarr_metadata(tmp_path: Path, marker: str, text: str) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / marker).write_text(text)
    with pytest.raises(ImageError) as caught:
        open_image(tmp_path / "a.zarr")
    check_sentence(caught.value, tmp_path / "a.zarr")


@pytest.mark.parametrize(
    "ome",
    [
        3,
        {"multiscales": []},
        {"multiscales": {}},
        {"multiscales": [{}]},
        {"multiscales": [{"datasets": []}]},
        {"multiscales": [{"datasets": [{"path": "nowhere"}]}]},
        {"multiscales": [{"datasets": [{"path": "0"}], "axes": [{"name": "y"}]}]},
        {"multiscales": [{"datasets": [{"path": "0"}], "axes": [{}, {}]}]},
        {"multiscales": [{"datasets": [{"path": "0"}], "axes": 5}]},
        {
            "multiscales": [
                {
                    "axes": ["y", "x"],
                    "datasets": [
                        {
                            "path": "0",
                            "coordinateTransformations": [{"type": "scale", "scale": ["a", "b"]}],
                        }
                    ],
                }
            ]
        },
    ],
)
def test_broken_ome_metadata(tmp_path: Path, ome: object) -> None:
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("0", data=noise(20, 30))
    group.attrs["ome"] = ome
    with pytest.raises(ImageError) as caught:
        open_image(tmp_path / "a.zarr")
    check_sentence(caught.value, tmp_path / "a.zarr")


OUTPUTS = ["a.tif", "a.ome.zarr", "a.png", "a.jpg"]


def sample_image(name: str) -> LazyImage:
    values = noise(700, 900, dtype="uint8" if name.endswith("jpg") else "uint16")
    return LazyImage.from_array(da.from_array(values, chunks=256))


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("old", [False, True])
def test_a_write_that_fails_half_way(tmp_path: Path, name: str, old: bool) -> None:
    image = sample_image(name)
    if old:
        write_image(tmp_path / name, image)
    before = sorted(file.name for file in tmp_path.iterdir())
    with file_size_limit(50_000), pytest.raises(OutputError) as caught:
        write_image(tmp_path / name, image.with_data(255 - image.data), overwrite=old)
    check_sentence(caught.value, tmp_path / name)
    assert sorted(file.name for file in tmp_path.iterdir()) == before
    if old and not name.endswith("jpg"):
        np.testing.assert_array_equal(read_all(tmp_path / name), image.data.compute())


def no_space(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_full_disk(tmp_path: Path, name: str, monkeypatch) -> None:
    image = sample_image(name)
    monkeypatch.setattr(tifffile.tifffile.FileHandle, "write", no_space)
    monkeypatch.setattr(Path, "write_bytes", no_space)
    monkeypatch.setattr("PIL.Image.Image.save", no_space)
    monkeypatch.setattr(LocalStore, "set", no_space)
    with pytest.raises(OutputError, match="disk is full"):
        write_image(tmp_path / name, image)
    assert not list(tmp_path.iterdir())


def test_chunks_on_their_way_do_not_bring_the_folder_back(tmp_path: Path, monkeypatch) -> None:
    store_chunk = LocalStore.set

    async def late(self: LocalStore, key: str, value: object) -> None:
        if key.endswith("/0/0"):
            no_space()
        if not key.endswith("zarr.json"):
            await asyncio.sleep(0.1)
        await store_chunk(self, key, value)

    monkeypatch.setattr(LocalStore, "set", late)
    with pytest.raises(OutputError, match="disk is full"):
        write_image(tmp_path / "a.zarr", LazyImage.from_array(noise(500, 3000)))
    time.sleep(0.3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", OUTPUTS)
def test_what_lies_beside_fails(tmp_path: Path, name: str, monkeypatch) -> None:
    image = sample_image(name)
    monkeypatch.setattr(Path, "write_text", no_space)
    if name.endswith("zarr"):
        monkeypatch.setattr(zarr.Group, "create_group", no_space)
    experts = LazyImage.from_array(np.ones((3, 4), "uint8"))
    with pytest.raises(OutputError, match="disk is full"):
        write_image(tmp_path / name, image, experts=experts, provenance={"a": 1})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_stop_leaves_nothing(tmp_path: Path, name: str) -> None:
    def stop(done: int, total: int, message: str) -> None:
        if done > total // 2:
            raise Cancelled("Stopped on request.")

    with pytest.raises(Cancelled):
        write_image(tmp_path / name, sample_image(name), progress=stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_damaged_source_leaves_nothing(tmp_path: Path, name: str) -> None:
    source = tmp_path / "source.tif"
    values = noise(700, 900, dtype="uint8")
    tifffile.imwrite(source, values, tile=(256, 256), compression="zlib")
    image = open_image(source)
    data = bytearray(source.read_bytes())
    with tifffile.TiffFile(source) as file:
        last = file.pages.first.dataoffsets[-1]
    data[last : last + 20] = b"\xff" * 20
    source.write_bytes(bytes(data))
    with pytest.raises(ImageError, match=r"source\.tif"):
        write_image(tmp_path / name, image)
    assert [file.name for file in tmp_path.iterdir()] == ["source.tif"]


@pytest.mark.parametrize("name", OUTPUTS)
def test_existing_outputs_are_kept(tmp_path: Path, name: str) -> None:
    image = sample_image(name)
    write_image(tmp_path / name, image)
    with pytest.raises(OutputError, match="exists already"):
        write_image(tmp_path / name, image)
    write_image(tmp_path / name, image, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_places_that_cannot_be_written(tmp_path: Path, monkeypatch) -> None:
    image = sample_image("a.tif")
    with pytest.raises(OutputError, match="no folder"):
        write_image(tmp_path / "none" / "a.tif", image)
    (tmp_path / "a.tif").mkdir()
    (tmp_path / "a.tif" / "inside").write_text("x")
    with pytest.raises(OutputError, match="folder"):
        write_image(tmp_path / "a.tif", image, overwrite=True)
    with pytest.raises(OutputError, match="too long"):
        write_image(tmp_path / f"{'n' * 250}.tif", image)
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(OutputError, match="may not write"):
        write_image(tmp_path / "b.tif", image)
    assert [file.name for file in tmp_path.iterdir()] == ["a.tif"]
