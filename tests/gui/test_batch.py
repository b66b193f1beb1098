"""The batch dialog in a real window."""

import numpy as np
import pytest
from PIL import Image
from qtpy.QtCore import QThreadPool

import demoe
from napari_demoe._batch_dialog import AS_IT_IS, FOLDER, LAYERS


@pytest.fixture
def dialog(widget):
    """The dialog as the widget opens it; the network works alone, which is quick."""
    widget.form["psf"].value = "none"
    widget.batch.click()
    return widget._batch_dialog


def test_a_folder_is_deblurred_and_what_failed_is_listed_at_the_end(dialog, tmp_path, qtbot):
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (200, 150), dtype=np.uint8)).save(folder / name)
    (folder / "bad.png").write_bytes(b"no picture")
    (folder / "c.tif").write_bytes(b"not asked for")
    assert dialog.isVisible()
    assert dialog.images.value == FOLDER
    dialog.start.native.click()
    assert "No output folder" in dialog.status.value
    dialog.output.value = tmp_path / "out"
    dialog.start.native.click()
    assert "No folder of images" in dialog.status.value
    dialog.folder.value = folder
    dialog.pattern.value = "*.png"
    dialog.format.value = ".ome.tif"
    dialog.start.native.click()
    assert dialog.busy
    assert not dialog.start.enabled
    assert dialog.cancel.enabled
    qtbot.waitUntil(lambda: dialog.overall.value >= 1, timeout=60_000)
    assert not dialog.failed.visible
    qtbot.waitUntil(lambda: not dialog.busy, timeout=60_000)
    assert dialog.status.value == "2 of 3 images written, 1 failed."
    assert dialog.failed.visible
    ((name, why),) = dialog.failed.value["data"]
    assert name == "bad.png"
    assert "bad.png" in why
    assert dialog.start.enabled
    assert demoe.open_image(tmp_path / "out" / "a.ome.tif").shape == (200, 150)


def test_the_selected_layers_are_deblurred(viewer, widget, dialog, tmp_path, qtbot):
    rng = np.random.default_rng(0)
    for name in ("one", "two", "three"):
        viewer.add_image(rng.integers(0, 256, (60, 50), np.uint8), name=name)
    viewer.layers.selection = {viewer.layers["one"], viewer.layers["three"]}
    dialog.images.value = LAYERS
    assert not dialog.folder.visible
    assert AS_IT_IS not in dialog.format.choices
    dialog.output.value = tmp_path / "out"
    dialog.start.native.click()
    qtbot.waitUntil(lambda: not dialog.busy, timeout=60_000)
    assert dialog.status.value == "2 of 2 images written."
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "one.ome.zarr",
        "three.ome.zarr",
    ]


@pytest.mark.parametrize("how", ["button", "dialog", "widget"])
def test_a_batch_can_be_stopped(viewer, widget, dialog, tmp_path, qtbot, how):
    stack = np.random.default_rng(0).integers(0, 256, (8, 400, 400), np.uint8)
    viewer.add_image(stack, name="stack")
    dialog.images.value = LAYERS
    dialog.output.value = tmp_path / "out"
    dialog.start.native.click()
    qtbot.waitUntil(lambda: dialog.current.value >= 1, timeout=60_000)
    assert "tiles" in dialog.status.value
    if how == "button":
        dialog.cancel.native.click()
    elif how == "dialog":
        dialog.close()
    else:
        docks = viewer.window._wrapped_dock_widgets.values()
        next(d for d in docks if d.inner_widget() is widget).destroyOnClose()
    if how != "widget":
        qtbot.waitUntil(lambda: not dialog.busy, timeout=60_000)
        assert "start again to go on" in dialog.status.value
    assert QThreadPool.globalInstance().waitForDone(20_000)
    assert not (tmp_path / "out" / "stack.ome.zarr").exists()
