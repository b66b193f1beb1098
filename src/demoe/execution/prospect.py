"""What a run would take, asked for by who must not wait for PyTorch to load.

To load it stops all threads of a process for a while, so another process is asked where it is not
loaded yet.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import dask.array as da

from demoe.errors import DemoeError
from demoe.image.lazy_image import LazyImage
from demoe.plan.tiling import TilePlan
from demoe.recipe import Recipe

PATIENCE = 0.2
"""Seconds after which it is asked again whether anybody still wants the answer."""


@dataclass(frozen=True)
class Estimate:
    """What a run would take.

    Attributes
    ----------
    plan : TilePlan
        How each plane is cut.
    planes : int
        How many there are.
    seconds : float
        What a tile takes.
    is_measured : bool
        Whether earlier runs on this machine say so; else it is reckoned from the arithmetic, and
        meant to be right within a factor of two.
    memory : int
        Bytes of the whole process.
    tile_bytes : int
        Most that a finished tile takes on disk.
    disk : int
        Most that all of them take.
    provenance : dict
        How the run would be done, as of `demoe.Deblurred`.
    blur : str
        What is done about the blur, in words; empty where the network works alone.
    """

    plan: TilePlan
    planes: int
    seconds: float
    is_measured: bool
    memory: int
    tile_bytes: int
    disk: int
    provenance: dict[str, Any]
    blur: str = ""

    @property
    def tiles(self) -> int:
        """Tiles of the whole image."""
        return self.planes * math.prod(self.plan.shape)


@dataclass(frozen=True)
class Prospect:
    """What is known of a run before it begins.

    Attributes
    ----------
    estimate : Estimate
        What it would take.
    devices : tuple of (str, str)
        Name and label of each device of this machine, see `demoe.model.devices.Device`.
    why : str
        Why the processor computes, if nobody asked for it; else empty.
    """

    estimate: Estimate
    devices: tuple[tuple[str, str], ...]
    why: str


def blank(axes: str, shape: tuple[int, ...], dtype: str) -> LazyImage:
    """Return an image that says what another is like, without its pixels."""
    return LazyImage.from_array(da.zeros(shape, dtype=dtype, chunks=shape), axes)


def prospect_of(
    image: LazyImage, recipe: Recipe, is_wanted: Callable[[], bool] = lambda: True
) -> Prospect | None:
    """Say what a run on an image would take; its pixels are not read.

    Takes seconds, but no other thread has to wait for it.

    Parameters
    ----------
    image : LazyImage
        The image.
    recipe : Recipe
        How it would be deblurred.
    is_wanted : callable
        Whether anybody still wants to know.

    Returns
    -------
    Prospect or None
        None if there can be no such run, or nobody wants to know.
    """
    kind = (image.axes, image.shape, str(image.dtype))
    if "torch" in sys.modules:
        from demoe.execution.estimate import look_ahead

        try:
            return look_ahead(*kind, recipe)
        except DemoeError:
            return None
    return _from_elsewhere(*kind, recipe, is_wanted)


def _from_elsewhere(
    axes: str,
    shape: tuple[int, ...],
    dtype: str,
    recipe: Recipe,
    is_wanted: Callable[[], bool],
) -> Prospect | None:
    question = {"axes": axes, "shape": shape, "dtype": dtype, "recipe": recipe.to_json()}
    try:
        told = json.loads(_answer_of(json.dumps(question), is_wanted))
        plan = TilePlan(**told["estimate"].pop("plan"))
        devices = tuple((str(name), str(label)) for name, label in told["devices"])
        return Prospect(Estimate(plan, **told["estimate"]), devices, str(told["why"]))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError, KeyError):
        return None


def _answer_of(question: str, is_wanted: Callable[[], bool]) -> str:
    """Ask another process; without an answer, or somebody who wants it, return nothing."""
    command = [sys.executable, "-P", "-m", "demoe.execution.estimate"]
    pipe = subprocess.PIPE
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=quiet, text=True) as process:
        said: str | None = question
        while is_wanted():
            try:
                return process.communicate(said, timeout=PATIENCE)[0]
            except subprocess.TimeoutExpired:
                said = None  # it was told, and goes on reading
        process.kill()
        return ""


def asked(answer: Callable[..., Prospect]) -> None:
    """Answer, in another process, what `prospect_of` asks for: JSON comes in and goes out."""
    question = json.load(sys.stdin)
    recipe = Recipe.from_json(question["recipe"])
    try:
        found = answer(question["axes"], tuple(question["shape"]), question["dtype"], recipe)
    except DemoeError as error:
        sys.exit(str(error))
    json.dump(asdict(found), sys.stdout)
