"""Blur as physics: kernels, light, exposure, and what must stay as it is."""

from __future__ import annotations

import io
import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from demoe.choices import TASKS
from demoe.training.blur import degradations as blur
from demoe.training.blur import kernels
from demoe.training.blur.degradations import KERNEL, MARGIN, degrade, to_display, to_linear
from demoe.training.blur.jpeg import compress
from demoe.training.random import Draw

SIZE = 25
SHAKES = [
    make(length, Draw(seed))
    for make in (kernels.shake, kernels.wander)
    for seed in range(3)
    for length in (5.0, 20.0)
]


def moments(kernel: Tensor) -> tuple[float, float, float]:
    """Return a kernel's centre of mass (y, x) from its middle, and its mean squared radius."""
    at = torch.arange(kernel.shape[0], dtype=torch.float32) - kernel.shape[0] // 2
    y, x = torch.meshgrid(at, at, indexing="ij")
    return (
        float((kernel * y).sum()),
        float((kernel * x).sum()),
        float((kernel * (y.square() + x.square())).sum()),
    )


KERNELS = {
    "disk": kernels.disk(SIZE, 4.0),
    "small disk": kernels.disk(SIZE, 0.1),
    "hexagon": kernels.polygon(SIZE, 5.0, 6, 0.3),
    "pentagon": kernels.polygon(SIZE, 5.0, 5, 1.0),
    "gaussian": kernels.gaussian(SIZE, 2.0),
    "oval": kernels.gaussian(SIZE, 2.0, 0.6, 0.4),
    "airy": kernels.airy(SIZE, 3.0),
    "microscope": kernels.microscope(SIZE, 3.0, 4.0, 1.0),
    "line": kernels.from_path(SIZE, kernels.line(9.0, 0.5)),
    "arc": kernels.from_path(SIZE, kernels.line(9.0, 0.5, bend=1.5)),
    "shake": kernels.from_path(KERNEL, kernels.shake(15.0, Draw(3))),
    "tremor": kernels.from_path(KERNEL, kernels.tremor(15.0, Draw(3))),
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_move_no_light_and_lose_none(name: str) -> None:
    kernel = KERNELS[name]
    assert kernel.dtype == torch.float32
    assert kernel.shape[0] == kernel.shape[1]
    assert kernel.shape[0] % 2 == 1
    assert float(kernel.min()) >= 0
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-5)
    y, x, _ = moments(kernel)
    assert math.hypot(y, x) < 0.05


def test_supports() -> None:
    at = torch.arange(SIZE) - SIZE // 2
    distance = (at[:, None].square() + at[None].square()).sqrt()
    for name in ("disk", "hexagon", "pentagon"):
        radius = 4.0 if name == "disk" else 5.0
        assert float(KERNELS[name][distance > radius + 1].abs().max()) == 0
        assert float(KERNELS[name][distance < radius * 0.6].min()) > 0
    line = KERNELS["line"]
    assert float(line[distance > 9 / 2 + 1.5].max()) == 0
    assert float(KERNELS["small disk"][distance > 1].max()) == 0


def test_spreads_are_those_of_the_formulas() -> None:
    assert moments(kernels.disk(41, 8.0))[2] == pytest.approx(8.0**2 / 2, rel=0.03)
    assert moments(kernels.gaussian(41, 3.0))[2] == pytest.approx(2 * 3.0**2, rel=0.03)
    assert moments(kernels.from_path(41, kernels.line(18.0, 1.0)))[2] == pytest.approx(
        18.0**2 / 12, rel=0.05
    )
    ring = kernels.airy(41, 6.0)[20, 20:]
    assert int(ring[1:9].argmin()) + 1 == 6  # the first dark ring


def test_an_oval_is_as_narrow_as_told() -> None:
    narrow = kernels.gaussian(41, 4.0, 0.5, 0.0)
    at = (torch.arange(41) - 20.0).square()
    assert float((narrow.sum(0) * at).sum()) == pytest.approx(16, rel=0.05)
    assert float((narrow.sum(1) * at).sum()) == pytest.approx(4, rel=0.05)


