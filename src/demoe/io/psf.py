"""PSFs as people write them: parameters in a line of text, or the name of a file."""

from __future__ import annotations

import os
from typing import Any

from demoe.errors import RecipeError
from demoe.io import open_image
from demoe.limits import quoted

MOST_PSF = 2**24
"""Values that are read of what is given as a PSF; `demoe.model.kernels.psf` wants fewer still."""

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
        If it is neither, or an image that is too large.
    ImageError
        If the file cannot be read.
    """
    if text.strip().lower() in WORDS:
        return WORDS[text.strip().lower()]
    if "=" in text and not os.path.exists(text):
        try:
            pairs = [part.split("=") for part in text.split(",")]
            return {name.strip(): float(value) for name, value in pairs}
        except ValueError:
            raise RecipeError(
                f"The PSF {quoted(text)} is not understood; give a file, or for example radius=3, "
                "sigma=2.1 or length=11,angle=25."
            ) from None
    image = open_image(text)
    if image.data.size > MOST_PSF:
        raise RecipeError(
            f"{text} has {' x '.join(map(str, image.shape))} values, too many for a PSF; cut it to "
            "where there is light."
        )
    return image.data.compute()
