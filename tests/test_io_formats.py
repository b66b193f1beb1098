"""Formats that other packages read: bioio's by a stand-in, and real files where those are there."""

import importlib.util
import json
import pickle
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

import demoe.io.bio
import demoe.io.names
from demoe.cli import main
from demoe.errors import AxesError, ImageError
from demoe.io import is_readable, open_image, series_of
from demoe.io.batch import folder_jobs

RNG = np.random.default_rng(15)


def noise(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return RNG.integers(0, 250, shape).astype(dtype)


def forget() -> None:
    for cached in (demoe.io.bio._plugins, demoe.io.bio._opened, demoe.io.names._is_there):
        cached.cache_clear()


@pytest.fixture
def bioio(monkeypatch, root):
    """The stand-in for bioio; gives its list of what was read."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("bioio", "bioio_base")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(root / "tests" / "standin")
    forget()
    import bioio.plugins

    yield bioio.plugins.read
    bioio.plugins.read.clear()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("bioio", "bioio_base")]:
        del sys.modules[name]
    forget()


@pytest.fixture
def without(monkeypatch):
    """No other package is installed."""
    forget()
    monkeypatch.setattr(demoe.io.names, "find_spec", lambda module: None)
    yield
    forget()


def save(path: Path, dims: str, *scenes: np.ndarray, names: tuple[str, ...] = (), **about) -> Path:
    said = {
        "dims": dims,
        "shapes": [list(scene.shape) for scene in scenes],
        "dtype": str(scenes[0].dtype),
        "scenes": names or [f"Image:{number}" for number in range(len(scenes))],
        **about,
    }
    with path.open("wb") as file:
        arrays = {f"scene{number}": scene for number, scene in enumerate(scenes)}
        np.savez(file, about=np.array(json.dumps(said)), **arrays)
    return path


def test_axes_sizes_and_names(tmp_path, bioio):
    pixels = noise(3, 2, 4, 20, 30)
    path = save(
        *(tmp_path / "a.nd2", "TCZYX", pixels),
        scale={"T": 2.5, "Z": 0.3, "Y": 0.1, "X": 0.1},
        units={"Z": "nanometer"},
        channels=["DAPI", "GFP"],
    )
    image = open_image(path)
    assert (image.axes, image.shape, image.dtype, image.name) == ("TCZYX", pixels.shape, "u2", "a")
    assert image.scale == {"T": 2.5, "Z": 0.3, "Y": 0.1, "X": 0.1}
    micro = dict.fromkeys("YX", "micrometer")
    assert image.units == {"T": "second", "Z": "nanometer", **micro}
    assert image.channel_names == ("DAPI", "GFP")
    assert not bioio  # opening reads no pixels
    np.testing.assert_array_equal(image.data[1, 1, 2, 5:9, 3:8], pixels[1, 1, 2, 5:9, 3:8])
    assert bioio == [(0, (1, 1, 2, 0, 0), (1, 1, 1, 20, 30))]  # a plane, not its stack
    np.testing.assert_array_equal(image.data, pixels)
    again = pickle.loads(pickle.dumps(image.data))
    np.testing.assert_array_equal(again[2], pixels[2])


@pytest.mark.parametrize(
    ("dims", "shape", "axes"),
    [
        *(("YX", (20, 30), "YX"), ("ZYX", (1, 20, 30), "YX"), ("CTYX", (2, 3, 20, 30), "TCYX")),
        *(("YXS", (20, 30, 3), "YXS"), ("TYXS", (2, 20, 30, 3), "TYXS")),
    ],
)
@pytest.mark.parametrize("suffix", ["nd2", "lif"])
def test_axes_of_any_order(tmp_path, bioio, monkeypatch, suffix, dims, shape, axes):
    monkeypatch.setattr(demoe.io.bio, "LARGE_PLANE", 100)
    pixels = noise(*shape, dtype="uint8")
    image = open_image(save(tmp_path / f"a.{suffix}", dims, pixels, channels=["Channel:0:0"]))
    order = [dims.index(letter) for letter in image.axes]
    rest = tuple(at for at in range(len(dims)) if at not in order)
    np.testing.assert_array_equal(image.data, pixels.transpose([*rest, *order]).squeeze(rest))
    assert (image.axes, image.channel_names, image.scale) == (axes, (), {})
    with pytest.raises(AxesError):
        open_image(tmp_path / f"a.{suffix}", axes="TCZYX"[: len(axes) - 1])


def test_large_planes_are_read_in_parts(tmp_path, bioio, monkeypatch):
    pixels = noise(2, 1500, 2100, dtype="uint8")
    path = save(tmp_path / "a.lif", "ZYX", pixels)
    image = open_image(path)
    assert image.data.chunks[1:] == ((1500,), (2100,))
    demoe.io.bio._opened.cache_clear()
    monkeypatch.setattr(demoe.io.bio, "LARGE_PLANE", 2**20)
    image = open_image(path)
    assert image.data.chunks == ((1, 1), (1024, 476), (1024, 1024, 52))
    np.testing.assert_array_equal(image.data[1, 1000:1040, 7:9], pixels[1, 1000:1040, 7:9])
    taken = [np.prod([part.stop - part.start for part in box]) for _, box in bioio]
    assert max(taken) <= 1024**2  # the plugin is not asked for the plane
    np.testing.assert_array_equal(image.data, pixels)


def test_scenes_are_listed_and_chosen(tmp_path, bioio, capsys):
    scenes = [noise(2, 20, 30), noise(2, 20, 30), noise(3, 40, 20)]
    path = save(tmp_path / "a.nd2", "ZYX", *scenes, names=("well A", "well B", "Image:2"))
    assert series_of(path) == ["well A", "well B", ""]
    for series, number in ((0, 0), ("well B", 1), ("2", 2), (2, 2)):
        image = open_image(path, series=series)
        np.testing.assert_array_equal(image.data, scenes[number])
    with pytest.raises(ImageError, match=r"holds 3 image\(s\).*0 \(well A\), 1 \(well B\), 2\."):
        open_image(path, series="well C")
    assert main(["info", str(path), "--series"]) == 0
    assert capsys.readouterr().out.splitlines() == ["0  well A", "1  well B", "2"]
    assert main(["info", str(path), "--series", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shape"] == [3, 40, 20]


def test_a_run_on_such_a_file(tmp_path, bioio, shallow):
    pixels = noise(2, 40, 50, dtype="uint8")
    path = save(tmp_path / "a.nd2", "ZYX", pixels, scale={"Y": 0.2, "X": 0.2})
    options = ["--model", str(shallow), "--psf", "sigma=1.2", "--quiet"]
    assert main(["run", str(path), str(tmp_path / "out.ome.tif"), *options]) == 0
    made = open_image(tmp_path / "out.ome.tif")
    assert (made.axes, made.shape, made.scale["X"]) == ("ZYX", pixels.shape, 0.2)
    assert next(job[0].name for job in folder_jobs(tmp_path, tmp_path / "many")) == "a.nd2"


def test_what_bioio_says_is_passed_on(tmp_path, bioio):
    path = tmp_path / "a.nd2"
    path.write_bytes(b"no archive")
    with pytest.raises(ImageError, match=r"a\.nd2 cannot be read by the plugins.*bioio-stacks: "):
        open_image(path)
    mosaic = save(tmp_path / "b.nd2", "MYX", noise(4, 20, 30))
    with pytest.raises(ImageError, match="4 parts along 'M'"):
        open_image(mosaic)
    text = save(tmp_path / "c.nd2", "YX", np.array([["a", "b"]]))
    with pytest.raises(ImageError, match="holds <U1 values"):
        open_image(text)


def test_blocks_are_bounded_and_changes_found(tmp_path, bioio, monkeypatch):
    path = save(tmp_path / "a.nd2", "YX", noise(200, 300))
    image = open_image(path)
    before = image.origins[0].stamp()
    save(path, "YX", noise(100, 300))
    with pytest.raises(ImageError, match="has changed since it was opened"):
        image.data.compute()
    assert open_image(path).origins[0].stamp() != before
    monkeypatch.setenv("DEMOE_BLOCK_GIB", "1e-5")
    demoe.io.bio._opened.cache_clear()
    with pytest.raises(ImageError, match="has a block that would decode to"):
        open_image(path)


def test_plugins_for_suffixes_that_are_not_known(tmp_path, bioio):
    pixels = noise(20, 30)
    path = save(tmp_path / "a.strange", "YX", pixels)
    np.testing.assert_array_equal(open_image(path).data, pixels)
    (tmp_path / "b.xyz").write_bytes(b"x")
    with pytest.raises(ImageError, match="suffix that is not known"):
        open_image(tmp_path / "b.xyz")


def test_files_that_belong_together_are_watched(tmp_path, bioio, monkeypatch):
    path = save(tmp_path / "a.nd2", "YX", noise(20, 30))
    monkeypatch.setitem(demoe.io.bio._COMPANIONS, ".nd2", "_{}_")
    (tmp_path / "_a_").mkdir()
    (tmp_path / "_a_" / "pixels").write_bytes(b"1")
    image = open_image(path)
    before = image.origins[0].stamp()
    (tmp_path / "_a_" / "pixels").write_bytes(b"22")
    assert image.origins[0].stamp() != before


@pytest.mark.parametrize(
    ("suffix", "package"),
    [
        *(("czi", "bioio-czi"), ("nd2", "bioio-nd2"), ("LIF", "bioio-lif"), ("dng", "rawpy")),
        *(("vsi", "bioio-bioformats"), ("heic", "pillow-heif"), ("r3d", "bioio-dv")),
    ],
)
def test_without_the_package_a_sentence_names_it(tmp_path, without, suffix, package):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"x" * 100)
    assert not is_readable(path)
    with pytest.raises(ImageError, match=f"by the package {package}, which is not installed") as it:
        open_image(path)
    assert str(it.value).count(". ") == 0


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("shape", [(41, 53), (41, 53, 3), (40, 300, 4), (8, 300)])
def test_jpeg_xl(tmp_path, shape, dtype):
    pixels = noise(*shape, dtype=dtype)
    path = tmp_path / "a.jxl"
    path.write_bytes(imagecodecs.jpegxl_encode(pixels, lossless=True))
    image = open_image(path)
    assert (image.axes, image.dtype) == ("YX" if len(shape) == 2 else "YXS", dtype)
    np.testing.assert_array_equal(image.data, pixels)


def test_a_jpeg_xl_that_claims_too_much_is_not_decoded(tmp_path, monkeypatch):
    path = tmp_path / "a.jxl"
    whole = imagecodecs.jpegxl_encode(noise(1200, 1000), lossless=True)
    assert whole.startswith(b"\0\0\0\x0cJXL ")  # in boxes
    path.write_bytes(whole)
    monkeypatch.setenv("DEMOE_BLOCK_GIB", "0.004")
    monkeypatch.setattr(imagecodecs, "jpegxl_decode", None)
    with pytest.raises(ImageError, match="picture that would decode to"):
        open_image(path)
    for damaged in (b"no picture", whole[:20], b"\xff\x0a"):
        path.write_bytes(damaged)
        with pytest.raises(ImageError, match=r"a\.jxl cannot be read because it is damaged"):
            open_image(path)


def test_avif(tmp_path):
    slope = np.linspace(0, 255, 64 * 48).reshape(48, 64).astype("uint8")
    photo = Image.fromarray(np.stack([slope, slope[::-1], 255 - slope], axis=-1))
    photo.save(tmp_path / "a.avif", quality=95)
    image = open_image(tmp_path / "a.avif")
    assert (image.axes, image.shape) == ("YXS", (48, 64, 3))
    assert np.abs(image.data.compute().astype(int) - np.asarray(photo)).mean() < 4


def real(module: str) -> pytest.MarkDecorator:
    there = importlib.util.find_spec(module) is not None
    return pytest.mark.skipif(not there, reason=f"{module} is installed by `tox run -e formats`")


@pytest.fixture
def afresh():
    forget()
    yield
    forget()


@real("bioio_czi")
@real("pylibCZIrw")
def test_a_real_czi(tmp_path, afresh, monkeypatch):
    from pylibCZIrw import czi

    pixels = noise(2, 3, 40, 60)
    path = tmp_path / "a.czi"
    with czi.create_czi(str(path)) as file:
        for place in np.ndindex(2, 3):
            plane = dict(zip("CZ", place, strict=True))
            file.write(pixels[place][..., None], plane={**plane, "T": 0})
        sizes = {"scale_x": 1e-7, "scale_y": 1e-7, "scale_z": 5e-7}
        file.write_metadata("a", channel_names={0: "DAPI", 1: "GFP"}, **sizes)
    image = open_image(path)
    assert (image.axes, image.shape, image.dtype) == ("CZYX", pixels.shape, "u2")
    assert image.scale == pytest.approx({"Z": 0.5, "Y": 0.1, "X": 0.1})
    assert set(image.units.values()) == {"micrometer"}
    assert image.channel_names == ("DAPI", "GFP")
    assert image.data.chunks == ((1, 1), (1, 1, 1), (40,), (60,))
    np.testing.assert_array_equal(image.data, pixels)
    demoe.io.bio._opened.cache_clear()
    monkeypatch.setattr(demoe.io.bio, "LARGE_PLANE", 100)
    np.testing.assert_array_equal(
        open_image(path).data[1, :, 3:17, 20:50], pixels[1, :, 3:17, 20:50]
    )
    assert series_of(path) == [""]
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ImageError, match=r"a\.czi cannot be read"):
        open_image(path).data.compute()


@real("bioio_dv")
def test_a_real_dv(tmp_path, afresh):
    import mrc

    pixels = noise(2, 3, 40, 60)
    mrc.imsave(str(tmp_path / "a.dv"), pixels)
    image = open_image(tmp_path / "a.dv")
    assert (image.axes, image.shape, image.dtype) == ("CZYX", pixels.shape, "u2")
    np.testing.assert_array_equal(image.data[1, 2, 5:9, 3:8], pixels[1, 2, 5:9, 3:8])
    np.testing.assert_array_equal(image.data, pixels)


@real("bioio_nd2")
@real("bioio_lif")
@pytest.mark.parametrize("suffix", ["nd2", "lif", "czi", "dv"])
def test_damaged_files_of_real_plugins(tmp_path, afresh, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"x" * 5000)
    with pytest.raises(ImageError, match=rf"a\.{suffix} cannot be read by the plugins"):
        open_image(path)


@real("pillow_heif")
@pytest.mark.parametrize(("mode", "axes"), [("L", "YX"), ("RGB", "YXS"), ("RGBA", "YXS")])
def test_heic(tmp_path, afresh, mode, axes):
    import pillow_heif

    slope = np.linspace(0, 255, 64 * 48).reshape(48, 64).astype("uint8")
    pixels = slope if mode == "L" else np.stack([slope] * len(mode), axis=-1)
    photo = pillow_heif.from_bytes(mode, (64, 48), pixels.tobytes())
    photo.save(tmp_path / "a.heic", quality=95)
    image = open_image(tmp_path / "a.heic")
    assert (image.axes, image.shape, image.dtype) == (axes, pixels.shape, "u1")
    assert np.abs(image.data.compute().astype(int) - pixels).mean() < 4


@real("pillow_heif")
def test_heic_of_more_than_8_bits(tmp_path, afresh):
    import pillow_heif

    slope = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype("uint16")
    pixels = np.stack([slope] * 3, axis=-1)
    photo = pillow_heif.from_bytes("RGB;16", (64, 48), pixels.tobytes())
    photo.save(tmp_path / "a.heic", quality=95)
    image = open_image(tmp_path / "a.heic")
    assert (image.shape, image.dtype) == ((48, 64, 3), "u2")
    assert np.abs(image.data.compute().astype(int) - pixels).mean() < 800


@real("rawpy")
@pytest.mark.parametrize(("turned", "shape"), [(1, (64, 96, 3)), (6, (96, 64, 3))])
def test_camera_raw(tmp_path, afresh, turned, shape):
    import tifffile

    def fractions(*values: float) -> list[int]:
        return [part for value in values for part in (int(value * 10000), 10000)]

    tags = [
        *((50706, "B", 4, (1, 4, 0, 0), True), (33421, "H", 2, (2, 2), True)),
        *((33422, "B", 4, (0, 1, 1, 2), True), (50708, "s", 0, "a camera", True)),
        (50721, "2i", 9, fractions(1, 0, 0, 0, 1, 0, 0, 0, 1), True),
        (50728, "2I", 3, fractions(0.5, 1, 0.6), True),
        *((50714, "H", 1, (64,), True), (50717, "I", 1, (4095,), True)),
        *((50778, "H", 1, (21,), True), (271, "s", 0, "a maker", True)),
        *((272, "s", 0, "a camera", True), (274, "H", 1, (turned,), True)),
    ]
    mosaic = np.full((64, 96), 600, "uint16")
    mosaic[:, 48:] = 3000
    path = tmp_path / "a.dng"
    tifffile.imwrite(path, mosaic, photometric=32803, extratags=tags, metadata=None)
    image = open_image(path)
    assert (image.axes, image.shape, image.dtype) == ("YXS", shape, "u1")
    made = image.data.compute()
    dark, light = (made[:, :24], made[:, -24:]) if turned == 1 else (made[:24], made[-24:])
    assert dark.mean() + 30 < light.mean()
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ImageError, match=r"a\.dng cannot be read because it is damaged"):
        open_image(path)