def test_a_microscope_in_focus_is_diffraction_alone_and_spreads_out_of_focus() -> None:
    torch.testing.assert_close(
        kernels.microscope(41, 4.0, 0.0), kernels.airy(41, 4.0), atol=1e-3, rtol=0
    )
    spreads = [moments(kernels.microscope(61, 3.0, phase))[2] for phase in (0.0, 3.0, 6.0, 9.0)]
    assert all(b > 1.2 * a for a, b in itertools.pairwise(spreads))
    # Above and below the focus look alike, unless the lens is not corrected for the medium.
    torch.testing.assert_close(
        kernels.microscope(41, 3.0, 5.0), kernels.microscope(41, 3.0, -5.0), atol=1e-6, rtol=0
    )
    apart = kernels.microscope(41, 3.0, 5.0, 2.0) - kernels.microscope(41, 3.0, -5.0, 2.0)
    assert float(apart.abs().max()) > 1e-3


def test_a_line_points_where_it_was_told() -> None:
    flat = kernels.from_path(SIZE, kernels.line(11.0, 0.0))
    upright = kernels.from_path(SIZE, kernels.line(11.0, math.pi / 2))
    assert int((flat.sum(1) > 1e-4).sum()) <= 2
    torch.testing.assert_close(flat, upright.T, atol=1e-5, rtol=0)


@pytest.mark.parametrize("path", SHAKES)
def test_paths_are_as_long_as_asked_and_centred(path: Tensor) -> None:
    length = float(path.diff(dim=0).norm(dim=1).sum())
    assert any(abs(length - wanted) < 0.1 * wanted for wanted in (5.0, 20.0))
    assert float(path.mean(dim=0).norm()) < 1e-4


@pytest.mark.parametrize("seed", range(3))
def test_a_tremor_is_as_wide_as_asked_and_winds(seed: int) -> None:
    path = kernels.tremor(12.0, Draw(seed))
    widths = path.amax(dim=0) - path.amin(dim=0)
    assert float(widths.max()) == pytest.approx(12, abs=1e-3)
    assert float(path.mean(dim=0).norm()) < 1e-4
    assert float(path.diff(dim=0).norm(dim=1).sum()) > 1.5 * float(widths.norm())


def test_a_path_beyond_the_kernel_stays_inside() -> None:
    kernel = kernels.from_path(SIZE, kernels.line(100.0, 0.7))
    assert kernel.shape == (SIZE, SIZE)
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-5)


def test_convolve_is_the_direct_convolution() -> None:
    draw = Draw(0)
    images, pair = draw.uniform_(2, 3, 20, 24), draw.uniform_(2, 5, 5)
    found = kernels.convolve(images, pair)
    wanted = torch.zeros_like(images)
    for n, (dy, dx) in itertools.product(range(2), itertools.product(range(5), repeat=2)):
        wanted[n] += pair[n, dy, dx] * images[n].roll((dy - 2, dx - 2), dims=(1, 2))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_transfer_curves_undo_each_other_and_know_middle_gray() -> None:
    x = torch.linspace(0, 1, 257)
    torch.testing.assert_close(to_display(to_linear(x)), x, atol=1e-5, rtol=0)
    assert float(to_linear(torch.tensor(0.5))) == pytest.approx(0.2140, abs=1e-4)
    assert bool((to_display(x).diff() > 0).all())


# -- the five kinds -------------------------------------------------------------------------

SIDE = 96


