"""Menu commands: thin calls of what the widget and the reader do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari.viewer import Viewer


def deblur_selected(viewer: Viewer) -> None:
    """Open the widget, if it is not open yet, and run it on the selected layer.

    Parameters
    ----------
    viewer : napari.Viewer
        Filled in by napari.
    """
    from napari_demoe._widget import DeblurWidget

    docked = viewer.window.dock_widgets.values()
    widget = next((each for each in docked if isinstance(each, DeblurWidget)), None)
    if widget is None:
        widget = DeblurWidget(viewer)
        # The name that the menu entry of the widget gives it, so that the entry hides it again.
        viewer.window.add_dock_widget(widget, name="Deblur (DeMoE)", area="right")
    widget.session.source = viewer.layers.selection.active
    widget.start()


def open_lazily(viewer: Viewer) -> None:
    """Ask for a file and open it without reading its pixels.

    Parameters
    ----------
    viewer : napari.Viewer
        Filled in by napari.
    """
    from napari.utils.notifications import show_error
    from qtpy.QtWidgets import QFileDialog

    from demoe.errors import DemoeError
    from napari_demoe._reader import read

    path, _ = QFileDialog.getOpenFileName(None, "Open image lazily")
    if not path:
        return
    try:
        for data, kwargs, _ in read(path):
            viewer.add_image(data, **kwargs)
    except DemoeError as error:
        show_error(str(error))
