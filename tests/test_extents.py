"""What was not seen of a blurred picture: beyond its borders, above white, where it is sharp."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

import demoe
from demoe.engine.extents import Extents
from demoe.engine.memory import Memory
from demoe.engine.reader import PlaneReader
from demoe.errors import WeightsError
from demoe.image.lazy_image import LazyImage
from demoe.model.kernels import deconvolution
from demoe.model.kernels.blind import track_of
from demoe.model.kernels.deconvolution import Deconvolver, Seen, Setting
from demoe.model.kernels.detector import GRID, REACH, Detector, detector_of
from demoe.model.kernels.estimator import gray_of
from demoe.model.kernels.families import Kernel
from demoe.plan.tiling import Box, TilePlan
from demoe.samples.images import load_sample

LINE = Kernel("motion", 14.0, 30.0)
BOLD = Setting(False, 0.04)
PLANE = (0, 0, 0)


@pytest.fixture(scope="module")
def sharp():
    """A photo of the samples, (H, W, 3) float32 in [0, 1]."""
    photo = np.asarray(load_sample("pagoda_motion").sharp.data)[:340, :420]
    return (photo / 255).astype(np.float32)


@pytest.fixture(scope="module")
def moved(sharp):
    return _moved(sharp)


def _moved(picture, noise=0.004):
    rng = np.random.default_rng(0)
    planes = [ndimage.convolve(picture[..., c], LINE.values) for c in range(picture.shape[2])]
    return (np.stack(planes, -1) + rng.normal(0, noise, picture.shape)).astype(np.float32)


def _error(picture, sharp):
    return float(((picture.clip(0, 1) - sharp) ** 2).mean())


def test_edges_that_reach_a_border_do_not_ring(sharp, moved):
    # Cut out, so that nobody knows what is beyond.
    seen, wanted = moved[40:-40, 40:-40], sharp[40:-40, 40:-40]
    restored = Deconvolver(LINE.values, photo=True).restore(seen, BOLD)
    ring = np.ones(seen.shape[:2], bool)
    ring[40:-40, 40:-40] = False
    for part in (ring, ~ring):
        assert _error(restored[part], wanted[part]) < 0.6 * _error(seen[part], wanted[part])


def test_what_surrounds_a_window_is_not_made_up(sharp, moved):
    deconvolver = Deconvolver(LINE.values, photo=True)
    margin = deconvolver.margin
    whole = deconvolver.restore(moved, BOLD)
    cut = moved[100 - margin : 200 + margin, 100 - margin : 200 + margin]
    alone = deconvolver.restore(cut, BOLD)[margin:-margin, margin:-margin]
    assert np.abs(alone - whole[100:200, 100:200]).mean() < 0.008


def test_what_is_white_may_have_been_brighter(monkeypatch, sharp):
    bright = sharp * 2
    seen = np.minimum(_moved(bright), 1)
    deconvolver = Deconvolver(LINE.values, photo=True)
    restored = deconvolver.restore(seen, BOLD)
    monkeypatch.setattr(deconvolution, "_WHITE", 9.0)
    believed = deconvolver.restore(seen, BOLD)
    wanted = np.minimum(bright, 1)
    assert _error(restored, wanted) < 0.95 * _error(believed, wanted)


def test_what_is_sharp_stays_and_what_moved_is_undone(sharp, moved):
    extent = np.zeros(sharp.shape[:2], np.float32)
    extent[:, 200:] = 1
    seen = np.where(extent[..., None] > 0, moved, sharp)
    deconvolver = Deconvolver(LINE.values, photo=True)
    restored, again = deconvolver.solve(Seen(seen, False, True, extent), BOLD.strength)
    np.testing.assert_allclose(restored[:, :200], sharp[:, :200], atol=1e-6)
    np.testing.assert_allclose(again[:, :200], sharp[:, :200], atol=1e-6)
    gained = _error(seen, sharp) / _error(restored, sharp)
    all_of_it = deconvolver.restore(seen, BOLD)
    assert gained > 1.6
    assert gained > 1.5 * _error(seen, sharp) / _error(all_of_it, sharp)


def _right_side(rows, cols):
    return cols >= 160


def _disc(rows, cols):
    return np.hypot(rows - 150, cols - 180) < 130


@pytest.mark.parametrize("part", [_right_side, _disc])
def test_a_motion_is_found_in_the_part_that_moved(sharp, moved, part):
    extent = np.zeros(sharp.shape[:2], np.float32)
    extent[:] = part(*np.ogrid[: len(extent), : extent.shape[1]])
    seen = gray_of(np.where(extent[..., None] > 0, moved, sharp).astype(np.float32))

    def likeness(kernel):
        a, b = kernel.values, LINE.values
        return max(
            float((np.roll(a, (y, x), (0, 1)) * b).sum())
            for y in range(-3, 4)
            for x in range(-3, 4)
        ) / np.sqrt((a**2).sum() * (b**2).sum())

    in_part, in_all = (likeness(track_of(seen, False, one)) for one in (extent, None))
    assert in_part > 0.95
    assert in_part > in_all


def test_borders_of_a_known_motion_agree_with_the_data():
    sharp = np.asarray(load_sample("pollen").sharp.data).astype(float)
    seen = ndimage.convolve(sharp, LINE.values)[40:-40, 40:-40]
    noise = np.random.default_rng(0).normal(0, 0.05 * sharp.std(), seen.shape)
    seen = (seen + noise).clip(0).round().astype(np.uint16)
    result = demoe.deblur(seen, "YX", psf=LINE.values)
    found, wanted = np.asarray(result.image).astype(float), sharp[40:-40, 40:-40]
    assert ((found - wanted) ** 2).mean() < 0.7 * ((seen - wanted) ** 2).mean()
    assert np.asarray(result.consistency).max() < 1.3


@pytest.fixture(scope="module")
def beside(sharp, moved):
    """A photo whose right side moved."""
    seen = np.where(np.arange(sharp.shape[1])[:, None] >= 190, moved, sharp)
    return (seen.clip(0, 1) * 255).round().astype(np.uint8)


def test_the_bundled_detector_tells_what_moved(sharp, beside):
    tools = demoe.load_model().tools
    likely = tools.detector.likely(gray_of(beside.astype(np.float32) / 255))
    textured = ndimage.generic_gradient_magnitude(gray_of(sharp), ndimage.sobel) > 0.1
    left, right = (likely[:, part][textured[:, part]] for part in (np.s_[:170], np.s_[210:]))
    assert np.median(left) < 0.4
    assert np.median(right) > 0.6


def test_tiles_of_what_is_in_parts_equal_the_whole(beside):
    whole = np.asarray(demoe.deblur(beside, "YXS").image)
    tiled = np.asarray(demoe.deblur(beside, "YXS", tile=128).image)
    assert np.abs(whole.astype(int) - tiled).max() <= 1


# -- where it is -----------------------------------------------------------------------------------


class _Right(Detector):
    """Says what a test knows."""

    def __init__(self, extent):
        super().__init__()
        self.known, self.asked = extent, []

    def likely(self, gray):
        self.asked.append(gray.shape)
        return self.known[: gray.shape[0], : gray.shape[1]]


def _extents(picture, detector):
    image = LazyImage.from_array((picture.clip(0, 1) * 255).astype(np.uint8), "YXS")
    memory = Memory()
    height, width = picture.shape[:2]
    reader = PlaneReader(image, "auto", memory)
    return Extents(reader, TilePlan(height, width, 512, 0, 1), detector, memory)


def test_parts_are_told_once(sharp):
    height, width = sharp.shape[:2]
    likely = np.full((height, width), 0.2, np.float32)
    likely[60:300, 30:250] = 0.75
    detector = _Right(likely)
    extents = _extents(sharp, detector)
    whole = Box(0, 0, height, width)
    np.testing.assert_array_equal(extents.of(PLANE, whole), likely > 0.5)
    assert extents.are_parts(PLANE, whole)
    assert len(detector.asked) == 1


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_what_is_all_alike_or_unsure_has_no_parts(sharp, value):
    extents = _extents(sharp, _Right(np.full(sharp.shape[:2], value, np.float32)))
    assert not extents.are_parts(PLANE, Box(0, 0, *sharp.shape[:2]))


def test_plain_places_say_nothing():
    plain = np.full((256, 256, 3), 0.5, np.float32)
    extent = np.zeros((256, 256), np.float32)
    extent[:128] = 1
    assert not _extents(plain, _Right(extent)).are_parts(PLANE, Box(0, 0, 256, 256))


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (64, 64), (129, 200)])
def test_a_detector_tells_every_pixel(shape):
    torch.manual_seed(0)
    told = Detector().eval().likely(np.zeros(shape, np.float32))
    assert told.shape == shape
    assert 0 <= told.min() <= told.max() <= 1


def test_a_detector_has_the_widths_of_its_tensors():
    narrow = Detector((16, 24, 32))
    found = detector_of(narrow.state_dict(), "a file")
    gray = np.random.default_rng(0).random((64, 64), np.float32)
    np.testing.assert_array_equal(found.likely(gray), narrow.eval().likely(gray))


@pytest.mark.parametrize(
    "odd", [{}, {"entries.0.bias": torch.zeros(())}, {"entries.0.bias": torch.zeros(10**6)}]
)
def test_tensors_that_make_no_detector_are_refused(odd):
    with pytest.raises(WeightsError, match="a detector of blur"):
        detector_of(odd, "a file")


def test_a_detector_reaches_no_further_than_it_says():
    torch.manual_seed(0)
    detector = Detector().eval()
    side = 4 * REACH
    gray = np.random.default_rng(0).random((side, side), np.float32)
    changed = gray.copy()
    changed[:, : side // 2 - REACH] = 0
    away = np.s_[:, side // 2 + GRID :]
    np.testing.assert_allclose(detector.likely(gray)[away], detector.likely(changed)[away])
