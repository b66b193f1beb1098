"""Files that want more than to be read: one short sentence, and nothing else is touched."""

import json
import os
import struct
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path

import imagecodecs
import numcodecs
import numpy as np
import pytest
import tifffile
import torch
import zarr
from PIL import Image

from demoe.errors import DemoeError, ImageError, RecipeError, WeightsError
from demoe.image.lazy_image import LazyImage
from demoe.io import open_image
from demoe.io._source import split_index
from demoe.io._zarr_codecs import _SIZES
from demoe.io.psf import read_psf
from demoe.io.zarr import coarser_levels
from demoe.limits import DEPTH, parse_json, quoted, read_text, shortened
from demoe.model.checkpoint import read_state_dict
from demoe.model.kernels.psf import make_psf
from demoe.model.zoo import weights_path
from demoe.recipe import Recipe
from demoe.routing.painted import paint

SECRET = np.full((40, 50), 77, np.uint8)


def sentence(caught: pytest.ExceptionInfo[DemoeError]) -> str:
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text and len(text) <= 1000
    return text


def refused(path: Path, match: str, **options: object) -> str:
    with pytest.raises(ImageError, match=match) as caught:
        open_image(path, **options).data.compute()
    return sentence(caught)


# --- nothing outside of what was named ---


def ome_zarr(path: Path, dataset: str, version: int = 3, levels: int = 1) -> Path:
    group = zarr.create_group(path, zarr_format=version)
    for level in range(levels):
        array = np.arange(40 * 50, dtype="u2").reshape(40, 50) >> level
        group.create_array(str(level), data=array, chunks=(20, 25))
    shape = {"axes": [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]}
    datasets = [{"path": dataset}] + [{"path": str(level)} for level in range(1, levels)]
    multiscales = [{**shape, "datasets": datasets}]
    if version == 3:
        group.attrs["ome"] = {"version": "0.5", "multiscales": multiscales}
    else:
        group.attrs["multiscales"] = multiscales
    return path


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("how", ["relative", "absolute", "through", "link"])
def test_zarr_datasets_that_lie_elsewhere(tmp_path: Path, how: str, version: int) -> None:
    zarr.create_array(tmp_path / "secret.zarr", data=SECRET, zarr_format=version)
    dataset = {
        "relative": "../secret.zarr",
        "absolute": str(tmp_path / "secret.zarr"),
        "through": "0/../../secret.zarr",
        "link": "linked",
    }[how]
    path = ome_zarr(tmp_path / "a.zarr", dataset, version)
    (path / "linked").symlink_to(tmp_path / "secret.zarr")
    assert "outside" in refused(path, r"a\.zarr")


