"""OME-Zarr: 0.4 and 0.5 are read, 0.5 is written with a pyramid, labels and provenance."""

import json
import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import yaozarrs
import zarr
from cells import build

from demoe.choices import BLURS
from demoe.errors import AxesError, ImageError, OutputError
from demoe.image.lazy_image import LazyImage
from demoe.io import open_image, write_image

RNG = np.random.default_rng(5)


def noise(*shape: int, dtype: str = "uint16") -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        return RNG.random(shape).astype(dtype)
    return RNG.integers(0, np.iinfo(dtype).max, shape).astype(dtype)


def make_ome(path: Path, pixels: np.ndarray, version: str, axes: object, **extra: object) -> None:
    """Lay out an image as other programs do, by the text of the format."""
    v2 = version != "0.5"
    group = zarr.create_group(path, zarr_format=2 if v2 else 3)
    chunks = (1,) * (pixels.ndim - 2) + (16, 16)
    for level, part in enumerate((pixels, pixels[..., ::2, ::2])):
        group.create_array(f"s{level}", data=part, chunks=chunks)
    steps = [1.0] * (pixels.ndim - 2) + [0.5, 0.25]
    datasets = [
        {
            "path": f"s{level}",
            "coordinateTransformations": [
                {"type": "scale", "scale": [*steps[:-2], *(s * 2**level for s in steps[-2:])]}
            ],
        }
        for level in range(2)
    ]
    multiscale: dict[str, object] = {"version": version, "datasets": datasets}
    if axes is not None:
        multiscale["axes"] = axes
    ome = {"multiscales": [{**multiscale, **extra}], "omero": {"channels": [{"label": "gfp"}]}}
    if v2:
        group.attrs.update(ome)
    else:
        group.attrs["ome"] = {"version": version, **ome}


def named(letters: str, unit: str = "micrometer") -> list[dict[str, str]]:
    kinds = {"t": "time", "c": "channel"}
    return [
        {
            "name": letter,
            "type": kinds.get(letter, "space"),
            **({"unit": unit} if letter in "zyx" else {}),
        }
        for letter in letters
    ]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_others_images_are_read(tmp_path: Path, version: str) -> None:
    pixels = noise(1, 3, 40, 50)
    make_ome(tmp_path / "a.ome.zarr", pixels, version, named("czyx"))
    image = open_image(tmp_path / "a.ome.zarr")
    assert (image.axes, image.name) == ("CZYX", "a")
    assert dict(image.scale) == {"Z": 1.0, "Y": 0.5, "X": 0.25}
    assert dict(image.units) == dict.fromkeys("ZYX", "micrometer")
    assert image.channel_names == ("gfp",)
    np.testing.assert_array_equal(image.data.compute(), pixels)
    sent = pickle.loads(pickle.dumps(image))
    np.testing.assert_array_equal(sent.data[0, 1, 3:9, 4:7].compute(), pixels[0, 1, 3:9, 4:7])
    assert open_image(tmp_path / "a.ome.zarr").data.name == image.data.name
    level = open_image(tmp_path / "a.ome.zarr" / "s1", axes="CZYX")
    assert level.shape == (1, 3, 20, 25)


def test_scales_of_both_places_multiply(tmp_path: Path) -> None:
    outer = [{"type": "scale", "scale": [10.0, 2.0, 2.0]}]
    make_ome(
        tmp_path / "a.zarr", noise(3, 40, 50), "0.4", named("tyx"), coordinateTransformations=outer
    )
    assert dict(open_image(tmp_path / "a.zarr").scale) == {"T": 10.0, "Y": 1.0, "X": 0.5}


def test_older_axes(tmp_path: Path) -> None:
    make_ome(tmp_path / "three.zarr", noise(3, 40, 50), "0.3", ["z", "y", "x"])
    assert open_image(tmp_path / "three.zarr").axes == "ZYX"
    make_ome(tmp_path / "one.zarr", noise(1, 1, 3, 40, 50), "0.1", None)
    assert open_image(tmp_path / "one.zarr").axes == "TCZYX"


def test_foreign_axes_want_names(tmp_path: Path) -> None:
    make_ome(tmp_path / "a.zarr", noise(3, 40, 50), "0.5", named("qyx"))
    with pytest.raises(AxesError, match="axes="):
        open_image(tmp_path / "a.zarr")
    assert open_image(tmp_path / "a.zarr", axes="tyx").axes == "TYX"