def point(value: float = 0.8, side: int = SIDE) -> Tensor:
    """One pixel of light on black."""
    image = torch.zeros(1, 3, side, side)
    image[..., side // 2, side // 2] = value
    return image


def texture(seed: int = 0, side: int = SIDE) -> Tensor:
    """Blocks of random colours, not so bright that highlights would be raised."""
    blocks = Draw(seed).uniform_(1, 3, side // 8, side // 8) * 0.85
    return blocks.repeat_interleave(8, 2).repeat_interleave(8, 3)


def displayed(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """Compute this share of the blurs on values as they are."""
    monkeypatch.setattr(blur, "DISPLAY", share)
    monkeypatch.setattr(blur, "MICROSCOPE", share)


@pytest.mark.parametrize("make", [blur.defocus, blur.global_motion], ids=lambda f: f.__name__)
def test_in_front_of_the_sensor_light_is_kept(
    make: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    displayed(monkeypatch, 0.0)
    for seed in range(8):
        image, target, _ = make(point(), Draw(seed))  # type: ignore[operator]
        torch.testing.assert_close(target, point())
        before, after = float(to_linear(point()).sum()), float(to_linear(image).sum())
        assert after == pytest.approx(before, rel=0.02)
        assert float(image.max()) < 0.8  # and spread


def test_blur_of_finished_pictures_keeps_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    displayed(monkeypatch, 1.0)
    for seed in range(8):
        image, target, _ = blur.defocus(point(), Draw(seed))
        torch.testing.assert_close(target, point())
        assert float(image.sum()) == pytest.approx(float(point().sum()), rel=1e-3)


def test_finished_frames_are_averaged_as_they_are_shown() -> None:
    for seed in range(8):
        image, target, _ = blur.synth_global_motion(point(), Draw(seed))
        torch.testing.assert_close(target, point())
        assert float(image.sum()) == pytest.approx(float(point().sum()), rel=1e-3)
        light, shown = to_linear(point()).sum(), to_linear(image).sum()
        assert float(shown) < 0.9 * float(light)  # which a real exposure would not lose


def test_averaging_frames_displaces_nothing() -> None:
    at = torch.arange(SIDE) - SIDE // 2
    for seed in range(30):
        image, _, _ = blur.synth_global_motion(point(), Draw(seed))
        plane = image[0, 0] / image[0, 0].sum()
        centre = float((plane.sum(1) * at).sum()), float((plane.sum(0) * at).sum())
        assert math.hypot(*centre) < 0.05


def test_a_rolling_camera_blurs_the_border_more_than_the_middle() -> None:
    stripes = texture()
    still = kernels.line(0.01, 0.0, points=32)
    seen = blur._average_frames(stripes, still, roll=0.2)
    change = (seen - stripes).abs().mean(dim=(0, 1))
    middle = change[SIDE // 2 - 8 : SIDE // 2 + 8, SIDE // 2 - 8 : SIDE // 2 + 8].mean()
    assert float(change[8:24, 8:24].mean()) > 2 * float(middle)
    torch.testing.assert_close(
        blur._average_frames(stripes, still, roll=0.0), stripes, atol=0.01, rtol=0
    )


def test_local_motion_leaves_the_background_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., 40:56, 40:56] = 1
    monkeypatch.setattr(blur, "_object_mask", lambda h, w, draw: mask)
    back, front = texture(0), texture(1)
    for seed in range(6):
        image, target, _ = blur.local_motion(back, Draw(seed), front)
        near = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        near[40 - 21 : 56 + 21, 40 - 21 : 56 + 21] = True
        torch.testing.assert_close(image[..., ~near], back[..., ~near], atol=1e-3, rtol=0)
        torch.testing.assert_close(target[..., ~near], back[..., ~near], atol=1e-3, rtol=0)
        torch.testing.assert_close(
            target[..., 40:56, 40:56], front[..., 40:56, 40:56], atol=1e-3, rtol=0
        )
        assert float((image - target)[..., 40:56, 40:56].abs().mean()) > 0.01


def test_moving_objects_are_blobs_of_some_size() -> None:
    for seed in range(20):
        mask = blur._object_mask(128, 128, Draw(seed))
        assert mask.shape == (1, 1, 128, 128)
        assert 0 <= float(mask.min()) <= float(mask.max()) <= 1
        assert 0.08 < float(mask.mean()) < 0.55


def test_low_light_has_one_exposure_for_image_and_target(monkeypatch: pytest.MonkeyPatch) -> None:
    displayed(monkeypatch, 0.0)
    for seed in range(20):
        sharp = texture(seed) + 0.05
        image, target, _ = blur.low_light(sharp, Draw(seed))
        light, dark = to_linear(image).mean(), to_linear(target).mean()
        assert float(light) == pytest.approx(float(dark), rel=0.03)
        assert bool((target <= sharp + 1e-6).all())
        ratio = to_linear(target) / to_linear(sharp)
        assert float(ratio.min()) > 1 / 16.1
        assert float(ratio.max()) < 1 / 3.9
        assert float(ratio.max() - ratio.min()) < 0.01


def test_low_light_of_finished_pictures_keeps_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    displayed(monkeypatch, 1.0)
    for seed in range(20):
        image, target, _ = blur.low_light(texture(seed) + 0.05, Draw(seed))
        assert float(image.mean()) == pytest.approx(float(target.mean()), rel=0.03)
        ratio = to_linear(target) / to_linear(texture(seed) + 0.05)
        assert 1 / 16.1 < float(ratio.min()) <= float(ratio.max()) < 1 / 3.9


def test_low_light_highlights_are_as_bright_in_the_target() -> None:
    sharp = torch.full((1, 3, SIDE, SIDE), 0.2)
    sharp[..., 20:76, 20:76] = 1.0  # wider than any kernel, so its middle is not blurred away
    for seed in range(20):
        image, target, _ = blur.low_light(sharp, Draw(seed))
        middle = (..., slice(46, 50), slice(46, 50))
        found, wanted = to_linear(image[middle]).mean(), to_linear(target[middle]).mean()
        assert float(found) == pytest.approx(float(wanted), rel=0.05)


def test_low_light_is_noisier_where_there_is_less_light() -> None:
    flat = torch.full((1, 3, 200, 200), 0.5)
    noise = [float(blur.low_light(flat, Draw(seed))[0].std()) for seed in range(10)]
    assert all(0.001 < level < 0.1 for level in noise)


# -- batches --------------------------------------------------------------------------------

EVERY = [-1, 0, 1, 2, 3, 4]


def batch(side: int = 64) -> Tensor:
    return torch.cat([texture(seed, side + 2 * MARGIN + 4) for seed in range(len(EVERY))])[
        ..., : side + 2 * MARGIN, : side + 2 * MARGIN
    ]


def test_a_batch_loses_its_margin_and_stays_in_range() -> None:
    data = degrade(batch(), EVERY, Draw(0))
    assert data.image.shape == data.target.shape == (len(EVERY), 3, 64, 64)
    assert data.task.tolist() == EVERY
    for part in (data.image, data.target):
        assert 0 <= float(part.min()) <= float(part.max()) <= 1
    steps = data.image * 255
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)


def test_a_seed_means_the_same_everywhere() -> None:
    first, again, other = (degrade(batch(), EVERY, Draw(seed)) for seed in (5, 5, 6))
    torch.testing.assert_close(first.image, again.image, atol=0, rtol=0)
    torch.testing.assert_close(first.target, again.target, atol=0, rtol=0)
    for n, task in enumerate(EVERY):
        if task >= 0:
            assert not torch.equal(first.image[n], other.image[n]), TASKS[task]


def test_sharp_images_are_their_own_target(monkeypatch: pytest.MonkeyPatch) -> None:
    sharp = batch()
    inner = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    monkeypatch.setattr(blur, "FLAT", 0.0)
    data = degrade(sharp, [-1] * len(EVERY), Draw(0))
    assert float((data.image - data.target).abs().max()) <= 0.5 / 255 + 1e-6
    same = (data.target - sharp[inner]).abs().amax(dim=(1, 2, 3)) < 1e-6
    assert 1 <= int(same.sum()) < len(EVERY)  # the others are barely blurred, target and all


def test_some_sharp_images_are_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blur, "FLAT", 1.0)
    data = degrade(batch(), [-1] * len(EVERY), Draw(0))
    assert float(data.image.std(dim=(2, 3)).max()) < 1e-6
    colours = batch().mean(dim=(2, 3))
    torch.testing.assert_close(data.target[:, :, 3, 3], colours, atol=1e-5, rtol=0)


def test_every_kind_blurs() -> None:
    sharp = batch()
    for task, name in enumerate(TASKS):
        data = degrade(sharp, [task] * len(EVERY), Draw(1))

        def detail(x: Tensor) -> float:
            return float((x.diff(dim=2).square().mean() + x.diff(dim=3).square().mean()).sqrt())

        blurred = torch.nn.functional.avg_pool2d(data.image, 2)  # without the noise of pixels
        assert detail(blurred) < 0.95 * detail(torch.nn.functional.avg_pool2d(data.target, 2)), name


def test_draws_have_the_distributions_they_name() -> None:
    draw = Draw(0)
    uniform = [draw.uniform(2, 4) for _ in range(500)]
    logarithmic = [draw.log_uniform(1, 100) for _ in range(500)]
    whole = [draw.integer(3, 6) for _ in range(200)]
    assert 2 <= min(uniform) < 2.1 < 3.9 < max(uniform) < 4
    assert 0.4 < sum(value < 10 for value in logarithmic) / 500 < 0.6
    assert set(whole) == {3, 4, 5}
    assert 0.2 < sum(draw.chance(0.3) for _ in range(500)) / 500 < 0.4


def test_a_microscope_records_light_as_it_is() -> None:
    bright, dark = torch.full((1, 3, 90, 90), 0.6), torch.full((1, 3, 90, 90), 0.2)
    noise = []
    for seed in range(12):
        image, target, _ = blur.microscope_defocus(bright, Draw(seed))
        torch.testing.assert_close(target, bright)
        assert float(image.mean()) == pytest.approx(0.6, rel=0.01)
        assert torch.equal(image[:, 0], image[:, 2])  # gray stays gray
        noise.append(
            (float(image.std()), float(blur.microscope_defocus(dark, Draw(seed))[0].std()))
        )
    noisy = [(b, d) for b, d in noise if b > 1e-4]
    assert len(noisy) >= 4
    assert all(b > 1.2 * d for b, d in noisy)  # photons: noise grows with the light
    spots = [blur.microscope_defocus(point(), Draw(seed))[0] for seed in range(8)]
    assert all(float(spot.max()) < 0.7 for spot in spots)


def test_noise_of_gray_images_is_gray() -> None:
    gray = texture()[:, :1].expand(-1, 3, -1, -1)
    noisy = blur._sensor(gray, Draw(0))
    assert torch.equal(noisy[:, 0], noisy[:, 1])
    assert not torch.equal(noisy, gray)
    coloured = blur._sensor(texture(), Draw(0)) - texture()
    assert not torch.allclose(coloured[:, 0], coloured[:, 1])


@pytest.mark.parametrize("quality", [25, 60, 95])
def test_compression_is_that_of_jpeg_files(quality: int) -> None:
    smooth = torch.nn.functional.avg_pool2d(texture(2, 128), 5, stride=1, padding=2)
    sharp = (smooth * 255).round() / 255
    pixels = (sharp[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=2)
    file = torch.from_numpy(np.asarray(Image.open(buffer)).copy()).permute(2, 0, 1)[None] / 255
    mine = compress(sharp, quality)
    lost = float((file - sharp).square().mean().sqrt())
    assert lost > 1e-3
    assert float((mine - file).square().mean().sqrt()) < 0.6 * lost
    # Apart from how colour is spread to full resolution, it is the same.
    luma = torch.tensor([0.299, 0.587, 0.114])
    apart = torch.einsum("c,nchw->nhw", luma, mine - file)[:, 8:-8, 8:-8]
    assert float(apart.square().mean().sqrt()) < 1.5 / 255
    odd = compress(sharp[..., :51, :67], quality)
    assert odd.shape == (1, 3, 51, 67)


def test_gray_motion_keeps_values_of_light(monkeypatch: pytest.MonkeyPatch) -> None:
    displayed(monkeypatch, 1.0)
    for make in (blur.global_motion, blur.defocus):
        for seed in range(5):
            image, _, _ = make(point(), Draw(seed))
            assert float(image.sum()) == pytest.approx(float(point().sum()), rel=1e-3)


def test_most_gray_images_and_no_coloured_one_are_a_microscopes(monkeypatch):
    seen = []

    def watched(sharp: Tensor, draw: Draw) -> blur.Example:
        seen.append(sharp)
        return sharp, sharp, None

    monkeypatch.setattr(blur, "microscope_defocus", watched)
    side = 2 * MARGIN + 8
    degrade(torch.rand(1, 1, side, side).expand(50, 3, -1, -1), [0] * 50, Draw(0))
    assert 0.6 < len(seen) / 50 < 0.95
    seen.clear()
    degrade(torch.rand(5, 3, side, side), [0] * 5, Draw(0))
    assert not seen


# -- what blurred an image ------------------------------------------------------------------


@pytest.mark.parametrize("task", [0, 1, 3, 4])
def test_the_kernel_that_is_told_is_what_blurred_the_image(
    task: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NOISE", "JPEG", "MICROSCOPE"):
        monkeypatch.setattr(blur, name, 0.0)
    monkeypatch.setattr(blur, "normal", lambda like, draw: torch.zeros_like(like))
    monkeypatch.setattr(blur, "_saturating", lambda linear, draw: linear)
    seen = {True: 0, False: 0, None: 0}
    for seed in range(12):
        data = degrade(texture(seed), [task], Draw(seed))
        (psf,) = data.psf
        seen[psf and psf.in_light] += 1
        if psf is None:
            continue
        target = to_linear(data.target) if psf.in_light else data.target
        again = kernels.convolve(target, psf.kernel[None])
        again = to_display(again) if psf.in_light else again
        inner = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
        torch.testing.assert_close(again[inner], data.image[inner], atol=0.006, rtol=0)
    assert seen[True] if task != 3 else not seen[True]
    assert bool(seen[None]) == (task == 1)  # a camera that rolls
