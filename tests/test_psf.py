"""PSFs, and what is undone with them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from skimage.restoration import richardson_lucy

import demoe
from demoe.cli import main
from demoe.errors import AxesError, ImageError, RecipeError
from demoe.io.psf import read_psf
from demoe.model.kernels.deconvolution import STRENGTHS, Deconvolver, Setting
from demoe.model.kernels.psf import centroid, make_psf
from demoe.samples.images import load_sample
from demoe.samples.picture import psnr

DISC = {"radius": 2.5}  # what blurred the sample


@pytest.fixture(scope="module")
def pollen():
    sample = load_sample("pollen")
    return np.asarray(sample.blurred.data), np.asarray(sample.sharp.data)


# -- PSFs ------------------------------------------------------------------------------------------


@given(
    st.one_of(
        st.floats(0.2, 40).map(lambda r: {"radius": r}),
        st.floats(0.2, 20).map(lambda s: {"sigma": s}),
        st.tuples(st.floats(1, 60), st.floats(-400, 400)).map(
            lambda p: {"length": p[0], "angle": p[1]}
        ),
    )
)
def test_parameters_make_light_around_the_middle(parameters):
    psf = make_psf(parameters)
    assert all(side % 2 for side in psf.shape)
    assert psf.min() >= 0
    assert psf.sum() == pytest.approx(1)
    assert np.abs(centroid(psf)).max() < 0.02
    np.testing.assert_allclose(psf, psf[::-1, ::-1], atol=0.02)


def test_sizes_and_directions_are_those_that_were_named():
    y, x = (np.indices((61, 61)) - 30).astype(float)
    disc = np.pad(make_psf({"radius": 8}), 30 - make_psf({"radius": 8}).shape[0] // 2)
    assert np.sqrt((disc * (y**2 + x**2)).sum()) == pytest.approx(8 / 2**0.5, rel=0.02)
    gauss = make_psf({"sigma": 3})
    across = np.arange(gauss.shape[1]) - gauss.shape[1] // 2
    assert (gauss.sum(axis=0) @ across**2) == pytest.approx(9, rel=0.02)
    rising = make_psf({"length": 21, "angle": 45})
    middle = rising.shape[0] // 2
    assert rising[middle - 6, middle + 6] > 0 == rising[middle - 6, middle - 6]  # to the top right


def test_values_are_scaled_and_get_a_middle():
    psf = make_psf(np.full((4, 3), 7, np.uint8))
    assert psf.shape == (5, 3)
    assert psf.sum() == pytest.approx(1)
    assert centroid(psf) == (pytest.approx(-0.5), 0)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros((3, 3)), "zero everywhere"),
        ([[1, -1], [1, 1]], r"negative \(-1\) at row 0, column 1"),
        ([[1, np.nan]], "nan at row 0, column 1"),
        ([[1, np.inf]], "inf at row 0"),
        (np.ones((2, 3, 3)), "3 dimensions.*in focus"),
        (np.ones(3), "1 dimensions"),
        (np.ones((300, 3)), "300 x 3 pixels"),
        ([[1, 2], [1]], "rows of one length"),
        (np.array([["a"]]), "rows and columns of numbers"),
        (
            {"size": 3},
            "a radius, a sigma, a length and an angle, or na, wavelength and pixel, not size",
        ),
        ({}, "not nothing"),
        ({"length": 3}, "a length and an angle"),
        ({"radius": "x"}, "radius of a PSF is a number"),
        ({"radius": True}, "is a number"),
        ({"sigma": np.inf}, "is a number"),
        ({"radius": 0}, "from 0.1 to"),
        ({"sigma": 1e9}, "from 0.1 to"),
    ],
)
def test_what_is_no_psf_is_told_in_one_sentence(value, words):
    with pytest.raises(RecipeError, match=words) as told:
        make_psf(value)
    assert len(str(told.value)) < 250


def test_it_is_written_as_people_write_it(tmp_path):
    assert read_psf("radius=3") == {"radius": 3.0}
    assert read_psf("length=11, angle=25") == {"length": 11.0, "angle": 25.0}
    tifffile.imwrite(tmp_path / "psf.tif", np.eye(3, dtype=np.float32))
    np.testing.assert_array_equal(read_psf(str(tmp_path / "psf.tif")), np.eye(3))
    with pytest.raises(RecipeError, match="not understood"):
        read_psf("radius=three")
    with pytest.raises((ImageError, AxesError)):
        read_psf(str(tmp_path / "none.tif"))


# -- deconvolution ---------------------------------------------------------------------------------


def test_a_known_blur_is_undone_better_than_by_richardson_lucy(pollen):
    blurred, sharp = pollen
    found = demoe.deblur(blurred, psf=DISC).image.compute()
    assert found.dtype == blurred.dtype
    peer = richardson_lucy(blurred / 65535, make_psf(DISC), 30) * 65535
    before = psnr(blurred, sharp)
    assert psnr(found, sharp) > max(before + 2, psnr(peer, sharp))
    assert found.mean() == pytest.approx(blurred.mean(), rel=2e-3)


def test_tiles_equal_the_whole():
    photo = load_sample("pagoda_mixed").blurred
    whole = demoe.deblur(photo, psf={"length": 9, "angle": 20}, tile=1024)
    tiled = demoe.deblur(photo, psf={"length": 9, "angle": 20}, tile=192)
    assert whole.plan.shape == (1, 1) != tiled.plan.shape
    np.testing.assert_array_equal(tiled.image.compute(), whole.image.compute())


def test_a_psf_off_its_middle_moves_nothing(pollen):
    blurred = pollen[0]
    psf = make_psf(DISC)
    aside = np.pad(psf, ((0, 4), (6, 0)))
    here, there = (demoe.deblur(blurred, psf=one).image.compute() for one in (psf, aside))
    assert psnr(there, here) > 50


def test_no_expert_works_and_files_say_so(pollen, tmp_path):
    out = demoe.deblur(pollen[0], psf=DISC)
    assert not out.expert_map.compute().any()
    assert not out.gates.compute().any()
    assert not out.confidence.compute().any()
    report = demoe.run(pollen[0], tmp_path / "out.ome.tif", psf=DISC)
    assert (report.skipped, report.failed, sum(report.shares.values())) == (1, 0, 0)
    record = json.loads((tmp_path / "out.demoe.json").read_text())
    assert record["recipe"]["psf"] == DISC
    np.testing.assert_array_equal(
        np.asarray(demoe.open_image(tmp_path / "out.ome.tif").data), out.image.compute()
    )


def test_a_recipe_keeps_the_values():
    recipe = demoe.Recipe(psf=np.eye(3))
    assert demoe.Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.psf == ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    with pytest.raises(RecipeError, match="rows of numbers"):
        demoe.Recipe(psf=3)


@pytest.mark.parametrize(
    ("axes", "shape", "dtype"),
    [
        ("YX", (40, 50), "float32"),
        ("YXS", (40, 50, 4), "uint8"),
        ("ZYX", (2, 40, 50), "int16"),
        ("TCYX", (2, 2, 33, 41), "uint8"),
    ],
)
def test_every_kind_of_image_is_taken(axes, shape, dtype):
    pixels = np.random.default_rng(0).normal(100, 20, shape).clip(0, 255).astype(dtype)
    found = demoe.deblur(pixels, axes, psf={"radius": 1.5}).image.compute()
    assert (found.shape, found.dtype) == (pixels.shape, pixels.dtype)
    assert np.isfinite(found).all()
    if axes == "YXS":
        np.testing.assert_array_equal(found[..., 3], pixels[..., 3])  # alpha
    each = demoe.deblur(pixels[0], axes[1:], psf={"radius": 1.5}) if axes == "ZYX" else None
    if each is not None:  # planes by themselves, on the scale of the whole
        assert np.abs(each.image.compute().astype(int) - found[0]).max() < 40


def test_a_flat_picture_stays_flat():
    flat = np.full((70, 70), 9000, np.uint16)
    np.testing.assert_array_equal(demoe.deblur(flat, psf={"sigma": 2}).image.compute(), flat)


def test_noise_alone_is_not_made_into_structure():
    noise = np.random.default_rng(1).poisson(200, (256, 256)).astype(np.uint16)
    found = demoe.deblur(noise, psf={"sigma": 2}).image.compute()
    assert found.std() < noise.std()


@pytest.mark.parametrize("noise", [0, 0.005, 0.05])
def test_the_setting_is_nearly_the_best_whatever_the_noise(pollen, noise):
    blurred, sharp = (pixels.astype(np.float32)[..., None] / 65535 for pixels in pollen)
    rng = np.random.default_rng(0)
    blurred = blurred + rng.normal(0, noise, blurred.shape).astype(np.float32)
    deconvolver = Deconvolver(make_psf(DISC), photo=False)
    errors = {
        one: float(((deconvolver.restore(blurred, Setting(False, one)) - sharp) ** 2).mean())
        for one in STRENGTHS
    }
    chosen = deconvolver.choose([blurred])
    assert errors[chosen.strength] < 1.1 * min(errors.values()) < 0.9 * errors[0.01]
    assert deconvolver.whitest([blurred], False, 0.02).setting.strength <= 0.02
    assert not chosen.linear


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"psf": np.ones((101, 101))}, "101 x 101 pixels, but a plane of the image only 64 x 64"),
        ({"psf": {"radius": 2}, "expert_map": np.ones((1, 1), int)}, "no expert works"),
        ({"psf": np.ones((3, 3, 3))}, "3 dimensions"),
    ],
)
def test_what_does_not_fit_the_image_is_refused(fields, words):
    with pytest.raises(RecipeError, match=words):
        demoe.deblur(np.zeros((64, 64), np.uint8), **fields)


def test_the_command_line_takes_it(pollen, tmp_path: Path, capsys):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    tifffile.imwrite(source, pollen[0])
    assert main(["run", str(source), str(target), "--psf", "radius=2.5", "--quiet"]) == 0
    assert "undone by its PSF" in capsys.readouterr().out
    found = np.asarray(demoe.open_image(target).data)
    np.testing.assert_array_equal(found, demoe.deblur(pollen[0], psf=DISC).image.compute())
    again = ["run", str(source), str(target), "--overwrite", "--quiet", "--psf"]
    assert main([*again, "radius=-1"]) == 2
    assert main([*again, str(tmp_path / "none.tif")]) == 1


# -- microscopes -----------------------------------------------------------------------------------


def test_a_microscope_has_its_airy_disc():
    psf = make_psf({"na": 0.5, "wavelength": 0.5, "pixel": 0.1})
    middle = len(psf) // 2
    ring = 0.61 * 0.5 / 0.5 / 0.1  # first dark ring, in pixels
    profile = psf[middle, middle:]
    assert psf.sum() == pytest.approx(1)
    assert np.abs(centroid(psf)).max() < 0.01
    assert np.argmin(profile[: int(1.5 * ring)]) == pytest.approx(ring, abs=1)
    wide = make_psf({"na": 0.5, "wavelength": 0.5, "pixel": 0.1, "defocus": 5.0})
    assert wide.max() < psf.max() / 3


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"na": 1.5, "wavelength": 0.5, "pixel": 0.1, "index": 1.33}, "refractive index 1.33"),
        ({"na": 0, "wavelength": 0.5, "pixel": 0.1}, "na of a PSF is above 0"),
        ({"na": 1.0, "wavelength": 0.5}, "pixel is missing"),
        ({"na": 1.0, "wavelength": 0.5, "pixel": 0.1, "colour": 3}, "colour is none"),
        ({"na": 1.0, "wavelength": 500, "pixel": 0.1}, "same unit"),
        ({"na": 1.0, "wavelength": float("nan"), "pixel": 0.1}, "wavelength of a PSF is a number"),
    ],
)
def test_a_microscope_that_cannot_be_is_refused(value, words):
    with pytest.raises(RecipeError, match=words):
        make_psf(value)


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psfmodels", None)
    with pytest.raises(RecipeError, match=r"napari-demoe\[psf\]"):
        make_psf({"na": 1.0, "wavelength": 0.5, "pixel": 0.1})
