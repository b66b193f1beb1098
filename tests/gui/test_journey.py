"""What a person does, in a real window, from an image to a saved result."""

import threading

import dask.array as da
import numpy as np
import pytest
from napari.layers import Image, Labels
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QPoint, Qt, QThreadPool, QTimer
from qtpy.QtWidgets import QApplication

RESULT = "{} deblurred"
EXPERTS = "{} experts"


def test_the_whole_journey_from_a_sample_to_a_file_and_back(
    viewer, widget, finish, qtbot, tmp_path
):
    viewer.open_sample("napari-demoe", "pagoda_motion")
    sample = widget.session.source
    sample.data = np.asarray(sample.data[:150, :200])  # enough of it
    sample.scale, sample.units = (0.2, 0.1), ("um", "um")

    widget.run.click()
    assert widget.session.busy
    assert widget.cancel.isEnabled()
    assert not widget.run.isEnabled()
    finish(widget)

    assert widget.session.error == ""
    assert widget.run.isEnabled()
    assert not widget.cancel.isEnabled()
    result, overlay = (viewer.layers[name.format(sample.name)] for name in (RESULT, EXPERTS))
    assert result.data.shape == sample.data.shape
    assert result.data.dtype == sample.data.dtype
    assert not np.array_equal(result.data, sample.data)
    assert tuple(result.scale) == (0.2, 0.1)
    assert overlay.data.shape == (3, 4)  # 64-pixel cells
    assert tuple(overlay.scale) == (12.8, 6.4)
    corner = result.data_to_world((-0.5, -0.5))
    np.testing.assert_allclose(overlay.data_to_world((-0.5, -0.5)), corner)
    assert sum(label.text() != "0%" for label in widget.legend.shares) >= 1

    viewer.layers.selection = {result}
    path = tmp_path / "result.ome.zarr"
    written = viewer.layers.save(path, selected=True, plugin="napari-demoe")
    assert written == [str(path)]
    (again,) = viewer.open(path, plugin="napari-demoe", layer_type=None)[:1]
    assert tuple(again.scale) == (0.2, 0.1)
    assert [str(unit) for unit in again.units] == ["micrometer", "micrometer"]
    assert again.rgb
    np.testing.assert_array_equal(np.asarray(again.data), result.data)


def test_cancel_stops_between_tiles_and_resume_goes_on(viewer, widget, finish, qtbot):
    image = np.random.default_rng(0).integers(0, 255, (6, 400, 400), np.uint8)
    viewer.add_image(image, name="stack")
    widget.run.click()
    qtbot.waitUntil(lambda: widget.session.done >= 1, timeout=60_000)
    assert widget.progress.isVisible()
    assert "of 96 tiles" in widget.progress.text()
    assert len(viewer.layers) == 2  # the running result is on show
    widget.cancel.click()
    assert widget.session.state == "cancelling"
    assert not widget.cancel.isEnabled()
    done = widget.session.done
    finish(widget)
    assert widget.session.done <= done + 2  # no more than what was under way
    assert widget.session.done < widget.session.total
    assert widget.run.isEnabled()
    assert "Resume goes on" in widget.status.text()
    assert not widget.cancel.isVisible()
    widget.resume.click()
    finish(widget)
    assert widget.session.done == widget.session.total == 96
    assert not widget.resume.isVisible()
    np.testing.assert_array_equal(viewer.layers[0].data, image)
    assert not np.array_equal(viewer.layers["stack deblurred"].data, image)
    assert QThreadPool.globalInstance().waitForDone(2000)


def test_an_unusable_image_says_why_and_run_works_again(viewer, widget, finish, qtbot, photo):
    bad = np.full((100, 100), np.nan, np.float32)
    viewer.add_image(bad, name="broken", contrast_limits=(0, 1))
    widget.run.click()
    finish(widget)
    assert "NaN" in widget.error.text() or "finite" in widget.error.text()
    assert widget.error.isVisible()
    assert not widget.progress.isVisible()
    assert [record.message for record in notification_manager.records] == [widget.error.text()]
    assert [layer.name for layer in viewer.layers] == ["broken"]

    viewer.add_image(photo, name="photo")
    assert widget.run.isEnabled()
    widget.run.click()
    finish(widget)
    assert widget.session.error == ""
    assert not widget.error.isVisible()
    assert RESULT.format("photo") in viewer.layers