def test_zarr_datasets_that_lie_within(tmp_path: Path) -> None:
    path = ome_zarr(tmp_path / "a.zarr", "./0")
    wanted = open_image(path).data.compute()
    assert wanted[39, 49] == 1999
    (path / "1").symlink_to(path / "0")
    ours = json.loads((path / "zarr.json").read_text())
    ours["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = "1"
    (path / "zarr.json").write_text(json.dumps(ours))
    np.testing.assert_array_equal(open_image(path).data.compute(), wanted)
    (tmp_path / "link.zarr").symlink_to(path)  # what a person names may be a link
    np.testing.assert_array_equal(open_image(tmp_path / "link.zarr").data.compute(), wanted)


def test_zarr_chunks_that_are_links(tmp_path: Path) -> None:
    path = ome_zarr(tmp_path / "a.zarr", "0")
    chunk = path / "0" / "c" / "1" / "1"
    chunk.replace(tmp_path / "chunk")
    chunk.symlink_to(tmp_path / "chunk")
    assert "outside" in refused(path, r"a\.zarr")


def test_coarser_levels_that_lie_elsewhere(tmp_path: Path) -> None:
    path = ome_zarr(tmp_path / "a.zarr", "0", levels=2)
    assert [level.shape for level in coarser_levels(str(path), "YX")] == [(40, 50)]
    (path / "1").rename(tmp_path / "1")
    (path / "1").symlink_to(tmp_path / "1")
    with pytest.raises(ImageError, match="outside") as caught:
        coarser_levels(str(path), "YX")
    sentence(caught)


@pytest.mark.parametrize("marker", ["zarr.json", ".zarray", ".zattrs"])
def test_metadata_without_end(tmp_path: Path, marker: str) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_array(path, data=SECRET, zarr_format=3 if marker == "zarr.json" else 2)
    (path / marker).unlink()
    (path / marker).symlink_to("/dev/zero")
    assert "outside" in refused(path, r"a\.zarr")
    (path / marker).unlink()
    os.mkfifo(path / marker)
    refused(path, r"a\.zarr")


def test_pipes_and_devices(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tif")
    refused(tmp_path / "a.tif", "pipe")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    refused(tmp_path / "b.png", "device")


def ome_tiff(path: Path, other: str, planes: int = 2) -> Path:
    """Write an OME-TIFF of two planes, of which the second lies in another file."""
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="50" '
        f'SizeY="40" SizeZ="{planes}" SizeC="1" SizeT="1"><Channel ID="Channel:0:0"/>'
        '<TiffData IFD="0" FirstZ="0" PlaneCount="1"/>'
        f'<TiffData IFD="0" FirstZ="1" PlaneCount="1"><UUID FileName="{other}">urn:uuid:2</UUID>'
        "</TiffData></Pixels></Image></OME>"
    )
    tifffile.imwrite(path, np.zeros((40, 50), np.uint8), description=xml, metadata=None)
    return path


def test_tiffs_of_several_files(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "b.tif", SECRET)
    path = ome_tiff(tmp_path / "a.ome.tif", "b.tif")
    assert open_image(path).data.compute()[:, 0, 0].tolist() == [0, 77]


@pytest.mark.parametrize("how", ["relative", "absolute", "link", "device", "null"])
def test_tiffs_that_point_elsewhere(tmp_path: Path, how: str) -> None:
    (tmp_path / "inner").mkdir()
    tifffile.imwrite(tmp_path / "secret.tif", SECRET)
    (tmp_path / "inner" / "linked.tif").symlink_to(tmp_path / "secret.tif")
    other = {
        "relative": "../secret.tif",
        "absolute": str(tmp_path / "secret.tif"),
        "link": "linked.tif",
        "device": "/dev/zero",
        "null": "../" * 2000 + "etc/passwd",
    }[how]
    path = ome_tiff(tmp_path / "inner" / "a.ome.tif", other)
    refused(path, r"a\.ome\.tif")


def test_folders_with_links_out_of_them(tmp_path: Path) -> None:
    (tmp_path / "stack").mkdir()
    for number in range(2):
        tifffile.imwrite(tmp_path / "stack" / f"{number}.tif", SECRET)
    assert open_image(tmp_path / "stack").shape == (2, 40, 50)
    tifffile.imwrite(tmp_path / "secret.tif", SECRET)
    (tmp_path / "stack" / "2.tif").symlink_to(tmp_path / "secret.tif")
    refused(tmp_path / "stack", "outside")


def test_entities_are_not_expanded(tmp_path: Path) -> None:
    path = ome_tiff(tmp_path / "a.ome.tif", "b.tif")
    bomb = '<?xml version="1.0"?><!DOCTYPE z [<!ENTITY a "aaaaaaaaaa">'
    bomb += "".join(f'<!ENTITY {c} "{f"&{b};" * 10}">' for b, c in pairwise("abcdefgh"))
    with tifffile.TiffFile(path) as file:
        text = file.ome_metadata
    text = bomb + "]>" + text.replace('ID="Image:0"', 'ID="Image:0" Name="&h;"')
    tifffile.imwrite(path, np.zeros((40, 50), np.uint8), description=text, metadata=None)
    assert "entities" in refused(path, r"a\.ome\.tif")


# --- nothing larger than what is allowed ---


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow blocks of 1 MiB, so that what is too large need not be large."""
    monkeypatch.setenv("DEMOE_BLOCK_GIB", str(1 / 1024))


@pytest.mark.parametrize("value", ["none", "-1", "0", "inf", "nan"])
def test_a_limit_that_is_none(tmp_path: Path, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", SECRET)
    monkeypatch.setenv("DEMOE_BLOCK_GIB", value)
    refused(tmp_path / "a.tif", "DEMOE_BLOCK_GIB is a number")


def with_tag(path: Path, code: int, value: int) -> Path:
    """Claim something else in a tag of a TIFF."""
    with tifffile.TiffFile(path, mode="r+") as file:
        tag = file.pages.first.tags[code]
        tag.overwrite(value, dtype="I")
    return path


@pytest.mark.parametrize("layout", ["tiles", "strips"])
def test_tiffs_that_claim_large_blocks(tmp_path: Path, layout: str) -> None:
    options = {"tile": (64, 64)} if layout == "tiles" else {"rowsperstrip": 16}
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((256, 256), "u2"), compression="zlib", **options)
    if layout == "tiles":
        with_tag(with_tag(path, 322, 2**20), 323, 2**20)  # width and length of a tile
    else:
        with_tag(with_tag(with_tag(path, 257, 2**20), 278, 2**20), 256, 2**20)
    assert "GiB" in refused(path, layout[:-1])


def test_pictures_in_tiffs_that_are_larger_than_their_tiles(
    tmp_path: Path, small_blocks: None
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, SECRET, compression="jpeg")
    open_image(path).data.compute()
    inner = imagecodecs.jpeg8_encode(np.zeros((900, 900), np.uint8))
    with tifffile.TiffFile(path, mode="r+") as file:
        page = file.pages.first
        offset = path.stat().st_size
        page.tags[273].overwrite(offset)
        page.tags[279].overwrite(len(inner))
    path.write_bytes(path.read_bytes()[:offset].ljust(offset, b"\0") + inner)
    refused(path, "tile")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg", ".webp"])
def test_photos_that_are_too_large(tmp_path: Path, suffix: str, small_blocks: None) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.zeros((900, 900, 3), np.uint8)).save(path)
    assert path.stat().st_size < 2**22
    assert "picture" in refused(path, "DEMOE_BLOCK_GIB")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_photos_that_their_bytes_cannot_hold(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.zeros((900, 900), np.uint8)).save(path)
    assert open_image(path).data.compute().shape == (900, 900)  # of one colour, all the same
    data = bytearray(path.read_bytes())
    if suffix == ".png":
        data[16:24] = struct.pack(">II", 30_000, 30_000)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    else:
        frame = data.index(b"\xff\xc0")
        data[frame + 5 : frame + 9] = struct.pack(">HH", 30_000, 30_000)
    path.write_bytes(data)
    refused(path, "cannot hold 30000 x 30000 pixels")


def test_a_png_that_claims_a_billion_rows(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 2**30, 2**30, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )
    refused(tmp_path / "a.png", "picture")


def test_photos_are_nothing_else(tmp_path: Path) -> None:
    # A PostScript file would be run by another program.
    (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    refused(tmp_path / "a.png", "not a picture")


@pytest.mark.parametrize("version", [2, 3])
def test_chunks_that_are_claimed_too_large(tmp_path: Path, version: int) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_array(
        path, shape=(10**6,) * 2, chunks=(10**6,) * 2, dtype="u2", zarr_format=version
    )
    refused(path, "chunk")


def test_shards_with_a_large_index(tmp_path: Path) -> None:
    zarr.create_array(
        tmp_path / "a.zarr", shape=(2**20,) * 2, chunks=(16, 16), shards=(2**20,) * 2, dtype="u2"
    )
    refused(tmp_path / "a.zarr", "index")


def test_too_many_blocks(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=(10**9, 9, 9), chunks=(1, 9, 9), dtype="u1")
    refused(tmp_path / "a.zarr", "blocks")


CODECS = {
    "blosc": numcodecs.Blosc(),
    "zstd": numcodecs.Zstd(),
    "lz4": numcodecs.LZ4(),
    "gzip": numcodecs.GZip(),
    "zlib": numcodecs.Zlib(),
    "bz2": numcodecs.BZ2(),
    "lzma": numcodecs.LZMA(),
}


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("size", [2**19, 2**21])  # more than the chunk has, and than is allowed
def test_chunks_that_unpack_to_more(
    tmp_path: Path, name: str, sharded: bool, size: int, small_blocks: None
) -> None:
    codec = CODECS[name]
    bomb = codec.encode(np.zeros(size, np.uint8))
    v3 = name in ("blosc", "zstd", "gzip")
    if sharded and not v3:
        return
    path = tmp_path / "a.zarr"
    if v3:
        one = {"blosc": zarr.codecs.BloscCodec(), "zstd": zarr.codecs.ZstdCodec()}
        one["gzip"] = zarr.codecs.GzipCodec()
        options = {"shards": (40, 50)} if sharded else {}
        zarr.create_array(path, data=SECRET, chunks=(20, 25), compressors=one[name], **options)
    else:
        zarr.create_array(path, data=SECRET, chunks=(20, 25), zarr_format=2, compressors=codec)
    wanted = open_image(path).data.compute()
    np.testing.assert_array_equal(wanted, SECRET)
    if not sharded:
        chunk = path / ("c/1/1" if v3 else "1.1")
        chunk.write_bytes(bytes(bomb))
    else:
        shard = path / "c/0/0"
        index = np.frombuffer(shard.read_bytes()[-4 * 16 - 4 : -4], "<u8").copy()
        index[-2:] = 0, len(bomb)
        ends = index.tobytes()
        crc = numcodecs.checksum32.CRC32C().encode(index.view("u1"))[-4:]
        shard.write_bytes(bytes(bomb) + ends + bytes(np.asarray(crc)))
        assert len(ends) == 64
    refused(path, "chunk")


@pytest.mark.parametrize("name", ["gzip", "bz2", "lzma"])
def test_streams_one_after_another_are_all_counted(name: str) -> None:
    packed = bytes(CODECS[name].encode(np.zeros(2**18, np.uint8)))
    assert _SIZES[name](packed * 9, 2**20) > 2**20 >= _SIZES[name](packed * 4, 2**20)


@pytest.mark.parametrize("name", ["gzip", "zlib", "bz2", "lzma", "zstd", "lz4", "blosc"])
def test_what_a_codec_makes_is_known_before(name: str) -> None:
    values = np.random.default_rng(3).integers(0, 50, 300_000).astype(np.uint8)
    packed = bytes(CODECS[name].encode(values))
    assert len(values) <= _SIZES[name](packed, 2**30) <= max(2 * len(values), 1032 * len(packed))
    for damaged in (b"", packed[:9], packed[: len(packed) // 2], b"\xff" * 50):
        assert _SIZES[name](damaged, 2**30) >= 0


def test_zstandard_without_a_size_is_counted_by_its_blocks() -> None:
    one = struct.pack("<IBB", 0xFD2FB528, 0, 0x58) + struct.pack("<I", (10**5 << 3) | 2)[:3] + b"x"
    wide = one[:6] + struct.pack("<I", (2**17 << 3) | 2)[:3] + b"x"
    last = struct.pack("<I", (7 << 3) | 3)[:3] + b"y"
    assert _SIZES["zstd"](one + last, 2**30) == 10**5 + 7
    assert (
        _SIZES["zstd"](struct.pack("<II", 0x184D2A50, 3) + b"abc" + wide + last, 2**30) == 2**17 + 7
    )


def test_zstandard_without_a_size_is_read(tmp_path: Path) -> None:
    # As streaming writers leave it: no size in the header, and one block.
    path = tmp_path / "a.zarr"
    zarr.create_array(path, data=SECRET, compressors=zarr.codecs.ZstdCodec())
    block = struct.pack("<I", (SECRET.size << 3) | 1)[:3] + SECRET.tobytes()
    (path / "c/0/0").write_bytes(struct.pack("<IBB", 0xFD2FB528, 0, 0x58) + block)
    np.testing.assert_array_equal(open_image(path).data.compute(), SECRET)


@pytest.mark.parametrize("where", ["filters", "compressor"])
def test_codecs_that_run_code(tmp_path: Path, where: str) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_array(path, data=SECRET, zarr_format=2)
    text = json.loads((path / ".zarray").read_text())
    text[where] = [{"id": "pickle"}] if where == "filters" else {"id": "pickle"}
    (path / ".zarray").write_text(json.dumps(text))
    assert "'pickle'" in refused(path, "codec")


@pytest.mark.parametrize("key", ["PlaneCount", "NumPlanes", "SizeZ", "Modulo"])
def test_planes_that_are_claimed(tmp_path: Path, key: str) -> None:
    path = ome_tiff(tmp_path / "a.ome.tif", "b.tif")
    with tifffile.TiffFile(path) as file:
        text = file.ome_metadata
    text = {
        "SizeZ": text.replace('SizeZ="2"', 'SizeZ="2000000000"'),
        "Modulo": text.replace("</OME>", '<ModuloAlongZ Start="0" End="1e12" Step="1"/></OME>'),
    }.get(key, text.replace("PlaneCount", key).replace('="1"/>', '="2000000000"/>', 1))
    tifffile.imwrite(path, np.zeros((40, 50), np.uint8), description=text, metadata=None)
    refused(path, "claims")


def test_pages_that_come_back_to_themselves(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((3, 40, 50), np.uint8), photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as file:
        second, last = file.pages[1].offset, file.pages[2]
        link = last.offset + 2 + 12 * len(last.tags)
    data = bytearray(path.read_bytes())
    data[link : link + 4] = struct.pack("<I", second)
    path.write_bytes(data)
    refused(path, "circular")


def test_a_range_is_not_walked_through() -> None:
    box, rest = split_index((slice(None, None, -3), 5), (10**15, 9))
    assert box == (slice(0, 10**15), slice(5, 6))
    assert rest == (slice(10**15 - 1, None, -3), 0)


# --- texts, recipes, weights, maps ---


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    "text", [deep(DEPTH + 1), deep(100_000), " " * (2**25 + 1), "{", "1" * 5000]
)
def test_json_without_bound(text: str) -> None:
    with pytest.raises(ValueError, match=r"nested|MiB|Expecting|digits"):
        parse_json(text)
    assert parse_json(deep(DEPTH)) is not None


@pytest.mark.parametrize("key", ["zarr.json", ".zattrs"])
def test_zarr_metadata_without_bound(tmp_path: Path, key: str) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_array(path, data=SECRET, zarr_format=3 if key == "zarr.json" else 2)
    (path / key).write_text('{"a": ' + deep(50_000) + "}")
    refused(path, "nested")
    (path / key).write_bytes(b" " * (2**25 + 1))
    refused(path, "MiB")


def test_texts_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"\xff\xfe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**25 + 1)
    for name in ("latin", "zero", "large", "none", "a\0b", "a" * 5000):
        with pytest.raises(RecipeError, match=r"^The recipe ") as caught:
            read_text(tmp_path / name, RecipeError, "The recipe")
        sentence(caught)


def test_what_is_repeated_is_short() -> None:
    values = ("x" * 10**6, 10**5000, [[["x" * 99] * 99] * 99] * 99, {"a" * 10**5: 1}, b"1" * 10**6)
    for value in values:
        assert len(quoted(value)) < 1000
    assert quoted("abc") == "'abc'" and quoted(5) == "5" and shortened("abc") == "abc"
    assert len(shortened("x" * 10**6)) < 200
    text = str(ImageError(f"a.tif has {'x' * 10**6}, but less would be right."))
    assert len(text) <= 1000 and text.startswith("a.tif") and text.endswith("would be right.")
    assert str(ImageError("a\nb\x1b[2J is µm.")) == "a\ufffdb\ufffd[2J is µm."


@pytest.mark.parametrize(
    "text",
    [
        deep(100_000),
        '{"psf": ' + deep(60) + "}",
        '{"intensity": [0, 1' + "0" * 400 + "]}",
        '{"routing": "' + "x" * 10**6 + '", "top_k": 0}',
        '{"' + "x" * 10**6 + '": 1}',
        '{"tile": 1' + "0" * 4000 + "}",
        '{"pitch": 16777216, "window": 16777216}',
        '{"device": "cuda:' + "1" * 10**6 + '"}',
        '{"device": {}}',
        '{"temperature": Infinity}',
    ],
)
def test_recipes(text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        make_psf(Recipe.from_json(text).psf)
    sentence(caught)


@pytest.mark.parametrize(
    "value",
    [
        [[10**400]],
        {"radius": 10**400},
        {"na": 1e-300, "wavelength": 0.5, "pixel": 0.1},
        {"na": 1.0, "wavelength": 0.5, "pixel": 1e-300},
        {"na": 1.0, "wavelength": 0.5, "pixel": 1e7},
        {"na": 1.0, "wavelength": 0.5, "pixel": 0.1, "defocus": 1e308},
        {"x" * 10**6: 1},
    ],
)
def test_psfs(value: object) -> None:
    with pytest.raises(RecipeError) as caught:
        make_psf(value)
    sentence(caught)


def test_a_psf_of_large_numbers_keeps_its_form() -> None:
    assert make_psf([[1e308] * 3] * 3).sum() == pytest.approx(1)


def test_a_large_image_is_no_psf(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=(10**6,) * 2, chunks=(1000,) * 2, dtype="u2")
    with pytest.raises(RecipeError, match="too many") as caught:
        read_psf(str(tmp_path / "a.zarr"))
    sentence(caught)


def test_maps_of_any_size_and_scale(tmp_path: Path) -> None:
    source = LazyImage.from_array(np.zeros((128, 128), np.uint8), scale={"Y": 1.0, "X": 1.0})
    zarr.create_array(
        tmp_path / "a.zarr", shape=(10**6,) * 2, chunks=(1000,) * 2, dtype="u1", fill_value=2
    )
    assert (paint(source, open_image(tmp_path / "a.zarr"), 64, 5).cells == 2).all()
    small = LazyImage.from_array(np.ones((4, 4), np.uint8), scale={"Y": 1e-29, "X": 1e-29})
    assert (paint(source, small, 64, 5).cells == 0).all()
    with pytest.raises(ImageError, match="scale"):
        LazyImage.from_array(SECRET, scale={"Y": 1e-300, "X": 1.0})


def test_weights_that_claim_more_than_they_hold(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1).expand(10**6, 10**6)}, tmp_path / "wide.pt")
    torch.save({str(n): torch.ones(10**5)[n:] for n in range(3)}, tmp_path / "fine.pt")
    assert len(read_state_dict(tmp_path / "fine.pt")[0]) == 3
    shared = torch.ones(10**5, dtype=torch.float16)
    torch.save({str(n): shared[:] for n in range(40)}, tmp_path / "many.pt")
    torch.save({"a": torch.zeros(10**6)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as old,
        zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    torch.save({"a": torch.empty(10**9, device="meta")}, tmp_path / "meta.pt")
    for name in ("wide", "many", "packed", "meta"):
        with pytest.raises(WeightsError, match=r"more than|without values") as caught:
            read_state_dict(tmp_path / f"{name}.pt")
        sentence(caught)


@pytest.mark.parametrize("name", ["x" * 10**5, "~nobody-of-this-name/a.pt", "a\0b"])
def test_names_of_weights_that_can_be_none(name: str) -> None:
    with pytest.raises(WeightsError) as caught:
        weights_path(name)
    sentence(caught)


@pytest.mark.parametrize("name", ["x" * 5000 + ".tif", "a\0b.tif"])
def test_names_of_images_that_can_be_none(name: str) -> None:
    refused(Path(name), "no file or folder")
