"""Others' tools agree that what is written is right, and read the same pixels from it."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaozarrs
from cells import build

from demoe.choices import BLURS
from demoe.image.lazy_image import LazyImage
from demoe.io import write_image

RNG = np.random.default_rng(4)
KINDS = {
    "YX": ((600, 700), "uint16", ()),
    "ZYX": ((3, 60, 70), "uint8", ()),
    "TCZYX": ((2, 2, 3, 60, 70), "uint16", ("dapi", "gfp")),
    "YXS": ((600, 700, 3), "uint8", ()),
}


@pytest.fixture(params=KINDS)
def image(request) -> LazyImage:
    shape, dtype, names = KINDS[request.param]
    pixels = RNG.integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    made = build(pixels, request.param)
    return made.with_data(made.data, channel_names=names)


def stored(image: LazyImage) -> np.ndarray:
    """Pixels as OME has them: samples are channels, before rows and columns."""
    pixels = image.data.compute()
    return np.moveaxis(pixels, -1, 0) if image.is_rgb else pixels


def test_ome_zarr(tmp_path: Path, image: LazyImage) -> None:
    models = pytest.importorskip("ome_zarr_models")
    planes = image.plane_lengths
    experts = image.of_cells(np.ones((*planes, 5, 6), "uint8"), (128, 128))
    path = write_image(tmp_path / "a.ome.zarr", image, experts=experts, choices=BLURS)
    yaozarrs.validate_zarr_store(str(path))
    with warnings.catch_warnings():  # ome-zarr warns of its own deprecated names
        warnings.simplefilter("ignore")
        group = models.open_ome_zarr(path)
        labels = models.open_ome_zarr(path / "labels" / "expert_map")
        from ome_zarr.io import parse_url
        from ome_zarr.reader import Reader

        seen = next(iter(Reader(parse_url(path))()))
    described = group.attributes.ome.multiscales[0]
    expected = image.axes.replace("YXS", "CYX")
    assert "".join(axis.name for axis in described.axes).upper() == expected
    assert type(labels).__name__ == "ImageLabel"
    np.testing.assert_array_equal(np.asarray(seen.data[0]), stored(image))


def test_ome_tiff(tmp_path: Path, image: LazyImage) -> None:
    path = write_image(tmp_path / "a.ome.tif", image)
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        assert file.series[0].axes == image.axes
        np.testing.assert_array_equal(file.series[0].asarray(), image.data)
        text = file.ome_metadata
    types = pytest.importorskip("ome_types")
    pytest.importorskip("xmlschema")
    with warnings.catch_warnings():  # of its own parts
        warnings.simplefilter("ignore")
        types.validate_xml(text)
        pixels = types.from_xml(text).images[0].pixels
    lengths = dict(zip(image.axes, image.shape, strict=True))
    for letter in "TZYX":
        assert getattr(pixels, f"size_{letter.lower()}") == lengths.get(letter, 1)
    assert pixels.size_c == lengths.get("C", lengths.get("S", 1))
    assert pixels.physical_size_x == image.scale["X"]
    assert tuple(channel.name for channel in pixels.channels if channel.name) == image.channel_names
