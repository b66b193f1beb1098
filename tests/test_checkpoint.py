"""Weights on disk: what is read, what is refused, and that nothing in a file is ever run."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from demoe.errors import OutputError, WeightsError
from demoe.model.architectures import build
from demoe.model.checkpoint import read_state_dict, write_weights
from demoe.model.demoe.config import NetworkConfig, detect_config
from demoe.model.demoe.network import DeMoENet
from demoe.model.zoo import sha256_of

SMALL = NetworkConfig(2, (1, 0), 1, (0, 1), 5, 6, 4)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return DeMoENet(SMALL).state_dict()


@pytest.fixture
def good(tmp_path: Path, state: dict[str, Tensor]) -> Path:
    path = tmp_path / "good.safetensors"
    write_weights(path, state, {"card": "small"})
    return path


def refused(path: Path, pattern: str | None = None) -> str:
    """Read what must be refused, in one sentence that names the file."""
    with pytest.raises(WeightsError, match=pattern) as caught:
        build(*read_state_dict(path), str(path))
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert ". " not in message.replace(str(path), "")
    return message


# -- architecture from keys and shapes -------------------------------------------------------------

levels = st.integers(1, 4).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 2), min_size=n, max_size=n).map(tuple)] * 2)
)
configs = st.builds(
    lambda width, blocks, middle, experts, router, hidden: NetworkConfig(
        width, blocks[0], middle, blocks[1], experts, router, hidden
    ),
    st.integers(1, 6),
    levels,
    st.integers(0, 3),
    st.integers(1, 7),
    st.integers(1, 9),
    st.integers(1, 9),
)


@settings(max_examples=25)
@given(configs)
def test_every_architecture_shows_in_its_state_dict(config: NetworkConfig) -> None:
    with torch.device("meta"):
        state = DeMoENet(config).state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    assert detect_config(shapes) == config
    assert detect_config(dict(sorted(shapes.items(), reverse=True))) == config


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configs)
def test_every_architecture_comes_back_from_its_file(tmp_path: Path, config: NetworkConfig) -> None:
    network = DeMoENet(config).eval()
    path = tmp_path / "a.safetensors"
    write_weights(path, network.state_dict(), {})
    again = build(*read_state_dict(path))[1]
    assert again.config == config
    x = torch.rand(1, 3, 20, 20)
    gates = torch.full((1, config.experts), 1 / config.experts)
    torch.testing.assert_close(again(x, gates)[0], network(x, gates)[0], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("intro.weight", ()),
        ("intro.weight", (0, 3, 3, 3)),
        ("intro.weight", (10**9, 3, 3, 3)),
        ("mlp_branch.classifier.2.weight", ()),
        ("mlp_branch.conv_bottleneck.0.weight", (0,)),
    ],
)
def test_impossible_sizes_are_refused_before_anything_is_built(state, key, shape) -> None:
    shapes = {name: tuple(value.shape) for name, value in state.items()} | {key: shape}
    with pytest.raises(WeightsError, match=re.escape(key)):
        detect_config(shapes)


def test_as_many_levels_up_as_down() -> None:
    with pytest.raises(WeightsError, match="not 2 and 1"):
        NetworkConfig(4, (1, 1), 1, (1,))
    with pytest.raises(WeightsError, match="at least one"):
        NetworkConfig(4, (), 1, ())


# -- there and back --------------------------------------------------------------------------------


def test_float32_comes_back_as_it_was(good: Path, state: dict[str, Tensor]) -> None:
    tensors, metadata = read_state_dict(good)
    assert metadata == {"card": "small"}
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[key], value) for key, value in state.items())
    assert sha256_of(good) == sha256_of(good)
    assert len(sha256_of(good)) == 64


def test_half_files_come_back_as_float32(tmp_path: Path, state, good: Path) -> None:
    path = tmp_path / "half.safetensors"
    large = {**state, "mlp_branch.conv_bottleneck.1.running_var": torch.full((6,), 1e6)}
    write_weights(path, large, {}, half=True)
    assert path.stat().st_size < 0.8 * good.stat().st_size
    tensors, _ = read_state_dict(path)
    build(tensors, {})
    for key, value in large.items():
        assert tensors[key].dtype == value.dtype
        torch.testing.assert_close(tensors[key], value, rtol=1e-3, atol=1e-6)


def test_nothing_is_left_when_writing_fails(tmp_path: Path, state, monkeypatch) -> None:
    written = Path.write_bytes

    def full_disk(path: Path, content: bytes) -> None:
        written(path, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        write_weights(tmp_path / "a.safetensors", state, {})
    assert list(tmp_path.iterdir()) == []


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"params": s},
        lambda s: {"params_ema": s, "params": {}, "epoch": 3},
        lambda s: {"state_dict": s, "epoch": 3, "loss": 0.5, "name": "a run"},
        lambda s: {"params": prefixed(s, "module.")},
        lambda s: {"state_dict": {"params": s}},
        lambda s: prefixed(s, "module."),
        lambda s: prefixed(s, "params."),
        lambda s: OrderedDict(prefixed(s, "module.").items()),
        lambda s: {k: v.double() if v.is_floating_point() else v for k, v in s.items()},
        lambda s: {k: torch.nn.Parameter(v, v.is_floating_point()) for k, v in s.items()},
    ],
    ids=[
        "bare",
        "params",
        "params_ema",
        "state_dict",
        "module",
        "nested",
        "bare module",
        "bare params",
        "ordered",
        "double",
        "parameters",
    ],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "pickle"])
def test_pytorch_files_come_in_many_wrappings(tmp_path: Path, state, wrap, zipped) -> None:
    path = tmp_path / "weights.pt"
    torch.save(wrap(state), path, _use_new_zipfile_serialization=zipped)
    tensors, metadata = read_state_dict(path)
    assert metadata == {}
    assert tensors.keys() == state.keys()
    for key, value in state.items():
        assert tensors[key].dtype == value.dtype
        torch.testing.assert_close(tensors[key].detach(), value)
    assert build(tensors, {})[1].config == SMALL


def test_the_content_decides_and_not_the_suffix(tmp_path: Path, state, good: Path) -> None:
    disguised = tmp_path / "weights.pt"
    disguised.write_bytes(good.read_bytes())
    assert read_state_dict(disguised)[0].keys() == state.keys()
    torch.save(state, tmp_path / "weights.safetensors")
    assert read_state_dict(tmp_path / "weights.safetensors")[0].keys() == state.keys()


@pytest.mark.parametrize("start", [b"\x80\x02", b"PK"], ids=["pickle", "zip"])
def test_a_safetensors_header_may_begin_like_another_format(tmp_path, state, start) -> None:
    # The file begins with the header's length, whose bytes are what chance makes them.
    wanted = int.from_bytes(start, "little")
    path = tmp_path / "chance.safetensors"
    few = dict(list(state.items())[:2])
    for note in range(wanted):
        save_file(few, path, {"note": "x" * note})
        length = int.from_bytes(path.read_bytes()[:8], "little")
        if length >= wanted:
            break
        if wanted - length > 64:  # far off still: go on in one step
            save_file(few, path, {"note": "x" * (note + wanted - length)})
            break
    assert path.read_bytes()[:2] == start
    assert read_state_dict(path)[0].keys() == few.keys()


# -- what does not fit -----------------------------------------------------------------------------


def test_keys_that_do_not_fit_are_listed(tmp_path: Path, state) -> None:
    def written(change: Callable[[dict[str, Tensor]], None]) -> Path:
        changed = dict(state)
        change(changed)
        write_weights(tmp_path / "other.safetensors", changed, {})
        return tmp_path / "other.safetensors"

    message = refused(written(lambda s: s.pop("intro.bias")), "missing: intro.bias")
    assert "unexpected" not in message
    assert "width 2" in message
    refused(written(lambda s: s.update(extra=torch.zeros(1))), "unexpected: extra")
    message = refused(written(lambda s: s.update({"intro.bias": torch.zeros(3)})), "misshapen")
    assert "intro.bias (3,) float32 instead of (2,) float32" in message
    whole = torch.zeros(2, dtype=torch.int64)
    message = refused(written(lambda s: s.update({"intro.bias": whole})), "int64")
    many = {f"extra.{number}": torch.zeros(1) for number in range(9)}
    message = refused(written(lambda s: s.update(many)), r"extra\.3 and 5 more")

    def all_at_once(s: dict[str, Tensor]) -> None:
        s.update(extra=torch.zeros(1))
        s["intro.bias"] = torch.zeros(7)
        del s["ending.bias"]

    refused(
        written(all_at_once), r"missing: ending\.bias; unexpected: extra; misshapen: intro\.bias"
    )


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    write_weights(path, torch.nn.Linear(3, 3).state_dict(), {})
    refused(path, "of no known architecture .*DeMoE")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_damage(tmp_path: Path, state, value: float) -> None:
    broken = {**state, "intro.bias": torch.tensor([0.5, value])}
    for path, save in ((tmp_path / "a.pt", torch.save), (tmp_path / "a.safetensors", save_file)):
        save(broken, path)
        refused(path, r"intro\.bias is not finite")


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        3,
        "text",
        None,
        {},
        {"params": {}},
        {"params": 3},
        {"epoch": 3},
        {"intro.weight": [1.0, 2.0]},
        {1: 2},
        {"a": {"b": torch.zeros(1)}},
        {"a": torch.zeros(3).to_sparse()},
        {1: torch.zeros(3)},
        torch.zeros(3),
    ],
    ids=lambda c: str(c).replace("\n", "")[:30],
)
def test_what_is_no_dictionary_of_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    refused(path)


# -- damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80", b"PK", b"\x80\x02", b"PK\x03\x04", b"not weights at all\n", bytes(100), b"{}"],
    ids=lambda c: repr(c[:10]),
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_files_that_are_no_weights_are_refused(tmp_path: Path, content, suffix) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    refused(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "absent.pt", "no weights file")
    refused(tmp_path, "no weights file")


@pytest.mark.parametrize("kind", ["safetensors", "zip", "pickle"])
def test_truncated_files_are_refused(tmp_path: Path, good: Path, state, kind: str) -> None:
    path = tmp_path / "whole"
    if kind == "safetensors":
        path.write_bytes(good.read_bytes())
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for share in (0.001, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        refused(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["safetensors", "zip", "pickle"]))
def test_flipped_bytes_are_read_or_refused_but_never_crash(
    tmp_path: Path, state, data: st.DataObject, kind: str
) -> None:
    path = tmp_path / f"flipped.{kind}"
    few = {key: state[key] for key in ("intro.weight", "intro.bias")}
    if kind == "safetensors":
        write_weights(path, few, {})
    else:
        torch.save(few, path, _use_new_zipfile_serialization=kind == "zip")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        tensors, _ = read_state_dict(path)
    except WeightsError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(value, Tensor) for value in tensors.values())


# -- code ------------------------------------------------------------------------------------------


class Payload:
    """Unpickled by an ordinary reader, it would make a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


def save_bare(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def save_zip(content: Any, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, protocol=2))
        archive.writestr("archive/version", "3\n")


@pytest.mark.parametrize(
    "save",
    [
        lambda content, path: torch.save(content, path),
        lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
        save_bare,
        save_zip,
    ],
    ids=["torch", "torch before 1.6", "bare pickle", "zip"],
)
@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: {"params": p}, lambda p: [p]])
def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, save, wrap) -> None:
    target, path = tmp_path / "it ran", tmp_path / "weights.pt"
    save(wrap(Payload(target)), path)
    refused(path)
    assert not target.exists()
    # The payload does work where code is run.
    pickle.loads(pickle.dumps(Payload(target)))
    assert target.exists()


def test_code_is_named_as_the_reason(tmp_path: Path, state) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"params": state, "extra": Payload(tmp_path / "it ran")}, path)
    refused(path, "could run code")
    assert not (tmp_path / "it ran").exists()


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(DeMoENet(SMALL), path)
    refused(path, "could run code")
