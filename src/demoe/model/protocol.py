"""All that the rest of the project knows of a network, whichever it is.

Loads no torch, so that names of choices can be asked for without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, Self, cast, runtime_checkable

from demoe.choices import Choice

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

Statistics = Mapping[str, "Tensor"]
"""What is pooled over a plane and then held fixed, as named tensors."""

Choose = Callable[["Tensor"], "Tensor"]
"""Takes scores (N, E) of a batch and returns mixing weights (N, E, rows, cols)."""

Companion = Callable[[str], "Path"]
"""Returns a further file of a release by its name; a WeightsError if it is not on this machine."""

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of tensors by their keys in a file."""


@dataclass(frozen=True)
class Arithmetic:
    """What the choices of a network cost, where they cost differently.

    Attributes
    ----------
    complexity : tuple of tuple of float
        Of each choice in each layer, as a share of the costliest there: (layers, E).
    choices : tuple of tuple of float
        Operations that each choice takes in each layer for a pixel of a whole picture: (layers, E).
    rest : float
        Operations for such a pixel besides.
    held : float
        Operations for a pixel with statistics held, whichever choice works there.
    """

    complexity: tuple[tuple[float, ...], ...]
    choices: tuple[tuple[float, ...], ...]
    rest: float
    held: float


class Tenant(Protocol):
    """A network on a device.

    Pictures are (N, 3, H, W) floats in [0, 1] on that device; E is the number of choices. Where a
    network decides more than once on its way, gates and weights of its layers follow each other:
    read E as layers * E then, each layer's summing to 1. With ``coarse``, results are rounded to 8
    bits, so that half precision may do.

    Attributes
    ----------
    network : nn.Module
        The bare module in evaluation mode, as published: ``network(x, gates=None) -> (restored,
        gates)`` where the picture decides.
    choices : tuple of Choice
        What gates weigh, in order.
    layers : int
        How many times the network decides on its way.
    decides : bool
        Whether the picture decides which choice works where, or a person has to.
    multiple : int
        Reads begin on multiples of this many pixels; weights have a cell for each of them.
    halo : int
        Pixels around a core that its result depends on, with statistics held fixed.
    dense : bool
        Whether all choices work together, as gates say, however few are asked for at a place.
    keeps_level : bool
        Whether restored pictures have the local mean of what came in.
    flops_per_pixel : float
        Operations for a pixel with one choice.
    bare_bytes : float
        Most memory that the bare module was seen to take for a pixel of a whole picture.
    arithmetic : Arithmetic or None
        What the choices cost; None where all cost the same.
    """

    network: nn.Module
    choices: tuple[Choice, ...]
    layers: int
    decides: bool
    multiple: int
    halo: int
    dense: bool
    keeps_level: bool
    flops_per_pixel: float
    bare_bytes: float
    arithmetic: Arithmetic | None

    def facts(self) -> dict[str, Any]:
        """Return the architecture as JSON-able values."""

    def design(self) -> str:
        """Describe the architecture in a sentence."""

    def backend_name(self, coarse: bool) -> str:
        """Return what runs the network, in words."""

    def bytes_per_pixel(self, coarse: bool) -> float:
        """Return the memory that a pixel of a read takes while it is restored."""

    def decide(self, samples: Tensor, *, coarse: bool = False) -> Tensor:
        """Return one decision (E,) on a plane: all of it, or samples that stand for it together."""

    def route(self, windows: Tensor, *, coarse: bool = False) -> Tensor:
        """Return gates (N, E) of windows, each by itself."""

    def survey(
        self,
        samples: Tensor,
        weights: Tensor | None,
        *,
        top_k: int = 1,
        every: bool = False,
        coarse: bool = False,
    ) -> Statistics:
        """Find what is pooled over a plane.

        ``weights`` are mixing weights as for `restore`; without, the network decides on each sample
        by itself, and its ``top_k`` strongest choices count. ``every``: also of choices without
        weight. A network that does not decide is asked for one choice at a time, and what it finds
        is put together; so names say whose the statistics are.
        """

    def restore(
        self,
        x: Tensor,
        weights: Tensor,
        statistics: Statistics | None = None,
        *,
        recurring: bool = False,
        coarse: bool = False,
    ) -> Tensor:
        """Return the restored picture (1, 3, H, W), mixing choices exactly as told.

        ``weights`` are (1, E) or (1, E, rows, cols), one vector a cell of ``multiple`` pixels.
        Without ``statistics``, the picture is pooled by itself. ``recurring``: more pictures of
        this size are to come, so that it pays to prepare for it.
        """

    def restore_each(
        self, x: Tensor, statistics: Sequence[Statistics] | None = None
    ) -> tuple[Tensor, Sequence[Statistics]]:
        """Restore pictures by each choice alone, or by those that stand for all.

        Returns (choices, N, 3, H, W) and the statistics of each.
        """

    def half_error(self) -> float:
        """Measure what half precision changes on a CPU, in 8-bit steps; takes seconds."""


