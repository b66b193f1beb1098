"""What a result's file says of its making."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from demoe.choices import BLURS, Choice, from_record
from demoe.errors import ImageError
from demoe.io.names import places_beside
from demoe.limits import parse_json, read_text


def read_record(path: Path) -> dict[str, Any]:
    """Return the provenance that was written with a result, see `demoe.Deblurred`.

    Raises
    ------
    ImageError
        If there is none, or it cannot be read.
    """
    place = places_beside(path)["record"]
    try:
        text = parse_json(read_text(place, ImageError, "The record"))
        found = text["attributes"]["demoe"] if place.parent == path else text
    except (ImageError, ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, dict):
        raise ImageError(
            f"{path} has no record of how it was made ({place}); only a finished output of demoe "
            "can be corrected."
        )
    return found


def choices_of(path: Path) -> tuple[Choice, ...]:
    """Return what the expert map of a result means; without a record, what the five blurs are."""
    try:
        return from_record(read_record(path)["weights"]["choices"])
    except (ImageError, KeyError, TypeError, ValueError):
        return BLURS
