"""PSFs as people write them: parameters in a line of text, or the name of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from demoe.errors import RecipeError
from demoe.io import open_image

WORDS = {"auto": "auto", "none": None}
"""What is no PSF: look for it, or leave it to the network."""


def read_psf(text: str) -> Any:
    """Return what `Recipe.psf` takes.

    Parameters
    ----------
    text : str
        ``auto``, ``none``, such as ``radius=3``, ``sigma=2.1`` or ``length=11, angle=25``, or the
        path of an image.

    Raises
    ------
    RecipeError
        If it is neither.
    ImageError
        If the file cannot be read.
    """
    if text.strip().lower() in WORDS:
        return WORDS[text.strip().lower()]
    if "=" in text and not Path(text).exists():
        try:
            pairs = [part.split("=") for part in text.split(",")]
            return {name.strip(): float(value) for name, value in pairs}
        except ValueError:
            raise RecipeError(
                f"The PSF {text!r} is not understood; give a file, or for example radius=3, "
                "sigma=2.1 or length=11,angle=25."
            ) from None
    return open_image(text).data.compute()
