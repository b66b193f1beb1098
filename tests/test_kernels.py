"""Kernels: families, how they are found, undone, checked and shown."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import torch
from scipy import ndimage

import demoe
from demoe.cli import main
from demoe.errors import WeightsError
from demoe.model.checkpoint import read_state_dict, write_weights
from demoe.model.kernels import estimator
from demoe.model.kernels.blind import track_of
from demoe.model.kernels.deconvolution import STRENGTHS, Deconvolver, Setting
from demoe.model.kernels.estimator import Place, both_ways, careful, round_scores
from demoe.model.kernels.families import (
    SIDE,
    Kernel,
    Track,
    round_kernels,
    straight_kernels,
)
from demoe.model.kernels.fusion import REACH, Fusion
from demoe.model.kernels.judge import MEASURES, PARTS, Judge
from demoe.model.kernels.noise import colour_of, noise_model
from demoe.model.kernels.psf import centroid
from demoe.model.kernels.spectrum import pooled, window_scores
from demoe.model.kernels.tools import KernelTools, tools_of
from demoe.model.zoo import weights_path
from demoe.plan.tiling import Box, TilePlan
from demoe.plan.windows import WINDOW, blended, spread_starts, window_at, window_counts, windows_in
from demoe.samples.images import load_sample
from demoe.samples.picture import psnr
from demoe.training.blur.kernels import from_path, line
from demoe.training.kernels import judging
from demoe.training.kernels.__main__ import main as learn

LINE = Kernel("motion", 10.0, 90.0)
ARC = Track.of(from_path(SIDE, line(20.0, 0.5, bend=1.6)).numpy()).kernel


@pytest.fixture(scope="module")
def sharp():
    """A photo of the samples, (H, W, 3) uint8."""
    return np.asarray(load_sample("pagoda_motion").sharp.data)[:300, :420]


@pytest.fixture(scope="module")
def moved(sharp):
    return _blurred(sharp, LINE)


@pytest.fixture(scope="module")
def pollen():
    sample = load_sample("pollen")
    return np.asarray(sample.blurred.data), np.asarray(sample.sharp.data)


def _blurred(picture, kernel, noise=1.0):
    rng = np.random.default_rng(0)
    planes = [ndimage.convolve(picture[..., c] / 1.0, kernel.values) for c in range(3)]
    values = np.stack(planes, -1) + rng.normal(0, noise, picture.shape)
    return values.round().clip(0, 255).astype(np.uint8)


# -- families --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [*straight_kernels()[::23], ARC])
def test_kernels_are_light_around_the_middle(kernel):
    values = kernel.values
    assert values.shape == (SIDE, SIDE)
    assert values.min() >= 0
    assert values.sum() == pytest.approx(1)
    assert np.abs(centroid(values)).max() < 0.05
    assert np.abs(kernel.outline.mean(axis=0)).max() < 0.5


def test_directions_count_from_the_row_towards_the_top():
    up = Kernel("motion", 21.0, 45.0).values
    middle = SIDE // 2
    assert up[middle - 6, middle + 6] > 0 == up[middle - 6, middle - 6]
    assert Kernel("motion", 11, 25).words == "motion 11 px at 25°"
    assert Kernel("disc", 3.2).words == "defocus, radius 3.2 px"


# -- noise -----------------------------------------------------------------------------------------


def test_photon_noise_grows_with_the_light():
    rng = np.random.default_rng(0)
    light = np.tile(np.linspace(0, 1, 300), (300, 1))
    seen = torch.from_numpy((rng.poisson(400 * light + 20) / 400).astype(np.float32))
    model = noise_model(seen)
    for level in (0.1, 0.5, 0.9):
        found = float(model.variance(torch.tensor(level + 20 / 400)))
        assert found == pytest.approx((level + 20 / 400) / 400, rel=0.2)


def test_even_noise_has_no_slope():
    rng = np.random.default_rng(1)
    ramp = np.linspace(0, 1, 200)[None] + rng.normal(0, 0.02, (200, 200))
    model = noise_model(torch.from_numpy(ramp.astype(np.float32)))
    assert model.deviation(torch.tensor([0.0, 1.0])) == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (5, 5), (9, 4)])
def test_tiny_and_flat_pictures_have_a_noise_model(shape):
    assert noise_model(torch.full(shape, 0.3)).offset == pytest.approx(0, abs=1e-12)


def test_white_noise_has_no_structure_and_what_is_left_of_edges_has():
    white = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 200, 180)).astype(np.float32))
    assert colour_of(white) < 0.01
    assert colour_of(3 * white + 1) == pytest.approx(colour_of(white), rel=1e-3)
    assert colour_of(torch.nn.functional.avg_pool2d(white, 3, 1)) > 1
    assert colour_of(torch.zeros(1, 9, 9)) == colour_of(torch.ones(1, 1, 2)) == 0


# -- finding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kernel", [Kernel("disc", 4.0), Kernel("gaussian", 2.05), Kernel("motion", 14.0, 30.0)]
)
def test_spectra_tell_kernels(sharp, kernel):
    gray = _blurred(sharp, kernel).mean(axis=2).astype(np.float32) / 255
    straight = straight_kernels()
    best = straight[int(pooled(window_scores(gray, straight)).argmin())]
    assert best.is_like(kernel)
    assert best.size == pytest.approx(kernel.size, rel=0.3)


@pytest.mark.parametrize(("middle", "parts"), [(False, 2), (True, 1)])
def test_guesses_hold_each_family_and_are_measured_on_parts(sharp, middle, parts):
    gray = _blurred(sharp, ARC).mean(axis=2).astype(np.float32) / 255
    place = Place(gray, middle=middle)
    tries = both_ways(place.guesses())
    assert {kernel.family for kernel, _, _ in tries} == {"disc", "gaussian", "motion"}
    measured = place.trials.measured(tries)
    assert measured.shape == (len(tries), parts, len(MEASURES))
    assert np.isfinite(measured).all()
    judge = demoe.load_model().tools.judge
    each = np.stack([judge.gains(measured[:, [part]]) for part in range(parts)])
    np.testing.assert_allclose(judge.gains(measured), each.mean(axis=0), rtol=1e-4, atol=1e-4)


def test_a_motion_of_any_shape_is_drawn(sharp):
    found = track_of(_blurred(sharp, ARC).mean(axis=2).astype(np.float32) / 255, linear=False)
    turned = Track.of(ARC.values[::-1, ::-1]).kernel
    assert found.family == "motion"
    assert found.cosine(ARC) > 0.8
    assert found.cosine(ARC) > found.cosine(turned) + 0.3
    assert found.size == pytest.approx(ARC.size, rel=0.25)
    assert abs((found.angle - ARC.angle + 90) % 180 - 90) < 5
    assert "on a path" in found.words
    assert found.outline.shape == LINE.outline.shape


@pytest.mark.parametrize(
    "gray", [np.zeros((192, 200), np.float32), np.eye(192, dtype=np.float32)], ids=["flat", "odd"]
)
def test_pictures_without_edges_give_some_motion(gray):
    found = track_of(gray, False)
    assert np.isfinite(found.values).all()
    assert found.values.sum() == pytest.approx(1, abs=1e-5)
    assert found.size >= 1


def test_places_that_are_too_small_have_no_tracks():
    assert Place(np.zeros((180, 400), np.float32)).tracks() == []


def test_the_judge_prefers_what_blurred(moved):
    tools = demoe.load_model().tools
    gray = moved.mean(axis=2).astype(np.float32) / 255
    place = Place(gray)
    found = place.judged(both_ways(place.scored([LINE, Kernel("motion", 10.0, 0.0)])), tools.judge)
    assert found[0].kernel == LINE
    assert found[0].gain > 0.3
    assert found[-1].gain < found[0].gain - 0.5


def test_the_strength_is_chosen_by_what_it_promises(moved):
    judge = demoe.load_model().tools.judge
    place = Place(moved.mean(axis=2).astype(np.float32) / 255)
    tries = both_ways(place.scored([LINE, Kernel("disc", 2.0)]))
    best = place.best(tries, judge)
    assert best.kernel == LINE
    assert best.setting.strength in STRENGTHS
    assert best.gain >= place.judged(tries, judge)[0].gain
    score = dict(place.scored([LINE]))[LINE]
    beside = STRENGTHS[max(0, STRENGTHS.index(best.setting.strength) - 1)]
    other = place.trials.measured([(LINE, score, replace(best.setting, strength=beside))])
    assert judge.gains(other)[0] <= best.gain + 1e-4


def test_flat_places_promise_nothing():
    tools = demoe.load_model().tools
    place = Place(np.full((200, 200), 0.5, np.float32))
    assert np.isfinite(
        [one.gain for one in place.judged(both_ways(place.guesses()), tools.judge)]
    ).all()


def test_gaussians_of_measurements_are_taken_smaller():
    assert careful(Kernel("gaussian", 2.0)).size == pytest.approx(1.8)
    assert careful(Kernel("disc", 2.0)).size == 2.0
    assert {kernel.family for kernel in round_kernels()} == {"disc", "gaussian"}


def test_the_disc_of_the_sample_is_found(pollen):
    low, high = np.percentile(pollen[0], (0.1, 99.9))
    gray = ((pollen[0] - low) / (high - low)).astype(np.float32)
    assert round_kernels()[int(round_scores(gray).argmin())] == Kernel("disc", 2.5)


# -- results ---------------------------------------------------------------------------------------


def test_measurements_are_undone_by_physics_alone(pollen):
    blurred, sharp = pollen
    out = demoe.deblur(blurred, "YX")
    restored = np.asarray(out.image)
    assert restored.dtype == blurred.dtype
    assert psnr(restored, sharp) > psnr(blurred, sharp) + 1
    assert restored.mean() == pytest.approx(blurred.mean(), rel=2e-3)
    assert [blur.words for blur in out.blurs()] == ["defocus, radius 2.5 px"]
    assert np.median(np.asarray(out.consistency)) == pytest.approx(1, abs=0.15)


def test_too_large_a_kernel_of_a_measurement_is_taken_smaller(monkeypatch, pollen):
    monkeypatch.setattr(
        estimator, "careful", lambda kernel: replace(kernel, size=1.3 * kernel.size)
    )
    out = demoe.deblur(pollen[0], "YX")
    (size,) = {blur.kernel.size for blur in out.blurs()}
    assert size == pytest.approx(2.5, rel=0.15)  # a half of the 30 %, or less
    assert psnr(np.asarray(out.image), pollen[1]) > psnr(*pollen) + 1.5


def test_what_a_person_paints_on_a_measurement_is_the_networks(pollen):
    blurred = pollen[0]
    painted = np.zeros((4, 4), np.uint8)
    painted[:2, :2] = 1
    out = np.asarray(demoe.deblur(blurred, "YX", expert_map=painted).image)
    plain = np.asarray(demoe.deblur(blurred, "YX").image)
    alone = np.asarray(demoe.deblur(blurred, "YX", psf=None, expert_map=painted).image)
    np.testing.assert_array_equal(out[:64, :64], alone[:64, :64])
    np.testing.assert_array_equal(out[192:, 192:], plain[192:, 192:])
    assert (out[:64, :64] != plain[:64, :64]).any()


def test_an_expert_that_is_asked_for_is_not_overruled_on_a_measurement(pollen):
    out = demoe.deblur(pollen[0], "YX", routing="defocus")
    alone = demoe.deblur(pollen[0], "YX", routing="defocus", psf=None)
    assert out.kernels is None
    np.testing.assert_array_equal(np.asarray(out.image), np.asarray(alone.image))


def test_motion_in_a_photo_is_found_and_undone(moved, sharp):
    out = demoe.deblur(moved, "YXS")
    kernels = [blur.kernel for blur in out.blurs()]
    assert all(kernel is not None and kernel.is_like(LINE) for kernel in kernels)
    gain = psnr(np.asarray(out.image), sharp) - psnr(moved, sharp)
    alone = psnr(np.asarray(demoe.deblur(moved, "YXS", psf=None).image), sharp)
    assert gain > 1
    assert gain > alone - psnr(moved, sharp)


@pytest.mark.parametrize("routing", ["image", "local"])
def test_tiles_of_a_photo_equal_the_whole(moved, routing):
    fields = {"routing": routing, "precision": "full", "halo": 160}
    tiled = demoe.deblur(moved, "YXS", tile=128, **fields)
    whole = demoe.deblur(moved, "YXS", tile=448, **fields)
    difference = np.asarray(tiled.image).astype(int) - np.asarray(whole.image)
    assert (difference != 0).mean() < 1e-4
    assert np.abs(difference).max() <= 1


def test_stacks_look_for_kernels_plane_by_plane(pollen):
    blurred = pollen[0]
    softer = ndimage.gaussian_filter(blurred / 1.0, 2).round().astype(blurred.dtype)
    out = demoe.deblur(np.stack([blurred, softer]), "ZYX", tile=128)
    assert out.kernels.shape == (2, 1, 1, SIDE, SIDE)
    near, far = (out.blurs((z,))[0].kernel for z in (0, 1))
    assert near == Kernel("disc", 2.5)
    assert far != near
    np.testing.assert_allclose(np.asarray(out.kernels).sum((-1, -2)), 1, rtol=1e-5)


def test_without_learnt_tools_a_network_works_alone(tmp_path, moved):
    tensors, metadata = read_state_dict(weights_path("default"))
    bare = {key: value for key, value in tensors.items() if not key.startswith("kernels.")}
    write_weights(tmp_path / "bare.safetensors", bare, metadata)
    out = demoe.deblur(moved, "YXS", model=tmp_path / "bare.safetensors")
    assert (out.kernels, out.consistency, out.kernel_picture(), out.blurs()) == (None,) * 3 + ([],)
    alone = demoe.deblur(moved, "YXS", psf=None)
    np.testing.assert_array_equal(np.asarray(out.image), np.asarray(alone.image))


@pytest.mark.parametrize("shape", [(40, 300, 3), (63, 63), (1, 1), (500, 20)])
def test_planes_too_small_for_a_kernel_are_the_networks(shape):
    image = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    out = demoe.deblur(image)
    assert out.kernels is None
    assert np.asarray(out.image).shape == shape


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("shape", [(100, 90, 3), (80, 130)])
def test_flat_images_stay_flat(shape, value):
    image = np.full(shape, value, np.uint8)
    restored = np.asarray(demoe.deblur(image).image).astype(int)
    assert np.abs(restored - value).max() <= 1


def test_paint_has_a_say_in_the_kernel(moved):
    out = demoe.deblur(moved, "YXS")
    painted = np.ones((5, 7), np.uint8)  # defocus everywhere
    other = out.corrected(painted)
    families = {blur.kernel.family for blur in other.blurs() if blur.kernel}
    assert families <= {"disc", "gaussian"}
    full = demoe.deblur(moved, "YXS", expert_map=painted)
    np.testing.assert_array_equal(np.asarray(other.image), np.asarray(full.image))


def test_corrections_know_how_far_paint_reaches(moved):
    wide = np.tile(moved, (1, 2, 1))
    out = demoe.deblur(wide, "YXS", tile=128, routing="local")
    before = np.asarray(out.image)
    painted = np.zeros((5, 13), np.uint8)
    painted[:, :3] = 3
    other = out.corrected(painted)
    stale = set(other.changed_from(out))
    full = np.asarray(
        demoe.deblur(wide, "YXS", tile=128, routing="local", expert_map=painted).image
    )
    assert 0 < len(stale) < other.image.npartitions
    for index in np.ndindex(*other.image.numblocks):
        top, left = 128 * index[0], 128 * index[1]
        part = (slice(top, top + 128), slice(left, left + 128))
        if index not in stale:
            np.testing.assert_array_equal(full[part], before[part])
    np.testing.assert_array_equal(np.asarray(other.image), full)


# -- consistency -----------------------------------------------------------------------------------


def test_what_the_data_do_not_say_shows_in_the_consistency(pollen):
    out = demoe.deblur(pollen[0], "YX")
    restored = np.asarray(out.image).copy()
    honest = np.asarray(out.consistency_of(da.from_array(restored)))
    invented = restored.copy()
    invented[80:110, 80:110] = 60000 - invented[80:110, 80:110]
    found = np.asarray(out.consistency_of(da.from_array(invented)))
    assert found[1, 1] > 1.5 * honest[1, 1]
    np.testing.assert_allclose(found[3], honest[3], rtol=1e-5)
    np.testing.assert_allclose(np.asarray(out.consistency), honest)


@pytest.mark.parametrize("psf", [{"sigma": 2.5}, {"radius": 4}])
def test_where_a_wrong_psf_is_not_supported_the_source_stays(tmp_path, pollen, psf):
    blurred, sharp = pollen
    out = demoe.deblur(blurred, "YX", psf=psf)
    restored = np.asarray(out.image)
    assert psnr(restored, sharp) > psnr(blurred, sharp) - 1.2
    tiled = demoe.run(blurred, tmp_path / "tiled.tif", axes="YX", psf=psf, tile=64)
    np.testing.assert_array_equal(demoe.open_image(tiled.output).data, restored)
    whole = demoe.run(blurred, tmp_path / "whole.tif", axes="YX", psf=psf)
    assert whole.failed == tiled.failed > 8  # of 16
    right = demoe.run(blurred, tmp_path / "right.tif", axes="YX", psf={"radius": 2.5})
    assert right.failed == 0


def test_parts_that_are_sharp_already_stay(pollen):
    blurred, sharp = pollen
    half = blurred.copy()
    half[:, :128] = sharp[:, :128]
    restored = np.asarray(demoe.deblur(half, "YX", psf={"radius": 2.5}).image)
    # Up to the middle of a place of 64 px; from there on, its neighbour has a share.
    np.testing.assert_array_equal(restored[:, :32], half[:, :32])
    assert psnr(restored[:, 160:], sharp[:, 160:]) > psnr(half[:, 160:], sharp[:, 160:]) + 0.5


def test_photos_do_not_fall_back(tmp_path, moved):
    report = demoe.run(moved, tmp_path / "out.png", psf={"radius": 6})
    assert report.failed == 0


def test_a_known_psf_is_checked_too(pollen):
    right = demoe.deblur(pollen[0], "YX", psf={"radius": 2.5})
    assert right.kernels.shape[-2:] == (7, 7)
    assert np.median(np.asarray(right.consistency)) < 1.3


# -- windows, files, command line ------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 64, 255, 256, 257, 479, 480, 481, 1000])
def test_windows_cover_a_plane(length):
    plan = TilePlan(length, 300, 128, 0, 16)
    rows, cols = window_counts(plan)
    boxes = [window_at(plan, row, 0) for row in range(rows)]
    assert boxes[0].top == 0
    assert boxes[-1].bottom == length
    assert all(a.bottom > b.top for a, b in itertools.pairwise(boxes))
    assert all(box.shape[0] <= WINDOW for box in boxes)
    assert cols == 2


def test_windows_of_a_part_are_those_that_the_whole_has_there():
    plan = TilePlan(500, 741, 128, 0, 16)
    whole = Box(0, 0, 500, 741)
    boxes = [window for window, _ in blended(plan, whole)]
    assert boxes == windows_in(plan, whole)
    sums = np.zeros(whole.shape)
    for window, weight in blended(plan, whole):
        assert weight.shape == window.shape
        assert weight.min() > 0
        sums[window.slices] += weight
    assert 0.9 < sums.min() <= sums.max() < 1.1
    for part in (Box(0, 0, 1, 1), Box(220, 250, 224, 480), Box(480, 700, 500, 741)):
        rows, cols = part.slices
        expected = [
            box
            for box in boxes
            if box.top < rows.stop
            and rows.start < box.bottom
            and box.left < cols.stop
            and cols.start < box.right
        ]
        assert [window for window, _ in blended(plan, part)] == expected


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("length", [5, 384, 385, 1000, 5001])
def test_places_are_spread_over_a_length(length, ends):
    starts = spread_starts(length, 384, 3, ends=ends)
    assert len(starts) == min(3, -(-length // 384))
    assert starts == sorted(starts)
    assert 0 <= starts[0] <= starts[-1] <= max(0, length - 384)
    if len(starts) > 1:
        assert (starts[-1] == max(0, length - 384)) is ends
    else:
        assert starts == [0]
    assert {start % 16 for start in spread_starts(length, 384, 3, grid=16, ends=ends)} == {0}


@pytest.mark.parametrize("suffix", [".ome.zarr", ".tif"])
def test_outputs_bring_kernels_and_consistency_along(tmp_path, pollen, suffix):
    target = tmp_path / f"out{suffix}"
    report = demoe.run(pollen[0], target, axes="YX")
    assert report.consistency == pytest.approx(1, abs=0.15)
    places = (
        (target / "demoe/kernels", target / "demoe/consistency")
        if suffix == ".ome.zarr"
        else (tmp_path / "out.kernels.tif", tmp_path / "out.consistency.tif")
    )
    kernels, consistency = (np.asarray(demoe.open_image(place).data) for place in places)
    assert kernels.shape == (SIDE, SIDE)
    assert kernels.max() == 1
    assert consistency.shape == (4, 4)


def test_the_command_line_says_how_well_the_data_agree(tmp_path, pollen, capsys):
    import tifffile

    tifffile.imwrite(tmp_path / "in.tif", pollen[0])
    paths = [str(tmp_path / "in.tif"), str(tmp_path / "out.tif")]
    assert main(["run", *paths, "--quiet"]) == 0
    assert "x the noise from the data" in capsys.readouterr().out
    assert main(["run", *paths, "--quiet", "--overwrite", "--psf", "none", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["consistency"] is None


# -- learning --------------------------------------------------------------------------------------


def test_a_fusion_weighs_and_adds_nothing():
    torch.manual_seed(0)
    fusion = Fusion()
    source, network, candidate, again = torch.rand(4, 2, 3, 41, 50)
    fused = fusion(source, network, candidate, again, torch.ones(2, 1, 41, 50), torch.ones(2))
    three = torch.stack([source, network, candidate])
    assert (fused <= three.amax(dim=0) + 1e-6).all()
    assert (fused >= three.amin(dim=0) - 1e-6).all()


def test_a_fusion_reaches_no_further_than_it_says():
    torch.manual_seed(0)
    fusion = Fusion()
    pictures = torch.rand(4, 1, 3, 96, 96)
    gain, noise = torch.ones(1, 1, 96, 96), torch.ones(1)
    before = fusion(*pictures, gain, noise)
    pictures[:, :, :, :, 48 + REACH :] = 0
    after = fusion(*pictures, gain, noise)
    torch.testing.assert_close(after[..., :48], before[..., :48])
    assert (after[..., 48 + REACH - 1] != before[..., 48 + REACH - 1]).any()


def test_incomplete_tools_are_refused():
    tensors = KernelTools(demoe.load_model().tools.judge, Fusion()).tensors()
    assert tools_of({}, "nothing") is None
    assert tools_of(tensors, "weights without a detector").detector is None
    tensors["kernels.detector.last.bias"] = torch.zeros(1)
    with pytest.raises(WeightsError, match="detector of blur"):
        tools_of(tensors, "these weights")
    del tensors["kernels.detector.last.bias"]
    tensors.pop("kernels.judge.mean")
    with pytest.raises(WeightsError, match="judge of kernels"):
        tools_of(tensors, "these weights")


def test_tools_are_learnt_from_a_folder_of_photos(tmp_path, capsys, monkeypatch):
    from PIL import Image

    monkeypatch.setattr(judging, "STEPS", 200)  # for three places enough
    rng = np.random.default_rng(0)
    for number in range(9):
        rough = ndimage.gaussian_filter(rng.random((440, 440, 3)), (1.5, 1.5, 0))
        picture = (255 * (rough - rough.min()) / np.ptp(rough)).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    out = tmp_path / "taught.safetensors"
    few = "--scenes 4 --places 3 --examples 2 --minutes 0.05"
    learn(f"--pictures {tmp_path} --out {out} {few}".split())
    printed = capsys.readouterr().out
    assert "7 pictures to learn from, 2 held out" in printed
    assert "blurred or sharp, told right" in printed
    assert "fused | network | deconvolution" in printed
    tools = demoe.load_model(out).tools
    assert tools is not None
    assert tools.detector is not None


def test_a_deconvolver_blurs_as_it_undoes(sharp):
    deconvolver = Deconvolver(Kernel("disc", 3.0).values, photo=True)
    picture = sharp.astype(np.float32) / 255
    expected = ndimage.convolve(picture[..., 0], Kernel("disc", 3.0).values, mode="mirror")
    np.testing.assert_allclose(deconvolver.blur(picture, False)[..., 0], expected, atol=1e-4)


def _gain(restored, seen, sharp):
    before, after = (psnr(one.clip(0, 1) * 255, sharp) for one in (seen, restored))
    return after - before


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("exact", [False, True])
def test_a_photo_is_restored_better_in_colours_than_sample_by_sample(sharp, linear, exact):
    seen = _blurred(sharp, LINE, noise=2.0).astype(np.float32) / 255
    deconvolver, setting = Deconvolver(LINE.values, True, exact), Setting(linear, 0.01)
    restored = deconvolver.restore(seen, setting)
    one_by_one = np.concatenate(
        [deconvolver.restore(seen[..., n : n + 1], setting) for n in range(3)], axis=2
    )
    assert _gain(restored, seen, sharp) > _gain(one_by_one, seen, sharp) + 0.1


def test_a_kernel_that_is_known_may_make_steeper_edges(sharp):
    seen = _blurred(sharp, LINE, noise=2.0).astype(np.float32) / 255
    known, found = (
        _gain(
            Deconvolver(LINE.values, True, exact).restore(seen, Setting(False, 0.01)), seen, sharp
        )
        for exact in (True, False)
    )
    assert known > found + 0.2


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("exact", [False, True])
def test_a_gray_photo_stays_gray(sharp, linear, exact):
    gray = np.repeat(_blurred(sharp, LINE)[..., :1], 3, axis=2).astype(np.float32) / 255
    deconvolver, setting = Deconvolver(LINE.values, True, exact), Setting(linear, 0.02)
    restored, alone = (
        deconvolver.restore(gray, setting),
        deconvolver.restore(gray[..., :1], setting),
    )
    assert np.ptp(restored, axis=2).max() < 0.002
    np.testing.assert_allclose(restored[..., :1], alone, atol=0.002)


def test_a_judge_believes_less_where_its_networks_disagree():
    torch.manual_seed(0)
    judge = Judge().eval().requires_grad_(False)
    measured = np.random.default_rng(0).normal(size=(5, PARTS, len(MEASURES))).astype(np.float32)
    at = torch.from_numpy(measured)
    mean = torch.cat([member(at) for member in judge.members], dim=2).mean(dim=(1, 2)).numpy()
    assert (judge.gains(measured) < mean - 1e-3).all()
    for member in judge.members:
        member.load_state_dict(judge.members[0].state_dict())
    alike = judge.members[0](at).mean(dim=(1, 2)).numpy()
    np.testing.assert_allclose(judge.gains(measured), alike, atol=1e-5)