def test_an_error_leaves_the_earlier_result_alone(viewer, widget, finish, photo, tmp_path):
    viewer.add_image(photo, name="photo")
    widget.run.click()
    finish(widget)
    earlier = viewer.layers[RESULT.format("photo")]
    pixels = np.array(earlier.data)
    empty = tmp_path / "empty.safetensors"
    empty.write_bytes(b"")
    widget.choose_model(str(empty))
    widget.run.click()
    finish(widget)
    assert "empty.safetensors" in widget.error.text()
    assert len(viewer.layers) == 4
    np.testing.assert_array_equal(earlier.data, pixels)


def test_multiscale_layer_gives_a_single_scale_result(viewer, widget, finish):
    fine = np.random.default_rng(0).integers(0, 60000, (256, 320), np.uint16)
    viewer.add_image([fine, fine[::2, ::2]], multiscale=True, name="pyramid", scale=(0.5, 0.5))
    widget.run.click()
    finish(widget)
    result = viewer.layers[RESULT.format("pyramid")]
    assert not result.multiscale
    assert result.data.shape == (256, 320)
    assert result.data.dtype == np.uint16
    assert tuple(result.scale) == (0.5, 0.5)


def test_a_stack_with_pixel_sizes(viewer, widget, finish):
    stack = np.random.default_rng(0).random((3, 100, 140)).astype(np.float32)
    viewer.add_image(stack, name="stack", scale=(2, 0.3, 0.3), units=("um",) * 3)
    viewer.dims.set_current_step(0, 2)
    widget.run.click()
    finish(widget)
    result, _, overlay = viewer.layers[-3:]
    assert result.data.shape == stack.shape
    assert tuple(result.scale) == (2, 0.3, 0.3)
    assert overlay.data.shape == (3, 2, 3)
    assert tuple(overlay.scale) == (2, 64 * 0.3, 64 * 0.3)
    assert result.data.std() > 0


def test_a_time_series_of_colour_pictures_from_dask(viewer, widget, finish, photo):
    series = da.stack([da.from_array(photo)] * 2)
    viewer.add_image(
        series, name="film", rgb=True, units=("s", "um", "um"), axis_labels=("t", "y", "x")
    )
    widget.run.click()
    finish(widget)
    result, _, overlay = viewer.layers[-3:]
    assert result.rgb
    assert result.data.shape == (2, 200, 300, 3)
    assert result.axis_labels == ("t", "y", "x")
    assert overlay.data.shape == (2, 4, 5)
    np.testing.assert_array_equal(result.data[0], result.data[1])  # equal planes, equal results


def test_an_image_smaller_than_a_tile_or_a_cell(viewer, widget, finish):
    viewer.add_image(np.arange(30 * 41, dtype=np.uint16).reshape(30, 41), name="small")
    widget.run.click()
    finish(widget)
    assert viewer.layers[RESULT.format("small")].data.shape == (30, 41)
    assert viewer.layers[EXPERTS.format("small")].data.shape == (1, 1)
    assert widget.session.total == 1


def test_a_named_blur_fills_the_map_with_one_expert(viewer, widget, finish, photo):
    viewer.add_image(photo, name="photo")
    widget.form["routing"].value = "low_light"
    widget.run.click()
    finish(widget)
    assert np.unique(viewer.layers[EXPERTS.format("photo")].data).tolist() == [5]
    assert [label.text() for label in widget.legend.shares] == ["0%", "0%", "0%", "0%", "100%"]


def test_the_window_stays_alive_during_a_run(viewer, widget, finish, photo):
    """The event loop goes on between tiles, and pixels are computed on another thread."""
    threads, beats, seen = set(), [], []

    def noted(block):
        threads.add(threading.current_thread())
        seen.append(len(beats))
        return block

    source = da.from_array(np.tile(photo, (2, 2, 1)), chunks=(128, 128, 3))
    viewer.add_image(
        source.map_blocks(noted, dtype=np.uint8), name="photo", contrast_limits=(0, 255)
    )
    threads.clear()
    seen.clear()
    timer = QTimer()
    timer.timeout.connect(lambda: beats.append(True))
    timer.start(10)
    widget.run.click()
    finish(widget)
    timer.stop()
    assert len(set(seen)) > 3
    assert threads
    assert threading.main_thread() not in threads


