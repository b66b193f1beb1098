"""Which of several images in a file is meant: by its number or its name."""

from __future__ import annotations

from collections.abc import Sequence

from demoe.errors import ImageError
from demoe.limits import quoted, shortened

_LISTED = 8


def series_number(path: str, series: int | str, names: Sequence[str]) -> int:
    """Return the number of an image.

    Parameters
    ----------
    path : str
        The file, for the sentence.
    series : int or str
        A number from 0, or a name; digits that are no name are a number.
    names : sequence of str
        What the images are called in the file, one for each; "" where it does not say.

    Raises
    ------
    ImageError
        If there is none, or several have the name; the sentence lists what there is.
    """
    if not names:
        raise ImageError(f"{path} holds no image; it may be damaged.")
    if isinstance(series, str) and series not in names and series.isdecimal():
        series = int(series[:9])
    if isinstance(series, int):
        if 0 <= series < len(names):
            return series
    elif names.count(series) == 1:
        return names.index(series)
    several = isinstance(series, str) and names.count(series) > 1
    why = "is the name of several" if several else "is none"
    listed = ", ".join(
        f"{number} ({shortened(name)})" if name else str(number)
        for number, name in enumerate(names[:_LISTED])
    )
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    raise ImageError(
        f"{path} holds {len(names)} image(s), and series={quoted(series)} {why}; give one of these "
        f"numbers or names: {listed}{more}."
    )