class Listener(Tenant, Protocol):
    """A tenant that takes instructions in words."""

    def head(self, companion: Companion) -> nn.Module:
        """Return the bare module that makes instructions of the features of sentences."""

    def told(self, sentences: Sequence[str], companion: Companion) -> Tenant:
        """Return the same network with sentences as further choices, named by themselves."""


@runtime_checkable
class Nested(Protocol):
    """What a tenant offers, too, whose choices choose among further ones within each."""

    def sub_gates(self, statistics: Statistics) -> Tensor:
        """Return the weights of those that work on a plane, by what was surveyed of it.

        (layers, E, K), 0 for those that do not work.
        """


class Trainable(Protocol):
    """What a training needs of a torch module."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """As of a torch module, and so are the others."""

    def buffers(self) -> Iterator[Tensor]:
        """As of a torch module."""

    def state_dict(self) -> dict[str, Tensor]:
        """As of a torch module."""

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> object:
        """As of a torch module."""

    def train(self) -> Self:
        """As of a torch module."""

    def eval(self) -> Self:
        """As of a torch module."""

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """As of a torch module."""

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """As of a torch module."""


class Pupil(Trainable, Protocol):
    """A network that can be trained to undo blur: a torch module with a little more.

    Attributes
    ----------
    choice_count : int
        Number of choices.
    multiple : int
        As of `Tenant`.
    router : nn.Module
        What decides: ``router.logits(features)`` are scores (N, E).
    """

    choice_count: int
    multiple: int
    router: Any

    def learn(self, x: Tensor, choose: Choose) -> tuple[Tensor, Tensor]:
        """Restore pictures with the weights that are chosen for their scores; return both."""

    def deepest(self, x: Tensor) -> Tensor:
        """Return the features that the router decides on."""

    def temper(self, temperature: float) -> None:
        """Divide the router's scores by a temperature, for good."""


class Apprentice(Trainable, Protocol):
    """A network that can be trained to undo damage of several kinds.

    Attributes
    ----------
    is_told : bool
        Whether it is told which damage to undo, and leaves other damage alone.
    """

    is_told: bool

    def practise(
        self, x: Tensor, told: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Restore pictures (N, 3, H, W) as in training.

        ``told`` (N, kinds) is 1 for each kind of damage that is to be undone. Returns the restored
        pictures, and what the network adds to the loss, such as for experts that do not share the
        work.
        """

    def offer(self, names: Sequence[str]) -> None:
        """Be for damage of these kinds alone, once training has shown what it can do."""


class Hearer(Trainable, Protocol):
    """A network that can learn to be told in words.

    Attributes
    ----------
    choices : tuple of Choice
        What it can be told by name.
    """

    choices: tuple[Choice, ...]

    def new_ears(self) -> list[nn.Parameter]:
        """Give it an untrained sentence encoder, and return what of it is to be learnt."""

    def understand(self, sentences: Sequence[str]) -> Tensor:
        """Return the log-odds (N, E) that sentences ask for each choice."""


class Room(Protocol):
    """What the module ``tenant`` in the room of an architecture offers."""

    def build(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], name: str) -> Any:
        """Build the network that a state dict belongs to, in evaluation mode."""

    def settle(self, network: Any, device: torch.device, half_error: Callable[[], float]) -> Tenant:
        """Return a network on a device as a tenant, run by what is fastest there.

        ``half_error`` tells what half precision was measured to change on a CPU.
        """

    def plain(self, network: Any) -> Tenant:
        """Return it as PyTorch runs it, operation by operation in full precision."""

    def fresh(self, width: int = ...) -> Any:
        """Return an untrained network that leaves pictures alone, a `Pupil` or `Apprentice`."""

    def pupil(self, network: Any) -> Any:
        """Return a network as it is to be trained further, a `Pupil` or `Apprentice`."""

    def adopt(self, tensors: Mapping[str, Tensor], name: str) -> Any:
        """Return one that begins as a network of another architecture, if there is such a way."""

    def slim(self, network: Any) -> Any:
        """Return a random network that is as deep and hardly computes, to measure the rest by."""


@dataclass(frozen=True)
class Architecture:
    """A family of networks, without torch.

    Attributes
    ----------
    name : str
        As in ``demoe train --network``.
    title : str
        What people call it, and where it is published.
    recognises : callable
        Tells by the shapes of its tensors whether a file holds such a network.
    choices : callable
        Returns the choices of a file, given shapes and metadata.
    module : str
        Where its `Room` is.
    takes_words : bool
        Whether its tenants are told what to do in a person's own words: `Listener`.
    learns : tuple of str
        The kinds of damage that it is trained to undo; empty for a `Pupil`, which learns blur.
    """

    name: str
    title: str
    recognises: Callable[[Shapes], bool]
    choices: Callable[[Shapes, Mapping[str, str]], tuple[Choice, ...]]
    module: str
    takes_words: bool = False
    learns: tuple[str, ...] = ()

    @property
    def room(self) -> Room:
        """What builds and runs its networks; brings torch along."""
        return cast("Room", import_module(self.module))
