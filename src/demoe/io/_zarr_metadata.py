"""What an OME-Zarr 0.5 image says of itself, in the models of yaozarrs, which check it.

Imported where an image is written, since the models take a while to load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field
from yaozarrs.v05 import (
    Axis,
    ChannelAxis,
    Dataset,
    Image,
    LabelColor,
    LabelImage,
    LabelProperty,
    LabelsGroup,
    Multiscale,
    Omero,
    OmeroChannel,
    OmeroWindow,
    ScaleTransformation,
    SpaceAxis,
    TimeAxis,
    TranslationTransformation,
)

if TYPE_CHECKING:
    from demoe.choices import Choice
    from demoe.image.lazy_image import LazyImage

_RGB = (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"), ("alpha", "FFFFFF"))


class _Colour(LabelColor):
    # An integer, where the model has a float: ome-zarr-py passes over the colour of 1.0.
    label_value: int = Field(alias="label-value")


class _Meaning(LabelProperty):
    expert: str


def multiscale(
    image: LazyImage, steps: Mapping[str, float], shift: Mapping[str, float], levels: int
) -> Multiscale:
    """Describe the levels of an image.

    The centre of a halved pixel lies half a pixel further than that of the first it covers.

    Parameters
    ----------
    image : LazyImage
        Gives the name and the units.
    steps : Mapping of str to float
        Size of a pixel along each stored axis, in physical units.
    shift : Mapping of str to float
        Where the centre of the first pixel lies, in physical units.
    levels : int
        How many there are, each half the size of the one before along Y and X.
    """
    datasets = []
    for level in range(levels):
        factors = {letter: 2**level if letter in "YX" else 1 for letter in steps}
        scale = [step * factors[letter] for letter, step in steps.items()]
        centre = [
            shift[letter] + (factors[letter] - 1) / 2 * step for letter, step in steps.items()
        ]
        transformations: list[ScaleTransformation | TranslationTransformation]
        transformations = [ScaleTransformation(scale=scale)]
        if any(centre):
            transformations.append(TranslationTransformation(translation=centre))
        datasets.append(Dataset(path=str(level), coordinateTransformations=transformations))
    units = {letter: unit for letter, unit in image.units.items() if unit != "pixel"}
    axes = [_axis(letter, units.get(letter)) for letter in steps]
    return Multiscale(name=image.name, axes=axes, datasets=datasets)


def _axis(letter: str, unit: str | None) -> Axis:
    # Filled in, not checked: the format only recommends its units, files have others too, and the
    # model would warn whoever writes one of those.
    name = letter.lower()
    if letter == "T":
        return TimeAxis.model_construct(type="time", name=name, unit=unit)
    if letter == "C":
        return ChannelAxis.model_construct(type="channel", name=name, unit=unit)
    return SpaceAxis.model_construct(type="space", name=name, unit=unit)


def omero(image: LazyImage, ranges: Sequence[tuple[float, float]]) -> Omero | None:
    """Say how to show channels: RGB in its colours, others white and by name.

    Parameters
    ----------
    image : LazyImage
        The image.
    ranges : sequence of (float, float)
        Lowest and highest value to show, of each stored channel.

    Returns
    -------
    Omero or None
        None if the channels have no names.
    """
    if image.is_rgb:
        shown = [(label, colour, label != "alpha") for label, colour in _RGB[: image.shape[-1]]]
    else:
        shown = [(label, "FFFFFF", True) for label in image.channel_names]
    channels = [
        OmeroChannel(
            label=label,
            color=colour,
            active=active,
            window=OmeroWindow(min=low, max=high, start=low, end=high),
        )
        for (label, colour, active), (low, high) in zip(shown, ranges, strict=True)
    ]
    return Omero(channels=channels) if channels else None


def of_image(levels: Multiscale, channels: Omero | None) -> dict[str, Any]:
    """Return the attribute "ome" of an image."""
    return _checked(Image(multiscales=[levels], omero=channels))


def of_labels(*names: str) -> dict[str, Any]:
    """Return the attribute "ome" of the group of an image's label images."""
    return _checked(LabelsGroup(labels=list(names)))


def of_label_image(levels: Multiscale, choices: Sequence[Choice]) -> dict[str, Any]:
    """Return the attribute "ome" of a label image whose values 1, 2 ... mean the choices."""
    label: dict[str, Any] = {"version": "0.5", "source": {"image": "../../"}}
    if choices:
        numbered = list(enumerate(choices, start=1))
        label["colors"] = [
            _Colour.model_validate({"label-value": number, "rgba": [*choice.colour, 255]})
            for number, choice in numbered
        ]
        label["properties"] = [
            _Meaning.model_validate({"label-value": number, "expert": choice.name})
            for number, choice in numbered
        ]
    return _checked(LabelImage.model_validate({"multiscales": [levels], "image-label": label}))


def _checked(model: BaseModel) -> dict[str, Any]:
    # Each part as what it is, or what the models above add would be lost.
    return model.model_dump(mode="json", by_alias=True, exclude_none=True, serialize_as_any=True)
