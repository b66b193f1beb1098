"""The main job on the bundled samples: numbers, a picture, and the files that a user would get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demoe.choices import names_of
from demoe.errors import OutputError
from demoe.execution.run import Progress, save
from demoe.io import open_image
from demoe.lazy import Deblurred, deblur
from demoe.model.loading import load_model
from demoe.recipe import DECIDED, Recipe
from demoe.samples.images import load_sample, sample_damages
from demoe.samples.picture import SheetRow, contact_sheet, psnr

MOST_KERNELS = 4
"""Kernels that are drawn of a sample."""


def run_demo(folder: Path, recipe: Recipe, *, progress: Progress | None = None) -> str:
    """Restore samples, write the results and ``demo.png``, and return a table.

    A network for blur gets the blurred ones. One for more kinds of damage gets one of each kind
    that it offers; if it has to be told what to do, it is told what is wrong with each, unless the
    recipe says something.

    Parameters
    ----------
    folder : Path
        Made if needed; files of an earlier demo are replaced.
    recipe : Recipe
        Settings for all samples.
    progress : callable, optional
        ``progress(done, total, message)``, in samples.

    Returns
    -------
    str
        For each sample where it was routed, and its PSNR before and after where the sharp picture
        is known.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {folder} cannot be made ({error.strerror}).") from None
    samples = _samples_for(recipe)
    rows, lines = [], [f"{'sample':<16}{'damaged':>10}{'restored':>11}{'gain':>10}  routed to"]
    for number, name in enumerate(samples):
        if progress is not None:
            progress(number, len(samples), name)
        sample = load_sample(name)
        result = deblur(sample.blurred, recipe=_told(recipe, sample.damage))
        path = save(result, folder / f"{name}.ome.tif", overwrite=True)
        restored = np.asarray(open_image(path).data)  # what is in the file, and computed once
        experts = np.asarray(result.expert_map)
        blurred = np.asarray(sample.blurred.data)
        sharp = None if sample.sharp is None else np.asarray(sample.sharp.data)
        names = names_of(result.choices)
        counts = np.bincount(experts.ravel(), minlength=len(names) + 1)[1:]
        order = [i for i in np.argsort(-counts, kind="stable") if counts[i]]
        routed = ", ".join(f"{names[i]} {counts[i] / counts.sum():.0%}" for i in order)
        if sharp is None:
            figures = f"{'the sharp picture is not known':>31}"
        else:
            before, after = psnr(blurred, sharp), psnr(restored, sharp)
            figures = f"{before:7.2f} dB{after:8.2f} dB{after - before:+7.2f} dB"
        lines.append(f"{name:<16}{figures}  {routed}")
        # Of a stack, the picture shows the middle plane.
        middle = tuple(n // 2 for n in experts.shape[:-2])
        rows.append(
            SheetRow(
                title=sample.title,
                blurred=blurred[middle],
                restored=restored[middle],
                expert_map=experts[middle],
                choices=result.choices,
                sharp=None if sharp is None else sharp[middle],
                pitch=result.pitch,
                note=sample.note,
                found=_found(result, middle),
                kernels=sample.kernels,
            )
        )
        lines[-1] += f"  -> {path.name}"
    picture = contact_sheet(rows, folder / "demo.png")
    if progress is not None:
        progress(len(samples), len(samples), "")
    return "\n".join([*lines, "", f"Picture: {picture}"])


def _samples_for(recipe: Recipe) -> tuple[str, ...]:
    """Return the samples that show what a network is for."""
    model, damages = load_model(recipe.model, recipe.device), sample_damages()
    if not model.offers:
        return tuple(name for name, kind in damages.items() if kind == "blur")
    own = {kind: name for name, kind in reversed(damages.items()) if kind in model.offers}
    return tuple(name for name in damages if name in own.values())


def _told(recipe: Recipe, kind: str) -> Recipe:
    """Return the recipe with what is wrong with a sample, for a network that has to be told."""
    tenant = load_model(recipe.model, recipe.device).tenant
    silent = recipe.routing in DECIDED and not recipe.instructions
    if tenant.decides or not silent or kind not in names_of(tenant.choices):
        return recipe
    return recipe.replace(routing=kind)


def _found(result: Deblurred, plane: tuple[int, ...]) -> list[NDArray[Any]]:
    """Return the kernels along the middle of a plane, those of neighbours that agree once."""
    if result.kernels is None:
        return []
    across = np.asarray(result.kernels[(*plane, result.kernels.shape[-4] // 2)])
    return [k for n, k in enumerate(across) if not n or (k != across[n - 1]).any()][:MOST_KERNELS]
