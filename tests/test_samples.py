"""The bundled samples: complete, licensed, reproducible, and blurred as they say."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources

import numpy as np
import pytest

from demoe.errors import ImageError
from demoe.samples.blur import (
    apply_recipe,
    convolve,
    disc_kernel,
    gaussian_kernel,
    line_kernel,
)
from demoe.samples.damage import apply_damage
from demoe.samples.images import load_sample, sample_damages, sample_names, sample_titles

FOLDER = resources.files("demoe.samples") / "data"


def sharpness(image: np.ndarray) -> float:
    y = image.astype(float)
    return float(np.abs(np.diff(y, axis=0)).mean() + np.abs(np.diff(y, axis=1)).mean())


@pytest.mark.parametrize("name", sample_names())
def test_every_sample_loads(name: str) -> None:
    sample = load_sample(name)
    assert sample.title == sample_titles()[name]
    assert sample.note.endswith(".")
    assert sample.blurred.name == name
    assert sample.blurred.dtype in (np.uint8, np.uint16)
    assert min(sample.blurred.plane_shape) >= 256
    if sample.sharp is None:
        assert "No sharp picture is known." in sample.note
    else:
        assert sample.sharp.shape == sample.blurred.shape
        assert sample.sharp.dtype == sample.blurred.dtype
        assert sample.sharp.axes == sample.blurred.axes


def test_there_are_photos_fluorescence_a_stack_and_real_blur() -> None:
    samples = [load_sample(name) for name in sample_names()]
    assert any(s.blurred.is_rgb and s.sharp is not None for s in samples)
    assert any(s.blurred.dtype == np.uint16 and s.blurred.axes == "YX" for s in samples)
    assert any(s.blurred.axes == "ZYX" for s in samples)
    assert sum(s.sharp is None for s in samples) >= 2


@pytest.mark.parametrize("name", ["pagoda_motion", "pagoda_mixed", "pollen", "pollen_stack"])
def test_loading_twice_gives_the_same_pixels_and_real_blur(name: str) -> None:
    first, second = load_sample(name), load_sample(name)
    blurred = first.blurred.data.compute()
    np.testing.assert_array_equal(blurred, second.blurred.data.compute())
    assert first.sharp is not None
    sharp = first.sharp.data.compute()
    assert sharpness(blurred) < 0.85 * sharpness(sharp)
    # Blur moves light about; it does not add or take away much.
    assert abs(blurred.mean() / sharp.mean() - 1) < 0.05


def test_middle_zone_of_the_mixed_photo_stays_sharp() -> None:
    sample = load_sample("pagoda_mixed")
    assert sample.sharp is not None
    blurred, sharp = sample.blurred.data.compute(), sample.sharp.data.compute()
    third, seam = sharp.shape[1] // 3, 24
    edges = [(0, third - seam), (third + seam, 2 * third - seam), (2 * third + seam, 3 * third)]
    change = np.abs(blurred.astype(float) - sharp)
    left, middle, right = (change[:, start:stop].mean() for start, stop in edges)
    assert middle < 2.5 < min(left, right)


def test_unknown_sample_is_named() -> None:
    with pytest.raises(ImageError, match=r"no sample 'lena'; the samples are .*pollen"):
        load_sample("lena")


def test_every_bundled_file_has_a_licence_and_the_bundle_is_small() -> None:
    licences = (FOLDER / "LICENSES.md").read_text(encoding="utf-8")
    files = [file for file in FOLDER.iterdir() if file.is_file()]
    for file in files:
        if file.name != "LICENSES.md":
            assert f"`{file.name}`" in licences
    assert sum(len(file.read_bytes()) for file in files) < 1_500_000


def test_loading_a_sample_loads_no_torch() -> None:
    code = (
        "import sys; from demoe.samples.images import load_sample; load_sample('pollen');"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_kernels_sum_to_one_and_have_the_size_they_are_asked_for() -> None:
    for kernel in (disc_kernel(3.5), line_kernel(13, -35), gaussian_kernel(1.8)):
        assert kernel.sum() == pytest.approx(1)
        assert kernel.shape[0] == kernel.shape[1]
        assert kernel.shape[0] % 2 == 1
    y, x = np.mgrid[-4:5, -4:5]
    disc = disc_kernel(3.5)
    assert np.sum(disc * (x**2 + y**2)) == pytest.approx(3.5**2 / 2, rel=0.03)
    steps = np.arange(-8, 9)
    assert np.sum(gaussian_kernel(1.8) * steps**2) == pytest.approx(1.8**2, rel=0.01)


def test_line_kernel_points_where_it_is_told() -> None:
    kernel = line_kernel(13, 40)
    half = kernel.shape[0] // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    assert np.sum(kernel * x * -y) > 0  # up to the right on the screen
    points = np.stack([x.ravel(), y.ravel()])
    spread = np.linalg.eigvalsh(np.cov(points, aweights=kernel.ravel(), ddof=0))
    assert spread[1] == pytest.approx(13**2 / 12, rel=0.05)


def test_convolution_equals_the_sum_over_shifts() -> None:
    rng = np.random.default_rng(0)
    plane, kernel = rng.random((9, 12)), rng.random((3, 3))
    padded = np.pad(plane, 1, mode="reflect")
    direct = sum(
        kernel[1 + dy, 1 + dx] * padded[1 - dy : 10 - dy, 1 - dx : 13 - dx]
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    )
    np.testing.assert_allclose(convolve(plane, kernel), direct, atol=1e-12)


def test_noise_follows_the_photon_count_and_unknown_kernels_are_refused() -> None:
    flat = np.full((200, 200), 32768, np.uint16)
    recipe = {"gamma": 1.0, "photons": 1000, "seed": 0, "parts": [{"kernel": "none"}]}
    noisy = apply_recipe(flat, "YX", recipe) / 65535
    assert noisy.std() == pytest.approx(np.sqrt(0.5 / 1000), rel=0.05)
    with pytest.raises(ImageError, match="'box' is not known"):
        apply_recipe(flat, "YX", {**recipe, "parts": [{"kernel": "box"}]})


# -- damage beside blur ---------------------------------------------------------------------------

DAMAGED = {name: kind for name, kind in sample_damages().items() if kind != "blur"}


def test_there_is_a_sample_of_each_kind_of_damage() -> None:
    assert sorted(DAMAGED.values()) == ["haze", "low_light", "noise", "rain"]


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_the_same_at_each_loading_and_of_its_kind(name: str) -> None:
    sample = load_sample(name)
    assert sample.damage == DAMAGED[name]
    assert sample.sharp is not None
    assert sample.kernels == ()
    seen, sharp = (np.asarray(one.data).astype(float) for one in (sample.blurred, sample.sharp))
    np.testing.assert_array_equal(seen, np.asarray(load_sample(name).blurred.data))
    error, top, bottom = seen - sharp, slice(None, 100), slice(-100, None)
    match sample.damage:
        case "noise":
            inside = (sharp > 80) & (sharp < 175)  # nothing is cut off at black or white
            assert error[inside].std() == pytest.approx(25, rel=0.03)
            assert abs(error[inside].mean()) < 0.5
        case "haze":
            assert seen.min() > sharp.min() + 20
            light, before = ((values / 255) ** 2.2 for values in (seen, sharp))
            arriving = [
                light[rows].std(axis=1) / before[rows].std(axis=1) for rows in (top, bottom)
            ]
            assert arriving[0].mean() < 0.8 * arriving[1].mean()
        case "rain":
            assert error.mean() > 1
            assert 0.01 < (error.mean(axis=2) > 20).mean() < 0.3
        case "low_light":
            light = (seen / 255) ** 2.2, (sharp / 255) ** 2.2
            assert light[0].mean() / light[1].mean() == pytest.approx(0.1, rel=0.05)


def test_damage_that_is_not_known_is_refused() -> None:
    with pytest.raises(ImageError, match="damage 'snow' is not known; use noise, haze"):
        apply_damage(np.zeros((4, 4, 3), np.uint8), {"kind": "snow", "seed": 0})
