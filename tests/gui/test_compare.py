"""A result beside its source, in a real window: mouse, key, and the colours on the canvas."""

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QWidget

DARK, LIGHT = 40, 200
LIMITS = (0, 255)


@pytest.fixture
def pair(viewer, widget, qtbot):
    """A dark source and a light result that fill the canvas, turned, in two levels each."""

    def levels(value):
        return [np.full((n, n), value, np.uint8) for n in (800, 400)]

    place = {"rotate": 30, "translate": (7, -3), "contrast_limits": LIMITS, "multiscale": True}
    source = viewer.add_image(levels(DARK), name="dark", **place)
    noted = {"demoe": {"run": "1", "made_from": source.unique_id}}
    result = viewer.add_image(levels(LIGHT), name="light", metadata=noted, **place)
    viewer.reset_view()
    viewer.scene.camera.zoom *= 3
    return result, source


@pytest.fixture
def bar(widget, pair):
    """The part of the widget that compares."""
    return widget.compare


def row(viewer):
    """The gray values across the middle of the canvas."""
    picture = viewer.screenshot(canvas_only=True, flash=False)
    return picture[picture.shape[0] // 2, :, 0].astype(int)


def line_of(viewer):
    (line,) = viewer.window._qt_window.findChildren(QWidget, "demoe_swipe")
    return line


def test_a_line_divides_source_and_result_and_can_be_dragged(viewer, pair, bar, qtbot):
    assert (row(viewer) == LIGHT).all()
    bar.swipe.setChecked(True)
    for zoom in (1, 7, 0.9):
        viewer.scene.camera.zoom *= zoom
        for value in (500, 250):
            bar.slider.setValue(value)
            seen = row(viewer)
            edge = len(seen) * value // 1000
            assert (seen[: edge - 1] == DARK).all()
            assert (seen[edge + 1 :] == LIGHT).all()

    line = line_of(viewer)
    width = line.parentWidget().width()
    assert abs(line.geometry().center().x() - width / 4) <= 1
    middle = QPoint(line.width() // 2, 50)
    qtbot.mousePress(line, Qt.MouseButton.LeftButton, pos=middle)
    qtbot.mouseMove(line, middle + QPoint(width // 2, 0))
    qtbot.mouseRelease(line, Qt.MouseButton.LeftButton, pos=middle)
    seen = row(viewer)
    changes = np.flatnonzero(np.diff(seen))
    assert len(changes) <= 2
    assert abs(changes[0] / len(seen) - 0.75) < 0.02
    assert abs(bar.slider.value() - 750) < 20

    bar.swipe.setChecked(False)
    assert (row(viewer) == LIGHT).all()
    qtbot.waitUntil(
        lambda: not viewer.window._qt_window.findChildren(QWidget, "demoe_swipe"), timeout=5000
    )


def test_images_larger_than_a_texture_are_divided_too(viewer, widget, qtbot):
    from napari._vispy.utils.gl import get_max_texture_sizes

    side = get_max_texture_sizes()[0] + 10
    source = viewer.add_image(np.full((4, side), DARK, np.uint8), contrast_limits=LIMITS)
    noted = {"demoe": {"made_from": source.unique_id}}
    viewer.add_image(np.full((4, side), LIGHT, np.uint8), contrast_limits=LIMITS, metadata=noted)
    viewer.scene.camera.center = (0, 1.5, side - 10)  # where the first texture ends
    viewer.scene.camera.zoom = 400
    widget.compare.swipe.setChecked(True)
    seen = row(viewer)
    half = len(seen) // 2
    assert (seen[: half - 1] == DARK).all()
    assert (seen[half + 1 :] == LIGHT).all()


def test_while_a_key_or_the_button_is_held_the_source_is_seen(viewer, pair, bar, qtbot):
    window = viewer.window._qt_window
    source = pair[1]
    source.visible = False
    qtbot.keyPress(window, Qt.Key.Key_H)
    assert (row(viewer) == DARK).all()
    qtbot.keyRelease(window, Qt.Key.Key_H)
    assert (row(viewer) == LIGHT).all()
    assert not source.visible

    qtbot.mousePress(bar.hold, Qt.MouseButton.LeftButton)
    assert (row(viewer) == DARK).all()
    qtbot.mouseRelease(bar.hold, Qt.MouseButton.LeftButton)
    assert (row(viewer) == LIGHT).all()

    bar.swipe.setChecked(True)
    qtbot.keyPress(window, Qt.Key.Key_H)
    assert (row(viewer) == DARK).all()
    qtbot.keyRelease(window, Qt.Key.Key_H)
    assert set(row(viewer)[[0, -1]]) == {DARK, LIGHT}
    bar.swipe.setChecked(False)
    assert not source.visible


def test_a_swipe_ends_where_it_has_no_sense(viewer, pair, bar):
    source = pair[1]
    bar.swipe.setChecked(True)
    viewer.canvas.grid.enabled = True
    assert not bar.swipe.isChecked()
    bar.swipe.setChecked(True)
    assert not bar.swipe.isChecked()
    assert "without the grid" in bar.line.text()
    viewer.canvas.grid.enabled = False
    bar.swipe.setChecked(True)
    assert bar.swipe.isChecked()
    viewer.layers.remove(source)
    assert not bar.swipe.isChecked()
    assert not bar.swipe.isEnabled()
    assert (row(viewer) == LIGHT).all()


def test_a_difference_is_added_follows_its_result_and_can_be_hidden(viewer, pair, bar, qtbot):
    result, _ = pair
    bar.difference.setChecked(True)
    qtbot.waitUntil(lambda: len(viewer.layers) == 3, timeout=10_000)
    layer = viewer.layers["light difference"]
    low, high = layer.contrast_limits
    assert -low == high == LIGHT - DARK
    assert set(np.unique(layer.data[0])) == {LIGHT - DARK}
    assert row(viewer).min() > 200  # red
    result.data = [level - 100 for level in result.data]
    assert set(np.unique(layer.data[0])) == {LIGHT - DARK - 100}
    bar.difference.setChecked(False)
    assert not layer.visible
    layer.visible = True
    assert bar.difference.isChecked()
    viewer.layers.remove(layer)
    assert not bar.difference.isChecked()


def test_figures_follow_the_view_and_are_measured_elsewhere(viewer, pair, bar, qtbot, monkeypatch):
    import threading

    from napari_demoe import _compare_bar

    threads = []
    measure = _compare_bar.measure

    def noting(view):
        threads.append(threading.current_thread())
        return measure(view)

    monkeypatch.setattr(_compare_bar, "measure", noting)
    bar.figures.setChecked(True)
    qtbot.waitUntil(lambda: "mean 40 → 200 (5.000 ×)" in bar.line.text(), timeout=10_000)  # noqa: RUF001
    viewer.scene.camera.zoom /= 20
    qtbot.waitUntil(lambda: "at 1/2 of the size" in bar.line.text(), timeout=10_000)
    assert threading.main_thread() not in threads
    bar.figures.setChecked(False)
    assert not bar.line.isVisible()


def test_closing_the_widget_leaves_the_layers_as_they_were(viewer, pair, widget, bar):
    source = pair[1]
    source.visible = False
    bar.swipe.setChecked(True)
    dock = next(
        d for d in viewer.window._wrapped_dock_widgets.values() if d.inner_widget() is widget
    )
    dock.destroyOnClose()
    assert (row(viewer) == LIGHT).all()
    assert not source.visible
    assert "H" not in [str(key) for key in viewer.keymap]
