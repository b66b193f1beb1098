"""What a person chose, as it is before a run freezes it into a `demoe.Recipe`. No Qt in here."""

from __future__ import annotations

from typing import Any, Self

from demoe.asked import questions
from demoe.io.psf import read_psf
from demoe.recipe import Recipe

PAINTED = "painted"
"""The routing that takes the expert map from a layer of labels or shapes."""

SCOPES = ("all", "view", "region")
"""What a run takes: everything, what is looked at first; only that; or the shapes of a layer."""


class Choices:
    """The fields of a recipe, to be set freely; they are checked when `recipe` freezes them.

    Routing may also be `PAINTED`: the expert map is a layer of labels or shapes. The PSF may be
    what a person writes, too, see `demoe.io.psf.read_psf`; an empty line is "auto".

    Parameters
    ----------
    kind : type of Recipe
        What they become.
    **values
        Fields that are not as by default.
    """

    # Set by name, as people do from the console.
    model: str
    routing: str
    instructions: tuple[str, ...]
    psf: Any

    def __init__(self, kind: type[Recipe] = Recipe, **values: Any) -> None:
        self._kind = kind
        for name, question in questions(kind).items():
            setattr(self, name, values.pop(name, question.default))
        if values:
            kind().replace(**values)  # says which there are

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """Return the choices that a recipe was made of."""
        kind = type(recipe)
        return cls(kind, **{name: getattr(recipe, name) for name in questions(kind)})

    def update(self, values: dict[str, Any]) -> None:
        """Set several fields."""
        for name, value in values.items():
            setattr(self, name, value)

    def recipe(self) -> Recipe:
        """Freeze the choices; `RecipeError` if one is out of range."""
        values = {name: getattr(self, name) for name in questions(self._kind)}
        if values["routing"] == PAINTED:
            values["routing"] = "auto"
        if isinstance(values["psf"], str):
            values["psf"] = read_psf(values["psf"]) if values["psf"].strip() else "auto"
        return self._kind(**values)
