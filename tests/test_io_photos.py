"""Photos and folders of photos: bit depths, colours, orientation, order, and the way back."""

from pathlib import Path

import dask.array as da
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from demoe.errors import AxesError, ImageError, OutputError
from demoe.image.lazy_image import LazyImage
from demoe.io import SUFFIXES_IN, SUFFIXES_OUT, is_readable, open_image, write_image

RNG = np.random.default_rng(7)


def noise(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return RNG.integers(0, np.iinfo(dtype).max, shape).astype(dtype)


def save_png(path: Path, pixels: np.ndarray) -> Path:
    path.write_bytes(imagecodecs.png_encode(pixels))
    return path


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((40, 50), "YX"), ((40, 50, 3), "YXS"), ((40, 50, 4), "YXS"), ((1, 1), "YX")],
)
def test_png(tmp_path: Path, shape: tuple[int, ...], axes: str, dtype: str) -> None:
    pixels = noise(*shape, dtype=dtype)
    image = open_image(save_png(tmp_path / "a.png", pixels))
    assert (image.axes, image.dtype, image.name) == (axes, np.dtype(dtype), "a")
    np.testing.assert_array_equal(image.data.compute(), pixels)
    assert open_image(tmp_path / "a.png").data.name == image.data.name


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_gray_with_alpha_becomes_rgba(tmp_path: Path, dtype: str) -> None:
    pixels = noise(40, 50, 2, dtype=dtype)
    image = open_image(save_png(tmp_path / "a.png", pixels))
    assert image.shape == (40, 50, 4)
    np.testing.assert_array_equal(image.data.compute(), pixels[..., [0, 0, 0, 1]])


def test_palettes_become_colours(tmp_path: Path) -> None:
    photo = Image.fromarray(noise(40, 50, 3)).quantize(16)
    photo.save(tmp_path / "a.png")
    image = open_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image.data.compute(), np.array(photo.convert("RGB")))
    photo.save(tmp_path / "b.png", transparency=3)
    assert open_image(tmp_path / "b.png").shape == (40, 50, 4)
    assert open_image(tmp_path / "b.png").data.compute()[..., 3].min() == 0


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg(tmp_path: Path, mode: str) -> None:
    flat = Image.new("RGB", (50, 40), (200, 100, 50)).convert(mode)
    flat.save(tmp_path / "a.JPG", "JPEG", quality=95)
    image = open_image(tmp_path / "a.JPG")
    assert image.axes == ("YX" if mode == "L" else "YXS")
    want = np.array(flat.convert("RGB") if mode == "CMYK" else flat).astype(int)
    assert np.abs(image.data.compute() - want).max() <= 4


