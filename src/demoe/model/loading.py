"""Weights by name or path -> a network that is ready to run, loaded once a process."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from demoe.errors import DeviceError, WeightsError
from demoe.model.backends.allocator import keep_freed_memory, share_one_heap
from demoe.model.backends.half import HALVES, NEAR, AutocastBackend, half_error, multiplies_bfloat16
from demoe.model.calibration.measuring import Calibration, calibration_of
from demoe.model.checkpoint import build_network, read_state_dict
from demoe.model.demoe.config import NetworkConfig
from demoe.model.demoe.eager import Attention, Backend, EagerBackend
from demoe.model.demoe.network import DeMoENet, keep_top
from demoe.model.demoe.receptive_field import exact_halo
from demoe.model.download import sha256_of
from demoe.model.zoo import weights_path
from demoe.recipe import TASKS

BACKEND_TOLERANCE = 1e-4
"""Largest difference, in units of the picture's range, between backends that count as the same."""

HALF_TOLERANCE = 0.02
"""The same for backends in half precision."""

ROUTED_AT_ONCE = 4
"""Windows that are decided on together; it changes no decision."""


@dataclass(frozen=True, eq=False)
class Model:
    """A network on a device, and all that the engine knows of networks.

    Attributes
    ----------
    network : DeMoENet
        The bare torch module: ``network(x, gates=None) -> (restored, gates)`` for x (N, 3, H, W)
        in [0, 1]. In evaluation mode.
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
    tasks : tuple of str
        What each expert is for.
    """

    network: DeMoENet
    name: str
    path: Path
    sha256: str
    device: torch.device
    metadata: Mapping[str, str] = field(default_factory=dict)
    tasks: tuple[str, ...] = TASKS

    @property
    def config(self) -> NetworkConfig:
        """The architecture."""
        return self.network.config

    @property
    def multiple(self) -> int:
        """Reads begin on multiples of this many pixels."""
        return self.config.multiple

    @property
    def halo(self) -> int:
        """Pixels around a core that its result depends on, apart from pooling."""
        return exact_halo(self.config)

    @property
    def card(self) -> str:
        """What the weights say of themselves; may be empty."""
        return self.metadata.get("card", "")

    @functools.cached_property
    def calibration(self) -> Calibration:
        """What was measured on these weights: halos, and the largest plausible changes."""
        return calibration_of(self.network, self.sha256, self.metadata)

    @functools.cached_property
    def backend(self) -> Backend:
        """What runs the network: OpenVINO on a CPU where it is installed, else PyTorch."""
        return choose_backend(self.network, self.device)

    @functools.cached_property
    def coarse_backend(self) -> Backend:
        """What restores pictures of 8 bits: in half precision where that is fast and near enough.

        On a CPU the error stands in the calibration, since there it takes seconds to measure.
        """
        dtype = HALVES.get(self.device.type)
        on_cpu = self.device.type == "cpu"
        if dtype is None or (on_cpu and not multiplies_bfloat16()):
            return self.backend
        half = AutocastBackend(self.network, dtype)
        exact = EagerBackend(self.network)
        error = self.calibration.bfloat16 if on_cpu else half_error(exact, half)
        if error >= NEAR:
            return self.backend
        return half if self.backend.name == exact.name else _half_graph(self.backend, half)

    def backend_for(self, coarse: bool) -> Backend:
        """Return what restores pictures whose results are rounded to 8 bits, or not."""
        return self.coarse_backend if coarse else self.backend

    @torch.inference_mode()
    def survey(self, x: Tensor, *, coarse: bool = False) -> Tensor:
        """Return the router's one decision (E,) on a plane.

        Parameters
        ----------
        x : Tensor
            (N, 3, H, W) in [0, 1]: the plane, or samples that stand for it together.
        coarse : bool
            As for `restore`.
        """
        backend = self.backend_for(coarse)
        features = backend.features(self.network.pad(x), together=True, recurring=True)
        return self.network.mlp_branch.together(features)

    @torch.inference_mode()
    def attend(
        self,
        x: Tensor,
        weights: Tensor | None,
        *,
        top_k: int = 1,
        each: bool = False,
        every: bool = False,
        coarse: bool = False,
    ) -> Attention:
        """Find the attention of all blocks for a plane.

        Parameters
        ----------
        x : Tensor
            As for `survey`.
        weights : Tensor, optional
            Mixing weights, as for `restore`. By default the ``top_k`` strongest experts of the
            router's decision.
        top_k : int
            Experts that are mixed where the router decides.
        each : bool
            Let the router decide on each sample by itself.
        every : bool
            Find the attention of experts without weight, too.
        coarse : bool
            As for `restore`.
        """
        padded, router = self.network.pad(x), self.network.mlp_branch
        backend = self.backend_for(coarse)
        if weights is None:
            features = backend.features(padded, together=True, recurring=True)
            gates = router(features) if each else router.together(features).expand(len(x), -1)
            weights = keep_top(gates, top_k)
        weights = _spatial(weights)
        wanted = (weights.amax(dim=(0, 2, 3), keepdim=True) > 0) | every
        # So little of an expert changes no number that matters, but makes it run in each sample.
        weights = torch.where(wanted, weights.clamp_min(1e-9), weights)
        return backend.attend(padded, weights)

    @torch.inference_mode()
    def route(self, x: Tensor, *, coarse: bool = False) -> Tensor:
        """Return the router's decisions (N, E) on pictures, each by itself; see `survey`."""
        backend, padded, found = self.backend_for(coarse), self.network.pad(x), []
        for part in padded.split(ROUTED_AT_ONCE):
            # Always as many, since the backend prepares for one size.
            missing = (ROUTED_AT_ONCE - len(part)) * (len(padded) > len(part))
            filled = torch.cat([part, part.new_zeros(missing, *part.shape[1:])])
            recurring = len(padded) >= ROUTED_AT_ONCE
            features = backend.features(filled, together=False, recurring=recurring)
            found.append(features[: len(part)])
        decisions: Tensor = self.network.mlp_branch(torch.cat(found))
        return decisions

    @torch.inference_mode()
    def restore(
        self,
        x: Tensor,
        weights: Tensor,
        attention: Attention | None = None,
        *,
        recurring: bool = False,
        coarse: bool = False,
    ) -> Tensor:
        """Return the restored picture (1, 3, H, W), mixing experts exactly as told.

        Parameters
        ----------
        x : Tensor
            (1, 3, H, W) in [0, 1].
        weights : Tensor
            (1, E) or (1, E, rows, cols), one weight vector a cell of ``multiple`` pixels.
        attention : mapping, optional
            Of all blocks, held fixed; by default blocks pool over the picture.
        recurring : bool
            More pictures of this size are to come, so that it pays to prepare for it.
        coarse : bool
            The result is rounded to 8 bits, so that half precision may do.
        """
        padded = self.network.pad(x)
        backend = self.backend_for(coarse)
        restored = backend.restore(padded, _spatial(weights), attention, recurring)[0]
        return self.network.finish(restored[:, :, : x.shape[2], : x.shape[3]], x)

    def move(self, x: Tensor) -> Tensor:
        """Bring a tensor to the device, in the memory layout that the network prefers.

        Gray pictures (N, 1, H, W) become three equal samples there.
        """
        x = x.to(self.device, non_blocking=True).expand(-1, 3, -1, -1)
        return x.contiguous(memory_format=torch.channels_last)


