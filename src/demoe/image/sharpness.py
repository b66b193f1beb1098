"""How sharp a picture is, as one number, to compare pictures of one scene."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def sharpness(picture: NDArray[Any]) -> float:
    """Return the energy of a picture's gradient over its squared mean.

    The energy of the gradient is the focus measure GRAE of Pertuz, Puig and Garcia, "Analysis of
    focus measure operators for shape-from-focus", Pattern Recognition 46 (2013) 1415-1432, after
    Subbarao, Choi and Nikzad, "Focusing techniques", Optical Engineering 32 (1993) 2824-2836:
    squared differences of neighbours along rows and columns, here their mean instead of their sum.
    Divided by the squared mean, a brighter picture is no sharper one. Only pictures of one scene
    and one pixel size can be compared; noise counts as detail.

    Parameters
    ----------
    picture : ndarray
        (rows, columns), any real type.

    Returns
    -------
    float
        At least 0; NaN for less than 2 x 2 pixels, and where the mean is not above 0.
    """
    values = np.asarray(picture, np.float32)
    if min(values.shape) < 2:
        return float("nan")
    mean = float(values.mean(dtype=np.float64))
    if not mean > 0:
        return float("nan")
    energy = sum(
        float(np.square(np.diff(values, axis=axis)).mean(dtype=np.float64)) for axis in (0, 1)
    )
    return energy / mean**2