def test_choices_are_remembered_by_the_next_widget(viewer, widget, finish, photo, qtbot):
    viewer.add_image(photo[:60, :60], name="photo")
    widget.form["top_k"].value = 2
    widget.form["photometry"].value = "preserve"
    widget.form["routing"].value = "defocus"
    widget.run.click()
    finish(widget)
    from napari_demoe._widget import DeblurWidget

    fresh = DeblurWidget(viewer)
    qtbot.addWidget(fresh)
    assert fresh.form["top_k"].value == 2
    assert fresh.form["photometry"].value == "preserve"
    assert fresh.form["routing"].value == "defocus"
    assert fresh.form["model"].value == widget.form["model"].value
    fresh.close_session()


@pytest.mark.parametrize("how", ["dock", "viewer"])
def test_closing_during_a_run_stops_the_worker(viewer, widget, qtbot, how):
    image = np.random.default_rng(0).integers(0, 255, (6, 400, 400), np.uint8)
    viewer.add_image(image, name="stack")
    widget.run.click()
    qtbot.waitUntil(lambda: widget.session.done >= 1, timeout=60_000)
    session = widget.session
    if how == "dock":
        dock = next(
            d for d in viewer.window._wrapped_dock_widgets.values() if d.inner_widget() is widget
        )
        dock.destroyOnClose()
        assert [layer.name for layer in viewer.layers] == ["stack"]
    else:
        viewer.close()
    qtbot.waitUntil(lambda: not session.busy, timeout=10_000)
    assert QThreadPool.globalInstance().waitForDone(2000)
    assert session.done < session.total


def test_deleting_the_running_result_stops_the_run(viewer, widget, finish, qtbot):
    image = np.random.default_rng(0).integers(0, 255, (6, 400, 400), np.uint8)
    viewer.add_image(image, name="stack")
    widget.run.click()
    qtbot.waitUntil(lambda: widget.session.done >= 1, timeout=60_000)
    del viewer.layers[-1]
    finish(widget)
    assert [layer.name for layer in viewer.layers] == ["stack"]
    assert widget.session.done < widget.session.total


def test_the_image_list_follows_the_viewer(viewer, widget, photo):
    assert widget.image.choices == ()
    assert not widget.run.isEnabled()
    first = viewer.add_image(photo, name="first")
    viewer.add_image(photo, name="second")
    viewer.add_labels(np.zeros((9, 9), np.uint8), name="labels")
    assert [layer.name for layer in widget.image.choices] == ["first", "second"]
    assert widget.image.current_choice == "second"
    viewer.layers.selection = {first}
    assert widget.image.current_choice == "first"
    widget.image.value = viewer.layers["second"]
    assert widget.session.source is viewer.layers["second"]
    first.name = "renamed"
    assert widget.image.native.itemText(0) == "renamed"
    viewer.layers.remove("second")
    assert widget.session.source is first


def test_the_overlay_can_be_hidden_and_speaks(viewer, widget, finish, photo):
    viewer.add_image(photo, name="photo")
    widget.run.click()
    finish(widget)
    overlay = viewer.layers[EXPERTS.format("photo")]
    assert isinstance(overlay, Labels)
    viewer.cursor.position = (10, 10)
    assert widget.cursor.text().startswith("Under the pointer: ")
    weight = float(widget.cursor.text().split()[-1])
    assert 0.2 <= weight <= 1
    widget.overlay.click()
    assert not overlay.visible
    assert widget.cursor.text().startswith("Under the pointer: ")  # also of a hidden map
    confidence = widget.session.confidence
    assert not widget.confidence.isChecked()
    widget.confidence.click()
    assert confidence.visible
    confidence.visible = False
    assert not widget.confidence.isChecked()
    viewer.layers.remove(overlay)
    assert not widget.overlay.isEnabled()
    assert not widget.correct.isEnabled()
    assert isinstance(viewer.layers[-1], Image)


def test_preview_shows_a_part_and_the_script_is_copied(viewer, widget, finish, photo):
    viewer.add_image(np.tile(photo, (3, 3, 1)), name="photo")
    widget.preview.click()
    assert not widget.preview.isEnabled()
    finish(widget)
    assert widget.session.result.data.shape == (512, 512, 3)
    assert widget.preview.isEnabled()
    widget.form["routing"].value = "defocus"
    widget.script.click()
    copied = QApplication.clipboard().text()
    compile(copied, "copied", "exec")
    assert "routing='defocus'" in copied


