"""Make the pictures of docs/napari.md, and the README's animation, in a real window.

``xvfb-run -a -s "-screen 0 1600x1000x24" python docs/make_pages_pictures.py [PART ...]``

A bundled sample is opened, deblurred, corrected and compared as a person would do it: through the
widget that napari shows. What is seen on the way becomes ``docs/images/napari_*.webp``; a view that
sharpens becomes ``docs/images/sharpening.webp``. With ``--also``, each picture is written as PNG,
too, to be looked at. Parts are tour, batch and sharpening. The window tells how long a run took, so
make them on a machine that has nothing else to do.
"""

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

import napari
import numpy as np
from make_screenshot import SIZE, correct, live
from napari._app_model import get_app_model
from napari.settings import get_settings
from PIL import Image
from qtpy.QtGui import QImage

IMAGES = Path(__file__).parent / "images"

QUALITY = 72
"""Of WebP: text in the window stays sharp."""

SAMPLE, ZOOMED = "pagoda_mixed", "pagoda_motion"

FRAME_MS, LAST_MS = 350, 2500
"""How long each picture of the animation is seen, and the first and the last one."""

FRAME_WIDTH = 560


class Album:
    """Keeps what a window shows."""

    def __init__(self, also: Path | None) -> None:
        self._also = also

    def keep(self, pixels: np.ndarray, name: str) -> None:
        """Write a picture, (rows, columns, 3 or more) of uint8."""
        picture = Image.fromarray(np.asarray(pixels)[..., :3])
        picture.save(IMAGES / f"napari_{name}.webp", quality=QUALITY, method=6)
        if self._also is not None:
            picture.save(self._also / f"{name}.png")
        print(name, picture.size, flush=True)

    def window(self, viewer: napari.Viewer, name: str) -> None:
        """Keep the whole window."""
        live()
        self.keep(viewer.screenshot(canvas_only=False, flash=False), name)

    def animation(self, frames: list[np.ndarray]) -> None:
        """Keep pictures of a canvas as one that moves."""
        pictures = [Image.fromarray(frame[..., :3]) for frame in frames]
        height = round(FRAME_WIDTH * pictures[0].height / pictures[0].width)
        small = [p.resize((FRAME_WIDTH, height), Image.Resampling.LANCZOS) for p in pictures]
        times = [LAST_MS // 2, *[FRAME_MS] * (len(small) - 2), LAST_MS]
        path = IMAGES / "sharpening.webp"
        small[0].save(
            path,
            save_all=True,
            append_images=small[1:],
            duration=times,
            loop=0,
            quality=QUALITY,
            method=6,
        )
        if self._also is not None:
            for number in {0, len(small) // 2, len(small) - 1}:
                small[number].save(self._also / f"sharpening_{number:02}.png")
        print(path.name, len(small), "pictures,", path.stat().st_size // 1000, "kB", flush=True)


@contextlib.contextmanager
def opened(sample: str, tile: int):
    """Open a window with a sample and the widget, set to tiles of a size; closes it in the end."""
    viewer = napari.Viewer(show=True)
    try:
        viewer.window._qt_window.resize(*SIZE)
        viewer.open_sample("napari-demoe", sample)
        get_app_model().commands.execute_command("napari-demoe.deblur")
        widget = viewer.window.dock_widgets["Deblur (DeMoE)"]
        widget.choose_model("default")
        widget.form["routing"].value = "local"
        widget.form["tile"].value = tile
        live()
        viewer.reset_view(margin=0.02)
        yield viewer, widget
    finally:
        viewer.close()


def tour(album: Album) -> None:
    """Open, run, and correct."""
    with opened(SAMPLE, 128) as (viewer, widget):
        session = widget.session
        album.window(viewer, "open")
        widget.run.click()
        live(lambda: session.done >= 3 or not session.busy, 0)
        album.window(viewer, "running")
        live(lambda: not session.busy)
        if session.error:
            raise SystemExit(session.error)
        rows, columns = session.result.data.shape[:2]
        correct(viewer, widget)
        viewer.layers.selection = {session.overlay}
        viewer.cursor.position = (rows * 0.3, columns * 0.45)
        album.window(viewer, "painted")


def batch(album: Album) -> None:
    """Open the batch dialog."""
    with opened(SAMPLE, 128) as (_, widget):
        widget.open_batch()
        dialog = widget._batch_dialog
        dialog.folder.value, dialog.output.value = Path("/data/recordings"), Path("/data/deblurred")
        live()
        grabbed = dialog.grab().toImage().convertToFormat(QImage.Format.Format_RGBA8888)
        pixels = np.frombuffer(grabbed.constBits(), np.uint8)
        album.keep(pixels.reshape(grabbed.height(), grabbed.bytesPerLine() // 4, 4), "batch")
        dialog.close()


def sharpening(album: Album) -> None:
    """Keep what the canvas shows after each tile, then the maps, and both beside each other."""
    with opened(ZOOMED, 256) as (viewer, widget):
        session = widget.session
        viewer.scene.camera.zoom *= 1.6
        frames = []
        widget.run.click()
        live(lambda: session.shown is not None or not session.busy, 0)
        seen = -1
        while session.state == "running" and session.overlay is None:
            if session.done > seen:
                seen = session.done
                live(seconds=0.2)
                if session.overlay is None:  # the map would lie over it
                    frames.append(viewer.screenshot(canvas_only=True, flash=False))
            live(seconds=0.02)
        live(lambda: not session.busy)
        if session.error:
            raise SystemExit(session.error)
        widget.overlay.setChecked(False)
        live()
        frames.append(viewer.screenshot(canvas_only=True, flash=False))
        album.animation(frames)
        viewer.reset_view(margin=0.02)
        for name in ("overlay", "kernels", "blur"):
            getattr(widget, name).setChecked(True)
        session.overlay.opacity = 0.15
        rows, columns = session.result.data.shape[:2]
        viewer.layers.selection = {session.overlay}
        viewer.cursor.position = (rows * 0.6, columns * 0.45)
        album.window(viewer, "maps")
        for name in ("overlay", "kernels", "blur"):
            getattr(widget, name).setChecked(False)
        viewer.layers.selection = {session.result}
        viewer.scene.camera.center = (rows * 0.45, columns * 0.4)
        viewer.scene.camera.zoom *= 1.6
        widget.compare.swipe.setChecked(True)
        widget.compare.figures.setChecked(True)
        live(lambda: bool(widget.compare.line.text()))
        album.window(viewer, "swipe")


PARTS = {"tour": tour, "batch": batch, "sharpening": sharpening}


def main() -> int:
    """Make all pictures, or the named part of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    parser.add_argument("--also", type=Path, help="folder for PNG pictures to look at")
    given = parser.parse_args()
    if given.also is not None:
        given.also.mkdir(parents=True, exist_ok=True)
    album = Album(given.also)
    for part in given.parts:
        PARTS[part](album)
    return 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:  # this person's own settings stay as they are
        get_settings(Path(folder) / "settings.yaml")
        sys.exit(main())