@pytest.mark.parametrize("suffix", [".bmp", ".webp"])
def test_other_formats(tmp_path: Path, suffix: str) -> None:
    pixels = noise(40, 50, 3)
    options = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}", **options)
    np.testing.assert_array_equal(open_image(tmp_path / f"a{suffix}").data.compute(), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png8", "png16"])
def test_photos_stand_upright(tmp_path: Path, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    flat = np.zeros((24, 40, 3), "uint8")
    flat[:8, :8], flat[:8, -8:] = 255, 120
    name = tmp_path / f"a.{kind[:3]}"
    Image.fromarray(flat).save(name, exif=exif, **({"quality": 95} if kind == "jpg" else {}))
    with Image.open(name) as photo:
        want = np.array(ImageOps.exif_transpose(photo))
    if kind == "png16":
        # Pillow cannot write 16 bits a colour: put its EXIF chunk into a PNG that has them.
        small = name.read_bytes()
        deep = imagecodecs.png_encode(flat.astype("uint16") * 257)
        at = small.index(b"eXIf") - 4
        length = int.from_bytes(small[at : at + 4], "big") + 12
        head = 8 + 25  # signature and header chunk
        name.write_bytes(deep[:head] + small[at : at + length] + deep[head:])
        want = want.astype("uint16") * 257
    image = open_image(name)
    assert image.shape == want.shape
    np.testing.assert_array_equal(image.data.compute(), want)


def test_pictures_beyond_pillows_limit(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    pixels = noise(40, 50)
    np.testing.assert_array_equal(
        open_image(save_png(tmp_path / "a.png", pixels)).data.compute(), pixels
    )
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_photo_is_decoded_once(tmp_path: Path, monkeypatch) -> None:
    pixels = noise(400, 300, 3, dtype="uint16")
    image = open_image(save_png(tmp_path / "a.png", pixels))
    times = []
    decode = imagecodecs.png_decode

    def count(data: bytes) -> np.ndarray:
        times.append(1)
        return decode(data)

    monkeypatch.setattr(imagecodecs, "png_decode", count)
    for top in range(0, 400, 100):
        part = image.data[top : top + 100].compute()
        np.testing.assert_array_equal(part, pixels[top : top + 100])
    assert len(times) == 1


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3), (40, 50, 4)])
def test_png_round_trip(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    pixels = noise(*shape, dtype=dtype)
    path = write_image(tmp_path / "a.png", LazyImage.from_array(da.from_array(pixels, chunks=17)))
    np.testing.assert_array_equal(open_image(path).data.compute(), pixels)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_jpeg_out(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 64).astype("uint8")[:, None].repeat(80, 1)
    colours = np.dstack([ramp, ramp[::-1], ramp])
    for pixels in (ramp, colours):
        path = write_image(tmp_path / "a.jpg", LazyImage.from_array(pixels), overwrite=True)
        back = open_image(path)
        assert back.shape == pixels.shape
        assert np.abs(back.data.compute().astype(int) - pixels).max() < 8


def test_a_stack_of_one_plane_fits(tmp_path: Path) -> None:
    pixels = noise(1, 40, 50)
    path = write_image(tmp_path / "a.png", LazyImage.from_array(pixels, "ZYX"))
    np.testing.assert_array_equal(open_image(path).data.compute(), pixels[0])


@pytest.mark.parametrize(
    ("name", "shape", "axes", "dtype", "said"),
    [
        ("a.png", (3, 20, 30), "ZYX", "uint8", r"3 planes.*\.ome\.tif"),
        ("a.png", (20, 30), "YX", "float32", r"float32.*\.tif"),
        ("a.png", (20, 30), "YX", "int16", r"int16.*\.tif"),
        ("a.jpg", (20, 30), "YX", "uint16", r"8 bits.*\.png"),
        ("a.jpeg", (20, 30, 4), "YXS", "uint8", r"alpha.*\.png"),
        ("a.tif", (20, 30), "YX", "int64", r"int64.*\.ome\.zarr"),
        ("a.tif", (20, 30), "YX", "float16", r"float16.*\.ome\.zarr"),
        ("a.gif", (20, 30), "YX", "uint8", r"suffix.*\.tif"),
        ("a", (20, 30), "YX", "uint8", r"suffix.*\.tif"),
    ],
)
def test_what_a_format_cannot_hold(tmp_path, name, shape, axes, dtype, said) -> None:
    def never(block: np.ndarray) -> np.ndarray:
        raise AssertionError("computed in vain")

    data = da.zeros(shape, dtype=dtype).map_blocks(never, meta=np.empty((0,) * len(shape), dtype))
    with pytest.raises(OutputError, match=said):
        write_image(tmp_path / name, LazyImage.from_array(data, axes))
    assert not list(tmp_path.iterdir())


def test_experts_and_provenance_lie_beside(tmp_path: Path) -> None:
    experts = LazyImage.from_array(np.ones((2, 3), "uint8"), scale={"Y": 16, "X": 16})
    image = LazyImage.from_array(noise(20, 40))
    write_image(tmp_path / "a.b.png", image, experts=experts, provenance={"device": "cpu"})
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["a.b.demoe.json", "a.b.experts.tif", "a.b.png"]
    with pytest.raises(OutputError, match="experts"):
        write_image(tmp_path / "a.b.jpg", image, experts=experts)
    assert sorted(file.name for file in tmp_path.iterdir()) == names


def fill(folder: Path, numbers: list[int], suffix: str = ".png") -> np.ndarray:
    folder.mkdir(exist_ok=True)
    planes = {number: noise(20, 30) for number in numbers}
    for number, pixels in planes.items():
        if suffix == ".png":
            save_png(folder / f"frame{number}.png", pixels)
        else:
            tifffile.imwrite(folder / f"frame{number}{suffix}", pixels)
    return np.stack([planes[number] for number in sorted(numbers)])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_folder_is_a_stack_in_natural_order(tmp_path: Path, suffix: str) -> None:
    stack = fill(tmp_path / "shots", [10, 9, 1, 2], suffix)
    (tmp_path / "shots" / "notes.txt").write_text("blurred")
    (tmp_path / "shots" / ".hidden.png").write_text("not a picture")
    (tmp_path / "shots" / "more").mkdir()
    image = open_image(tmp_path / "shots")
    assert (image.axes, image.name) == ("ZYX", "shots")
    assert image.data.chunksize[0] == 1
    np.testing.assert_array_equal(image.data.compute(), stack)
    assert open_image(tmp_path / "shots", axes="TYX").axes == "TYX"


def test_a_folder_of_colour_photos(tmp_path: Path) -> None:
    pixels = noise(2, 20, 30, 3)
    for number in range(2):
        save_png(tmp_path / f"{number}.png", pixels[number])
    image = open_image(tmp_path)
    assert image.axes == "ZYXS"
    np.testing.assert_array_equal(image.data.compute(), pixels)


def test_folders_that_are_no_stack(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="without TIFF"):
        open_image(tmp_path / "empty")
    fill(tmp_path / "sizes", [1, 2])
    save_png(tmp_path / "sizes" / "frame3.png", noise(20, 31))
    with pytest.raises(ImageError, match=r"frame3\.png is 20 x 31 uint8, but frame1\.png"):
        open_image(tmp_path / "sizes")
    fill(tmp_path / "types", [1, 2])
    save_png(tmp_path / "types" / "frame3.png", noise(20, 30, dtype="uint16"))
    with pytest.raises(ImageError, match="one size and type"):
        open_image(tmp_path / "types")
    fill(tmp_path / "kinds", [1])
    fill(tmp_path / "kinds", [2], ".tif")
    with pytest.raises(ImageError, match=r"\.png, \.tif"):
        open_image(tmp_path / "kinds")
    (tmp_path / "stacks").mkdir()
    tifffile.imwrite(tmp_path / "stacks" / "a.tif", noise(5, 20, 30), photometric="minisblack")
    with pytest.raises(ImageError, match="by itself"):
        open_image(tmp_path / "stacks")
    with pytest.raises(AxesError):
        open_image(fill(tmp_path / "axes", [1, 2]) is not None and tmp_path / "axes", axes="YX")


def test_what_looks_readable(tmp_path: Path) -> None:
    for name in ("a.tif", "a.OME.TIFF", "b.png", "b.JPG", "c.webp"):
        assert is_readable(name)
    for name in ("a.txt", "a.tif.bak", "tif", "a.mrc", "a.zarr"):  # no such zarr folder
        assert not is_readable(name)
    (tmp_path / "x.zarr").mkdir()
    assert is_readable(tmp_path / "x.zarr")
    (tmp_path / "plain").mkdir()
    assert not is_readable(tmp_path / "plain")
    (tmp_path / "plain" / "zarr.json").write_text("{}")
    assert is_readable(tmp_path / "plain")
    fill(tmp_path / "shots", [1])
    assert is_readable(tmp_path / "shots")
    assert set(SUFFIXES_OUT) <= set(SUFFIXES_IN)


@pytest.mark.parametrize(
    ("names", "axes", "shape"),
    [
        (["a_t{0}_c{1}.png"], "TCYX", (3, 2, 20, 30)),
        (["c{1:02}-t{0:03}-x.png"], "TCYX", (3, 2, 20, 30)),
        (["a_C{1}.Z{0}.png"], "CZYX", (2, 3, 20, 30)),
    ],
)
def test_names_of_pictures_tell_time_and_channel(
    tmp_path: Path, names: list[str], axes: str, shape: tuple[int, ...]
) -> None:
    numbers = [(9, 0), (10, 0), (11, 0), (9, 1), (10, 1), (11, 1)]
    for first, second in numbers:
        save_png(
            tmp_path / names[0].format(first, second),
            np.full((20, 30), 10 * first + second, np.uint8),
        )
    image = open_image(tmp_path)
    assert (image.axes, image.shape) == (axes, shape)
    values = image.data[..., 0, 0].compute()
    wanted = np.array([[90, 91], [100, 101], [110, 111]])
    np.testing.assert_array_equal(values, wanted if axes[0] == "T" else wanted.T)


def test_times_alone_are_along_t_and_axes_win(tmp_path: Path) -> None:
    for number in range(2):
        save_png(tmp_path / f"cells_t{number}.png", noise(20, 30))
    assert open_image(tmp_path).axes == "TYX"
    assert open_image(tmp_path, axes="ZYX").axes == "ZYX"


def test_times_and_channels_that_are_not_complete(tmp_path: Path) -> None:
    for name in ("a_t0_c0", "a_t0_c1", "a_t1_c0"):
        save_png(tmp_path / f"{name}.png", noise(20, 30))
    with pytest.raises(ImageError, match="3 pictures whose names tell of 2 T x 2 C"):
        open_image(tmp_path)
    save_png(tmp_path / "a_t1.png", noise(20, 30))
    with pytest.raises(ImageError, match="axes="):
        open_image(tmp_path)
    assert open_image(tmp_path, axes="ZYX").shape == (4, 20, 30)


def test_a_photo_has_no_second_image(tmp_path: Path) -> None:
    save_png(tmp_path / "a.png", noise(20, 30))
    for path in (tmp_path / "a.png", tmp_path):
        with pytest.raises(ImageError, match="series=1 is none"):
            open_image(path, series=1)
