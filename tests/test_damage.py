"""Damage beside blur: what it does to pictures, and what is to be undone of it."""

from __future__ import annotations

import math

import pytest
import torch

from demoe.training.blur.degradations import INNER, MARGIN, to_linear
from demoe.training.damage import noise
from demoe.training.damage.damages import KINDS, ORDER, Wrong, damage
from demoe.training.damage.darkness import low_light
from demoe.training.damage.haze import haze
from demoe.training.damage.light import depth, veil
from demoe.training.damage.rain import rain, streaks
from demoe.training.data.procedural import procedural_images
from demoe.training.random import Draw

SIDE = 64


@pytest.fixture(scope="module")
def scene() -> torch.Tensor:
    images = torch.from_numpy(procedural_images(4, SIDE + 2 * MARGIN, seed=3))
    return images.permute(0, 3, 1, 2).float() / 255


def flat(value: float, side: int = 128) -> torch.Tensor:
    return torch.full((1, 3, side, side), value) * torch.tensor([1.0, 0.999, 0.998])[:, None, None]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_damages_by_its_seed_alone(scene: torch.Tensor, kind: str) -> None:
    wrongs = [Wrong((kind,), (kind,))] * len(scene)
    once, again, other = (damage(scene, wrongs, Draw(seed)) for seed in (1, 1, 2))
    assert torch.equal(once.image, again.image)
    assert not torch.equal(once.image, other.image)
    assert once.image.shape == once.target.shape == (len(scene), 3, SIDE, SIDE)
    assert float(once.image.amin()) >= 0 and float(once.image.amax()) <= 1
    assert torch.equal(once.image * 255, (once.image * 255).round())
    changed = (once.image - once.target).abs().flatten(1).mean(dim=1)
    assert (changed > 1e-3).all()
    # Low light's truth is as bright as the scene, too.
    assert torch.equal(once.target, scene[INNER])
    assert once.told.tolist() == [[float(k == kind) for k in KINDS]] * len(scene)


def test_plain_noise_has_the_strength_that_is_asked_for() -> None:
    seen = noise.plain(flat(0.5), 25 / 255, Draw(0))
    assert float((seen - flat(0.5)).std()) == pytest.approx(25 / 255, rel=0.02)


@pytest.mark.parametrize("value", [0.2, 0.8])
def test_photons_scatter_by_the_root_of_their_number(value: float) -> None:
    electrons, read = 2000.0, 3.0
    seen = to_linear(noise.sensor(flat(value), electrons, read, Draw(0)))
    light = to_linear(flat(value))
    expected = math.sqrt(float(light.mean()) / electrons + (read / electrons) ** 2)
    assert float((seen - light).std()) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("make", [noise.noise, haze, rain, low_light])
def test_gray_pictures_stay_gray(scene: torch.Tensor, make) -> None:
    gray = scene[:1].mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    for seed in range(6):
        seen = make(gray, Draw(seed))
        torch.testing.assert_close(seen, seen[:, :1].expand_as(seen))


def test_haze_takes_contrast_and_brightens_the_dark(scene: torch.Tensor) -> None:
    for seed in range(5):
        seen = haze(scene[:1], Draw(seed))
        assert float(seen.std()) < float(scene[:1].std())
        assert float(seen.amin()) > float(scene[:1].amin())


def test_a_veil_mixes_light_or_values() -> None:
    half, air = torch.tensor(0.5), torch.ones(1, 3, 1, 1)
    values = veil(flat(0.2), half, air, in_light=False)
    assert float(values.mean()) == pytest.approx(0.6, abs=0.002)
    light = to_linear(veil(flat(0.2), half, air, in_light=True))
    expected = (float(to_linear(flat(0.2)).mean()) + 1) / 2
    assert float(light.mean()) == pytest.approx(expected, rel=0.01)


def test_depth_is_a_share_of_the_farthest() -> None:
    found = [depth(40, 60, Draw(seed)) for seed in range(20)]
    assert all(one.shape == (1, 1, 40, 60) for one in found)
    assert all(float(one.amin()) >= 0 and float(one.amax()) <= 1.0001 for one in found)
    upper = sum(float(one[..., :10, :].mean() - one[..., -10:, :].mean()) for one in found)
    assert upper > 0  # the farther up, the farther away, in most pictures


def test_streaks_are_bright_few_and_steep(scene: torch.Tensor) -> None:
    covers = [streaks(96, 96, Draw(seed)) for seed in range(8)]
    for cover in covers:
        assert float(cover.amin()) >= -1e-6 and float(cover.amax()) <= 0.9
        assert 0.0005 < float(cover.mean()) < 0.35
    # They are smooth along their fall, and change across it.
    down = sum(float(cover.diff(dim=2).abs().mean()) for cover in covers)
    across = sum(float(cover.diff(dim=3).abs().mean()) for cover in covers)
    assert across > 1.5 * down
    dark = scene[:1] * 0.3
    assert float((rain(dark, Draw(1)) - dark).amin()) > -0.01  # it only adds light to the dark


def test_low_light_is_darker_and_its_noise_lies_in_the_dark() -> None:
    for seed in range(6):
        seen = low_light(flat(0.7), Draw(seed))
        assert float(to_linear(seen).mean()) < float(to_linear(flat(0.7)).mean()) / 2


def test_what_is_not_asked_for_stays(scene: torch.Tensor) -> None:
    one = scene[:1]
    last = damage(one, [Wrong(("noise", "haze"), ("noise",))], Draw(4))
    # Haze comes before noise, whatever the order of names; it is still in the target.
    assert float(last.target.amin()) > float(one[INNER].amin())
    assert not torch.equal(last.target, one[INNER])
    both = damage(one, [Wrong(("noise", "haze"), ("noise", "haze"))], Draw(4))
    assert torch.equal(both.image, last.image)
    assert torch.equal(both.target, one[INNER])
    assert both.told.tolist() == [[1.0, 0.0, 0.0, 1.0, 0.0]]
    wrong = damage(one, [Wrong(("haze",), ("rain",))], Draw(4))
    assert torch.equal(wrong.target, wrong.image)
    nothing = damage(one, [Wrong((), ("rain",))], Draw(4))
    assert torch.equal(nothing.target, nothing.image)
    assert float((nothing.image - one[INNER]).abs().amax()) < 1 / 255


def test_all_kinds_have_a_place_in_the_order() -> None:
    assert set(ORDER) == set(KINDS)
