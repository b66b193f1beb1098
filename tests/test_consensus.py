"""Cells decide together: with those around them, and with those of the planes beside."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import alone

import demoe
from demoe.errors import RecipeError
from demoe.routing.consensus import agree, sharpen, smooth
from demoe.routing.gates import confidence, expert_map, fill


def some_gates(rows: int, cols: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).random((5, rows, cols)) ** 4
    return (values / values.sum(0)).astype(np.float32)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 4), st.floats(0.05, 20))
@settings(max_examples=25, deadline=None)
def test_gates_stay_gates(rows: int, cols: int, radius: int, temperature: float) -> None:
    gates = sharpen(some_gates(rows, cols), temperature)
    for found in (gates, smooth(gates, radius), agree([gates, some_gates(rows, cols, 1)])):
        assert found.shape == gates.shape
        assert found.dtype == np.float32
        assert (found >= 0).all()
        np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


def test_temperature_changes_how_sure_but_not_what() -> None:
    gates = some_gates(4, 5)
    cold, hot = sharpen(gates, 0.5), sharpen(gates, 2)
    assert (expert_map(cold) == expert_map(gates)).all()
    assert (expert_map(hot) == expert_map(gates)).all()
    assert (confidence(hot) < confidence(gates)).all()
    assert (confidence(gates) < confidence(cold)).all()
    np.testing.assert_allclose(sharpen(cold, 2), gates, atol=1e-6)
    assert sharpen(gates, 1) is gates
    np.testing.assert_array_equal(sharpen(fill(alone("defocus"), 2, 2), 3).argmax(0), 0)


def test_the_unsure_follow_the_sure_around_them() -> None:
    gates = fill(alone("defocus"), 7, 7)
    unsure = np.array([0.18, 0.22, 0.2, 0.2, 0.2], np.float32)
    gates[:, 3, 3] = unsure
    gates[:, :, 6] = alone("low_light")[:, None]  # sure, and many
    found = expert_map(smooth(gates, 1))
    assert (found[:, :6] == 1).all()
    assert (found[:, 6] == 5).all()
    # One that is sure of something else among the unsure keeps its own, and convinces them.
    gates = np.repeat(np.repeat(unsure[:, None, None], 7, 1), 7, 2)
    gates[:, 3, 3] = alone("low_light")
    found = expert_map(smooth(gates, 1))
    assert (found == 5).sum() == 9
    assert (found[2:5, 2:5] == 5).all()


def test_planes_count_by_confidence() -> None:
    sure, unsure = fill(alone("defocus"), 2, 2), fill(np.full(5, 0.2, np.float32), 2, 2)
    unsure[3] += 0.01
    assert (expert_map(agree([unsure, sure, unsure])) == 1).all()
    assert agree([unsure]) is unsure


@pytest.fixture(scope="module")
def stack() -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.random((3, 5, 7, 1, 1)).repeat(32, 3).repeat(32, 4)
    planes = coarse.transpose(0, 1, 3, 2, 4).reshape(3, 160, 224)
    return (200 * planes + 55 * rng.random(planes.shape)).astype(np.uint8)


FIELDS = {"routing": "local", "pitch": 16, "window": 64}


def test_smoothing_does_not_depend_on_how_cells_are_asked_for(weights, stack) -> None:
    fields = {**FIELDS, "model": weights, "smoothing": 2}
    whole = demoe.deblur(stack[0], "YX", tile=256, **fields)
    tiled = demoe.deblur(stack[0], "YX", tile=64, **fields)
    gates = np.asarray(whole.gates)
    np.testing.assert_array_equal(np.asarray(tiled.gates), gates)
    part = whole.work.maps.gates((0, 0, 0), range(3, 7), range(5, 8))
    np.testing.assert_allclose(part, gates[:, 3:7, 5:8], atol=1e-6)
    raw = np.asarray(demoe.deblur(stack[0], "YX", **{**fields, "smoothing": 0}).gates)
    np.testing.assert_allclose(gates, smooth(raw, 2), atol=1e-6)
    assert np.abs(gates - raw).max() > 5e-4


@pytest.mark.parametrize("axes", ["ZYX", "TYX"])
@pytest.mark.parametrize("routing", ["local", "image"])
def test_planes_beside_have_a_say(weights, stack, axes: str, routing: str) -> None:
    fields = {**FIELDS, "routing": routing, "model": weights}
    alone = np.asarray(demoe.deblur(stack, axes, **fields).gates)
    together = np.asarray(demoe.deblur(stack, axes, agreement=1, **fields).gates)
    for plane, near in enumerate((range(2), range(3), range(1, 3))):
        np.testing.assert_allclose(together[plane], agree([alone[n] for n in near]), atol=1e-6)
    assert np.abs(together - alone).max() > 1e-3


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", 0), ("temperature", "hot"), ("smoothing", -1), ("agreement", 2.5)],
)
def test_what_cannot_be_is_said(field: str, value: object) -> None:
    with pytest.raises(RecipeError, match=f"^{field} must be a .*number from"):
        demoe.Recipe(**{field: value})
