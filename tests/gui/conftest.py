"""A real napari window with the plugin as it is installed, and a tiny random network."""

import numpy as np
import pytest
from napari.utils.notifications import notification_manager


@pytest.fixture
def viewer(make_napari_viewer, tmp_path, monkeypatch):
    """A window that is shown; plugin settings are read from and kept in the test's folder."""
    from napari import settings

    settings._clear_plugin_settings_cache()
    monkeypatch.setattr(settings, "_CFG_PATH", str(tmp_path / "napari" / "settings.yaml"))
    notification_manager.records.clear()
    yield make_napari_viewer(show=True)
    settings._clear_plugin_settings_cache()


@pytest.fixture
def widget(viewer, tiny_weights):
    """The docked widget, set to the tiny network and small tiles."""
    _, widget = viewer.window.add_plugin_dock_widget("napari-demoe", "Deblur")
    widget.choose_model(str(tiny_weights))
    widget.form["device"].value = "cpu"
    widget.form["tile"].value = 128
    return widget


@pytest.fixture
def finish(qtbot):
    """Wait until a widget's run is over."""

    def wait(widget, timeout=180_000):
        qtbot.waitUntil(lambda: not widget.session.busy, timeout=timeout)

    return wait


@pytest.fixture
def photo():
    """A smooth colour picture with edges, 200 x 300."""
    rows, columns = np.mgrid[:200, :300]
    waves = 127 + 100 * np.sin(rows / 9.0) * np.cos(columns / 13.0)
    return np.stack([waves, waves[::-1], 255 - waves], axis=-1).astype(np.uint8)


@pytest.fixture
def tiny_weights(root):
    """A network of width 4 with random weights."""
    return root / "tests" / "data" / "demoe_w4.safetensors"
