"""Weights on disk: read as tensors only, checked, and written as safetensors."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from demoe.errors import OutputError, WeightsError
from demoe.limits import gibibytes, quoted, shortened

_WRAPPERS = ("params_ema", "params", "state_dict")
_PREFIXES = (*_WRAPPERS, "net")  # the last is how Lightning's checkpoints name a network
_LISTED = 4
_LARGER = 16  # how much larger tensors may be than the file: as float32, and stored once for many
_LONGEST_HEADER = 100_000_000  # what the safetensors library accepts


def read_state_dict(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors of a weights file without running anything that is in it.

    Parameters
    ----------
    path : path-like
        ``.safetensors``, or a PyTorch file (``.pt``, ``.pth``, ``.ckpt``) that holds a state dict,
        bare or under ``params``, ``params_ema`` or ``state_dict``, with or without ``module.`` or
        ``net.`` before its keys.

    Returns
    -------
    tensors : dict of str to Tensor
        On the CPU, keys without prefixes, floating point tensors as float32.
    metadata : dict of str to str
        What a safetensors file says of itself; empty for PyTorch files.

    Raises
    ------
    WeightsError
        If the file is absent, damaged, holds anything but tensors, or not one tensor.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}.")
    metadata: dict[str, str] = {}
    if _is_torch_file(path):
        content = _unwrap(_read_torch(path), path)
    else:
        content, metadata = _read_safetensors(path)
    content = {str(key): value for key, value in content.items()}
    wrapper = next((w for w in _PREFIXES if any(k.startswith(f"{w}.") for k in content)), None)
    if wrapper:
        prefix = f"{wrapper}."
        content = {k.removeprefix(prefix): v for k, v in content.items() if k.startswith(prefix)}
    tensors: dict[str, Tensor] = {}
    left = _LARGER * path.stat().st_size
    for key, value in content.items():
        if not isinstance(value, Tensor) or not _is_dense(value):
            raise WeightsError(
                f"The weights file {path} holds {_kind(value)} under {quoted(key)} "
                "where a dense tensor is expected."
            )
        left -= 4 * value.numel()
        if value.numel() * value.element_size() > value.untyped_storage().nbytes() or left < 0:
            raise WeightsError(
                f"The weights file {path} claims a tensor of {_form(value)} under {quoted(key)}, "
                "which is more than the file holds."
            )
        value = value.float() if value.is_floating_point() else value
        if value.is_floating_point() and not value.isfinite().all():
            raise WeightsError(
                f"The weights file {path} is damaged: {shortened(key)} is not finite."
            )
        tensors[key.removeprefix("module.")] = value
    if not tensors:
        raise WeightsError(f"The weights file {path} holds no tensors.")
    return tensors, metadata


def _is_torch_file(path: Path) -> bool:
    """Tell PyTorch's formats (zip archive or bare pickle) from safetensors by content."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise WeightsError(
            f"The weights file {path} cannot be read ({error.strerror or error})."
        ) from None
    # The length of a safetensors header may begin with the very bytes of a pickle or a zip file.
    if int.from_bytes(head[:8], "little") <= _LONGEST_HEADER and head[8:] == b"{":
        return False
    return head[:1] == b"\x80" or head[:2] == b"PK"


def _is_dense(value: Tensor) -> bool:
    return value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized


def _kind(value: object) -> str:
    if isinstance(value, Tensor) and value.device.type != "cpu":
        return f"a tensor without values ({value.device.type})"
    if isinstance(value, Tensor):
        return f"a {'quantized' if value.is_quantized else value.layout} tensor"
    return f"a value of type {type(value).__name__}"


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118  (safe_open is no mapping)
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"The weights file {path} is neither a complete safetensors nor a PyTorch file "
            f"({_reason(error)})."
        ) from None


