"""TIFF: every common layout is read block by block, and what is written reads back the same."""

import pickle
from itertools import pairwise
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile
from cells import build

from demoe.errors import AxesError, ImageError
from demoe.image.lazy_image import LazyImage
from demoe.io import open_image, series_of, write_image
from demoe.io._source import FileSource

RNG = np.random.default_rng(3)


def noise(*shape: int, dtype: str = "uint16") -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        return RNG.random(shape).astype(dtype)
    return RNG.integers(0, np.iinfo(dtype).max, shape).astype(dtype)


LAYOUTS = {
    "contiguous plane": ((70, 90), "uint16", "YX", {}),
    "contiguous stack": ((5, 70, 90), "uint16", "ZYX", {}),
    "compressed strips": (
        (5, 70, 90),
        "uint16",
        "ZYX",
        {"compression": "zlib", "rowsperstrip": 16},
    ),
    "strips": ((70, 90), "uint8", "YX", {"rowsperstrip": 16, "compression": "lzw"}),
    "tiles": (
        (5, 70, 90),
        "uint16",
        "ZYX",
        {"compression": "zlib", "predictor": True, "tile": (32, 48)},
    ),
    "big-endian tiles": ((70, 90), "uint16", "YX", {"byteorder": ">", "tile": (32, 48)}),
    "big-endian": ((5, 70, 90), "int16", "ZYX", {"byteorder": ">"}),
    "floats": ((70, 90), "float32", "YX", {"compression": "zlib", "predictor": True}),
    "rgb": ((70, 90, 3), "uint8", "YXS", {"photometric": "rgb"}),
    "rgba": ((70, 90, 4), "uint8", "YXS", {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "rgb stack": (
        (4, 70, 90, 3),
        "uint16",
        "ZYXS",
        {"photometric": "rgb", "tile": (32, 32), "compression": "zlib"},
    ),
    "bigtiff": ((2, 70, 90), "uint16", "ZYX", {"bigtiff": True, "compression": "zlib"}),
    "ome": (
        (2, 3, 4, 30, 40),
        "uint16",
        "TCZYX",
        {"ome": True, "metadata": {"axes": "TCZYX"}, "photometric": "minisblack"},
    ),
    "compressed ome": (
        (3, 4, 30, 40),
        "uint16",
        "CZYX",
        {"ome": True, "metadata": {"axes": "CZYX"}, "compression": "zlib"},
    ),
    "imagej": (
        (2, 3, 2, 30, 40),
        "uint16",
        "TZCYX",
        {"imagej": True, "metadata": {"axes": "TZCYX"}},
    ),
    "one pixel": ((1, 1), "uint8", "YX", {}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_read(tmp_path: Path, layout: str) -> None:
    shape, dtype, axes, options = LAYOUTS[layout]
    pixels = noise(*shape, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    image = open_image(tmp_path / "a.tif")
    assert image.axes == axes
    assert image.dtype == np.dtype(dtype) and image.dtype.isnative
    np.testing.assert_array_equal(image.data.compute(), pixels)
    box = tuple(slice(length // 3, length // 3 + 17) for length in pixels.shape)
    if image.is_rgb:
        box = (*box[:-1], slice(None))
    np.testing.assert_array_equal(image.data[box].compute(), pixels[box])
    np.testing.assert_array_equal(image.canonical[0, -1, 0].compute().ravel(), _plane(pixels, axes))


def _plane(pixels: np.ndarray, axes: str) -> np.ndarray:
    index = {"T": 0, "C": -1, "Z": 0}
    return pixels[tuple(index.get(letter, slice(None)) for letter in axes)].ravel()


def test_separate_colour_planes_become_samples(tmp_path: Path) -> None:
    pixels = noise(3, 70, 90, dtype="uint8")
    for options in ({}, {"tile": (32, 32), "compression": "zlib"}):
        tifffile.imwrite(
            tmp_path / "a.tif", pixels, photometric="rgb", planarconfig="separate", **options
        )
        image = open_image(tmp_path / "a.tif")
        assert image.axes == "YXS"
        np.testing.assert_array_equal(image.data.compute(), np.moveaxis(pixels, 0, -1))


def test_many_samples_are_channels(tmp_path: Path) -> None:
    pixels = noise(5, 40, 50)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="separate")
    image = open_image(tmp_path / "a.tif")
    assert image.axes == "CYX"
    np.testing.assert_array_equal(image.data.compute(), pixels)


def test_palettes_and_white_is_zero(tmp_path: Path) -> None:
    pixels = noise(20, 30, dtype="uint8")
    colours = noise(3, 256)
    tifffile.imwrite(tmp_path / "palette.tif", pixels, colormap=colours)
    image = open_image(tmp_path / "palette.tif")
    assert image.axes == "YXS" and image.dtype == np.uint8
    np.testing.assert_array_equal(image.data.compute(), (colours.T >> 8)[pixels])
    tifffile.imwrite(tmp_path / "white.tif", pixels, photometric="miniswhite")
    np.testing.assert_array_equal(open_image(tmp_path / "white.tif").data.compute(), 255 - pixels)


def test_an_imagej_palette_is_only_a_way_to_show(tmp_path: Path) -> None:
    pixels = noise(20, 30, dtype="uint8")
    table = np.zeros((3, 256), "uint8")
    table[1] = np.arange(256)
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, metadata={"LUTs": [table]})
    image = open_image(tmp_path / "a.tif")
    assert image.axes == "YX"
    np.testing.assert_array_equal(image.data.compute(), pixels)


def test_ome_metadata(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        noise(2, 3, 4, 20, 30),
        photometric="minisblack",
        metadata={
            "axes": "TCZYX",
            **{"PhysicalSizeX": 0.1, "PhysicalSizeXUnit": "\u00b5m"},
            **{"PhysicalSizeY": 0.2},
            **{"PhysicalSizeZ": 300.0, "PhysicalSizeZUnit": "nm"},
            **{"TimeIncrement": 0.5, "TimeIncrementUnit": "min"},
            "Channel": {"Name": ["dapi", "gfp", "mito"]},
        },
    )
    image = open_image(tmp_path / "a.ome.tif")
    assert dict(image.scale) == {"T": 0.5, "Z": 300.0, "Y": 0.2, "X": 0.1}
    assert dict(image.units) == {
        **{"T": "minute", "Z": "nanometer"},
        **{"Y": "micrometer", "X": "micrometer"},
    }
    assert image.channel_names == ("dapi", "gfp", "mito")
    assert image.name == "a"
    assert image.source == str(tmp_path / "a.ome.tif")


def test_imagej_metadata(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        noise(4, 20, 30),
        imagej=True,
        resolution=(10, 5),
        metadata={"axes": "ZYX", "unit": "micron", "spacing": 0.3},
    )
    image = open_image(tmp_path / "a.tif")
    assert dict(image.scale) == {"Z": 0.3, "Y": 0.2, "X": 0.1}
    assert set(image.units.values()) == {"micrometer"}


def test_plain_resolution_counts_only_with_a_unit(tmp_path: Path) -> None:
    pixels = noise(20, 30)
    for unit, scale in (("CENTIMETER", {"X": 2.0, "Y": 4.0}), ("NONE", {})):
        tifffile.imwrite(tmp_path / "a.tif", pixels, resolution=(5000, 2500), resolutionunit=unit)
        assert dict(open_image(tmp_path / "a.tif").scale) == scale


def test_unnamed_dimensions(tmp_path: Path) -> None:
    pixels = noise(2, 5, 20, 30)
    gray = {"photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", pixels, metadata={"axes": "QTYX"}, **gray)
    image = open_image(tmp_path / "a.tif")
    assert image.axes == "ZTYX"
    np.testing.assert_array_equal(image.data.compute(), pixels)
    assert open_image(tmp_path / "a.tif", axes="tcyx").axes == "TCYX"
    tifffile.imwrite(tmp_path / "b.tif", pixels, metadata={"axes": "QRYX"}, **gray)
    with pytest.raises(AxesError, match="axes="):
        open_image(tmp_path / "b.tif")
    assert open_image(tmp_path / "b.tif", axes="CZYX").axes == "CZYX"
    with pytest.raises(AxesError, match="3 dimensions"):
        open_image(tmp_path / "b.tif", axes="ZYX")


def test_pyramids_open_at_full_size_and_series_are_chosen(tmp_path: Path) -> None:
    full = noise(128, 128)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(full, subifds=1, tile=(64, 64))
        writer.write(full[::2, ::2], subfiletype=1, tile=(64, 64))
        writer.write(noise(30, 40, dtype="uint8"))
    assert open_image(tmp_path / "a.tif").shape == (128, 128)
    assert open_image(tmp_path / "a.tif", series=1).shape == (30, 40)
    with pytest.raises(ImageError, match="series=2"):
        open_image(tmp_path / "a.tif", series=2)


def test_series_are_chosen_by_name(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        for name, side in (("first", 30), ("second", 40), ("1", 50), ("twice", 60), ("twice", 70)):
            writer.write(noise(side, side), metadata={"axes": "YX", "Name": name})
    for series, side in ((0, 30), ("second", 40), ("1", 50), (1, 40), ("3", 60)):
        assert open_image(tmp_path / "a.ome.tif", series=series).shape == (side, side)
    with pytest.raises(ImageError, match=r"'third' is none.*0 \(first\), 1 \(second\)"):
        open_image(tmp_path / "a.ome.tif", series="third")
    with pytest.raises(ImageError, match="'twice' is the name of several"):
        open_image(tmp_path / "a.ome.tif", series="twice")


def test_only_the_touched_tiles_are_read(tmp_path: Path, monkeypatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(2, 2048, 2048), tile=(256, 256), compression="zlib")
    image = open_image(tmp_path / "a.tif")
    assert image.data.chunksize == (1, 512, 512)
    boxes = []
    read = FileSource.__getitem__

    def spy(self: FileSource, key: object) -> np.ndarray:
        block = read(self, key)
        boxes.append(block.shape)
        return block

    monkeypatch.setattr(FileSource, "__getitem__", spy)
    image.data[1, 600:700, 10:30].compute()
    assert boxes == [(1, 512, 512)]


def test_names_follow_the_file_and_images_travel(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(20, 30))
    first = open_image(path)
    assert open_image(path).data.name == first.data.name
    sent = pickle.loads(pickle.dumps(first))
    np.testing.assert_array_equal(sent.data.compute(), first.data.compute())
    tifffile.imwrite(path, noise(20, 31))
    assert open_image(path).data.name != first.data.name
    with pytest.raises(ImageError, match="has changed"):
        first.data.compute()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("cmyk", {"photometric": "separated"}, "SEPARATED"),
        ("bilevel", {"bilevel": True}, "1 bit"),
    ],
)
def test_what_holds_no_intensities(tmp_path: Path, name: str, options: dict, said: str) -> None:
    pixels = noise(20, 30, 4, dtype="uint8")
    if options.pop("bilevel", False):
        pixels = pixels[..., 0] > 128
    tifffile.imwrite(tmp_path / f"{name}.tif", pixels, **options)
    with pytest.raises(ImageError, match=said):
        open_image(tmp_path / f"{name}.tif")


@pytest.mark.parametrize(
    ("shape", "axes", "dtype", "chunks"),
    [
        ((70, 90), "YX", "uint16", (30, 40)),
        ((2, 3, 600, 700), "CZYX", "uint16", (1, 1, 448, 448)),
        ((2, 3, 30, 40), "ZTYX", "uint8", (2, 2, 30, 40)),
        ((70, 90, 3), "YXS", "uint8", (64, 64, 3)),
        ((2, 70, 90, 4), "ZYXS", "uint16", (1, 70, 90, 1)),
        ((2, 3, 30, 40, 3), "CZYXS", "uint8", (1, 1, 30, 40, 3)),
        ((3, 70, 90), "TYX", "float32", (1, 70, 90)),
        ((70, 90), "YX", "float64", (70, 90)),
        ((2, 40, 30), "TYX", "int32", (1, 1, 30)),
        ((1, 1), "YX", "uint8", (1, 1)),
    ],
)
@pytest.mark.parametrize("suffix", [".tif", ".ome.tiff"])
def test_round_trip(tmp_path, shape, axes, dtype, chunks, suffix) -> None:
    image = build(noise(*shape, dtype=dtype), axes, chunks)
    path = write_image(tmp_path / f"out{suffix}", image)
    back = open_image(path)
    assert back.axes == axes and back.dtype == image.dtype
    np.testing.assert_array_equal(back.data.compute(), image.data.compute())
    assert (dict(back.scale), dict(back.units)) == (dict(image.scale), dict(image.units))
    assert [file.name for file in tmp_path.iterdir()] == [f"out{suffix}"]


def test_others_read_what_is_written(tmp_path: Path) -> None:
    pixels = noise(2, 3, 60, 70)
    image = build(pixels, "CZYX", (1, 1, 60, 70))
    image = image.with_data(image.data, channel_names=("dapi", "gfp"))
    write_image(tmp_path / "a.tif", image)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_ome
        np.testing.assert_array_equal(file.series[0].asarray(), pixels)
        assert 'Name="cells"' in file.ome_metadata
        assert 'PhysicalSizeX="0.5"' in file.ome_metadata
    assert open_image(tmp_path / "a.tif").channel_names == ("dapi", "gfp")


def test_rows_and_columns_go_last(tmp_path: Path) -> None:
    pixels = noise(40, 30, 5)
    write_image(tmp_path / "a.tif", LazyImage.from_array(pixels, "YXZ"))
    back = open_image(tmp_path / "a.tif")
    assert back.axes == "ZYX"
    np.testing.assert_array_equal(back.data.compute(), np.moveaxis(pixels, -1, 0))


def test_units_of_other_kinds_survive(tmp_path: Path) -> None:
    image = LazyImage.from_array(
        noise(20, 30), scale={"Y": 2, "X": 3}, units={"Y": "nanometer", "X": "pixel"}
    )
    back = open_image(write_image(tmp_path / "a.tif", image))
    assert dict(back.units) == {"Y": "nanometer", "X": "pixel"}
    assert dict(back.scale) == {"Y": 2.0, "X": 3.0}
    frames = LazyImage.from_array(
        noise(3, 20, 30), "TYX", scale={"T": 7, "X": 2}, units={"T": "frame", "X": "furlong"}
    )
    back = open_image(write_image(tmp_path / "b.tif", frames))
    assert dict(back.scale) == {"X": 2.0} and dict(back.units) == {"X": "pixel"}


@pytest.mark.parametrize("axes", ["ZYX", "YXS"])
def test_large_planes_get_a_pyramid(tmp_path: Path, axes: str) -> None:
    shape = (2, 1100, 2101) if axes == "ZYX" else (1100, 2101, 3)
    pixels = noise(*shape, dtype="uint8")
    image = LazyImage.from_array(da.from_array(pixels, chunks=300), axes)
    write_image(tmp_path / "a.tif", image)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        levels = [level.asarray() for level in file.series[0].levels]
    rows, columns = axes.index("Y"), axes.index("X")
    assert [level.shape[columns] for level in levels] == [2101, 1051, 526, 263]
    np.testing.assert_array_equal(levels[0], pixels)
    for fine, coarse in pairwise(levels):
        assert coarse.shape[rows] == (fine.shape[rows] + 1) // 2
        even = fine.take(range(coarse.shape[columns] // 2 * 2), columns)
        even = even.take(range(coarse.shape[rows] // 2 * 2), rows).astype(float)
        quads = sum(
            even.take(range(dy, even.shape[rows], 2), rows).take(
                range(dx, even.shape[columns], 2), columns
            )
            for dy in (0, 1)
            for dx in (0, 1)
        )
        found = coarse.take(range(quads.shape[rows]), rows)
        found = found.take(range(quads.shape[columns]), columns)
        assert np.abs(quads / 4 - found).max() <= 0.5


def test_every_block_is_computed_once(tmp_path: Path) -> None:
    seen: list[tuple[int, ...]] = []

    def count(block: np.ndarray, block_info: dict) -> np.ndarray:
        seen.append(tuple(block_info[0]["chunk-location"]))
        return block

    source = da.zeros((2, 1300, 1000), chunks=(1, 448, 448), dtype="uint8")
    counted = source.map_blocks(count, dtype="uint8", meta=np.empty((0, 0, 0), "uint8"))
    calls: list[tuple[int, int, str]] = []
    image = LazyImage.from_array(counted, "ZYX")
    write_image(tmp_path / "a.tif", image, progress=lambda *call: calls.append(call))
    assert sorted(seen) == sorted(np.ndindex(2, 3, 3))
    done = [call[0] for call in calls]
    assert done == sorted(done)
    # 18 blocks, and 12 tiles of the file.
    assert done[-1] == calls[-1][1] == 18 + 12
    assert {call[1] for call in calls} == {18 + 12}


def test_experts_and_provenance_lie_beside(tmp_path: Path) -> None:
    image = build(noise(200, 260), "YX", (100, 260))
    experts = LazyImage.from_array(
        np.ones((4, 5), "uint8"), scale={"Y": 0.25 * 64, "X": 0.5 * 64}, units=image.units
    )
    write_image(tmp_path / "a.ome.tif", image, experts=experts, provenance={"model": "x"})
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["a.demoe.json", "a.experts.tif", "a.ome.tif"]
    beside = open_image(tmp_path / "a.experts.tif")
    assert dict(beside.scale) == {"Y": 16.0, "X": 32.0}
    np.testing.assert_array_equal(beside.data.compute(), 1)
    assert '"model": "x"' in (tmp_path / "a.demoe.json").read_text()


def test_an_ome_set_of_two_files(tmp_path: Path) -> None:
    pixels = noise(2, 20, 30)
    planes = "".join(
        f'<TiffData FirstZ="{z}" PlaneCount="1"><UUID FileName="z{z}.ome.tif">urn:uuid:'
        f"0000000{z}-0000-4000-8000-000000000000</UUID></TiffData>"
        for z in range(2)
    )
    for z in range(2):
        text = (
            '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:0000000{z}-0000-4000-8000-000000000000"><Image ID="Image:0">'
            '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="30" SizeY="20" '
            'SizeZ="2" SizeC="1" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
            f"{planes}</Pixels></Image></OME>"
        )
        tifffile.imwrite(
            tmp_path / f"z{z}.ome.tif", pixels[z], description=text, metadata=None, rowsperstrip=5
        )
    image = open_image(tmp_path / "z0.ome.tif")
    assert image.axes == "ZYX"
    np.testing.assert_array_equal(image.data.compute(), pixels)
    (tmp_path / "alone").mkdir()
    alone = open_image((tmp_path / "z0.ome.tif").rename(tmp_path / "alone" / "z0.ome.tif"))
    np.testing.assert_array_equal(alone.data[0].compute(), pixels[0])
    with pytest.raises(ImageError, match="plane 1 is missing"):
        alone.data[1].compute()


def test_scanned_slides_open_at_full_size(tmp_path: Path) -> None:
    pixels = noise(600, 700, 3, dtype="uint8")
    usual = {"photometric": "rgb", "metadata": None}
    tiles = {**usual, "tile": (256, 256)}
    with tifffile.TiffWriter(tmp_path / "a.svs") as file:
        words = "Aperio Image Library v12\n700x600 [0,0 700x600] (256x256) |AppMag = 20|MPP = 0.499"
        file.write(pixels, description=words, **tiles)
        file.write(pixels[::8, ::8], description="Aperio thumbnail", **usual)
        file.write(pixels[::4, ::4], description="Aperio level", **tiles)
        file.write(pixels[:50, :60], description="Aperio\nlabel 60x50", subfiletype=1, **usual)
    image = open_image(tmp_path / "a.svs")
    assert (image.axes, image.shape) == ("YXS", pixels.shape)
    assert image.scale == {"Y": 0.499, "X": 0.499}
    assert set(image.units.values()) == {"micrometer"}
    np.testing.assert_array_equal(image.data, pixels)
    assert series_of(tmp_path / "a.svs") == ["Baseline", "Thumbnail", "Label"]
    np.testing.assert_array_equal(
        open_image(tmp_path / "a.svs", series="Label").data, pixels[:50, :60]
    )


@pytest.mark.parametrize("named", [True, False])
def test_slides_of_many_channels(tmp_path: Path, named: bool) -> None:
    pixels = noise(3, 600, 700)
    usual = {"software": "PerkinElmer-QPI", "metadata": None, "photometric": "minisblack"}
    kind = "PerkinElmer-QPI-ImageDescription"
    with tifffile.TiffWriter(tmp_path / "a.qptiff") as file:
        for channel, name in enumerate(("DAPI", "Opal 520", "CD8")):
            words = f"<{kind}><Name>{name}</Name></{kind}>" if named else "<damaged"
            tiles = {"tile": (256, 256), "resolution": (20000, 20000), "resolutionunit": 3}
            file.write(pixels[channel], description=words, **tiles, **usual)
        file.write(pixels[0, ::8, ::8], description=f"<{kind}/>", **usual)
    image = open_image(tmp_path / "a.qptiff")
    assert (image.axes, image.shape) == ("CYX", pixels.shape)
    assert image.scale == {"Y": 0.5, "X": 0.5}
    assert image.channel_names == (("DAPI", "Opal 520", "CD8") if named else ())
    np.testing.assert_array_equal(image.data, pixels)
