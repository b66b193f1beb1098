"""What a camera could not measure stays as it is, and what it cannot write is not written."""

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage

import demoe
from demoe.image.lazy_image import LazyImage
from demoe.image.saturation import Ceiling, find_ceiling
from demoe.model.kernels.psf import make_psf


@pytest.mark.parametrize(
    ("brightest", "dtype", "value", "is_seen"),
    [
        *((255, "uint8", 255, True), (200, "uint8", 255, False), (4095, "uint16", 4095, True)),
        *((4094, "uint16", 4095, False), (1023, "uint16", 1023, True), (0, "uint16", 255, False)),
        *((20_000, "uint16", 65535, False), (65535, "uint16", 65535, True)),
    ],
)
def test_the_ceiling_of_a_camera(brightest, dtype, value, is_seen):
    pixels = np.zeros((40, 50), dtype)
    pixels[3, 7] = brightest
    assert find_ceiling(LazyImage.from_array(pixels)) == Ceiling(value, is_seen)


@pytest.mark.parametrize("dtype", ["int16", "uint32", "float32"])
def test_types_that_no_camera_writes(dtype):
    assert find_ceiling(LazyImage.from_array(np.ones((40, 50), dtype))) is None


def test_a_large_image_is_not_read_for_it():
    reads = []

    def block(block_info=None):
        reads.append(block_info[None]["chunk-location"])
        return np.full((256, 256), 4095, "uint16")

    data = da.map_blocks(block, chunks=((256,) * 100, (256,) * 100), dtype="uint16")
    assert find_ceiling(LazyImage.from_array(data)) == Ceiling(4095, True)
    assert len(reads) <= 16 * 4


def recorded(top: float) -> np.ndarray:
    """Blurred texture on a background, by a camera of 12 bits; above `top` of 1 it is saturated."""
    rng = np.random.default_rng(8)
    light = ndimage.gaussian_filter(rng.random((200, 264)), 1.5)
    light = (light - light.min()) / np.ptp(light) + 0.05
    seen = ndimage.convolve(light, make_psf({"sigma": 1.8}), mode="reflect")
    seen = seen / seen.max() * top
    counted = rng.poisson(seen * 4000) / 4000 * 3900 + 100
    return np.rint(counted).clip(0, 4095).astype(np.uint16)


@pytest.fixture(scope="module")
def fields(shallow):
    return {"model": shallow, "routing": "defocus", "psf": {"sigma": 1.8}}


def test_saturated_pixels_stay_and_nothing_lies_above(fields):
    seen = recorded(1.15)
    full = seen == 4095
    assert 20 < np.count_nonzero(full) < 2000
    plain = np.asarray(demoe.deblur(seen, "YX", **fields).image)
    assert (plain[full] != 4095).all() and plain.max() > 4095  # what physics alone makes of it
    kept = demoe.deblur(seen, "YX", photometry="preserve", **fields)
    whole = np.asarray(kept.image)
    assert (whole[full] == 4095).all()
    assert whole.max() == 4095
    assert np.abs(whole.astype(float) - np.minimum(plain, 4095)).mean() < 20  # no more than that
    tiled = demoe.deblur(seen, "YX", photometry="preserve", tile=64, **fields)
    assert np.prod(tiled.plan.shape) > 4
    np.testing.assert_array_equal(np.asarray(tiled.image), whole)


@pytest.mark.parametrize("top", [0.9, 1.15])
def test_textured_blocks_keep_their_mean(fields, top):
    seen = recorded(top)
    kept = np.asarray(demoe.deblur(seen, "YX", photometry="preserve", **fields).image)
    assert np.abs(kept.astype(float) - seen).mean() > 10  # something was done
    moved = []
    for top in range(0, 192, 64):
        for left in range(0, 256, 64):
            part = (slice(top, top + 64), slice(left, left + 64))
            was, now = (image[part].astype(float).mean() - 100 for image in (seen, kept))
            moved.append(abs(now / was - 1))
    assert np.mean(moved) < 0.005
