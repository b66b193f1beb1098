"""A session without a window: its worker runs only when the test says so, on the same thread."""

import pytest
from napari.components import ViewerModel

from napari_demoe._session import Session
from napari_demoe._worker import steps


class HandDriven:
    """Stands in for the background thread; see `napari_demoe._job.Launch`."""

    def __init__(self):
        self.stopped = False
        self.running = False

    def __call__(self, job, *, reported, crashed, ended):
        assert not self.running
        self.job, self.reported, self.crashed, self.ended = job, reported, crashed, ended
        self.reports = steps(job)
        self.stopped, self.running = False, True
        return self

    def quit(self):
        self.stopped = True

    def step(self):
        """Go on to the next report; False once the run has ended."""
        if self.running:
            try:
                if self.stopped:
                    raise StopIteration
                self.reported(next(self.reports))
            except StopIteration:
                self._end()
            except Exception as error:
                self.crashed(error)
                self._end()
        return self.running

    def finish(self):
        """Run to the end."""
        while self.step():
            pass

    def _end(self):
        self.running = False
        self.reports.close()
        self.ended()


@pytest.fixture
def worker():
    return HandDriven()


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def session(viewer, worker, root):
    """A session set to the tiny random network and small tiles on the CPU."""
    session = Session(viewer, worker)
    session.choices.model = str(root / "tests" / "data" / "demoe_w4.safetensors")
    session.choices.device = "cpu"
    session.choices.tile = 64
    yield session
    session.close()
