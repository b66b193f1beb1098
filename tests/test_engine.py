"""The engine: tiles of numbers in and out, and what happens when memory runs out."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from tiny import alone, tiny_weights

from demoe.engine import runner as engine
from demoe.engine.runner import TileRunner
from demoe.errors import DeviceError
from demoe.model.backends.allocator import keep_freed_memory, share_one_heap
from demoe.model.demoe.tenant import DeMoE
from demoe.model.loading import Model, load_model
from demoe.routing.gates import fill


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(tiny_weights(tmp_path_factory.mktemp("weights") / "a.safetensors"), "cpu")


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).random((48, 70, 3), np.float32)


def test_a_tile_is_what_the_network_makes_of_it(model: Model, pixels: np.ndarray) -> None:
    runner = TileRunner(model)
    weights = runner.mixing(runner.decide([pixels]))
    expected = model.network(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0]
    restored = runner.restore(pixels, weights)
    assert restored.dtype == np.float32
    np.testing.assert_allclose(restored, expected[0].permute(1, 2, 0), atol=1e-6)
    field = runner.restore(pixels, fill(weights, 3, 5))
    np.testing.assert_allclose(field, restored, atol=2e-6)


def test_gray_is_three_equal_samples_and_their_mean(model: Model, pixels: np.ndarray) -> None:
    runner = TileRunner(model)
    gray = pixels[..., :1]
    gates = alone("low_light")
    expected = runner.restore(np.repeat(gray, 3, axis=2), gates).mean(axis=2, keepdims=True)
    restored = runner.restore(gray, gates)
    assert restored.shape == gray.shape
    np.testing.assert_allclose(restored, expected, atol=1e-6)
    coloured = np.repeat(gray, 3, axis=2)
    np.testing.assert_allclose(runner.decide([gray]), runner.decide([coloured]))


def test_mixing_keeps_the_strongest(model: Model) -> None:
    gates = np.array([0.1, 0.4, 0.2, 0.3, 0.0], np.float32)
    np.testing.assert_allclose(
        TileRunner(model, top_k=2).mixing(gates), np.array([0, 4, 0, 3, 0]) / 7
    )
    field = fill(gates, 2, 3)
    field[:, 1, 2] = alone("defocus")
    mixed = TileRunner(model).mixing(field)
    np.testing.assert_array_equal(mixed.argmax(axis=0), [[1, 1, 1], [1, 1, 0]])
    assert mixed.sum() == 6


def test_preserved_brightness_needs_a_wider_halo(model: Model) -> None:
    plain, preserving = TileRunner(model), TileRunner(model, preserve=True)
    assert plain.halo == model.halo
    assert preserving.halo == model.halo + 2 * model.multiple


def test_local_brightness_is_preserved(model: Model, pixels: np.ndarray, monkeypatch) -> None:
    ending = model.network.ending.bias
    parameters = model.network.ending._parameters
    monkeypatch.setitem(parameters, "bias", torch.nn.Parameter(ending + 0.3, False))
    weights = alone("defocus")

    brighter = TileRunner(model).restore(pixels, weights)
    kept = TileRunner(model, preserve=True).restore(pixels, weights)
    assert brighter.mean() > pixels.mean() + 0.1
    for part in (slice(24), slice(24, 48)):
        assert abs(kept[part].mean() - pixels[part].mean()) < 0.01
    # Where there is no light at all nothing is divided by it.
    dark = TileRunner(model, preserve=True).restore(np.zeros_like(pixels), weights)
    assert np.isfinite(dark).all()
    assert abs(dark.mean()) < 0.02


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 GB"),
        MemoryError(),
    ],
    ids=["gpu", "cpu", "python"],
)
def test_too_little_memory_is_said_in_words(model, pixels, monkeypatch, error) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(DeMoE, "restore", fail)
    with pytest.raises(DeviceError, match="70 x 48 pixels; choose a smaller tile"):
        TileRunner(model).restore(pixels, alone("defocus"))


def test_other_failures_are_not_hidden(model, pixels, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(DeMoE, "restore", fail)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        TileRunner(model).restore(pixels, alone("defocus"))


def test_the_allocator_is_asked_where_it_is_glibc(monkeypatch) -> None:
    glibc = platform.libc_ver()[0] == "glibc"
    for ask in (share_one_heap, keep_freed_memory):
        assert ask.__wrapped__() is glibc
    monkeypatch.setattr(sys, "platform", "win32")
    assert share_one_heap.__wrapped__() is False


def test_the_way_over_a_graphics_card_gives_the_same(model, pixels, monkeypatch) -> None:
    """Run what is done for a card, with streams and page-locked memory stood in for."""
    asked: list[str] = []

    class Stream:
        def synchronize(self) -> None:
            asked.append("synchronize")

    @contextmanager
    def lane(_: torch.device) -> Iterator[Stream]:
        yield Stream()

    def empty(*shape: object, pin_memory: bool, **how: object) -> torch.Tensor:
        asked.append("pinned out" if pin_memory else "out")
        return new_tensor(*shape, **how)

    def pin(x: torch.Tensor) -> torch.Tensor:
        asked.append("pinned in")
        return x

    runner, new_tensor = TileRunner(model), torch.empty
    wanted = runner.restore(pixels, alone("defocus"))
    attention, gates = runner.survey([pixels], None), runner.decide([pixels])
    monkeypatch.setattr(engine, "_lane", lane)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch, "empty", empty)
    np.testing.assert_array_equal(runner.restore(pixels, alone("defocus")), wanted)
    assert asked == ["pinned in", "pinned out", "synchronize"]
    again, same = runner.survey([pixels], None), runner.decide([pixels])
    np.testing.assert_array_equal(same, gates)
    assert all(torch.equal(again[name], attention[name]) for name in attention)
