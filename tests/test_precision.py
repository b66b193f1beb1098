"""Results of 8 bits are computed in half precision where it changes none by more than a step."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from tiny import alone, tiny_network, tiny_weights

from demoe.engine.runner import TileRunner
from demoe.lazy import deblur
from demoe.model.backends import choosing
from demoe.model.backends.choosing import choose_coarse
from demoe.model.backends.half import InHalf, half_error
from demoe.model.demoe.eager import EagerBackend
from demoe.model.demoe.graph import OpenVINOBackend
from demoe.model.demoe.tenant import DeMoE
from demoe.model.loading import Model, load_model


@pytest.fixture
def picture() -> torch.Tensor:
    return torch.rand(1, 3, 64, 80, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model(tmp_path) -> Model:
    """A model of its own, since loaded ones are shared."""
    return load_model(tiny_weights(tmp_path / "a.safetensors"), "cpu")


CPU = torch.device("cpu")
GATES = torch.eye(5)[:1, :, None, None]
HALVES = [
    lambda n: InHalf(EagerBackend(n), torch.bfloat16),
    lambda n: OpenVINOBackend(n, half=True),
]


def test_the_error_is_that_of_the_worst_expert() -> None:
    network = tiny_network()
    exact = EagerBackend(network)
    half = InHalf(exact, torch.bfloat16)
    found = half_error(exact, half, 5, CPU)
    assert half_error(exact, exact, 5, CPU) == 0 < found < 50
    with torch.no_grad():
        last = network.experts[4].experts[3]
        last.gamma.mul_(1000)
    assert half_error(exact, half, 5, CPU) > 2 * found
    with torch.no_grad():
        last.gamma.fill_(torch.nan)
    assert half_error(exact, half, 5, CPU) == torch.inf


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_half_precision_is_used_where_it_is_fast_and_near(backend, monkeypatch) -> None:
    network = tiny_network()
    eager = EagerBackend(network)
    exact = eager if backend == "torch" else OpenVINOBackend(network)

    def found(fast: bool, error: float) -> str:
        monkeypatch.setattr(choosing, "multiplies_bfloat16", lambda: fast)
        graph = partial(_graph, network)
        return choose_coarse(exact, eager, graph, 5, CPU, lambda: error).name

    assert found(False, 0.1) == found(True, 0.5) == found(True, float("inf")) == backend
    assert found(True, 0.4) == f"{backend}, bfloat16"
    # A graph that computes something else is not used.
    monkeypatch.setattr(choosing, "HALF_TOLERANCE", 0.0)
    assert found(True, 0.4) == ("torch, bfloat16" if backend == "torch" else "openvino")


def _graph(network, half: bool) -> OpenVINOBackend:
    return OpenVINOBackend(network, half=half)


@pytest.mark.parametrize("make", HALVES, ids=["torch", "openvino"])
@torch.inference_mode()
def test_half_precision_is_near_and_keeps_the_pictures_own_digits(make, picture) -> None:
    network = tiny_network()
    mixed = torch.tensor([0.5, 0, 0.5, 0, 0])[None, :, None, None]
    for gates in (GATES, mixed):
        wanted, attention = EagerBackend(network).restore(picture, gates, None)
        for held in (None, attention):
            found, used = make(network).restore(picture, gates, held)
            assert found.dtype == torch.float32
            assert 0 < (found - wanted).abs().max() < 0.02
            assert used.keys() == attention.keys()
            assert all(value.dtype == torch.float32 for value in used.values())
        alone = make(network).survey(picture, gates)
        assert alone.keys() == attention.keys()
        for name, value in attention.items():
            torch.testing.assert_close(alone[name], value, atol=0.02, rtol=0.02)
    torch.nn.init.zeros_(network.ending.weight)
    torch.nn.init.zeros_(network.ending.bias)
    same, _ = make(network).restore(picture, GATES, None)
    assert torch.equal(same, picture)


@pytest.mark.parametrize("make", HALVES, ids=["torch", "openvino"])
@pytest.mark.parametrize("together", [True, False])
@torch.inference_mode()
def test_features_are_near_in_half_precision(make, together, picture) -> None:
    network = tiny_network()
    two = torch.cat([picture, picture.flip(3)])
    wanted = EagerBackend(network).features(two, together=together)
    found = make(network).features(two, together=together)
    assert found.dtype == torch.float32
    assert 0 < (found - wanted).abs().max() < 0.02 * wanted.abs().max()


@pytest.mark.parametrize("make", HALVES, ids=["torch", "openvino"])
@torch.inference_mode()
def test_the_first_layer_sees_every_digit(make, picture) -> None:
    """Differences that bfloat16 does not hold reach the result."""
    network = tiny_network()
    with torch.no_grad():
        network.ending.weight.mul_(100)
    nearly = (picture * 0.5 + 0.5).bfloat16().float()
    other = nearly + 2**-12  # equal when rounded
    assert torch.equal(other.bfloat16(), nearly.bfloat16())
    first, second = (make(network).restore(x, GATES, None)[0] for x in (nearly, other))
    assert (second - first - 2**-12).abs().max() > 1e-5


@torch.inference_mode()
def test_numbers_too_large_for_half_precision_are_computed_again(picture) -> None:
    network = tiny_network()
    network.intro.weight.mul_(1e6)  # beyond 65504, where float16 ends
    backend = InHalf(EagerBackend(network), torch.float16)
    wanted, _ = EagerBackend(network).restore(picture, GATES, None)
    assert wanted.isfinite().all()
    torch.testing.assert_close(backend.restore(picture, GATES, None)[0], wanted)
    features = EagerBackend(network).features(picture, together=False)
    torch.testing.assert_close(backend.features(picture, together=False), features)


def test_only_what_is_rounded_to_8_bits_is_computed_in_half_precision(model) -> None:
    eager = EagerBackend(model.network)
    half = InHalf(eager, torch.bfloat16)
    tenant = DeMoE(model.network, lambda coarse: half if coarse else eager)
    model = replace(model, tenant=tenant)
    pixels = np.random.default_rng(0).random((48, 64, 3), np.float32)
    exact, coarse = (
        TileRunner(model, coarse=rounded).restore(pixels, alone("defocus"))
        for rounded in (False, True)
    )
    assert 0 < np.abs(coarse - exact).max() < 0.02
    for decide in (
        lambda runner: runner.decide([pixels]),
        lambda runner: runner.route_windows(pixels, (32, 32), [(0, 0), (16, 32)]),
    ):
        exact, coarse = (decide(TileRunner(model, coarse=rounded)) for rounded in (False, True))
        assert 0 < np.abs(coarse - exact).max() < 0.02
    found = {
        (dtype, precision): deblur(
            np.zeros((48, 64), dtype), "YX", model=model.path, precision=precision
        ).provenance["backend"]
        for dtype in ("uint8", "uint16")
        for precision in ("auto", "full")
    }
    whole = load_model(model.path, "cpu")
    assert found["uint8", "auto"] == whole.tenant.backend_name(True)
    assert found["uint8", "full"] == whole.tenant.backend_name(False)
    assert found["uint16", "auto"] == found["uint16", "full"] == whole.tenant.backend_name(False)
