"""A line across the canvas: left of it one layer is drawn, right of it another.

Neither layer's pixels are touched: each is drawn with a clip in the pixels of the canvas, so the
line is straight and sharp at any zoom, on rotated, tiled and multiscale layers. The viewer has
planes to clip with, too, but draws images in 2-D without them (napari 0.9).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, QPoint, Qt
from qtpy.QtWidgets import QWidget
from vispy.visuals.filters.clipping_planes import PlanesClipper

from napari_demoe._compare import Pair

if TYPE_CHECKING:
    from napari.viewer import Viewer
    from qtpy.QtGui import QMouseEvent

WIDTH = 9
"""Pixels to take hold of; the line in their middle is drawn 1 wide, with an edge."""


class Swipe(QObject):
    """Draws the source left of a line and its result right of it, until `remove`.

    Parameters
    ----------
    viewer : napari.Viewer
        In two dimensions, without a grid.
    pair : Pair
        Both visible.
    moved : callable
        Told the place of the line when it is dragged.
    """

    def __init__(self, viewer: Viewer, pair: Pair, moved: Callable[[float], None]) -> None:
        # A plugin's viewer lets nothing private through, and visuals have no public name yet.
        canvas = getattr(viewer, "__wrapped__", viewer).window._qt_viewer.canvas
        super().__init__(canvas.native)
        self._pair = pair
        self._visuals = {pair.source: -1.0, pair.result: 1.0}  # which side of the line is drawn
        self._drawn = {layer: canvas.layer_to_visual[layer] for layer in self._visuals}
        self._clips: dict[Any, PlanesClipper] = {}
        self._canvas = canvas.native
        self._moved = moved
        self._place = 0.5
        self._line = _Line(self._canvas, self._dragged)
        self._canvas.installEventFilter(self)
        for layer in self._visuals:
            # Last, because the viewer's own answer may draw with another node.
            layer.events.set_data.connect(self._draw, position="last")
        self._draw()
        self._line.show()

    @property
    def place(self) -> float:
        """Where the line is, from 0 (left, all is the result) to 1 (right, all is the source)."""
        return self._place

    @place.setter
    def place(self, place: float) -> None:
        self._place = min(1.0, max(0.0, place))
        self._draw()

    def remove(self) -> None:
        """Draw both layers whole again."""
        self._canvas.removeEventFilter(self)
        for layer in self._visuals:
            layer.events.set_data.disconnect(self._draw)
        for node, clip in self._clips.items():
            node.detach(clip)
            node.update()
        self._clips.clear()
        self._line.hide()
        self._line.deleteLater()
        self.deleteLater()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Keep the line at its part of the canvas when that changes its size."""
        if event.type() == QEvent.Type.Resize:
            self._draw()
        return False

    def _dragged(self, x: int) -> None:
        self.place = x / max(1, self._canvas.width())
        self._moved(self._place)

    def _draw(self, event: object = None) -> None:
        x = self._place * self._canvas.width()
        self._line.put(round(x), self._canvas.height())
        nodes = {
            node: side
            for layer, side in self._visuals.items()
            for node in _parts(self._drawn[layer].node)
        }
        for node in [node for node in self._clips if node not in nodes]:
            node.detach(self._clips.pop(node))
        for node, side in nodes.items():
            if node not in self._clips:
                self._clips[node] = PlanesClipper(coord_system="canvas")
                node.attach(self._clips[node])
            self._clips[node].clipping_planes = [[(x, 0.0, 0.0), (side, 0.0, 0.0)]]
            node.update()


class _Line(QWidget):
    """The line, to be taken hold of; it lies over the canvas and draws nothing of it."""

    def __init__(self, canvas: QWidget, dragged: Callable[[int], None]) -> None:
        super().__init__(canvas)
        self._dragged = dragged
        self.setObjectName("demoe_swipe")
        self.setCursor(Qt.CursorShape.SplitHCursor)
        self.setToolTip("Left: the source. Right: the result. Drag.")

    def put(self, x: int, height: int) -> None:
        """Move to a column of the canvas."""
        self.setGeometry(x - WIDTH // 2, 0, WIDTH, height)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Follow the mouse while a button is held."""
        place = self.mapTo(self.parentWidget(), event.position().toPoint())
        self._dragged(place.x())

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Take hold, so that the viewer does not pan."""
        event.accept()

    def paintEvent(self, event: QEvent) -> None:
        """Draw a light line with a dark edge, to be seen on any image."""
        from qtpy.QtGui import QColor, QPainter

        with QPainter(self) as painter:
            middle, height = WIDTH // 2, self.height()
            painter.fillRect(middle - 1, 0, 3, height, QColor(0, 0, 0, 160))
            painter.fillRect(middle, 0, 1, height, QColor("white"))
            painter.setBrush(QColor("white"))
            painter.drawEllipse(QPoint(middle, height // 2), middle, 2 * middle)


def _parts(node: Any) -> list[Any]:
    """Return what a node draws with: images larger than a texture are tiled."""
    return list(getattr(node, "adopted_children", [])) or [node]