def _spatial(weights: Tensor) -> Tensor:
    return weights[:, :, None, None] if weights.ndim == 2 else weights


def choose_backend(network: DeMoENet, device: torch.device) -> Backend:
    """Return OpenVINO's backend on a CPU where it is installed and computes the same, else eager.

    The environment variable ``DEMOE_BACKEND=torch`` asks for PyTorch.
    """
    wanted = os.environ.get("DEMOE_BACKEND", "auto")
    if wanted not in ("auto", "torch"):
        raise DeviceError(f"DEMOE_BACKEND must be auto or torch, not {wanted!r}.")
    if device.type != "cpu" or wanted == "torch":
        return _eager(network)
    try:
        from demoe.model.demoe.graph import OpenVINOBackend
    except ImportError:
        return _eager(network)
    fast = OpenVINOBackend(network)
    found = _difference(EagerBackend(network), fast, (True, False))
    return fast if found < BACKEND_TOLERANCE else _eager(network)


def _half_graph(exact: Backend, half: AutocastBackend) -> Backend:
    """Return OpenVINO's backend in half precision if it computes what PyTorch does, else ``exact``.

    Where two ways round at different places they differ by about as much as from the exact result.
    """
    from demoe.model.demoe.graph import OpenVINOBackend

    fast = OpenVINOBackend(half.network, half=True)
    return fast if _difference(half, fast, (True,)) < HALF_TOLERANCE else exact


def _eager(network: DeMoENet) -> Backend:
    # Graphs keep what they need by themselves; a heap that never shrinks would only keep it twice.
    keep_freed_memory()
    return EagerBackend(network)


@torch.inference_mode()
def _difference(eager: Backend, other: Backend, held: Sequence[bool]) -> float:
    """Return how far two backends are apart on a picture of noise, with pooling held or not."""
    picture = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    weights = torch.eye(len(TASKS))[:1, :, None, None]
    wanted, attention = eager.restore(picture, weights, None)
    found = [other.restore(picture, weights, attention if h else None)[0] for h in held]
    most = max(float((one - wanted).abs().max()) for one in found)
    return most / max(1.0, float(wanted.abs().max()))


def choose_device(device: str) -> torch.device:
    """Return the torch device for "auto", "cpu", "cuda" or "cuda:N".

    Raises
    ------
    DeviceError
        If a CUDA device is asked for that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if re.fullmatch(r"cuda(:\d+)?", device):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(device.partition(":")[2] or 0) >= count:
            raise DeviceError(
                f"The device {device} is not available: PyTorch sees {count} CUDA device(s) here; "
                "use cpu or auto."
            )
    try:
        return torch.device(device)
    except RuntimeError:
        raise DeviceError(
            f"There is no device {device!r}; use auto, cpu, cuda or cuda:N."
        ) from None


def load_model(name: str | os.PathLike[str] = "default", device: str = "auto") -> Model:
    """Load a network; asked again for the same file and device, return the same one.

    Parameters
    ----------
    name : str or path-like
        A name that ``demoe models list`` shows, or the path of a ``.safetensors`` or published
        ``.pt`` file. Files are read as tensors only; nothing in them is executed.
    device : str
        ``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    Raises
    ------
    WeightsError
        If the weights are absent, damaged or of another design.
    DeviceError
        If the device is not there.
    """
    share_one_heap()  # before the network's threads begin
    path = weights_path(name if isinstance(name, str) else Path(name))
    status = path.stat()
    return _load(str(name), path, status.st_mtime_ns, status.st_size, str(choose_device(device)))


@functools.lru_cache(maxsize=4)
def _load(name: str, path: Path, _mtime: int, _size: int, device: str) -> Model:
    tensors, metadata = read_state_dict(path)
    network = build_network(tensors, name=str(path))
    if network.config.experts != len(TASKS):
        raise WeightsError(
            f"The weights {path} have {network.config.experts} experts, but the {len(TASKS)} tasks "
            "need one each; use such a network through demoe.model.checkpoint."
        )
    network = network.to(torch.device(device))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's gap
    return Model(network, name, path, sha256_of(path), torch.device(device), metadata)
