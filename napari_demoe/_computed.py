"""What is computed: one run at a time, by a worker in the background. No Qt in here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from demoe.errors import DemoeError
from demoe.routing.correction import wishes
from napari_demoe._chosen import Chosen
from napari_demoe._display import Display
from napari_demoe._job import Downloading, Failed, Finished, Handle, Job, Launch, Planned, TilesDone
from napari_demoe._maps import cells_to_image_order
from napari_demoe._outcome import Outcome, joined
from napari_demoe._paint import cells_of_layer
from napari_demoe._progress import Progress
from napari_demoe._wanted import Wanted, file_of, preview_meta, whole
from napari_demoe._words import duration, tiles


class Computed:
    """Starts the worker, hands its reports on, and says how far it is.

    Parameters
    ----------
    chosen, wanted, display : Chosen, Wanted, Display
        What a run is made of, and who shows what comes of it.
    launch : Launch
        Starts a `Job` in the background.
    changed : callable
        Called when there is something else to say.

    Attributes
    ----------
    state, error
        See `napari_demoe._session.Session`.
    note : str
        What came of the last run, or goes on before its tiles are known.
    progress : Progress
        Its tiles and seconds.
    last : Outcome or None
        What the last result came from.
    """

    def __init__(
        self,
        chosen: Chosen,
        wanted: Wanted,
        display: Display,
        launch: Launch,
        changed: Callable[[], None],
    ) -> None:
        self.state, self.error, self.note = "idle", "", ""
        self.progress = Progress()
        self.last: Outcome | None = None
        self._chosen, self._wanted, self._display = chosen, wanted, display
        self._launch, self._changed = launch, changed
        self._handle: Handle | None = None
        self._job: Job | None = None  # the last one that was started
        self._paused: Job | None = None
        self._wishes: tuple[np.ndarray, np.ndarray] | None = None  # of the correction in work
        self._correcting = False
        self._over = False  # the worker's end waits until all is shown

    @property
    def busy(self) -> bool:
        """Whether a worker runs."""
        return self._handle is not None

    @property
    def waits(self) -> bool:
        """Whether a run has done all that is looked at, and waits for another view."""
        display, progress = self._display, self.progress
        shown = display.result is not None and display.result is display.working
        is_done = progress.done >= progress.total > 0 and not display.to_show
        return self._chosen.scope == "view" and self.busy and shown and is_done

    @property
    def resumable(self) -> bool:
        """Whether a run was stopped that can go on."""
        return not self.busy and self._paused is not None and self._display.working is not None

    @property
    def _at_rest(self) -> str:
        """The state when nothing is at work or went wrong."""
        return "paused" if self.resumable else "idle"

    def start(self, *, preview: bool = False, download: bool = False) -> None:
        """Deblur the source in the background; does nothing while a run is on.

        Parameters
        ----------
        preview : bool
            Take only what is around the middle of the view, in the plane that is shown. Each
            preview takes the place of the one before.
        download : bool
            Whether a network that is not here yet may be downloaded.
        """
        if self.busy:
            return
        if self._chosen.source is None:
            self.fail("There is no image layer to deblur; open an image first.")
            return
        if self._chosen.follows_map and self._chosen.painted is None:
            self.fail(
                "There is no layer to take the expert map from; add labels or shapes and paint."
            )
            return
        try:
            job = self._wanted.job(self._chosen.source, preview, download, self._display.fresh.set)
        except DemoeError as error:
            self.fail(str(error))
            return
        if self._keeps_for(job):
            return
        self._paused = None
        self._begin(job, preview_meta(job) if preview else job.meta, "", preview)

    def _keeps_for(self, job: Job) -> bool:
        """Go on with a stopped run that keeps its tiles where another is to; tell whether one does.

        If the other is another run, that is said; nothing is lost.
        """
        paused = self._paused
        if not job.output or paused is None or paused.output != job.output or not self.resumable:
            return False
        asked, stopped = ((one.recipe, one.meta["unique_id"]) for one in (job, paused))
        if asked == stopped and job.expert_map is None and paused.expert_map is None:
            self.resume()
        else:
            self.fail(
                f"The stopped run keeps its tiles for {job.output}, with other settings; resume "
                "it, remove its layer, or name another output."
            )
        return True

    def resume(self) -> None:
        """Go on with a run that was cancelled; does nothing while one is on."""
        job, display = self._paused, self._display
        if self.busy or job is None or display.working is None:
            return
        self.state, self.error, self.note = "running", "", ""
        self.progress.start()
        try:
            scope = self._wanted.scope(display.working, display.axes)
        except DemoeError as error:
            self.fail(str(error))
            return
        view = self._wanted.view(display.working, display.axes)
        self._run_job(replace(job, scope=scope, view=view, live=display.run))

    def cancel(self) -> None:
        """Stop what is in work; what is done stays, and `resume` goes on."""
        if self._handle is not None and self.state == "running" and not self._over:
            self.state = "cancelling"
            self._job.stop.set()
            self._handle.quit()
            self._changed()

    def _begin(self, job: Job, meta: Mapping[str, Any], axes: str, preview: bool) -> None:
        self.progress = Progress()
        self._display.begin(meta, axes, preview)
        self._correcting = job.earlier is not None
        self.state, self.error, self.note = "running", "", ""
        self._wanted.outlook.stale()  # whoever is asked still leaves the machine to the run
        self._run_job(job)

    def _run_job(self, job: Job) -> None:
        self._job = job = replace(job, stop=threading.Event())
        self._handle = self._launch(
            job,
            reported=self._reported,
            crashed=self._crashed,
            ended=self._ended,
        )
        self._changed()

    def follow_layers(self) -> None:
        """Let go of what the layers showed that were removed."""
        display = self._display
        is_unwanted = display.follow_layers()  # the layer in work was deleted
        if display.result is None:
            self.last = None  # with it, what it keeps on disk
        if is_unwanted or (self.state == "running" and self._correcting and not self.correctable):
            self.cancel()
        for run in display.take_unseen():
            if self._paused is not None and self._paused.live is run:
                self._paused, self.state, self.note = None, "idle", ""
            if not self.busy:
                run.close()

    def show_next(self) -> None:
        """Show the next map of a result that was not shown at once."""
        if not self._display.to_show:
            return
        try:
            self._display.show_next()
        finally:
            if self._over and not self._display.to_show:
                self._conclude()
            self._changed()

    def close(self) -> None:
        """Stop, and let go of what nobody sees."""
        self._display.to_show.clear()
        if self._over:
            self._handle = None
        self._wanted.outlook.close()
        self.cancel()
        if self.busy or self._paused is not None:
            self._display.drop_working()
        self._display.close_unseen()

    # -- corrections --------------------------------------------------------------------------

    @property
    def correctable(self) -> bool:
        """Whether there is a result whose expert map can be corrected."""
        return self.last is not None and None not in (self._display.result, self._display.overlay)

    def correct(self) -> None:
        """Follow corrections of the last result's expert map; does nothing while a run is on.

        What is painted on the map itself counts first, then the layer of labels or shapes that is
        chosen as the map, as it is now; 0 leaves cells to the network. Settings are those of the
        run; only tiles whose gates change are computed.
        """
        last = self.last
        if self.busy or last is None or not self.correctable:
            return
        axes = self._display.result.metadata["demoe"]["axes"]
        try:
            self._wishes = self._wished(last, axes)
        except DemoeError as error:
            self.fail(str(error))
            return
        cells = joined(*self._wishes)
        if np.array_equal(cells, joined(last.by_hand, last.by_layer)):
            self.state, self.error = self._at_rest, ""
            name = (self._chosen.painted or self._display.overlay).name
            self.note = f"Nothing to apply: {name!r} says what the result follows already."
            self._changed()
            return
        job = replace(last.job, expert_map=cells, earlier=last.finished, download=False)
        self._begin(job, job.meta, axes, preview=False)

    def _wished(self, last: Outcome, axes: str) -> tuple[np.ndarray, np.ndarray]:
        shown = cells_to_image_order(np.asarray(self._display.overlay.data), axes)
        layer = None
        if self._chosen.painted is not None and self._chosen.painted is not self._display.overlay:
            pitch, choices = last.job.recipe.pitch, last.finished.result.choices
            region = whole(self._display.result)
            layer = cells_of_layer(
                self._chosen.painted,
                self._display.result,
                axes,
                region,
                pitch,
                self._chosen.brush,
                choices,
            )
            if file_of(self._chosen.painted):  # the map of a result: what is followed is no wish
                layer = wishes(layer, last.finished.expert_map, last.by_layer)
        return last.wishes(shown, layer)

    # -- reports of the worker, on the main thread ---------------------------------------------

    def _reported(self, report: object) -> None:
        if self.state == "cancelling":
            return
        if isinstance(report, Downloading):
            here, total = (f"{n / 1e6:.0f}" for n in (report.done, report.total))
            self.note = f"Downloading the network: {here} of {total} MB"
        elif isinstance(report, Planned):
            self.progress.plan(*report.run.order.counts())
            self._chosen.offer(report.run.result.choices)
            if not self._correcting:  # then the earlier result stays on show until all is done
                self._display.show_working(report)
        elif isinstance(report, TilesDone):
            self.progress.done, self.progress.total, self.note = (
                report.done,
                report.total or self.progress.total,
                "",
            )
        elif isinstance(report, Finished):
            self._finish(report)
        elif isinstance(report, Failed):
            self.fail(report.message)
        self._changed()

    def _finish(self, done: Finished) -> None:
        """Show what is known of a result, all of it or of what was looked at."""
        display = self._display
        while display.to_show:  # of what was known before
            display.show_next()
        if self._correcting:
            if not self.correctable:
                return
            display.renew(done)
        elif display.working is None:
            return
        elif display.working is display.result:
            display.renew(done)
        else:
            display.add(display.working, done)
        if self._correcting:
            by_hand, by_layer = self._wishes
        else:
            painted = done.result.work.painted
            by_hand = np.zeros_like(done.expert_map)
            by_layer = by_hand if painted is None else by_hand + painted.cells
        self.last = Outcome(replace(self._job, earlier=None, live=None), done, by_hand, by_layer)

    def _ended(self) -> None:
        self._over = True
        if not self._display.to_show:
            self._conclude()

    def _conclude(self) -> None:
        self._handle, self._over = None, False
        self._wanted.outlook.stale()  # tiles were timed
        display, run = self._display, self._display.run
        if run is not None:
            run.rest()
        if self.state == "running":  # all that was wanted is done
            self.state, self._paused = "idle", None
            seconds = duration(self.progress.seconds)
            device = self.last.finished.provenance.get("device", "") if self.last else ""
            self.note = f"Done in {seconds}: {tiles(self.progress.total)} on {device}."
            display.name_working()
            display.working = None
        elif self._correcting:
            if self.state == "cancelling":
                self.state, self.note = "idle", "Cancelled; the result is as it was."
        elif run is not None and run.done and not display.is_preview:
            # What is done stays, also where something went wrong.
            done, total = run.order.whole
            self._paused = replace(self._job, live=run)
            display.name_working()
            if self.state == "cancelling":
                self.state = "paused"
                self.note = f"Stopped with {done} of {tiles(total)} done; Resume goes on."
        else:
            display.drop_working()
            if self.state == "cancelling":
                self.state, self.note = "idle", "Cancelled before a tile was done."
        display.close_unseen()
        self._changed()

    def _crashed(self, error: Exception) -> None:
        # The viewer shows the error with its traceback by itself.
        self.fail(f"{type(error).__name__}: {error}", notify=False)

    def forget_failure(self) -> None:
        """Say no more what went wrong: something else is chosen now."""
        if self.state == "failed" and not self.busy:
            self.state, self.error = self._at_rest, ""
            self._changed()

    def fail(self, message: str, notify: bool = True) -> None:
        """End with a sentence that says what went wrong."""
        self.state, self.error, self.note = "failed", message, ""
        if notify:
            from napari.utils.notifications import show_error

            show_error(message)
        self._changed()
