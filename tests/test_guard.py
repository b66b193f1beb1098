"""The guard: silent where a network restores, not where it blows up."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_weights

import demoe
from demoe.engine.guard import (
    STATISTICS,
    Bound,
    Bounds,
    implausible_cells,
    measure_changes,
    shares,
)
from demoe.model.calibration.measuring import calibrate
from demoe.model.demoe.tenant import DeMoE, plain
from demoe.model.loading import Model, load_model
from demoe.training.data.crops import SharpImages
from demoe.training.data.procedural import procedural_images
from demoe.training.evaluate.guard_check import (
    DAMAGE,
    check,
    damaged,
    largest_change,
    strange_pictures,
    strange_table,
)

BOUNDS = Bounds(peak=Bound(0.1, 1.0), rms=Bound(0.05, 1.0), shift=Bound(0.03, 0.5))


@pytest.fixture(scope="module")
def bundled() -> Model:
    return load_model("default", "cpu")


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, np.float32)


# -- the measure -----------------------------------------------------------------------------------


@given(
    st.integers(0, 99),
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3])),
    st.integers(1, 50),
    st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
def test_changes_are_those_of_each_cell(seed, shape, pitch, offset) -> None:
    before, after = noise(seed, *shape) * 3 - 1, noise(seed + 1, *shape)
    found = measure_changes(before, after, pitch, offset)
    index = [(np.arange(n) + o % pitch) // pitch for n, o in zip(shape, offset, strict=False)]
    assert found.peak.shape == (index[0][-1] + 1, index[1][-1] + 1)
    for row, col in np.ndindex(*found.peak.shape):
        cell = np.ix_(index[0] == row, index[1] == col)
        x, change = before[cell], after[cell] - before[cell]
        expected = {
            "peak": np.abs(change).max(),
            "rms": np.sqrt(np.square(change).mean()),
            "shift": np.abs(change.mean(axis=(0, 1))).max(),
            "spread": np.ptp(x, axis=(0, 1)).max(),
            "deviation": np.sqrt(x.var(axis=(0, 1)).mean()),
            "amplitude": max(1, np.abs(x).max()),
        }
        for name, value in expected.items():
            assert getattr(found, name)[row, col] == pytest.approx(value, abs=2e-6), name
        assert found.finite[row, col]


def test_contrast_is_measured_far_from_zero_too() -> None:
    before = noise(0, 16, 16, 1)
    far = measure_changes(before.astype(np.float64) + 1e6, before.astype(np.float64) + 1e6, 16)
    np.testing.assert_allclose(far.deviation, before.std(), rtol=1e-4)


@given(st.integers(0, 99), st.sampled_from([2, 3, 5]))
def test_what_holds_for_small_cells_holds_for_large_ones(seed: int, times: int) -> None:
    # So bounds that were measured in the smallest cells serve every pitch.
    side = 4
    before, after = noise(seed, 30, 30, 3), noise(seed + 1, 30, 30, 3)
    before[: 7 * (seed % 4)] *= 0.01
    small = shares(measure_changes(before, after, side), BOUNDS)
    large = shares(measure_changes(before, after, side * times), BOUNDS)
    for name in STATISTICS:
        assert large[name].max() <= small[name].max() + 1e-6


def test_a_cell_is_held_against_its_own_contrast() -> None:
    before = np.full((32, 64, 3), 0.5, np.float32)
    before[:, :32] = noise(0, 32, 32, 3)
    after = before + 0.4 * (noise(1, 32, 64, 3) - 0.5)
    assert implausible_cells(before, after, 32, BOUNDS).tolist() == [[False, True]]
    # The same at twenty times the brightness: now it is a small share of the value.
    assert not implausible_cells(before + 20, after + 20, 32, BOUNDS).any()
    assert implausible_cells(before + 20, after + 30, 32, BOUNDS).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_fails_its_cell_alone(value: float) -> None:
    before = noise(0, 96, 100, 1)
    after = before.copy()
    after[40, 70] = value
    assert np.argwhere(implausible_cells(before, after, 32, BOUNDS)).tolist() == [[1, 2]]
    found = implausible_cells(before, after, 32, BOUNDS, (16, 30))
    assert found.shape == (4, 5)
    assert np.argwhere(found).tolist() == [[1, 3]]


def test_huge_values_are_no_warning() -> None:
    before = noise(0, 32, 32, 3)
    huge = before * np.float32(3e38)
    assert implausible_cells(before, huge, 16, BOUNDS).all()
    assert not implausible_cells(huge, huge, 16, BOUNDS).any()


def test_unchanged_is_plausible_for_any_bounds() -> None:
    none = Bounds(Bound(0, 0), Bound(0, 0), Bound(0, 0))
    before = noise(0, 20, 20, 3)
    assert not implausible_cells(before, before, 16, none).any()
    assert implausible_cells(before, before + np.float32(1e-3), 16, none).all()


def test_bounds_are_read_back_and_checked() -> None:
    assert Bounds.from_dict(asdict(BOUNDS)) == BOUNDS
    for wrong in (np.nan, np.inf, -0.1):
        damaged = asdict(replace(BOUNDS, rms=Bound(wrong, 1)))
        with pytest.raises(ValueError, match="rms"):
            Bounds.from_dict(damaged)
    with pytest.raises(KeyError):
        Bounds.from_dict({"peak": {"floor": 1, "slope": 1}})


# -- the bundled network ---------------------------------------------------------------------------


def test_no_false_alarm_where_the_network_does_its_work(bundled: Model) -> None:
    drawn = SharpImages(procedural_images(10, 128, seed=31))
    found = check(bundled, drawn, per_task=1, crop=96)
    assert found.cells == 6 * 6 * (6 * 6 + 2 * 2)
    assert found.alarms == 0
    assert 0.1 < max(found.worst.values()) < 0.9
    assert found.table().startswith(f"0 of {found.cells} cells")


STRANGE = strange_pictures(96)


@pytest.mark.parametrize("name", STRANGE)
def test_strange_pictures_do_not_blow_up_the_bundled_network(bundled: Model, name: str) -> None:
    # What comes out stays near what went in, measured by its own range. Values that images have
    # need no fallback; far outside, cells may well keep their source.
    before = STRANGE[name]
    change, implausible = largest_change(bundled, before, bundled.calibration.guard)
    if before.min() >= 0 and before.max() <= 1:
        assert implausible == 0
    assert 0 < change < max(1, np.abs(before).max()) / 3


@pytest.mark.parametrize("factor", [1e3, np.nan])
@pytest.mark.parametrize("key", DAMAGE.values(), ids=DAMAGE)
def test_damaged_weights_are_noticed(bundled: Model, key: str, factor: float) -> None:
    broken = damaged(bundled, {key: factor})
    picture = procedural_images(2, 96, seed=6)[0].astype(np.float32) / 255
    assert largest_change(broken, picture, bundled.calibration.guard)[1] > 0.9


def test_bounds_that_were_measured_on_damaged_weights_do_not_excuse_them(bundled: Model) -> None:
    broken = damaged(bundled, {"intro.weight": 1e3})
    picture = procedural_images(2, 96, seed=6)[0].astype(np.float32) / 255
    assert largest_change(broken, picture, calibrate(plain(broken.network)).guard)[1] > 0.9


def test_the_table_of_strange_pictures_lists_them_all(tmp_path) -> None:
    model = load_model(tiny_weights(tmp_path / "a.safetensors"), "cpu")
    lines = strange_table(model).splitlines()
    assert len(lines) == 2 + len(strange_pictures(16)) + len(DAMAGE) + 1
    assert "| nan | 100 % |" in lines[-1]


def test_a_network_that_blows_up_leaves_the_source(tmp_path, monkeypatch) -> None:
    model = load_model(tiny_weights(tmp_path / "a.safetensors"), "cpu")
    source = (noise(0, 100, 130) * 255).astype(np.uint8)
    work = DeMoE.restore

    def blown_up(self, x, *arguments, **options):
        out = work(self, x, *arguments, **options)
        out[:, :, 70:80, 20:30] += 1e4
        return out

    monkeypatch.setattr(DeMoE, "restore", blown_up)
    result = demoe.deblur(source, model=model, routing="defocus", pitch=32, tile=128)
    image, fresh = result.image.compute(), result.expert_map.compute()
    np.testing.assert_array_equal(image[64:96, :32], source[64:96, :32])
    assert (image[:64] != source[:64]).any()
    assert fresh[2, 0] == 0
    assert (np.delete(fresh.ravel(), 2 * fresh.shape[1]) == 1).all()
