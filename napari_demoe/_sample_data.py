"""Sample data: the pictures that come with demoe, the damaged one above the sharp one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LayerTuple = tuple[Any, dict[str, Any], str]


def layers(name: str) -> list[LayerTuple]:
    """Load a sample as layers.

    Parameters
    ----------
    name : str
        One of `demoe.samples.images.sample_names`.

    Returns
    -------
    list of layer data tuple
        The sharp picture, hidden, where one is known; then the damaged one.
    """
    from demoe.samples.images import load_sample
    from napari_demoe._layers import image_kwargs

    sample = load_sample(name)
    shown: list[LayerTuple] = []
    if sample.sharp is not None:
        kwargs = {**image_kwargs(sample.sharp), "visible": False}
        shown.append((sample.sharp.data.compute(), kwargs, "image"))
    shown.append((sample.blurred.data.compute(), image_kwargs(sample.blurred), "image"))
    return shown


def _opener(name: str) -> Callable[[], list[LayerTuple]]:
    return lambda: layers(name)


# One callable a sample, because each is a menu entry of its own in napari.yaml.
pagoda_motion = _opener("pagoda_motion")
pagoda_mixed = _opener("pagoda_mixed")
pollen = _opener("pollen")
pollen_stack = _opener("pollen_stack")
street = _opener("street")
page = _opener("page")
pagoda_noise = _opener("pagoda_noise")
pagoda_haze = _opener("pagoda_haze")
pagoda_rain = _opener("pagoda_rain")
pagoda_dark = _opener("pagoda_dark")
