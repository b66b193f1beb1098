"""A run in one frozen, validated, JSON-able description."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any, Self

from demoe.asked import Asked, questions
from demoe.errors import RecipeError
from demoe.limits import parse_json, quoted

DECIDED = ("auto", "image", "local")
"""Routings by which the network decides; any other is the name of one of its choices."""

INTENSITY_RULES = ("auto", "full", "percentile")
POOLINGS = ("plane", "tile")
PHOTOMETRY = ("preserve", "model")
PRECISIONS = ("auto", "full")
DEVICE_KINDS = ("cuda", "mps", "xpu")
"""Kinds of accelerators: NVIDIA's and, by the same name, AMD's; Apple's; Intel's."""

_FARTHEST = 16

LONGEST = 1000
"""Characters of an instruction, at most."""

GRID = 16
"""Tiles, halos, pitch and window are multiples of this many pixels."""

LARGEST = 2**20
"""Pixels that they have at most."""


def _pixels(*sides: int) -> tuple[tuple[int, str], ...]:
    return tuple((side, f"{side} pixels") for side in sides)


@dataclass(frozen=True)
class Recipe:
    """What to do to an image; together with image and weights it fixes every output pixel.

    Parameters
    ----------
    model : str
        ``"default"``, a name that ``demoe models list`` shows, or a path to weights.
    routing : str
        ``"image"``: one decision a plane, as published; ``"local"``: one a routing cell;
        ``"auto"``: local for planes larger than two routing windows, else image;
        or the name of one of the network's choices (of DeMoE: ``demoe.TASKS``), which then is
        applied everywhere. A network that does not decide by itself follows the first of
        ``instructions`` if there is one.
    instructions : tuple of str, or str
        Sentences that say what to do, for networks that take words; they are choices beside the
        network's own, in this order, and named by themselves.
    top_k : int
        Experts mixed at each place, at least 1 and at most as many as the network has.
    tile : "auto" or int
        Largest side of a tile's core in pixels, a multiple of 16.
    halo : "auto" or int
        Pixels read around a core and then cropped, a multiple of 16.
    device : str
        ``"auto"``, ``"cpu"``, or ``"cuda"`` (ROCm, too), ``"mps"`` or ``"xpu"``, maybe with a
        number as in ``"cuda:1"``; `demoe.model.devices` lists those that are there.
    pitch, window : int
        Side in pixels of a routing cell, and of the windows that the router decides on, each by
        itself; they lie side by side, and cells take gates between those of the windows around.
    temperature : float
        Above 1, the router's decisions count as less sure, below 1 as more so.
    smoothing : int
        Cells to each side whose decisions count for a cell too, by nearness and confidence.
    agreement : int
        Planes to each side, along Z or else along T, whose decisions count too, by confidence.
    intensity : str or (float, float)
        How values become [0, 1]: ``"auto"``, ``"full"`` (the dtype's whole range),
        ``"percentile"``, or the two values that become 0 and 1.
    pooling : str
        What the network's channel attention sees: ``"plane"``: the whole plane, or samples of a
        large one, so that the result does not depend on tiles; ``"tile"``: each tile with its
        halo, by itself.
    skip_flat : bool
        Pass by what is flat background below its own noise (and noise of less than half a level
        of 255), where there is nothing to restore.
    photometry : str
        ``"preserve"`` restores the input's local mean after models that change it, and keeps
        saturated pixels saturated and values within the camera's range
        (`demoe.image.saturation`); ``"model"`` keeps what the network or the physics gives.
    precision : str
        ``"auto"``: 8-bit images in half precision where the device is faster at it and 99 % of
        values change by less than half a level (measured on the weights), ``"full"``: float32.

    psf : "auto", None, mapping or rows of numbers
        ``"auto"``: weights that have learnt to judge kernels look for the blur's and undo it;
        None: the network works alone. Or the blur, if it is known: ``{"radius": r}``,
        ``{"sigma": s}``, ``{"length": l, "angle": a}`` in pixels, or its values
        (`demoe.model.kernels.psf.make_psf`); it is undone by physics, and no expert works.

    Raises
    ------
    RecipeError
        If a field is out of range.
    """

    model: Annotated[str, Asked("Network", "The network's weights.", place="first")] = "default"
    routing: Annotated[
        str,
        Asked(
            "Blur",
            "Who decides what is removed: the network, for each place or once for each plane, or "
            "you, by naming one of its choices.",
            place="first",
        ),
    ] = "auto"
    instructions: Annotated[
        tuple[str, ...],
        Asked(
            "Instructions",
            "Say what to do, for networks that take words such as instructir; several are further "
            "choices for the routing and for painted maps.",
            place="",
        ),
    ] = ()
    top_k: Annotated[
        int,
        Asked(
            "Experts mixed",
            "How many experts are mixed at each place. 1 is fastest; more help where kinds of blur "
            "overlap.",
            minimum=1,
        ),
    ] = 1
    tile: Annotated[
        str | int,
        Asked(
            "Tile size",
            "Side of a tile in pixels. Larger tiles are faster and need more memory; the result "
            "hardly depends on it.",
            minimum=64,
            maximum=LARGEST,
            step=GRID,
            offered=(("auto", "Automatic"), *_pixels(128, 256, 512, 1024, 2048)),
        ),
    ] = "auto"
    halo: Annotated[
        str | int,
        Asked(
            "Read around",
            "Pixels that are read around a tile and then cropped. Automatic is the least that "
            "changes nothing in the result.",
            minimum=0,
            maximum=LARGEST,
            step=GRID,
            offered=(("auto", "Automatic"), (0, "Nothing"), *_pixels(32, 64, 128, 224, 256)),
            place="fine",
        ),
    ] = "auto"
    device: Annotated[
        str,
        Asked(
            "Device",
            "Where to compute. Automatic is a graphics card with CUDA, or the processor.",
        ),
    ] = "auto"
    pitch: Annotated[
        int,
        Asked(
            "Routing cell",
            "Side in pixels of the cells for which the network decides place by place.",
            minimum=GRID,
            maximum=LARGEST,
            step=GRID,
            place="fine",
        ),
    ] = 64
    window: Annotated[
        int,
        Asked(
            "Routing window",
            "Side in pixels of the windows that the network decides on; a multiple of the cell's.",
            minimum=GRID,
            maximum=LARGEST,
            step=GRID,
            place="fine",
        ),
    ] = 128
    temperature: Annotated[
        float,
        Asked(
            "Temperature",
            "Above 1, the network's decisions count as less sure, below 1 as more so.",
            minimum=0.01,
            maximum=100,
            step=0.05,
            place="fine",
        ),
    ] = 1.0
    smoothing: Annotated[
        int,
        Asked(
            "Cells around",
            "Cells to each side that have a say in a cell, by nearness and confidence.",
            minimum=0,
            maximum=_FARTHEST,
            place="fine",
        ),
    ] = 0
    agreement: Annotated[
        int,
        Asked(
            "Planes beside",
            "Planes to each side, along Z or else along T, that have a say in a plane.",
            minimum=0,
            maximum=_FARTHEST,
            place="fine",
        ),
    ] = 0
    intensity: Annotated[
        str | tuple[float, float],
        Asked(
            "Intensity",
            "How pixel values become 0 to 1 for the network: by what the image says or holds "
            "(automatic), by the whole range of their type, or by percentiles; in scripts also by "
            "two values.",
            offered=(
                ("auto", "Automatic"),
                ("full", "Whole range of the type"),
                ("percentile", "Percentiles"),
            ),
            place="fine",
        ),
    ] = "auto"
    pooling: Annotated[
        str,
        Asked(
            "Attention",
            "Where the network looks for how strong its channels are. The whole plane gives "
            "results without seams; each tile by itself needs no look at the rest, but shows "
            "seams.",
            offered=(("plane", "Over the whole plane"), ("tile", "In each tile by itself")),
        ),
    ] = "plane"
    skip_flat: Annotated[
        bool,
        Asked(
            "Skip flat background",
            "Pass by what is flat background below its own noise: faster, and the noise stays.",
        ),
    ] = False
    photometry: Annotated[
        str,
        Asked(
            "Brightness",
            "Keep the local mean of the image as it is: for measurements of intensity, and for low "
            "light that should stay dark.",
            offered=(("model", "As the network gives it"), ("preserve", "Keep the local mean")),
        ),
    ] = "model"
    precision: Annotated[
        str,
        Asked(
            "Precision",
            "Images of 8 bits are restored in half precision where that is faster and hardly "
            "changes a value; or all is computed in full.",
            offered=(("auto", "Automatic"), ("full", "Always full")),
            place="fine",
        ),
    ] = "auto"
    psf: Annotated[
        Any,
        Asked(
            "Known PSF",
            "The blur, where it is known: it is undone by physics, without the network. An image "
            "file, or radius=3 (out of focus), sigma=2.1, length=11,angle=25 (pixels, degrees), or "
            "na=1.4,wavelength=0.52,pixel=0.1; auto: it is looked for; none: the network alone.",
            hint="radius=3, or a file",
        ),
    ] = "auto"

    def __post_init__(self) -> None:
        """Check every field, so that nothing below has to."""
        if not isinstance(self.routing, str) or not self.routing.strip():
            raise RecipeError(
                f"routing must be one of {', '.join(DECIDED)} or the name of a choice of the "
                f"network, not {quoted(self.routing)}."
            )
        self._freeze_instructions()
        self._one_of("pooling", POOLINGS)
        self._one_of("photometry", PHOTOMETRY)
        self._one_of("precision", PRECISIONS)
        if not isinstance(self.model, str) or not self.model:
            raise RecipeError(f"model must be a name or a path, not {quoted(self.model)}.")
        if not _is_int(self.top_k) or self.top_k < 1:
            raise RecipeError(
                f"top_k must be a whole number of at least 1, not {quoted(self.top_k)}."
            )
        if not isinstance(self.device, str) or not re.fullmatch(
            rf"auto|cpu|({'|'.join(DEVICE_KINDS)})(:\d{{1,4}})?", self.device
        ):
            raise RecipeError(
                f"device must be auto, cpu, or one of {', '.join(DEVICE_KINDS)} with or without "
                f":N, not {quoted(self.device)}."
            )
        asked = {name: question.asked for name, question in questions(Recipe).items()}
        for name in ("tile", "halo", "pitch", "window"):
            value, (smallest, largest) = getattr(self, name), asked[name].range
            if value == "auto" and name in ("tile", "halo"):
                continue
            if not _is_int(value) or not smallest <= value <= largest or value % GRID:
                raise RecipeError(
                    f"{name} must be a multiple of {GRID} from {smallest} to {largest} pixels, "
                    f"not {quoted(value)}."
                )
        if self.window % self.pitch:
            raise RecipeError(
                f"window must be a multiple of pitch, but {self.window} is none of {self.pitch}."
            )
        coldest, hottest = asked["temperature"].range
        if not _is_number(self.temperature) or not coldest <= self.temperature <= hottest:
            raise RecipeError(
                f"temperature must be a number from {coldest} to {hottest}, not "
                f"{quoted(self.temperature)}."
            )
        for name in ("smoothing", "agreement"):
            value = getattr(self, name)
            if not _is_int(value) or not 0 <= value <= _FARTHEST:
                raise RecipeError(
                    f"{name} must be a whole number from 0 to {_FARTHEST}, not {quoted(value)}."
                )
        if not isinstance(self.skip_flat, bool):
            raise RecipeError(f"skip_flat must be true or false, not {quoted(self.skip_flat)}.")
        self._check_intensity()
        self._freeze_psf()

    def _one_of(self, name: str, allowed: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if not isinstance(value, str) or value not in allowed:
            raise RecipeError(f"{name} must be one of {', '.join(allowed)}, not {quoted(value)}.")

    def _check_intensity(self) -> None:
        rule = self.intensity
        if isinstance(rule, str):
            self._one_of("intensity", INTENSITY_RULES)
            return
        try:
            low, high = (float(v) for v in rule)
        except (TypeError, ValueError, OverflowError):
            raise RecipeError(
                f"intensity must be {', '.join(INTENSITY_RULES)} or two numbers, not "
                f"{quoted(rule)}."
            ) from None
        if not low < high or high - low == float("inf"):
            raise RecipeError(
                f"intensity needs a finite low value below the high one, not {low} and {high}."
            )
        object.__setattr__(self, "intensity", (low, high))

    def _freeze_instructions(self) -> None:
        """Keep sentences as a tuple, without spaces around them."""
        given = self.instructions
        try:
            frozen = tuple(one.strip() for one in ((given,) if isinstance(given, str) else given))
        except (AttributeError, TypeError):
            raise RecipeError(f"instructions must be sentences, not {given!r}.") from None
        for sentence in frozen:
            if not 1 <= len(sentence) <= LONGEST or sentence in DECIDED:
                raise RecipeError(
                    f"An instruction must be a sentence of 1 to {LONGEST} characters that says "
                    f"what to do, not {sentence[:60]!r}."
                )
        if len(set(frozen)) < len(frozen):
            raise RecipeError("Two instructions are the same; give each once.")
        object.__setattr__(self, "instructions", frozen)

    def _freeze_psf(self) -> None:
        """Keep a PSF as plain numbers; whether they make one is checked with the image."""
        given = self.psf
        if given is None or (isinstance(given, str) and given == "auto"):
            return
        if isinstance(given, Mapping):
            frozen: Any = {str(name): value for name, value in given.items()}
        else:
            values = given.tolist() if hasattr(given, "tolist") else given
            try:
                frozen = tuple(tuple(row) for row in values)
            except TypeError:
                raise RecipeError(
                    "psf must be auto, rows of numbers, or a radius, sigma, or length and angle."
                ) from None
        object.__setattr__(self, "psf", frozen)

    @property
    def knows_psf(self) -> bool:
        """Whether the blur is given."""
        return self.psf is not None and not isinstance(self.psf, str)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values in some fields; an unknown field is a RecipeError."""
        _check_names(type(self), changes)
        return replace(self, **changes)

    def to_json(self) -> str:
        """Return the recipe as JSON text that ``from_json`` reads back equal."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a recipe from JSON text; missing fields take their defaults.

        Raises
        ------
        RecipeError
            If the text is no JSON object, or a field is unknown or out of range.
        """
        try:
            values = parse_json(text)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"The recipe is not valid JSON: {error}.") from None
        if not isinstance(values, dict):
            raise RecipeError("The recipe must be a JSON object of fields and values.")
        _check_names(cls, values)
        return cls(**values)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_int(value) or isinstance(value, float)


def _check_names(kind: type[Recipe], values: dict[str, Any]) -> None:
    known = [field.name for field in fields(kind)]
    unknown = [name for name in values if name not in known]
    if unknown:
        raise RecipeError(
            f"A recipe has no field {quoted(unknown[0])}; its fields are {', '.join(known)}."
        )