def test_a_group_of_images_is_opened_by_series(tmp_path: Path) -> None:
    root = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    make_ome(tmp_path / "a.zarr" / "0", noise(40, 50), "0.4", named("yx"))
    make_ome(tmp_path / "a.zarr" / "1", noise(3, 40, 50), "0.4", named("zyx"))
    assert open_image(tmp_path / "a.zarr").axes == "YX"
    assert open_image(tmp_path / "a.zarr", series=1).axes == "ZYX"
    assert open_image(tmp_path / "a.zarr", series="1").axes == "ZYX"
    with pytest.raises(ImageError):
        open_image(tmp_path / "a.zarr", series=2)


def test_labels_are_not_the_image(tmp_path: Path) -> None:
    pixels = noise(40, 50)
    make_ome(tmp_path / "a.zarr", pixels, "0.5", named("yx"))
    zarr.create_group(tmp_path / "a.zarr" / "labels")
    make_ome(
        tmp_path / "a.zarr" / "labels" / "cells", noise(40, 50, dtype="uint8"), "0.5", named("yx")
    )
    assert open_image(tmp_path / "a.zarr").dtype == np.uint16
    assert open_image(tmp_path / "a.zarr" / "labels" / "cells").dtype == np.uint8
    with pytest.raises(ImageError, match="multiscales"):
        open_image(tmp_path / "a.zarr" / "labels")


@pytest.mark.parametrize("version", [2, 3])
def test_plain_arrays(tmp_path: Path, version: int) -> None:
    pixels = noise(3, 40, 50)
    array = zarr.create_array(
        tmp_path / "a.zarr",
        shape=pixels.shape,
        chunks=(1, 20, 20),
        dtype=">u2",
        zarr_format=version,
    )
    array[:] = pixels
    image = open_image(tmp_path / "a.zarr")
    assert image.axes == "ZYX" and image.dtype.isnative
    np.testing.assert_array_equal(image.data.compute(), pixels)
    assert open_image(tmp_path / "a.zarr", axes="CYX").axes == "CYX"
    array.resize((4, 40, 50))
    with pytest.raises(ImageError, match="has changed"):
        image.data.compute()


def test_plain_arrays_may_name_their_axes(tmp_path: Path) -> None:
    zarr.create_array(
        tmp_path / "three.zarr", data=noise(2, 40, 50), dimension_names=("time", "y", "x")
    )
    assert open_image(tmp_path / "three.zarr").axes == "ZYX"
    zarr.create_array(
        tmp_path / "names.zarr", data=noise(2, 40, 50), dimension_names=("t", "y", "x")
    )
    assert open_image(tmp_path / "names.zarr").axes == "TYX"
    two = zarr.create_array(tmp_path / "two.zarr", data=noise(2, 40, 50), zarr_format=2)
    two.attrs["_ARRAY_DIMENSIONS"] = ["c", "y", "x"]
    assert open_image(tmp_path / "two.zarr").axes == "CYX"


@pytest.mark.parametrize(
    ("shape", "axes", "dtype", "chunks"),
    [
        ((70, 90), "YX", "uint16", (30, 40)),
        ((2, 3, 600, 700), "CZYX", "uint16", (1, 1, 448, 448)),
        ((1, 2, 3, 30, 40), "TCZYX", "int16", (1, 1, 1, 30, 40)),
        ((2, 3, 30, 40), "ZTYX", "uint8", (2, 2, 30, 40)),
        ((70, 90, 3), "YXS", "uint8", (64, 64, 1)),
        ((2, 70, 90, 4), "ZYXS", "uint16", (1, 70, 90, 4)),
        ((3, 70, 90), "TYX", "float16", (1, 70, 90)),
        ((30, 40, 5), "YXZ", "int64", (30, 40, 1)),
        ((30, 40), "XY", "float64", (20, 20)),
        ((1, 1), "YX", "uint8", (1, 1)),
    ],
)
def test_round_trip(tmp_path, shape, axes, dtype, chunks) -> None:
    image = build(noise(*shape, dtype=dtype), axes, chunks)
    back = open_image(write_image(tmp_path / "out.ome.zarr", image))
    assert (back.axes, back.dtype) == (axes, image.dtype)
    np.testing.assert_array_equal(back.data.compute(), image.data.compute())
    assert (dict(back.scale), dict(back.units)) == (dict(image.scale), dict(image.units))
    assert [file.name for file in tmp_path.iterdir()] == ["out.ome.zarr"]


