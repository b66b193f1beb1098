"""Half precision is used where it changes no 8-bit result by more than half a step."""

import numpy as np
import pytest
import torch
from tiny import tiny_network, tiny_weights

from demoe.engine import TileRunner
from demoe.gates import one_hot
from demoe.model import precision
from demoe.model.loading import Model, load_model
from demoe.model.pooling import EagerBackend
from demoe.model.precision import AutocastBackend, half_precision


@pytest.fixture
def picture() -> torch.Tensor:
    return torch.rand(1, 3, 64, 80, generator=torch.Generator().manual_seed(0))


GATES = torch.eye(5)[:1, :, None, None]


def test_the_first_half_that_is_close_enough_is_taken(monkeypatch) -> None:
    network = tiny_network()
    exact = EagerBackend(network)
    monkeypatch.setattr(precision, "HALVES", (torch.bfloat16,))
    monkeypatch.setattr(precision, "TOLERANCE", 1.0)
    found = half_precision(network, exact)
    assert found is not None
    assert found.name == "torch, bfloat16"
    monkeypatch.setattr(precision, "TOLERANCE", 1e-9)
    assert half_precision(network, exact) is None


@torch.inference_mode()
def test_half_precision_is_near_and_keeps_the_pictures_own_digits(picture) -> None:
    network = tiny_network()
    wanted, _ = EagerBackend(network).restore(picture, GATES, None)
    found, _ = AutocastBackend(network, torch.bfloat16).restore(picture, GATES, None)
    assert found.dtype == torch.float32
    assert 0 < (found - wanted).abs().max() < 0.02
    torch.nn.init.zeros_(network.ending.weight)
    torch.nn.init.zeros_(network.ending.bias)
    same, _ = AutocastBackend(network, torch.bfloat16).restore(picture, GATES, None)
    assert torch.equal(same, picture)


@torch.inference_mode()
def test_numbers_too_large_for_half_precision_are_computed_again(picture) -> None:
    network = tiny_network()
    network.intro.weight.mul_(1e6)  # beyond 65504, where float16 ends
    backend = AutocastBackend(network, torch.float16)
    wanted, _ = EagerBackend(network).restore(picture, GATES, None)
    assert wanted.isfinite().all()
    torch.testing.assert_close(backend.restore(picture, GATES, None)[0], wanted)


def test_only_what_is_rounded_to_8_bits_is_computed_in_half_precision(tmp_path) -> None:
    model = load_model(tiny_weights(tmp_path / "a.safetensors"), "cpu")
    assert model.coarse_backend is model.backend  # processors gain nothing by it
    half = Model(**{name: getattr(model, name) for name in model.__dataclass_fields__})
    half.__dict__["coarse_backend"] = AutocastBackend(model.network, torch.bfloat16)
    pixels = np.random.default_rng(0).random((48, 64, 3), np.float32)
    exact, also, coarse = (
        TileRunner(which, coarse=rounded).restore(pixels, one_hot("defocus"))
        for which, rounded in ((model, False), (half, False), (half, True))
    )
    np.testing.assert_array_equal(exact, also)
    assert 0 < np.abs(coarse - exact).max() < 0.02
