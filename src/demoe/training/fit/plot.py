"""A picture of the metrics that training writes: loss and router over the steps."""

from __future__ import annotations

import csv
import logging
from functools import cache
from pathlib import Path
from statistics import fmean

from demoe.errors import OutputError
from demoe.io.atomic import partial_output

_LOG = logging.getLogger("demoe")
_PANELS = {"loss": "loss", "router": "share that the router gets right"}


def plot_metrics(table: Path, picture: Path) -> None:
    """Draw ``metrics.csv`` as ``metrics.png``: a panel each for the loss and for the router.

    Each has its mean over the ten values before. Without matplotlib nothing is drawn.

    Raises
    ------
    OutputError
        If the table cannot be read or the picture cannot be written.
    """
    try:
        from matplotlib.figure import Figure  # pyplot would keep global state and look for a screen
    except ImportError:
        return _say_missing()
    try:
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
        curves = {name: [float(row[name]) for row in rows] for name in ("step", *_PANELS)}
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise OutputError(f"{picture} cannot be drawn from {table}: {error}.") from None
    figure = Figure(figsize=(9, 6), layout="constrained")
    for axes, (name, words) in zip(figure.subplots(2, sharex=True), _PANELS.items(), strict=True):
        smooth = [fmean(curves[name][max(0, n - 9) : n + 1]) for n in range(len(rows))]
        axes.plot(curves["step"], curves[name], color="0.8", linewidth=1)
        axes.plot(curves["step"], smooth, color="tab:blue", linewidth=2)
        axes.set_ylabel(words)
        axes.grid(alpha=0.3)
    axes.set_xlabel("step")
    with partial_output(picture, overwrite=True) as partial:
        figure.savefig(partial, format="png", dpi=100)


@cache  # once is enough, though training saves again and again
def _say_missing() -> None:
    _LOG.warning("A picture of the metrics needs matplotlib: `pip install 'napari-demoe[train]'`.")