def test_what_is_stored(tmp_path: Path) -> None:
    pixels = noise(2, 1100, 1501)
    image = build(pixels, "CYX", (1, 300, 448)).with_data(
        da.from_array(pixels, chunks=(1, 300, 448)), channel_names=("dapi", "gfp")
    )
    path = write_image(tmp_path / "a.zarr", image, provenance={"model": "x"})
    root = zarr.open_group(path, mode="r")
    assert root.metadata.zarr_format == 3
    ome = root.attrs["ome"]
    assert ome["version"] == "0.5"
    (multiscale,) = ome["multiscales"]
    assert [axis["name"] for axis in multiscale["axes"]] == ["c", "y", "x"]
    assert multiscale["axes"][2] == {"name": "x", "type": "space", "unit": "micrometer"}
    levels = [root[entry["path"]] for entry in multiscale["datasets"]]
    assert [level.shape for level in levels] == [(2, 1100, 1501), (2, 550, 751), (2, 275, 376)]
    assert levels[0].chunks == (1, 512, 512)
    assert levels[0].metadata.dimension_names == ("c", "y", "x")
    even = pixels[:, :1100, :1500].astype(float).reshape(2, 550, 2, 750, 2).mean(axis=(2, 4))
    assert np.abs(levels[1][:, :, :750] - even).max() <= 0.5
    second = multiscale["datasets"][1]["coordinateTransformations"]
    assert second == [
        {"type": "scale", "scale": [1.0, 0.5, 1.0]},
        {"type": "translation", "translation": [0.0, 0.125, 0.25]},
    ]
    assert [channel["label"] for channel in ome["omero"]["channels"]] == ["dapi", "gfp"]
    assert root.attrs["demoe"] == {"model": "x", "axes": "CYX"}
    assert open_image(path).channel_names == ("dapi", "gfp")


def test_rgb_is_stored_as_coloured_channels(tmp_path: Path) -> None:
    pixels = noise(40, 50, 3, dtype="uint8")
    path = write_image(tmp_path / "a.zarr", LazyImage.from_array(pixels))
    root = zarr.open_group(path, mode="r")
    np.testing.assert_array_equal(root["0"][:], np.moveaxis(pixels, -1, 0))
    channels = root.attrs["ome"]["omero"]["channels"]
    assert [channel["color"] for channel in channels] == ["FF0000", "00FF00", "0000FF"]
    assert channels[0]["window"] == {"min": 0, "max": 255, "start": 0, "end": 255}
    assert open_image(path).axes == "YXS"
    # Without our attribute it is an image of three channels, as anybody else would see it.
    document = json.loads((path / "zarr.json").read_text())
    del document["attributes"]["demoe"]
    (path / "zarr.json").write_text(json.dumps(document))
    assert open_image(path).axes == "CYX"


def test_ome_zarr_py_reads_it(tmp_path: Path) -> None:
    pixels = noise(2, 3, 600, 700)
    experts = LazyImage.from_array(
        np.ones((2, 3, 10, 11), "uint8"), "CZYX", scale={"Y": 16, "X": 32}
    )
    write_image(tmp_path / "a.zarr", build(pixels, "CZYX"), experts=experts, choices=BLURS)
    with warnings.catch_warnings():  # ome-zarr 0.18 warns of its own deprecated names
        warnings.simplefilter("ignore")
        from ome_zarr.io import parse_url
        from ome_zarr.reader import Reader

        image, _, labels = Reader(parse_url(tmp_path / "a.zarr"))()
        np.testing.assert_array_equal(np.asarray(image.data[0]), pixels)
        assert len(image.data) == 2
        assert image.metadata["coordinateTransformations"][0][0]["scale"] == [1, 2, 0.25, 0.5]
        assert labels.metadata["color"][2] == [channel / 255 for channel in (*BLURS[1].colour, 255)]
        assert labels.metadata["properties"][2] == {"expert": BLURS[1].name}


