"""What the session hands to the worker, and what the worker reports back; plain frozen data."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from demoe.live.order import Scope, View
from demoe.recipe import Recipe

if TYPE_CHECKING:
    from demoe.engine.kernels.solution import Blur
    from demoe.lazy import Deblurred
    from demoe.live.order import Where
    from demoe.live.run import LiveRun


@dataclass(frozen=True, eq=False)
class Job:
    """One image to deblur.

    Attributes
    ----------
    data : array-like, or sequence of them
        The layer's data, untouched.
    meta : mapping
        The layer's attributes, as in ``layer.as_layer_data_tuple()[1]``.
    recipe : Recipe
        How to deblur it.
    region : tuple of slice
        The part of the data to deblur.
    expert_map : ndarray or dask array, optional
        Painted by a person for the region: 0 leaves the choice to the network, more forces an
        expert; planes first, then rows and columns of routing cells.
    earlier : Finished, optional
        A result of the same job with another expert map; only what differs is computed.
    reopened : str
        The file of a result whose map `expert_map` is, if it was opened; if it was made from the
        same image with the same settings, only what was painted on it is computed.
    download : bool
        Whether the recipe's network may be downloaded, because the person agreed to it.
    scope : Scope
        Which tiles are wanted; boxes are in the region's pixels.
    view : View, optional
        What is looked at when it starts, in the region's pixels.
    output : str
        The output for which tiles are kept, so that they outlive the viewer, and `demoe.run` can
        go on with them; empty: nowhere for long.
    folder : str
        Where tiles are kept otherwise; empty: in the system's temporary folder.
    live : LiveRun, optional
        A run that was stopped and goes on.
    more : callable
        Told from other threads that more can be shown.
    stop : Event
        Set when nobody wants it any more; what is in work is then given up between two steps.
    """

    data: Any
    meta: Mapping[str, Any]
    recipe: Recipe
    region: tuple[slice, ...]
    expert_map: Any = None
    earlier: Finished | None = None
    reopened: str = ""
    download: bool = False
    scope: Scope = field(default_factory=Scope)
    view: View | None = None
    output: str = ""
    folder: str = ""
    live: LiveRun | None = None
    more: Callable[[], None] = lambda: None
    stop: threading.Event = field(default_factory=threading.Event)

    def is_wanted(self) -> bool:
        """Whether anybody still waits for it."""
        return not self.stop.is_set()


@dataclass(frozen=True)
class Downloading:
    """So many bytes of the network's weights are here."""

    done: int
    total: int


@dataclass(frozen=True, eq=False)
class Planned:
    """The network is loaded and the tiles are known.

    Attributes
    ----------
    run : LiveRun
        Computes them; its levels show the source where no tile is done.
    """

    run: LiveRun


@dataclass(frozen=True)
class TilesDone:
    """So many of the tiles that are wanted are finished."""

    done: int
    total: int = 0


@dataclass(frozen=True, eq=False)
class Finished:
    """All that is wanted is computed.

    Attributes
    ----------
    expert_map : ndarray of uint8
        0 or the number of a choice, one a routing cell: plane axes of the image, then rows and
        columns.
    gates : ndarray of float32
        Expert weights: plane axes, experts, rows and columns.
    confidence : ndarray of float32
        0 to 1, axes of the expert map; see `demoe.Deblurred`. Like ``gates``, it may go on filling
        up with the tiles of ``run``.
    shares : list of float
        Part of the cells that has each value of the expert map.
    sizes : list of str
        How large the blurs are where each of them is, see `napari_demoe._blurs.blur_sizes`.
    consistency, complexity : ndarray of float32 or None
        Axes of the expert map; see `demoe.Deblurred`.
    blurs : mapping
        What was found of the blur in each window, by plane; see `demoe.Deblurred.blurs`.
    kernels : ndarray of uint8, or None
        Their picture, see `demoe.live.run.Maps`; it may go on filling up, too.
    pitch : (int, int)
        Rows and columns of pixels a cell covers.
    provenance : mapping
        How the result was made; JSON-able.
    pixels : ndarray or None
        The result, where it is whole and fits into memory; else the run's levels go on showing it.
    run : LiveRun
        What computed it.
    done : set of tuple, or None
        The tiles that are done; None where all are.
    """

    expert_map: np.ndarray
    gates: np.ndarray
    confidence: np.ndarray
    shares: Sequence[float]
    sizes: Sequence[str]
    consistency: np.ndarray | None
    blurs: Mapping[tuple[int, ...], Sequence[Blur]]
    pitch: tuple[int, int]
    provenance: Mapping[str, Any]
    pixels: np.ndarray | None
    run: LiveRun
    done: Collection[Where] | None
    complexity: np.ndarray | None = None
    kernels: np.ndarray | None = None

    @property
    def result(self) -> Deblurred:
        """What was computed, for a correction of it."""
        return self.run.result


@dataclass(frozen=True)
class Failed:
    """A person can mend what went wrong; one sentence."""

    message: str


class Handle(Protocol):
    """A running worker."""

    def quit(self) -> None:
        """Ask it to stop; it does between two reports."""


class Launch(Protocol):
    """Starts a job in the background and reports on the thread of the caller."""

    def __call__(
        self,
        job: Job,
        *,
        reported: Callable[[object], None],
        crashed: Callable[[Exception], None],
        ended: Callable[[], None],
    ) -> Handle:
        """Start; `ended` is called last, whatever happens."""
