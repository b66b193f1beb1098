"""Choices that outlive a session, kept by the viewer (Preferences > DeMoE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from demoe.recipe import Recipe
from napari_demoe._choices import PAINTED, Choices

if TYPE_CHECKING:
    from napari.utils.events import EventedModel

PLUGIN = "napari-demoe"

KEPT = ("model", "routing", "top_k", "device", "tile", "photometry", "pooling", "skip_flat")
"""What belongs to a person's way of working, not to one image; the manifest declares the same."""

_AUTOMATIC = 0
"""Preferences hold a tile's side as a number; this one is "auto"."""


def load(kind: type[Recipe] = Recipe) -> Choices:
    """Return the choices of the last run, or the defaults."""
    kept = _kept()
    if kept is None:
        return Choices(kind)
    values = {name: getattr(kept, name) for name in KEPT}
    return Choices(kind, **values | {"tile": values["tile"] or "auto"})


def save(choices: Choices) -> None:
    """Keep the choices for the next time the viewer starts."""
    kept = _kept()
    if kept is not None:
        for name in KEPT:
            value = getattr(choices, name)
            if value != PAINTED:  # the labels layer is gone by then
                setattr(kept, name, _AUTOMATIC if (name, value) == ("tile", "auto") else value)


def _kept() -> EventedModel | Any | None:
    from napari.settings import get_plugin_settings

    try:
        return get_plugin_settings(PLUGIN).deblur
    except KeyError:  # the plugin is disabled or not installed as one, only imported
        return None