def _read_torch(path: Path) -> Any:
    try:
        # By a path, torch would go by the suffix. Lightning's checkpoints keep the options of a
        # training as a Namespace, which holds values and runs nothing.
        with path.open("rb") as file, torch.serialization.safe_globals([argparse.Namespace]):
            _check_archive(file, path)
            return torch.load(file, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        refused = "Unsupported global" in str(error) or "GLOBAL" in str(error)
        why = (
            "holds Python objects that could run code, and was not loaded; "
            "ask for a file with tensors only (safetensors)"
            if refused
            else "is damaged or no PyTorch file"
        )
        raise WeightsError(f"The weights file {path} {why}.") from None
    except Exception as error:  # what a damaged pickle makes the reader stumble over is open
        raise WeightsError(
            f"The weights file {path} is damaged or incomplete ({_reason(error)})."
        ) from None


def _check_archive(file: BinaryIO, path: Path) -> None:
    """Refuse an archive that grows when it is unpacked: PyTorch stores without compression."""
    if not zipfile.is_zipfile(file):
        file.seek(0)
        return
    with zipfile.ZipFile(file) as archive:
        holds = sum(entry.file_size for entry in archive.infolist())
    file.seek(0)
    if holds > path.stat().st_size:
        raise WeightsError(
            f"The weights file {path} would unpack to {gibibytes(holds)}, which is more than it "
            "has itself; save it again with torch.save, which does not compress."
        )


def _reason(error: Exception) -> str:
    """Return the first sentence of an error."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].partition(". ")[0].rstrip(".")[:200]


def _unwrap(content: Any, path: Path) -> dict[Any, Any]:
    for _ in range(2):
        if isinstance(content, Mapping):
            for wrapper in _WRAPPERS:
                if isinstance(content.get(wrapper), Mapping):
                    content = content[wrapper]
                    break
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"The weights file {path} holds a {type(content).__name__} where a state dict is "
            "expected."
        )
    return dict(content)


Network = TypeVar("Network", bound=nn.Module)


def fill(
    make: Callable[[], Network], tensors: Mapping[str, Tensor], name: str, words: str
) -> Network:
    """Make a network and give it the tensors of a state dict, all of them and no others.

    Parameters
    ----------
    make : callable
        Makes the network; called without memory for its parameters.
    tensors : mapping of str to Tensor
        Become its parameters as they are.
    name, words : str
        What the tensors and the network are called in errors.

    Returns
    -------
    nn.Module
        In evaluation mode, without gradients.

    Raises
    ------
    WeightsError
        If keys are missing or unexpected or tensors have other shapes; the message lists them.
    """
    with torch.device("meta"):
        network = make()
    wanted = network.state_dict()
    problems = {
        "missing": [key for key in wanted if key not in tensors],
        "unexpected": [key for key in tensors if key not in wanted],
        "misshapen": [
            f"{key} {_form(tensors[key])} instead of {_form(value)}"
            for key, value in wanted.items()
            if key in tensors and _form(tensors[key]) != _form(value)
        ],
    }
    if any(problems.values()):
        listed = "; ".join(f"{kind}: {_some(keys)}" for kind, keys in problems.items() if keys)
        raise WeightsError(f"The tensors of {name} do not make {words}: {listed}.")
    network.load_state_dict(dict(tensors), strict=True, assign=True)
    return network.eval().requires_grad_(False)


def _form(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return ", ".join(shortened(key) for key in keys[:_LISTED]) + more


def write_weights(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    *,
    half: bool = False,
) -> None:
    """Write tensors as safetensors, complete or not at all.

    Parameters
    ----------
    half : bool
        Store floating point tensors as float16, which halves the file.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    stored = {
        key: (_halved(value) if half else value).contiguous().cpu()
        for key, value in tensors.items()
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(save(stored, dict(metadata)))
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"The weights could not be written to {path}: {error}.") from None


def _halved(value: Tensor) -> Tensor:
    """Return a tensor as float16 unless it is of integers or has values beyond that range."""
    if not value.is_floating_point():
        return value
    halved = value.half()
    return halved if halved.isfinite().all() else value
