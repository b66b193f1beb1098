"""Deblurring a layer from the viewer's console or a script: `deblur_layer`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from demoe.recipe import Recipe
from napari_demoe._choices import SCOPES, Choices
from napari_demoe._session import Session

if TYPE_CHECKING:
    import napari
    from napari.layers import Image, Labels, Shapes

    from demoe.lazy import Deblurred


class LayerJob:
    """A layer that is deblurred in the background; what `deblur_layer` returns."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def layer(self) -> Image | None:
        """The result: at first it shows the source, then more and more tiles; None before that."""
        return self._session.shown

    @property
    def experts(self) -> Labels | None:
        """The expert map, once there is one."""
        return self._session.overlay

    @property
    def confidence(self) -> Image | None:
        """How sure the expert map is, once there is one."""
        return self._session.confidence

    @property
    def result(self) -> Deblurred | None:
        """The lazy result behind it, as of `demoe.deblur`; None before the network is loaded."""
        return self._session.described

    @property
    def done(self) -> int:
        """Tiles that are finished."""
        return self._session.done

    @property
    def total(self) -> int:
        """Tiles that are wanted; 0 before they are known."""
        return self._session.total

    @property
    def state(self) -> str:
        """One of "idle" (all is done), "running", "cancelling", "paused" and "failed"."""
        return self._session.state

    @property
    def error(self) -> str:
        """The sentence of a failure, or nothing."""
        return self._session.error

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all that is wanted is done, while the window goes on living.

        Parameters
        ----------
        timeout : float, optional
            Seconds after which to give up.

        Returns
        -------
        bool
            Whether all is done.
        """
        from qtpy.QtWidgets import QApplication

        until = None if timeout is None else time.monotonic() + timeout
        while self._session.busy and not self._session.waits:
            if until is not None and time.monotonic() > until:
                return False
            QApplication.processEvents()
            time.sleep(0.01)
        return self.state not in ("paused", "failed")

    def cancel(self) -> None:
        """Stop after the tile in work; what is done stays."""
        self._session.cancel()

    def resume(self) -> None:
        """Go on after `cancel`."""
        self._session.resume()

    def correct(self) -> None:
        """Follow what was painted on `experts`; only the tiles that change are computed."""
        self._session.correct()


def deblur_layer(
    layer: Image,
    viewer: napari.Viewer | None = None,
    *,
    scope: str = "all",
    region: Shapes | None = None,
    output: str = "",
    wait: bool = False,
    **fields: Any,
) -> LayerJob:
    """Deblur an image layer in the background, what is looked at first.

    Parameters
    ----------
    layer : Image
        The layer.
    viewer : napari.Viewer, optional
        Where it is; by default the current one.
    scope : str
        "all": everything; "view": what is looked at, as long as the job lives; "region": what the
        shapes of ``region`` frame.
    region : Shapes, optional
        A layer of shapes; their bounding boxes count.
    output : str
        Keeps the tiles beside this output, so that `demoe.run` or another session can go on.
    wait : bool
        Return when all is done.
    **fields
        Fields of `demoe.Recipe`.

    Returns
    -------
    LayerJob
        With the result's layers, its progress, and `wait`, `cancel`, `resume`, `correct`.

    Raises
    ------
    RecipeError
        If a field or the scope is wrong, or the layer holds no image.
    """
    import napari

    from demoe.errors import RecipeError
    from napari_demoe._layers import is_image
    from napari_demoe._worker import launch, pulse

    if not is_image(layer):
        raise RecipeError(f"{layer} is no image layer; deblur_layer takes one of viewer.layers.")
    if scope not in SCOPES:
        raise RecipeError(f"scope must be one of {', '.join(SCOPES)}, not {scope!r}.")
    recipe = Recipe().replace(**fields)
    session = Session(viewer or napari.current_viewer(), launch, pulse)
    session.choices = Choices.of(recipe)
    session.source, session.scope, session.output = layer, scope, output
    if region is not None:
        session.painted = region
    session.start()
    job = LayerJob(session)
    if wait:
        job.wait()
    return job
