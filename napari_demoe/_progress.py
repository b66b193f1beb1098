"""How far a run is, and how long the rest may take."""

from __future__ import annotations

import time


class Progress:
    """Tiles and seconds of a run.

    Attributes
    ----------
    done, total : int
        Tiles; total is 0 until the tiles are known.
    """

    def __init__(self) -> None:
        self.done = self.total = 0
        self.start()

    def start(self) -> None:
        """Begin to count seconds, of a new run or one that goes on."""
        self._begun = self.done
        self._started_at = self._planned_at = time.monotonic()

    def plan(self, done: int, total: int) -> None:
        """Take what is done already when the first tile begins."""
        self.done, self.total = self._begun, _ = done, total
        self._planned_at = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since it started."""
        return time.monotonic() - self._started_at

    @property
    def seconds_left(self) -> float | None:
        """Estimate from the tiles done so far; None before the first one."""
        fresh = self.done - self._begun
        if fresh <= 0 or not self.total:
            return None
        return (time.monotonic() - self._planned_at) / fresh * (self.total - self.done)
