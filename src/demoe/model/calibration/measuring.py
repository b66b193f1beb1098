"""What is measured on weights once: the halo, changes to expect, the error of half precision.

All come from restoring a few synthetic pictures with every expert, on the CPU in float32, so that
the same weights always give the same answer. It is kept with the weights (in the metadata of a
safetensors file) or, for other people's files, in the cache folder by the file's checksum.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from demoe.errors import WeightsError
from demoe.limits import parse_json, read_text
from demoe.model.architectures import build
from demoe.model.calibration.changes import STATISTICS, Bound, Bounds, Changes, measure_changes
from demoe.model.calibration.pictures import pictures
from demoe.model.checkpoint import read_state_dict, write_weights
from demoe.model.protocol import Tenant
from demoe.model.zoo import cache_dir

METADATA_KEY = "calibration"
"""Where safetensors files hold it."""

VERSION = 3
"""Of the way of measuring; what another version has measured is measured again."""

PRECISIONS = {"8-bit": 1 / 510, "16-bit": 1 / 131070}
"""Half a step of integer images as a share of their full range. Narrower intensity limits make
steps a larger share, so that these hold for them, too."""

TILING_MARGIN = 4.0
"""How much larger the error may be on other pictures than on those that are tried here."""

CHANGE_MARGIN = 5.0
"""How much larger the changes that a restoration makes may be there."""

LEAST = Bound(0.02, 0.25)
"""Changes that are always plausible, however little a network does."""

MOST = 1.0
"""A change of more than the whole range is no restoration, in whatever weights it is found."""

CELL = 16
"""Side in pixels of the cells that changes are measured in, the smallest pitch. In larger cells,
changes are at most as large against their contrast."""

_FLAT = {"peak": 0.1, "rms": 0.03, "shift": 0.03}  # contrast of cells that floors come from
_CUT = 32


@dataclass(frozen=True)
class Calibration:
    """What was found out about a network's weights.

    Attributes
    ----------
    halos : dict of str to int
        Pixels to read around a core, by precision of the output: "8-bit", "16-bit", "float".
        Multiples of the network's grid, never more than the exact halo, which floats take.
    tiling_errors : tuple of float
        Largest error of a core that was found with halos of 0, 1, 2 ... steps of the grid.
    guard : Bounds
        The largest plausible changes.
    bfloat16 : float
        Error, in 8-bit steps, of what is computed in bfloat16
        (`demoe.model.backends.half.half_error`).
    version : int
        Of the way of measuring.
    """

    halos: dict[str, int]
    tiling_errors: tuple[float, ...]
    guard: Bounds
    bfloat16: float
    version: int = VERSION

    def halo_for(self, dtype: np.dtype[Any] | type[Any]) -> int:
        """Return the halo for an image's dtype; integers wider than 16 bits count as 16."""
        dtype = np.dtype(dtype)
        if dtype.kind == "f":
            return self.halos["float"]
        return self.halos["8-bit" if dtype.itemsize == 1 else "16-bit"]

    def to_json(self) -> str:
        """Return JSON text that `from_json` reads back equal."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str, tenant: Tenant) -> Self | None:
        """Read what `to_json` wrote for a network; None if it is damaged or of another version."""
        try:
            values = parse_json(text)
            if values["version"] != VERSION:
                return None
            read = cls(
                {name: int(values["halos"][name]) for name in (*PRECISIONS, "float")},
                tuple(float(error) for error in values["tiling_errors"]),
                Bounds.from_dict(values["guard"]),
                float(values["bfloat16"]),
            )
        except (ValueError, TypeError, KeyError, OverflowError):
            return None
        finite = all(math.isfinite(error) for error in read.tiling_errors)
        fits = (
            finite
            and read.bfloat16 >= 0
            and all(
                0 <= halo <= tenant.halo and halo % tenant.multiple == 0
                for halo in read.halos.values()
            )
        )
        return read if fits else None


@torch.inference_mode()
def calibrate(tenant: Tenant) -> Calibration:
    """Measure a network's weights; a few seconds at width 16.

    Parameters
    ----------
    tenant : Tenant
        As its room's ``plain`` returns it: on the CPU, in float32.
    """
    grid, exact = tenant.multiple, tenant.halo
    side = cut_of(tenant) + max(exact, 96)
    errors = np.zeros(exact // grid)
    changes: list[Changes] = []
    for picture in pictures(side):
        found, restored = tiling_errors(tenant, picture.values)
        errors = np.maximum(errors, found)
        if picture.ordinary:
            changes += [measure_changes(picture.values, after, CELL) for after in restored]
    halos = {
        name: next(
            (step * grid for step, e in enumerate(errors) if TILING_MARGIN * e < half), exact
        )
        for name, half in PRECISIONS.items()
    }
    return Calibration(
        halos | {"float": exact},
        tuple(float(f"{error:.3g}") for error in errors),
        Bounds(**{name: _bound(changes, name) for name in STATISTICS}),
        float(f"{tenant.half_error():.3g}"),
    )


def calibration_metadata(tenant: Tenant) -> dict[str, str]:
    """Return what to add to the metadata of a weights file, so that nobody measures again."""
    return {METADATA_KEY: calibrate(tenant).to_json()}


def add_calibration(path: str | os.PathLike[str]) -> Calibration:
    """Measure the network in a safetensors file and write what was found into its metadata.

    Raises
    ------
    WeightsError
        If the file is no safetensors file, is damaged or holds no known network.
    OutputError
        If the file cannot be written; it stays as it was.
    """
    tensors, metadata = read_state_dict(path)
    architecture, network = build(tensors, metadata, str(path))
    try:
        stored = load_file(path)  # as they are, whatever their precision
    except SafetensorError:
        raise WeightsError(
            f"{path} is no safetensors file, so nothing can be added to its metadata."
        ) from None
    found = calibrate(architecture.room.plain(network))
    write_weights(path, stored, metadata | {METADATA_KEY: found.to_json()})
    return found


def calibration_of(
    tenant: Tenant, plain: Callable[[], Tenant], sha256: str, metadata: Mapping[str, str]
) -> Calibration:
    """Return the calibration of loaded weights, and measure only what nobody has measured yet.

    Parameters
    ----------
    tenant : Tenant
        The loaded network.
    plain : callable
        Returns it as `calibrate` wants it.
    sha256 : str
        Checksum of the weights file.
    metadata : mapping of str to str
        What the file says of itself.
    """
    known = Calibration.from_json(metadata.get(METADATA_KEY, ""), tenant)
    known = known or _read_cached(tenant, sha256)
    if known is None:
        known = calibrate(plain())
        _write_cached(known, sha256)
    return known


# -- measuring ----------------------------------------------------------------------------------


def cut_of(tenant: Tenant) -> int:
    """Return how many pixels are cut off to see what a cut does: whole steps of the grid."""
    return max(_CUT, tenant.multiple)  # both are powers of two


@torch.inference_mode()
def tiling_errors(
    tenant: Tenant, values: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Restore a picture with each choice, and parts of it that end where the picture does not.

    One part lacks the top and left of the picture, one the bottom and right; what is pooled is held
    fixed at the picture's.

    Parameters
    ----------
    tenant : Tenant
        On the CPU.
    values : ndarray
        (n, n, 3) in [0, 1]; n is a multiple of the grid, at least the exact halo and `cut_of` more.

    Returns
    -------
    errors : ndarray
        For halos of 0, 1, 2 ... steps of the grid below the exact one: the largest difference
        between picture and parts at that distance from the cuts, and further.
    restored : ndarray
        (choices, n, n, 3).
    """
    cut = cut_of(tenant)
    x = torch.from_numpy(np.ascontiguousarray(values)).permute(2, 0, 1)[None]
    parts = torch.cat([x[:, :, cut:, cut:], x[:, :, :-cut, :-cut]])
    x, parts = (t.contiguous(memory_format=torch.channels_last) for t in (x, parts))
    whole, statistics = tenant.restore_each(x)
    cores, _ = tenant.restore_each(parts, statistics)
    inside = torch.cat([whole[..., cut:, cut:], whole[..., :-cut, :-cut]], dim=1)
    # What is not finite differs as much as can be; a maximum would drop it.
    different = (cores - inside).abs().nan_to_num(torch.inf, torch.inf).amax(dim=(0, 2))
    # Turned so that the cuts of both lie at the first row and column.
    turned = torch.maximum(different[0], different[1].flip(0, 1))
    halos = range(0, tenant.halo, tenant.multiple)
    largest = [float(turned[halo:, halo:].max()) for halo in halos]
    return np.array(largest), whole[:, 0].permute(0, 2, 3, 1).numpy()