def test_the_expert_map_overlays_the_image(tmp_path: Path) -> None:
    image = build(noise(2, 600, 1000), "TYX")
    values = RNG.integers(0, 6, (2, 10, 16)).astype("uint8")
    experts = LazyImage.from_array(values, "TYX", scale={"Y": 64 * 0.25, "X": 64 * 0.5, "T": 3})
    gates = da.from_array(RNG.random((2, 5, 10, 16)).astype("float32"), chunks=(1, 5, 10, 16))
    path = write_image(tmp_path / "a.zarr", image, experts=experts, gates=gates, choices=BLURS)
    root = zarr.open_group(path, mode="r")
    assert root["labels"].attrs["ome"]["labels"] == ["expert_map"]
    ome = root["labels/expert_map"].attrs["ome"]
    assert ome["image-label"]["source"] == {"image": "../../"}
    assert ome["image-label"]["properties"] == [
        {"label-value": number, "expert": choice.name} for number, choice in enumerate(BLURS, 1)
    ]
    datasets = ome["multiscales"][0]["datasets"]
    assert len(datasets) == len(root.attrs["ome"]["multiscales"][0]["datasets"]) == 2
    scale, translation = datasets[0]["coordinateTransformations"]
    # The centre of cell 0 is the mean position of the 64 pixels it covers.
    assert translation["translation"] == [
        0.0,
        np.arange(64).mean() * 0.25,
        np.arange(64).mean() * 0.5,
    ]
    assert scale["scale"] == [3.0, 16.0, 32.0]
    assert ome["multiscales"][0]["axes"][1]["unit"] == "micrometer"
    colours = {entry["label-value"]: tuple(entry["rgba"]) for entry in ome["image-label"]["colors"]}
    assert colours == {number: (*choice.colour, 255) for number, choice in enumerate(BLURS, 1)}
    np.testing.assert_array_equal(root["labels/expert_map/0"][:], values)
    np.testing.assert_array_equal(root["labels/expert_map/1"][:], values[:, ::2, ::2])
    np.testing.assert_array_equal(root["demoe/gates"][:], gates.compute())
    back = open_image(path / "labels" / "expert_map")
    assert back.axes == "TYX" and dict(back.scale) == {"T": 3.0, "Y": 16.0, "X": 32.0}
    assert open_image(path).shape == image.shape


@pytest.mark.parametrize(
    ("shape", "axes", "dtype", "names"),
    [
        ((600, 700), "YX", "uint16", ()),
        ((3, 60, 70), "ZYX", "uint8", ()),
        ((2, 2, 3, 60, 70), "TCZYX", "uint16", ("dapi", "gfp")),
        ((600, 700, 3), "YXS", "uint8", ()),
        ((60, 70, 4), "YXS", "float32", ()),
        ((2, 60, 70), "CYX", "int16", ("dapi", "gfp")),
        ((2, 600, 70), "CYX", "float32", ("dapi", "gfp")),
        ((60, 70), "YX", "int64", ("dapi",)),
    ],
)
@pytest.mark.parametrize("choices", [BLURS, ()])
def test_what_is_written_is_valid(tmp_path: Path, shape, axes, dtype, names, choices) -> None:
    image = build(noise(*shape, dtype=dtype), axes)
    image = image.with_data(image.data, channel_names=names)
    planes = tuple(n for n, letter in zip(shape, axes, strict=True) if letter not in "YXS")
    experts = image.of_cells(np.ones((*planes, 5, 6), "uint8"), (128, 128))
    path = write_image(tmp_path / "a.zarr", image, experts=experts, choices=choices)
    yaozarrs.validate_zarr_store(str(path))
    root = zarr.open_group(path, mode="r")
    ome, label = root.attrs["ome"], root["labels/expert_map"].attrs["ome"]
    # The models pass over what they do not know, so that a misspelled key would be lost.
    assert set(ome) == {"version", "multiscales", *(["omero"] if names or "S" in axes else [])}
    assert set(label) == {"version", "multiscales", "image-label"}
    known = {"version", "source", *(["colors", "properties"] if choices else [])}
    assert set(label["image-label"]) == known
    back = open_image(path)
    assert (back.axes, back.channel_names) == (axes, names)


def windows(path: Path) -> list[tuple[float, float]]:
    channels = zarr.open_group(path, mode="r").attrs["ome"]["omero"]["channels"]
    shown = [channel["window"] for channel in channels]
    assert all((one["min"], one["max"]) == (one["start"], one["end"]) for one in shown)
    return [(one["min"], one["max"]) for one in shown]


