"""Recipes: what they accept, what they refuse, and JSON there and back."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demoe.choices import TASKS
from demoe.errors import RecipeError
from demoe.recipe import DECIDED, INTENSITY_RULES, PHOTOMETRY, PRECISIONS, Recipe

sixteens = st.integers(1, 100).map(lambda n: 16 * n)
limits = st.tuples(
    st.floats(-1e30, 1e30, allow_nan=False), st.floats(-1e30, 1e30, allow_nan=False)
).filter(lambda pair: pair[0] < pair[1])


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    pitch = draw(sixteens)
    return Recipe(
        model=draw(st.text(min_size=1)),
        routing=draw(st.sampled_from((*DECIDED, *TASKS))),
        top_k=draw(st.integers(1, 5)),
        tile=draw(st.just("auto") | sixteens.filter(lambda n: n >= 64)),
        halo=draw(st.just("auto") | st.just(0) | sixteens),
        device=draw(st.sampled_from(("auto", "cpu", "cuda", "mps", "xpu:1", "cuda:12"))),
        pitch=pitch,
        window=pitch * draw(st.integers(1, 8)),
        intensity=draw(st.sampled_from(INTENSITY_RULES) | limits),
        photometry=draw(st.sampled_from(PHOTOMETRY)),
        precision=draw(st.sampled_from(PRECISIONS)),
    )


@given(recipes())
def test_json_keeps_every_field(recipe: Recipe) -> None:
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert hash(again) == hash(recipe)
    assert recipe.replace() == recipe


def test_missing_fields_take_their_defaults() -> None:
    assert Recipe.from_json("{}") == Recipe()
    assert Recipe.from_json('{"top_k": 3}') == Recipe(top_k=3)


def test_a_recipe_is_a_value() -> None:
    recipe = Recipe()
    with pytest.raises(FrozenInstanceError):
        recipe.top_k = 2  # type: ignore[misc]
    assert recipe.replace(top_k=2).top_k == 2
    assert recipe.top_k == 1
    assert Recipe(intensity=[0, 10]).intensity == (0.0, 10.0)  # type: ignore[arg-type]


BAD = [
    ("model", ""),
    ("model", None),
    ("model", 3),
    ("routing", ""),
    ("routing", " "),
    ("routing", None),
    ("routing", np.zeros((2, 2))),
    ("top_k", 0),
    ("top_k", 1.0),
    ("top_k", True),
    ("tile", 0),
    ("tile", 48),
    ("tile", 100),
    ("tile", -64),
    ("tile", 512.0),
    ("tile", "big"),
    ("tile", None),
    ("halo", -16),
    ("halo", 8),
    ("halo", "none"),
    ("device", "gpu"),
    ("device", "cuda:x"),
    ("device", None),
    ("pitch", "auto"),
    ("pitch", 0),
    ("pitch", 24),
    ("window", 0),
    ("window", 96),  # no multiple of the pitch
    ("window", 32),
    ("intensity", "bright"),
    ("intensity", None),
    ("intensity", 5),
    ("intensity", (1.0,)),
    ("intensity", (0.0, 1.0, 2.0)),
    ("intensity", (1.0, 1.0)),
    ("intensity", (2.0, 1.0)),
    ("intensity", ("low", "high")),
    ("intensity", (0.0, float("nan"))),
    ("intensity", (0.0, float("inf"))),
    ("intensity", (-1.7e308, 1.7e308)),
    ("photometry", "keep"),
    ("precision", "half"),
    ("photometry", True),
]


@pytest.mark.parametrize(("field", "value"), BAD)
def test_a_bad_field_is_named_in_one_sentence(field: str, value: Any) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe(**{field: value})
    message = str(caught.value)
    assert message.startswith(field)
    assert message.endswith(".")
    assert ". " not in message
    with pytest.raises(RecipeError):
        Recipe().replace(**{field: value})
    if not isinstance(value, np.ndarray):
        with pytest.raises(RecipeError):
            Recipe.from_json(json.dumps({field: value}))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"auto"', "\x00"])
def test_what_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="recipe"):
        Recipe.from_json(text)


def test_an_unknown_field_is_named_with_those_there_are() -> None:
    for make in (lambda: Recipe().replace(topk=2), lambda: Recipe.from_json('{"topk": 2}')):
        with pytest.raises(RecipeError, match=r"no field 'topk'.*top_k"):
            make()