def _bound(changes: list[Changes], name: str) -> Bound:
    """Draw the line that lies above what was found, and further by the margin."""
    contrast = np.concatenate([c.contrast(name)[c.finite] for c in changes])
    found = np.concatenate([getattr(c, name)[c.finite] for c in changes]).clip(max=MOST)
    flat = contrast <= _FLAT[name]
    floor = found[flat].max(initial=0.0)
    slope = ((found[~flat] - floor) / contrast[~flat]).max(initial=0.0)
    return Bound(
        float(f"{max(LEAST.floor, CHANGE_MARGIN * floor):.3g}"),
        float(f"{max(LEAST.slope, CHANGE_MARGIN * slope):.3g}"),
    )


# -- the cache folder ---------------------------------------------------------------------------


def _cached(sha256: str) -> Path:
    return cache_dir() / "calibration" / f"{sha256}.json"


def _read_cached(tenant: Tenant, sha256: str) -> Calibration | None:
    try:
        entry = parse_json(read_text(_cached(sha256), WeightsError, "The calibration"))
        # The checksum stands inside, too: a file that was copied or renamed is of other weights.
        text = entry["calibration"] if entry["sha256"] == sha256 else ""
        return Calibration.from_json(text, tenant)
    except (WeightsError, ValueError, TypeError, KeyError):
        return None


def _write_cached(calibration: Calibration, sha256: str) -> None:
    """Keep it for the next process; where the folder cannot be written, that one measures again."""
    path, partial = _cached(sha256), None
    text = json.dumps({"sha256": sha256, "calibration": calibration.to_json()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own: several processes may measure the same weights at once.
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".partial")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(partial, path)
    except OSError:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
