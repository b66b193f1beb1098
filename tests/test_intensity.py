"""Intensity: the rule, the sample, and the way back."""

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from demoe.errors import RecipeError
from demoe.image.intensity import IntensityScale, needs_sample, resolve_intensity
from demoe.image.lazy_image import LazyImage


def make_image(array: np.ndarray, axes: str | None = None) -> LazyImage:
    return LazyImage.from_array(array, axes)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_every_short_integer_comes_back(dtype: str) -> None:
    info = np.iinfo(dtype)
    values = np.arange(info.min, info.max + 1).astype(dtype)
    for scale in (IntensityScale(info.min, info.max), IntensityScale(13, 200)):
        scaled = scale.normalise(values)
        assert scaled.dtype == np.float32
        np.testing.assert_array_equal(scale.restore(scaled, dtype), values)


@given(hnp.arrays(np.float32, 9, elements=st.floats(-1e4, 1e4, width=32)))
def test_floats_come_back(values: np.ndarray) -> None:
    scale = IntensityScale(-50.0, 1000.0)
    back = scale.restore(scale.normalise(values), np.float32)
    np.testing.assert_allclose(back, values, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64", "uint64"])
def test_integers_are_clipped_never_wrapped(dtype: str) -> None:
    info = np.iinfo(dtype)
    scale = IntensityScale(float(info.min), float(info.max))
    out = scale.restore(np.array([-0.5, -np.inf, 1.5, np.inf]), dtype)
    assert out[0] == out[1] == info.min
    assert out[2] == out[3] >= info.max * (1 - 1e-15)
    assert scale.restore(np.array([np.nan]), dtype)[0] == info.min


def test_integers_are_rounded() -> None:
    scale = IntensityScale(0, 255)
    assert scale.restore(np.array([99.4 / 255, 99.6 / 255]), np.uint8).tolist() == [99, 100]


@pytest.mark.parametrize("limits", [(1, 1), (2, 1), (0, float("inf")), (float("nan"), 1)])
def test_limits_span_something(limits: tuple[float, float]) -> None:
    with pytest.raises(RecipeError, match="lower first"):
        resolve_intensity(make_image(np.zeros((4, 4), "uint8")), limits)


def test_unknown_rule() -> None:
    with pytest.raises(RecipeError, match="'loud'"):
        resolve_intensity(make_image(np.zeros((4, 4), "uint16")), "loud")


def test_given_limits_are_used() -> None:
    image = make_image(np.zeros((4, 4), "uint16"))
    assert resolve_intensity(image, (5, 700)) == IntensityScale(5, 700)


def test_uint8_and_full_read_nothing() -> None:
    def fail(block: np.ndarray) -> np.ndarray:
        raise AssertionError("pixels were read")

    for dtype, rule, high in [("uint8", "auto", 255), ("uint16", "full", 65535)]:
        data = da.zeros((512, 512), dtype=dtype).map_blocks(fail, dtype=dtype, meta=np.empty(0))
        image = LazyImage.from_array(data)
        assert not needs_sample(image, rule)
        assert resolve_intensity(image, rule) == IntensityScale(0, high)


def test_full_range_of_other_types() -> None:
    assert resolve_intensity(make_image(np.ones((2, 2), "int16")), "full").low == -32768
    assert resolve_intensity(make_image(np.ones((2, 2), "float32")), "full").high == 1


def ramp(low: float, high: float, dtype: str) -> LazyImage:
    return make_image(np.linspace(low, high, 90_000).reshape(300, 300).astype(dtype))


def test_auto_takes_percentiles_of_narrow_ranges() -> None:
    image = ramp(100, 4095, "uint16")
    assert needs_sample(image, "auto")
    scale = resolve_intensity(image, "auto")
    assert 100 <= scale.low < 110
    assert 4080 < scale.high <= 4095


def test_auto_takes_the_full_range_of_bright_integers() -> None:
    assert resolve_intensity(ramp(0, 40_000, "uint16"), "auto") == IntensityScale(0, 65535)
    assert resolve_intensity(ramp(0, 40_000, "uint16"), "percentile").high < 40_000


def test_auto_for_floats() -> None:
    assert resolve_intensity(ramp(0, 1, "float32"), "auto") == IntensityScale(0, 1)
    assert resolve_intensity(ramp(0, 0.2, "float32"), "auto").high < 0.21
    assert resolve_intensity(ramp(-0.1, 1, "float32"), "auto").low < -0.09
    assert resolve_intensity(ramp(0, 3000, "float64"), "auto").high > 2990
    assert resolve_intensity(ramp(0, 1, "float16"), "percentile").high < 1


def test_auto_for_signed_integers() -> None:
    scale = resolve_intensity(ramp(-1000, 3000, "int16"), "auto")
    assert -1000 <= scale.low < -990 and 2990 < scale.high <= 3000


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("value", [0, 7, 1000])
@pytest.mark.parametrize("rule", ["auto", "percentile"])
def test_constant_images_stay_as_they_are(dtype: str, value: int, rule: str) -> None:
    pixels = np.full((40, 40), value, dtype)
    scale = resolve_intensity(make_image(pixels), rule)
    scaled = scale.normalise(pixels)
    assert scaled.min() >= 0 and scaled.max() <= 1
    np.testing.assert_array_equal(scale.restore(scaled, dtype), pixels)


def test_negative_constant() -> None:
    pixels = np.full((9, 9), -0.1, "float32")
    scale = resolve_intensity(make_image(pixels), "auto")
    np.testing.assert_array_equal(scale.restore(scale.normalise(pixels), "float32"), pixels)


def test_few_bright_spots_on_black() -> None:
    pixels = np.zeros((200, 200), "uint16")
    pixels[3, 3] = 900
    assert resolve_intensity(make_image(pixels), "auto") == IntensityScale(0, 900)


def test_values_that_are_not_finite_are_left_out() -> None:
    pixels = np.linspace(0, 500, 10_000, dtype="float32").reshape(100, 100)
    pixels[0, :5] = [np.nan, np.inf, -np.inf, np.nan, np.nan]
    scale = resolve_intensity(make_image(pixels), "auto")
    assert 0 <= scale.low < scale.high <= 500
    empty = make_image(np.full((4, 4), np.nan, "float32"))
    assert resolve_intensity(empty, "auto") == IntensityScale(0, 1)


def test_alpha_does_not_count() -> None:
    pixels = np.zeros((64, 64, 4), "uint16")
    pixels[..., :3] = np.linspace(0, 800, 64, dtype="uint16")[:, None, None]
    pixels[..., 3] = 65535
    assert resolve_intensity(make_image(pixels), "auto").high <= 800


def test_the_sample_is_small_and_depends_on_the_shape_alone() -> None:
    read: list[int] = []

    def count(block: np.ndarray) -> np.ndarray:
        read.append(block.size)
        return block

    def build(chunk: int) -> LazyImage:
        rows = da.arange(4096, chunks=chunk, dtype="uint16")[:, None]
        data = da.broadcast_to(rows, (6, 4096, 4096), chunks=(1, chunk, chunk))
        counted = data.map_blocks(count, dtype="uint16", meta=np.empty((0, 0, 0), "uint16"))
        return LazyImage.from_array(counted)

    scale = resolve_intensity(build(256), "auto")
    assert 0 < sum(read) <= 16 * 4 * 256 * 256
    assert resolve_intensity(build(1024), "auto") == scale
    assert scale.high - scale.low > 2500
