"""The form of a recipe follows the recipe, without a line in the widget."""

from dataclasses import dataclass
from typing import Annotated

import pytest
from magicgui.widgets import (
    CheckBox,
    ComboBox,
    FloatSpinBox,
    LineEdit,
    LiteralEvalLineEdit,
    SpinBox,
)
from npe2 import PluginManifest

from demoe.asked import Asked, questions
from demoe.cli import main
from demoe.recipe import Recipe
from napari_demoe import _settings
from napari_demoe._choices import Choices
from napari_demoe._form import RecipeForm


@dataclass(frozen=True)
class Wider(Recipe):
    """A recipe of a later version, with fields that nobody told the widget of."""

    strength: Annotated[
        float, Asked("Strength", "How strongly.", minimum=0.5, maximum=2, step=0.25)
    ] = 1.0
    passes: Annotated[int, Asked(minimum=1, maximum=4, place="fine")] = 2
    colour: Annotated[str, Asked("Colour", offered=(("keep", "As it is"), ("gray", "Gray")))] = (
        "keep"
    )
    at_night: bool = False
    corner: tuple[int, ...] | dict[str, int] = ()
    hidden: Annotated[int, Asked(place="")] = 0


@pytest.fixture
def form(qapp):
    return RecipeForm(Wider)


def test_a_new_field_shows_up_with_its_kind_range_choices_and_help(form):
    strength = form["strength"]
    assert isinstance(strength, FloatSpinBox)
    assert (strength.label, strength.tooltip) == ("Strength", "How strongly.")
    assert (strength.value, strength.min, strength.max, strength.step) == (1, 0.5, 2, 0.25)
    assert isinstance(form["passes"], SpinBox)
    assert (form["passes"].label, form["passes"].max) == ("Passes", 4)
    assert isinstance(form["colour"], ComboBox)
    assert form["colour"].choices == ("keep", "gray")
    assert form["colour"].current_choice == "As it is"
    assert isinstance(form["at_night"], CheckBox)
    assert form["at_night"].text == "At night"
    assert isinstance(form["corner"], LiteralEvalLineEdit)
    assert isinstance(form["psf"], LineEdit)
    with pytest.raises(KeyError):
        form["hidden"]
    more, fine = form.places["more"], form.places["fine"]
    assert more.isAncestorOf(strength.native)
    assert fine.isAncestorOf(form["passes"].native)


def test_what_is_chosen_in_a_form_becomes_a_recipe(form):
    form["strength"].value, form["at_night"].value, form["colour"].value = 1.5, True, "gray"
    form["tile"].value, form["psf"].value = 256, "sigma=2"
    choices = Choices(Wider)
    choices.update(form.values)
    recipe = choices.recipe()
    assert (recipe.strength, recipe.at_night, recipe.colour) == (1.5, True, "gray")
    assert (recipe.tile, recipe.psf, recipe.passes) == (256, {"sigma": 2.0}, 2)
    again = Wider.from_json(recipe.to_json())
    assert (again.strength, again.at_night) == (1.5, True)


def test_a_value_that_is_not_offered_is_shown_all_the_same(form):
    form.show({"tile": 192, "intensity": (0.0, 10.0), "psf": "auto", "strength": 2.0, "x": 1})
    assert form.values["tile"] == 192
    assert form.values["intensity"] == (0.0, 10.0)
    assert (form["psf"].value, form["strength"].value) == ("", 2.0)


def test_the_widget_and_the_command_line_have_the_new_field(viewer, qtbot, monkeypatch, capsys):
    monkeypatch.setattr("napari_demoe._widget.Recipe", Wider)
    monkeypatch.setattr("demoe.cli.options.Recipe", Wider)
    from napari_demoe._widget import DeblurWidget

    widget = DeblurWidget(viewer)
    qtbot.addWidget(widget)
    widget.form["strength"].value = 1.25
    widget.read_choices()
    assert widget.session.choices.recipe().strength == 1.25
    widget.close_session()
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    assert "--strength STRENGTH" in capsys.readouterr().out


def test_preferences_say_of_a_field_what_the_recipe_says():
    manifest = PluginManifest.from_distribution("napari-demoe")
    declared = manifest.contributions.configurations["deblur"]
    assert tuple(declared.properties) == _settings.KEPT
    for name, shown in declared.properties.items():
        question = questions(Recipe)[name]
        assert shown.title == question.title
        assert shown.default == (0 if name == "tile" else question.default)
        if question.is_closed:
            assert shown.enum == [value for value, _ in question.asked.offered]