def test_the_row_for_a_painted_map_shows_only_when_it_is_wanted(viewer, widget, finish, photo):
    viewer.add_image(photo, name="photo")
    tenth = {"scale": (10, 10), "translate": (4.5, 4.5)}
    viewer.add_labels(np.full((20, 30), 4, np.uint8), name="mine", **tenth)
    assert not widget.painted.native.isVisible()
    widget.form["routing"].value = "painted"
    assert widget.painted.native.isVisible()
    assert widget.painted.current_choice == "mine"
    widget.run.click()
    finish(widget)
    assert np.unique(viewer.layers[EXPERTS.format("photo")].data).tolist() == [4]


def click(viewer, qtbot, layer, place):
    """Click with the left button on a place of a layer's data."""
    canvas = viewer.window._qt_viewer.canvas
    scene = canvas._scene_canvas.scene.node_transform(canvas.view.scene)
    x, y = scene.imap(layer.data_to_world(place)[::-1])[:2]
    at = QPoint(round(float(x)), round(float(y)))
    qtbot.mouseMove(canvas.native, at)
    qtbot.mouseClick(canvas.native, Qt.MouseButton.LeftButton, pos=at)


def test_two_regions_are_painted_applied_saved_and_opened_again(
    viewer, widget, finish, qtbot, photo, tmp_path
):
    viewer.add_image(np.tile(photo, (2, 2, 1)), name="photo", scale=(0.5, 0.5))
    widget.sentence.value = "out of focus"
    widget.sentence.native.returnPressed.emit()
    assert widget.form["routing"].value == "defocus"
    assert "Understood: defocus" in widget.said.value
    widget.sentence.value = "hmm"
    widget.sentence.native.returnPressed.emit()
    assert "Unclear" in widget.said.value
    assert widget.form["routing"].value == "defocus"
    assert not widget.correct.isEnabled()
    widget.run.click()
    finish(widget)
    overlay = viewer.layers[EXPERTS.format("photo")]
    assert np.unique(overlay.data).tolist() == [1]
    assert viewer.layers.selection.active is overlay
    before = np.array(widget.session.result.data)

    # With the brush, by mouse, and with a shape.
    widget.legend.brushes.button(5).click()
    assert overlay.selected_label == 5
    overlay.mode = "paint"
    for place in ((0, 0), (0, 1), (0, 2)):
        click(viewer, qtbot, overlay, place)
    assert overlay.data[0, :3].tolist() == [5, 5, 5]
    assert overlay.data.sum() == overlay.data.size + 3 * 4
    qtbot.waitUntil(lambda: "low light" in widget.cursor.text())
    assert "to be applied" in widget.cursor.text()
    widget.correct.click()
    finish(widget)
    assert widget.legend.shares[4].text() == "4%"
    regions = viewer.add_shapes(ndim=2, name="regions", scale=(0.5, 0.5))
    assert widget.painted.current_choice == "regions"
    widget.legend.brushes.button(2).click()
    regions.add_rectangles(np.array([[260, 390], [260, 599], [399, 599], [399, 390]]))
    widget.correct.click()
    finish(widget)
    assert widget.session.error == ""
    assert overlay.data[0, :4].tolist() == [5, 5, 5, 1]
    assert set(overlay.data[4:, 7:].ravel()) == {2}
    result = widget.session.result
    changed = (np.asarray(result.data) != before).any(axis=2)
    assert changed[:30, :60].any()
    assert changed[300:, 500:].any()
    assert not changed[250:, :200].any()

    viewer.layers.selection = {result, overlay, widget.session.confidence}
    path = tmp_path / "corrected.ome.zarr"
    assert viewer.layers.save(path, selected=True, plugin="napari-demoe") == [str(path)]
    image, confidence, experts = viewer.open(path, plugin="napari-demoe", layer_type=None)
    np.testing.assert_array_equal(np.asarray(image.data), result.data)
    np.testing.assert_array_equal(experts.data, overlay.data)
    np.testing.assert_array_equal(confidence.data, widget.session.confidence.data)
    assert confidence.data[0, 0] == 1
    assert tuple(experts.scale) == (32, 32)
