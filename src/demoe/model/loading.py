"""Weights by name or path -> a network that is ready to run, loaded once a process."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from demoe.choices import Choice, names_of
from demoe.errors import RecipeError, WeightsError
from demoe.limits import parse_json
from demoe.model.architectures import build
from demoe.model.backends.allocator import share_one_heap
from demoe.model.calibration.measuring import Calibration, calibration_of
from demoe.model.checkpoint import read_state_dict
from demoe.model.devices import choose_device
from demoe.model.kernels.tools import KernelTools, tools_of
from demoe.model.protocol import Architecture, Listener, Tenant
from demoe.model.zoo import part_path, sha256_of, weights_path


@dataclass(frozen=True, eq=False)
class Model:
    """A network on a device, and where it came from.

    Attributes
    ----------
    tenant : Tenant
        What runs the network, and all that anybody needs to know of it.
    architecture : Architecture
        The family that it belongs to.
    name : str
        The name or path it was asked for by.
    path : Path
        The weights file.
    sha256 : str
        Checksum of the weights file.
    device : torch.device
        Where it runs.
    metadata : mapping of str to str
        What the weights file says of itself, such as its ``card``; may be empty.
    tools : KernelTools or None
        What the file has learnt of kernels.
    instructions : tuple of str
        Sentences that are choices beside the network's own; see `told`.
    """

    tenant: Tenant
    architecture: Architecture
    name: str
    path: Path
    sha256: str
    device: torch.device
    metadata: Mapping[str, str] = field(default_factory=dict)
    tools: KernelTools | None = None
    instructions: tuple[str, ...] = ()
    _calibration: Callable[[], Calibration] = field(kw_only=True, repr=False)

    @property
    def network(self) -> Any:
        """The bare torch module in evaluation mode; x is (N, 3, H, W) in [0, 1].

        ``network(x, gates=None) -> (restored, gates)`` where the picture decides, ``network(x,
        embedding) -> restored`` where it is told in words; see the architecture's own ``network``.
        """
        return self.tenant.network

    @property
    def network_text(self) -> Any:
        """The bare torch module that makes instructions of sentences, in evaluation mode.

        ``network_text(features) -> (embedding, logits)``, with the features of sentences (N, F).

        Raises
        ------
        WeightsError
            If this network takes no words, or what reads them is not on this machine.
        """
        if not self.architecture.takes_words:
            raise WeightsError(f"The network {self.name} takes no instructions in words.")
        return cast("Listener", self.tenant).head(self._companion)

    @property
    def choices(self) -> tuple[Choice, ...]:
        """What gates weigh."""
        return self.tenant.choices

    @property
    def multiple(self) -> int:
        """Reads begin on multiples of this many pixels."""
        return self.tenant.multiple

    @property
    def halo(self) -> int:
        """Pixels around a core that its result depends on, apart from pooling."""
        return self.tenant.halo

    @property
    def offers(self) -> tuple[str, ...]:
        """Kinds of damage that it is for, as in `demoe.choices.DAMAGES`; empty: blur alone.

        A file says so in its metadata under ``offers`` (JSON); otherwise they are all that such
        networks are trained on here, as far as they have choices for them where they are told.
        """
        kinds = self.architecture.learns
        try:
            stated = parse_json(self.metadata.get("offers", "null"))
        except ValueError:
            stated = None
        if isinstance(stated, list):
            kinds = tuple(kind for kind in kinds if kind in stated)
        if self.tenant.decides:
            return kinds
        return tuple(kind for kind in kinds if kind in names_of(self.choices))

    @property
    def card(self) -> str:
        """What the weights say of themselves; may be empty."""
        return self.metadata.get("card", "")

    @property
    def calibration(self) -> Calibration:
        """What was measured on these weights: halos, and the largest plausible changes."""
        return self._calibration()

    def move(self, x: Tensor) -> Tensor:
        """Bring a tensor to the device, in the memory layout that networks prefer.

        Gray pictures (N, 1, H, W) become three equal samples there.
        """
        x = x.to(self.device, non_blocking=True).expand(-1, 3, -1, -1)
        return x.contiguous(memory_format=torch.channels_last)

    def with_network(self, network: Any) -> Model:
        """Return the same with another network of the architecture, and this one's calibration."""
        tenant = self.architecture.room.settle(
            network, self.device, lambda: self.calibration.bfloat16
        )
        return replace(self, tenant=tenant)

    def told(self, sentences: Sequence[str]) -> Model:
        """Return the same with sentences of a person's own as further choices.

        Raises
        ------
        RecipeError
            If the network takes no words, or not these.
        WeightsError
            If what reads sentences is not on this machine.
        """
        if not self.architecture.takes_words:
            raise RecipeError(
                f"The network {self.name} takes no instructions in words; its choices are "
                f"{', '.join(names_of(self.choices))}."
            )
        tenant = cast("Listener", self.tenant).told(sentences, self._companion)
        return replace(self, tenant=tenant, instructions=(*self.instructions, *sentences))

    def _companion(self, file: str) -> Path:
        """Return a further file of the release that bears the architecture's name."""
        return part_path(self.architecture.name, file)


def load_model(
    name: str | os.PathLike[str] = "default",
    device: str = "auto",
    instructions: Sequence[str] = (),
) -> Model:
    """Load a network; asked again for the same, return the same one.

    Parameters
    ----------
    name : str or path-like
        A name that ``demoe models list`` shows, or the path of a ``.safetensors`` or published
        ``.pt`` file. Files are read as tensors only; nothing in them is executed.
    device : str
        As in a recipe; ``"auto"`` is CUDA where there is one, else the CPU.
    instructions : sequence of str
        Sentences that the network takes as further choices; see `Model.told`.

    Raises
    ------
    WeightsError
        If the weights are absent, damaged or of another design.
    RecipeError
        If the network takes no instructions, or not these.
    DeviceError
        If the device is not there.
    """
    share_one_heap()  # before the network's threads begin
    path = weights_path(name if isinstance(name, str) else Path(name))
    status = path.stat()
    file = (str(name), path, status.st_mtime_ns, status.st_size, str(choose_device(device)))
    return _told(*file, tuple(instructions)) if instructions else _load(*file)


@functools.lru_cache(maxsize=16)  # they share what `_load` keeps
def _told(
    name: str, path: Path, mtime: int, size: int, device: str, instructions: tuple[str, ...]
) -> Model:
    return _load(name, path, mtime, size, device).told(instructions)


@functools.lru_cache(maxsize=4)
def _load(name: str, path: Path, _mtime: int, _size: int, device: str) -> Model:
    tensors, metadata = read_state_dict(path)
    architecture, network = build(tensors, metadata, str(path))
    place, sha256 = torch.device(device), sha256_of(path)
    network = network.to(place)
    network.to(memory_format=torch.channels_last)

    @functools.cache
    def calibration() -> Calibration:
        return calibration_of(tenant, lambda: architecture.room.plain(network), sha256, metadata)

    tenant = architecture.room.settle(network, place, lambda: calibration().bfloat16)
    return Model(
        tenant,
        architecture,
        name,
        path,
        sha256,
        place,
        metadata,
        tools_of(tensors, str(path)),
        _calibration=calibration,
    )
