"""OpenVINO computes what PyTorch does, is chosen only then, and is not needed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import openvino  # noqa: F401  (without it these tests would test nothing)
import pytest
import torch
from tiny import CONFIG, tiny_network, tiny_weights

import demoe
from demoe.errors import DeviceError
from demoe.model.demoe.config import NetworkConfig
from demoe.model.demoe.eager import EagerBackend
from demoe.model.demoe.graph import OpenVINOBackend
from demoe.model.demoe.tenant import settle
from demoe.model.loading import load_model

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _automatic(monkeypatch) -> None:
    monkeypatch.delenv("DEMOE_BACKEND")


@pytest.mark.parametrize(
    "config",
    [CONFIG, NetworkConfig(4, (0, 1), 1, (1, 0)), NetworkConfig(4, (1, 2, 1, 1), 2, (1, 1, 1, 2))],
)
@pytest.mark.parametrize("held", [False, True])
def test_both_back_ends_give_the_same(config: NetworkConfig, held: bool) -> None:
    network = tiny_network(config=config)
    eager, fast = EagerBackend(network), OpenVINOBackend(network)
    grid = config.multiple
    picture = torch.rand(1, 3, 3 * grid, 5 * grid)
    fields = [
        torch.eye(5)[2].reshape(1, 5, 1, 1),  # one expert
        torch.tensor([0.25, 0, 0, 0.75, 0]).reshape(1, 5, 1, 1),  # two, evenly
        torch.softmax(torch.randn(1, 5, 3, 5), dim=1),  # all, varying in space
    ]
    for weights in fields:
        attention = eager.restore(picture, weights, None)[1]
        given = attention if held else None
        wanted, _ = eager.restore(picture, weights, given)
        found, used = fast.restore(picture, weights, given)
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=2e-5)
        for same in (used, fast.survey(picture, weights)):
            assert set(same) == set(attention)
            for name, value in attention.items():
                torch.testing.assert_close(same[name], value, atol=2e-5, rtol=2e-4)


@pytest.mark.parametrize("together", [False, True])
def test_both_back_ends_find_the_same_features(together: bool) -> None:
    network = tiny_network()
    eager, fast = EagerBackend(network), OpenVINOBackend(network)
    pictures = torch.rand(3, 3, 32, 48) * torch.tensor([0.2, 0.6, 1.0])[:, None, None, None]
    wanted = eager.features(pictures, together=together)
    found = fast.features(pictures, together=together)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=2e-5)
    # Pooled apart, a picture's features are those it has alone; together, they are not.
    alone = eager.features(pictures[:1], together=together)
    assert torch.allclose(wanted[:1], alone, atol=1e-5) is not together


def test_samples_are_pooled_together(tmp_path: Path, monkeypatch) -> None:
    samples = torch.rand(3, 3, 32, 48)
    fast = load_model(tiny_weights(tmp_path / "a.safetensors"))
    assert fast.tenant.backend_name(False) == "openvino"
    monkeypatch.setenv("DEMOE_BACKEND", "torch")
    eager = load_model(tiny_weights(tmp_path / "b.safetensors"))
    for fields in ({}, {"every": True, "top_k": 2}):
        wanted = eager.tenant.survey(samples, None, **fields)
        found = fast.tenant.survey(samples, None, **fields)
        assert eager.tenant.backend_name(False) == "torch"
        assert set(found) == set(wanted)
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value, atol=2e-5, rtol=2e-4)


def test_results_are_the_same_with_and_without(tmp_path: Path, monkeypatch) -> None:
    path = tiny_weights(tmp_path / "a.safetensors")
    image = np.random.default_rng(0).random((100, 150, 3), dtype=np.float32)
    fields = {"axes": "YXS", "tile": 64, "halo": 64, "pitch": 16, "window": 32}
    fast = demoe.deblur(image, model=path, routing="local", **fields)
    assert load_model(path).tenant.backend_name(False) == "openvino"
    assert fast.provenance["backend"] == "openvino"
    with_it = np.asarray(fast.image)
    monkeypatch.setenv("DEMOE_BACKEND", "torch")
    other = tiny_weights(tmp_path / "b.safetensors")
    without = demoe.deblur(image, model=other, routing="local", **fields)
    assert without.provenance["backend"] == "torch"
    np.testing.assert_allclose(with_it, np.asarray(without.image), atol=1e-4)


def chosen(network) -> str:
    """Return what runs a network in full precision."""
    return settle(network, CPU, lambda: 0.0).backend_name(False)


def test_without_the_package_torch_does_the_work(monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "demoe.model.demoe.graph")
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert chosen(tiny_network()) == "torch"


def test_a_back_end_that_differs_is_not_chosen(monkeypatch) -> None:
    restore = OpenVINOBackend.restore

    def off(self, padded, weights, attention):
        restored, used = restore(self, padded, weights, attention)
        return restored + 1e-3, used

    network = tiny_network()
    assert chosen(network) == "openvino"
    monkeypatch.setattr(OpenVINOBackend, "restore", off)
    assert chosen(network) == "torch"


def test_an_unknown_back_end_is_an_error(monkeypatch) -> None:
    monkeypatch.setenv("DEMOE_BACKEND", "abacus")
    with pytest.raises(DeviceError, match="must be auto or torch, not 'abacus'"):
        chosen(tiny_network())
