"""The architectures that files may hold, told apart by their keys. Loads no torch by itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from demoe.choices import Choice
from demoe.errors import WeightsError
from demoe.model.demoe import DEMOE
from demoe.model.instructir import INSTRUCTIR
from demoe.model.mimdit import MIMDIT
from demoe.model.moceir import MOCEIR
from demoe.model.protocol import Architecture, Shapes

if TYPE_CHECKING:
    from torch import Tensor

ARCHITECTURES: dict[str, Architecture] = {
    one.name: one for one in (DEMOE, INSTRUCTIR, MOCEIR, MIMDIT)
}
"""By name; files are asked for in this order."""


TOOLS = "kernels."
"""Begins the names of tensors that are no network's: see `demoe.model.kernels.tools`."""


def architecture_of(shapes: Shapes, name: str) -> Architecture:
    """Return the architecture that tensors of these shapes belong to.

    Raises
    ------
    WeightsError
        If it is none that is known here.
    """
    for architecture in ARCHITECTURES.values():
        if architecture.recognises(shapes):
            return architecture
    known = ", ".join(one.title for one in ARCHITECTURES.values())
    raise WeightsError(
        f"The tensors of {name} are of no known architecture ({known}); use weights trained with "
        "`demoe train` or released ones (`demoe models list`)."
    )


def build(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], name: str = "these weights"
) -> tuple[Architecture, Any]:
    """Build the network that a state dict belongs to, in evaluation mode.

    Raises
    ------
    WeightsError
        If the architecture is not known, or the tensors do not make a network of it.
    """
    tensors = {key: value for key, value in tensors.items() if not key.startswith(TOOLS)}
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    architecture = architecture_of(shapes, name)
    return architecture, architecture.room.build(tensors, metadata, name)


def choices_in(path: Path) -> tuple[Choice, ...] | None:
    """Return the choices of a weights file by its header alone; None where that does not tell.

    PyTorch's own files tell nothing without torch.
    """
    try:
        shapes, metadata = _header(path)
        return architecture_of(shapes, str(path)).choices(shapes, metadata)
    except (SafetensorError, OSError, WeightsError):
        return None


def takes_words_in(path: Path) -> bool:
    """Tell by its header alone whether a weights file takes instructions in words; see above."""
    try:
        return architecture_of(_header(path)[0], str(path)).takes_words
    except (SafetensorError, OSError, WeightsError):
        return False


def _header(path: Path) -> tuple[dict[str, tuple[int, ...]], Mapping[str, str]]:
    with safe_open(path, framework="numpy") as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118  (safe_open is no mapping)
        return shapes, file.metadata() or {}
