"""A picture of the metrics that training writes: the loss and another figure over the steps."""

from __future__ import annotations

import csv
import logging
from functools import cache
from pathlib import Path
from statistics import fmean

from demoe.errors import OutputError
from demoe.io.atomic import partial_output

_LOG = logging.getLogger("demoe")
_PANELS = {
    "loss": "loss",
    "router": "share that the router gets right",
    "gain": "dB that pictures gain",
}
"""What columns mean; a table has some of them."""


def plot_metrics(table: Path, picture: Path) -> None:
    """Draw ``metrics.csv`` as ``metrics.png``: a panel each for the loss and the other figure.

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
        panels = [name for name in _PANELS if name in rows[0]]
        curves = {name: [float(row[name]) for row in rows] for name in ("step", *panels)}
    except (OSError, KeyError, ValueError, TypeError, IndexError) as error:
        raise OutputError(f"{picture} cannot be drawn from {table}: {error}.") from None
    figure = Figure(figsize=(9, 6), layout="constrained")
    places = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(places, panels, strict=True):
        smooth = [fmean(curves[name][max(0, n - 9) : n + 1]) for n in range(len(rows))]
        axes.plot(curves["step"], curves[name], color="0.8", linewidth=1)
        axes.plot(curves["step"], smooth, color="tab:blue", linewidth=2)
        axes.set_ylabel(_PANELS[name])
        axes.grid(alpha=0.3)
    axes.set_xlabel("step")
    with partial_output(picture, overwrite=True) as partial:
        figure.savefig(partial, format="png", dpi=100)


@cache  # once is enough, though training saves again and again
def _say_missing() -> None:
    _LOG.warning("A picture of the metrics needs matplotlib: `pip install 'napari-demoe[train]'`.")
