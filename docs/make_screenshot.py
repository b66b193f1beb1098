"""Draw docs/images/napari.png: a real window, a bundled sample, a run with the bundled network.

Run it on any screen: ``python docs/make_screenshot.py``, or without one:
``xvfb-run -a -s "-screen 0 1600x1000x24" python docs/make_screenshot.py``.
"""

import sys
import tempfile
import time
from pathlib import Path

import napari
from napari._app_model import get_app_model
from napari.settings import get_settings
from qtpy.QtWidgets import QApplication

SAMPLE = "pagoda_mixed"
SIZE = (1480, 900)
PICTURE = Path(__file__).parent / "images" / "napari.png"


def live(until=None, seconds=0.5):
    """Let the window live until something is true, and then a little longer."""
    while until is not None and not until():
        QApplication.processEvents()
        time.sleep(0.01)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)


def main() -> int:
    """Return 0 if the picture was written, 1 if the run failed."""
    viewer = napari.Viewer(show=True)
    viewer.window._qt_window.resize(*SIZE)
    viewer.open_sample("napari-demoe", SAMPLE)
    get_app_model().commands.execute_command("napari-demoe.deblur")
    widget = viewer.window.dock_widgets["Deblur (DeMoE)"]
    widget.choose_model("default")
    widget.routing.setCurrentIndex(widget.routing.findData("local"))
    widget.tile.setCurrentIndex(widget.tile.findData(256))
    live()
    widget.run.click()
    live(lambda: not widget.session.busy)
    if widget.session.error:
        print(widget.session.error, file=sys.stderr)
        viewer.close()
        return 1
    # Above the blurred picture (and the hidden sharp one), below the result under its expert map.
    viewer.canvas.grid.stride = 2
    viewer.canvas.grid.shape = (2, 1)
    viewer.canvas.grid.enabled = True
    viewer.reset_view()
    rows, columns = viewer.layers[-2].data.shape[:2]
    viewer.cursor.position = (rows * 0.6, columns * 0.9)
    live()
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    viewer.screenshot(PICTURE, canvas_only=False, flash=False)
    viewer.close()
    return 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:  # this person's own settings stay as they are
        get_settings(Path(folder) / "settings.yaml")
        sys.exit(main())
