"""What the plugin adds to napari's menus, and what it leaves alone."""

import numpy as np
import pytest
import tifffile
from hub import go_to, serving
from napari._app_model import get_app_model
from napari.utils.notifications import notification_manager
from npe2 import PluginManager
from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_demoe._widget import DeblurWidget


def opened(viewer):
    return [w for w in viewer.window.dock_widgets.values() if isinstance(w, DeblurWidget)]


def test_the_filter_menu_opens_the_widget_with_the_selected_layer(viewer, photo):
    viewer.add_image(photo, name="other")
    viewer.add_image(photo, name="chosen")
    get_app_model().commands.execute_command("napari-demoe.deblur")
    (widget,) = opened(viewer)
    assert widget.image.current_choice == "chosen"
    filters = [
        item.command.title for item in get_app_model().menus.get_menu("napari/layers/filter")
    ]
    assert "Deblur (DeMoE)" in filters
    assert "Deblur selected layer (DeMoE)" in filters


def test_deblur_selected_runs_in_the_widget_that_is_open(viewer, widget, finish, photo):
    first = viewer.add_image(photo, name="first")
    viewer.add_image(photo, name="second")
    viewer.layers.selection = {first}
    get_app_model().commands.execute_command("napari-demoe.deblur_selected")
    assert opened(viewer) == [widget]
    assert widget.session.busy
    finish(widget)
    assert "first deblurred" in viewer.layers


def test_open_lazily_reads_what_napari_would_load_whole(viewer, tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((5, 80, 90), np.uint8), photometric="minisblack")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *args: (str(path), ""))
    get_app_model().commands.execute_command("napari-demoe.open_lazily")
    (layer,) = viewer.layers
    assert not isinstance(layer.data, np.ndarray)
    assert layer.data.shape == (5, 80, 90)

    path.write_bytes(b"no picture at all")
    notification_manager.records.clear()
    get_app_model().commands.execute_command("napari-demoe.open_lazily")
    assert len(viewer.layers) == 1
    assert "a.tif" in notification_manager.records[-1].message


@pytest.mark.parametrize("name", ["a.tif", "a.tiff", "a.png", "a.jpg"])
def test_common_pictures_open_without_a_question(viewer, name):
    """One reader only, so napari does not ask which."""
    readers = [r.plugin_name for r in PluginManager.instance().iter_compatible_readers(name)]
    assert readers == ["napari"]


def test_saving_common_pictures_stays_with_napari(viewer):
    for suffix, plugin in ((".tif", "napari"), (".png", "napari"), (".ome.tif", "napari-demoe")):
        writer, _ = PluginManager.instance().get_writer(f"a{suffix}", ["image"])
        assert writer.plugin_name == plugin
    writer, _ = PluginManager.instance().get_writer("a.ome.zarr", ["image", "labels"])
    assert writer.plugin_name == "napari-demoe"


def test_released_weights_are_downloaded_only_after_asking(
    viewer, widget, finish, photo, monkeypatch
):
    viewer.add_image(photo, name="photo")
    questions = []

    def answer(button):
        def question(parent, title, text):
            questions.append(text)
            return button

        monkeypatch.setattr(QMessageBox, "question", question)

    widget.choose_model("demoe")
    answer(QMessageBox.StandardButton.No)
    widget.run.click()
    assert not widget.session.busy
    assert "81 MB" in questions[0]
    assert "CC-BY-SA-4.0" in questions[0]

    answer(QMessageBox.StandardButton.Yes)
    with serving(b"these are not the weights") as hub:
        go_to(hub.url, monkeypatch)
        widget.run.click()
        assert hub.url in questions[1]
        finish(widget)
    assert widget.session.state == "failed"
    assert "DeMoE.pt" in widget.error.text() or "demoe" in widget.error.text()
    assert [layer.name for layer in viewer.layers] == ["photo"]
