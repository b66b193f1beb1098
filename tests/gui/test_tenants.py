"""The widget offers what the chosen network has, and no more."""

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QRadioButton
from toy import settled

from demoe.model import zoo


def offered(widget) -> list[str]:
    return [button.text() for button in widget.findChildren(QRadioButton) if button.isVisible()]


def test_menus_and_legend_follow_the_network(viewer, widget, finish, monkeypatch, tmp_path, qtbot):
    viewer.add_image(np.tile(np.linspace(0, 255, 200).astype(np.uint8), (150, 1)), name="shade")
    path = settled(monkeypatch, tmp_path / "toy.safetensors")
    qtbot.waitUntil(lambda: len(offered(widget)) == 5)
    widget.choose_model(str(path))
    qtbot.waitUntil(lambda: offered(widget) == ["haze", "rain", "snow"])
    assert "rain" in widget.form["routing"].choices
    assert "defocus" not in widget.form["routing"].choices
    assert widget.form["top_k"].max == 3
    widget.form["routing"].value = "rain"
    widget.run.click()
    finish(widget)
    assert not widget.session.error
    assert [label.text() for label in widget.legend.shares] == ["0%", "100%", "0%"]
    widget.legend.brushes.button(3).click()
    assert widget.session.brush == 3
    widget.choose_model("default")
    qtbot.waitUntil(lambda: len(offered(widget)) == 5)
    assert widget.form["routing"].value == "auto"
    assert {label.text() for label in widget.legend.shares} == {""}


def test_the_list_of_networks_explains_each(widget):
    combo = widget.form["model"]
    for number, (name, words) in enumerate(zip(combo.choices, _items(combo), strict=True)):
        said = combo.native.itemData(number, Qt.ItemDataRole.ToolTipRole)
        if name in zoo.BUNDLED:
            assert said == zoo.BUNDLED[name].summary
            assert words != name


def _items(combo) -> list[str]:
    return [combo.native.itemText(number) for number in range(combo.native.count())]


def test_a_known_psf_needs_no_expert(viewer, widget, finish):
    viewer.add_image(np.random.default_rng(0).integers(0, 255, (90, 80), np.uint8), name="noise")
    widget.form["psf"].value = "radius=two"
    widget.run.click()
    assert "not understood" in widget.session.error
    widget.form["psf"].value = "radius=2"
    widget.run.click()
    finish(widget)
    assert not widget.session.error
    assert not widget.session.overlay.data.any()
