"""Before a run and after a restart: what it takes, where tiles are kept, and how it goes on."""

import shlex
from types import SimpleNamespace

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication, QFileDialog

import demoe
from demoe.cli import main
from napari_demoe._widget import DeblurWidget


@pytest.fixture
def stack():
    return np.random.default_rng(0).integers(0, 255, (3, 300, 400), np.uint8)


def test_what_a_run_takes_is_said_before_it_with_the_devices_there_are(
    viewer, widget, finish, qtbot, stack, monkeypatch
):
    there = [SimpleNamespace(name=name, label=f"The {name}") for name in ("xpu:0", "cpu")]
    monkeypatch.setattr("demoe.execution.estimate.list_devices", lambda: there)
    viewer.add_image(stack, name="stack")
    qtbot.waitUntil(lambda: "36 tiles" in widget.prospect.text(), timeout=120_000)
    assert widget.prospect.isVisible()
    assert not widget.shortage.isVisible()
    widget.form["tile"].value = 256
    qtbot.waitUntil(lambda: "12 tiles" in widget.prospect.text(), timeout=120_000)
    assert widget.form["device"].choices == ("auto", "cpu", "xpu:0")
    assert widget.form["device"].current_choice == "The cpu"
    assert widget.form["device"].value == "cpu"
    widget.run.click()
    assert not widget.prospect.isVisible()
    finish(widget)
    qtbot.waitUntil(lambda: widget.prospect.text().startswith("About"), timeout=120_000)


def test_a_small_folder_is_told_and_another_can_be_chosen(
    viewer, widget, qtbot, stack, monkeypatch, tmp_path
):
    monkeypatch.setattr(
        "shutil.disk_usage", lambda at: SimpleNamespace(free=10**12 * (str(at) == str(tmp_path)))
    )
    viewer.add_image(stack, name="stack")
    qtbot.waitUntil(lambda: widget.shortage.isVisible(), timeout=120_000)
    assert "Choose another folder" in widget.shortage.text()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    widget.elsewhere.click()
    qtbot.waitUntil(lambda: not widget.shortage.isVisible(), timeout=120_000)
    assert widget.session.folder == str(tmp_path)


def test_tiles_are_kept_reopened_after_a_restart_and_finished_by_the_command(
    viewer, widget, finish, qtbot, stack, tmp_path, tiny_weights, computed
):
    source, target = tmp_path / "stack.ome.tif", tmp_path / "result.ome.zarr"
    demoe.save(demoe.LazyImage.from_array(stack, "ZYX"), source)
    viewer.open(source, plugin="napari-demoe")
    widget.form["routing"].value = "image"
    widget.keep.value = target
    widget.run.click()
    qtbot.waitUntil(lambda: widget.session.done >= 2, timeout=120_000)
    widget.cancel.click()
    finish(widget)
    done = widget.session.done
    assert 2 <= done < widget.session.total == 36
    widget.close_session()
    viewer.layers.clear()

    again = DeblurWidget(viewer)  # as after a restart
    qtbot.addWidget(again)
    again.choose_model(str(tiny_weights))
    again.form.show({"device": "cpu", "tile": 128, "routing": "image"})
    viewer.open(source, plugin="napari-demoe")
    again.keep.value = target
    again.run.click()
    qtbot.waitUntil(lambda: again.session.done >= done + 2, timeout=120_000)
    again.cancel.click()
    finish(again)
    again.command.click()
    copied = QApplication.clipboard().text()
    computed.clear()
    words = shlex.split(copied)
    assert words[-1] == "--resume"
    assert main([*words[1:], "--quiet"]) == 0
    assert 0 < len(computed) <= 36 - done - 2
    assert demoe.open_image(target).shape == (3, 300, 400)
    assert again.session.resumable  # its layer was there all the time
    again.resume.click()
    finish(again)
    assert "exists" in again.session.error


def test_the_reason_for_the_processor_is_read_under_more(viewer, widget, qtbot, stack, monkeypatch):
    monkeypatch.setattr("demoe.execution.estimate.why_processor", lambda: "There is no card.")
    viewer.add_image(stack, name="stack")
    widget.form["device"].value = "auto"
    qtbot.waitUntil(lambda: widget.processor.text() == "There is no card.", timeout=120_000)
    assert not widget.processor.isVisible()
    widget.advanced.unfold()
    assert widget.processor.isVisible()
