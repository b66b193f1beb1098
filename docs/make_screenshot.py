"""Draw docs/images/napari.png: a real window, a bundled sample, a run, and a corrected expert map.

Run it on any screen: ``python docs/make_screenshot.py``, or without one:
``xvfb-run -a -s "-screen 0 1600x1000x24" python docs/make_screenshot.py``.
"""

import sys
import tempfile
import time
from pathlib import Path

import napari
import numpy as np
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


def correct(viewer, widget):
    """Paint where the camera shook by hand, and draw a region around what is out of focus."""
    session = widget.session
    widget.legend.brushes.button(2).click()
    session.overlay.mode = "paint"
    rows, columns = session.overlay.data.shape
    for row in range(rows // 2, rows):
        for column in range(columns - 4, columns):
            session.overlay.paint((row, column), session.brush)
    session.overlay.mode = "pan_zoom"
    widget.correct.click()
    live(lambda: not session.busy)
    regions = viewer.add_shapes(
        ndim=2, name="regions", face_color="transparent", edge_color="white", edge_width=2
    )
    widget.legend.brushes.button(1).click()
    height, width = session.result.data.shape[:2]
    corners = np.array([[0.08, 0.01], [0.01, 0.2], [0.3, 0.4], [0.98, 0.36], [0.98, 0.01]])
    regions.add_polygons(corners * (height, width))
    widget.correct.click()
    live(lambda: not session.busy)


def main() -> int:
    """Return 0 if the picture was written, 1 if the run failed."""
    viewer = napari.Viewer(show=True)
    viewer.window._qt_window.resize(*SIZE)
    viewer.open_sample("napari-demoe", SAMPLE)
    get_app_model().commands.execute_command("napari-demoe.deblur")
    widget = viewer.window.dock_widgets["Deblur (DeMoE)"]
    widget.choose_model("default")
    widget.form["routing"].value = "local"
    widget.form["tile"].value = 128
    live()
    widget.run.click()
    live(lambda: not widget.session.busy)
    if widget.session.error:
        print(widget.session.error, file=sys.stderr)
        viewer.close()
        return 1
    correct(viewer, widget)
    viewer.layers.selection = {widget.session.overlay}
    viewer.reset_view(margin=0.02)
    rows, columns = widget.session.result.data.shape[:2]
    viewer.cursor.position = (rows * 0.3, columns * 0.45)
    live()
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    viewer.screenshot(PICTURE, canvas_only=False, flash=False)
    viewer.close()
    return 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:  # this person's own settings stay as they are
        get_settings(Path(folder) / "settings.yaml")
        sys.exit(main())