def test_every_named_channel_has_a_window(tmp_path: Path) -> None:
    def written(pixels: np.ndarray, axes: str, *names: str) -> list[tuple[float, float]]:
        image = LazyImage.from_array(pixels, axes, channel_names=names)
        return windows(write_image(tmp_path / "a.zarr", image, overwrite=True))

    assert written(noise(2, 9, 9, dtype="int16"), "CYX", "a", "b") == [(-32768, 32767)] * 2
    pixels = np.zeros((5, 3, 600, 8), "float32")
    pixels[:, 0, :2, :2] = np.arange(-3, 2)[:, None, None]
    pixels[:, 1] = 7
    pixels[:, 2] = np.nan
    pixels[0, 0, 8] = np.inf
    wanted = [(-3, 1), (7, 8), (0, 1)]
    assert written(pixels, "TCYX", "a", "flat", "nothing") == wanted
    assert written(pixels[:, 0], "ZYX", "a") == wanted[:1]


def test_colours_of_floats_share_a_window(tmp_path: Path) -> None:
    pixels = np.stack([np.full((9, 9), value, "float32") for value in (0.25, 0.5, 1, 3)], axis=-1)
    path = write_image(tmp_path / "a.zarr", LazyImage.from_array(pixels))
    assert windows(path) == [(0.25, 1)] * 3 + [(3, 4)]


def test_units_that_the_format_does_not_list_are_kept(tmp_path: Path) -> None:
    image = LazyImage.from_array(noise(9, 9), units={"Y": "furlong", "X": "furlong"})
    path = write_image(tmp_path / "a.zarr", image)  # a warning would be an error here
    assert dict(open_image(path).units) == dict(image.units)


def test_the_models_are_loaded_when_an_image_is_written() -> None:
    code = "import sys, demoe.io._write; print({'torch', 'yaozarrs', 'pydantic'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_channels_with_rgb_want_tiff(tmp_path: Path) -> None:
    image = LazyImage.from_array(noise(2, 30, 40, 3, dtype="uint8"), "CYXS")
    with pytest.raises(OutputError, match=r"ome\.tif"):
        write_image(tmp_path / "a.zarr", image)
    assert not list(tmp_path.iterdir())


def test_every_block_is_computed_once_and_the_pyramid_from_what_is_stored(tmp_path: Path) -> None:
    seen: list[tuple[int, ...]] = []

    def count(block: np.ndarray, block_info: dict) -> np.ndarray:
        seen.append(tuple(block_info[0]["chunk-location"]))
        return block

    source = da.zeros((2, 1300, 1000), chunks=(1, 448, 448), dtype="uint8")
    counted = source.map_blocks(count, dtype="uint8", meta=np.empty((0, 0, 0), "uint8"))
    write_image(tmp_path / "a.zarr", LazyImage.from_array(counted, "ZYX"))
    assert sorted(seen) == sorted(np.ndindex(2, 3, 3))


def test_overwriting_waits_for_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    old, new = noise(40, 50), noise(60, 70)
    write_image(path, LazyImage.from_array(old))
    with pytest.raises(OutputError, match="exists already"):
        write_image(path, LazyImage.from_array(new))
    np.testing.assert_array_equal(open_image(path).data.compute(), old)

    def fail(done: int, total: int, message: str) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_image(path, LazyImage.from_array(new), overwrite=True, progress=fail)
    np.testing.assert_array_equal(open_image(path).data.compute(), old)
    write_image(path, LazyImage.from_array(new), overwrite=True)
    np.testing.assert_array_equal(open_image(path).data.compute(), new)
    # An image may even replace the file it is read from.
    write_image(path, open_image(path).with_data(open_image(path).data // 2), overwrite=True)
    np.testing.assert_array_equal(open_image(path).data.compute(), new // 2)
    assert [file.name for file in tmp_path.iterdir()] == ["a.zarr"]


def test_a_folder_that_is_not_zarr_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="not zarr"):
        write_image(tmp_path / "a.zarr", LazyImage.from_array(noise(9, 9)), overwrite=True)
    assert (tmp_path / "a.zarr" / "thesis.txt").exists()


def test_a_lost_chunk_file_reads_as_empty_and_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.zarr", LazyImage.from_array(noise(600, 700)))
    image = open_image(path)
    chunk = next(file for file in (path / "0" / "c").rglob("*") if file.is_file())
    whole = chunk.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (whole[:100], whole[:-1], bytes(flipped), b""):
        chunk.write_bytes(damaged)
        with pytest.raises(ImageError, match="damaged"):
            image.data.compute()
    shutil.rmtree(path / "0" / "c")
    assert image.data.compute().max() == 0
