"""Choices that outlive a session, kept by the viewer (Preferences > DeMoE)."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from napari_demoe._session import PAINTED, Choices

if TYPE_CHECKING:
    from napari.utils.events import EventedModel

PLUGIN = "napari-demoe"

_OF_ONE_IMAGE = ("psf", "instructions", "given")

KEPT = [field.name for field in fields(Choices) if field.name not in _OF_ONE_IMAGE]
"""All but the blur of one image, and what was said of it, which is not that of the next."""


def load() -> Choices:
    """Return the choices of the last run, or the defaults."""
    kept = _kept()
    if kept is None:
        return Choices()
    return Choices(**{name: getattr(kept, name) for name in KEPT})


def save(choices: Choices) -> None:
    """Keep the choices for the next time the viewer starts."""
    kept = _kept()
    if kept is not None:
        for name in KEPT:
            value = getattr(choices, name)
            if value != PAINTED:  # the labels layer is gone by then
                setattr(kept, name, value)


def _kept() -> EventedModel | Any | None:
    from napari.settings import get_plugin_settings

    try:
        return get_plugin_settings(PLUGIN).deblur
    except KeyError:  # the plugin is disabled or not installed as one, only imported
        return None
