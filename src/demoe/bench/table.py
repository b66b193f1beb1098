"""The figures of the benchmark as plain text."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any


def table(result: dict[str, Any]) -> str:
    """Return the figures of `demoe.bench.rows.measure_all` as plain text."""
    machine, network, settings = result["machine"], result["network"], result["settings"]
    tile = " x ".join(map(str, settings["tile"]))
    repeats = settings["repeats"]
    facts = [
        ("machine", _machine(machine)),
        (
            "network",
            f"{network['name']}, sha256 {network['sha256'][:12]}, "
            f"{network['flops_per_pixel'] / 1e3:.1f} kFLOP a pixel. {network['design']}",
        ),
        (
            "picture",
            f"{settings['size']} x {settings['size']} RGB, uint8; medians of {repeats} "
            f"run{'s' * (repeats != 1)}",
        ),
        (
            "tiles",
            f"{tile} with a halo of {settings['halo']}: each pixel is read "
            f"{settings['reads_per_pixel']:.2f} times",
        ),
        ("backend", f"{settings['backend']}; the bare network and MONAI by torch"),
        (
            "product",
            " ".join(f"{rate:.0f}" for rate in result["matrix_product_gflops"])
            + " GFLOP/s, float32 matrix product before, between and after the rows",
        ),
        ("headline", _headline(result)),
    ]
    heads = (
        *("", "px", "s", "min - max", "MP/s", "GFLOP/s", "of product", "memory"),
        *("x bare", "x monai"),
    )
    text = [f"{name:<8} {value}" for name, value in facts]
    text += ["", *_columns([heads, *(_cells(row) for row in result["rows"])]), ""]
    text += [f"{row['name']}: {row['note']}" for row in result["rows"] if row["note"]]
    text += [
        "GFLOP/s: useful ones, delivered pixels times the network's operations; halos not counted.",
        "memory: the most above the idle process (on CUDA: of the device).",
        "x bare, x monai: pixels a second relative to the first two rows, the peers. Each has a",
        "process of its own, because allocator settings cannot be undone.",
    ]
    if "full" in result:
        text += ["", *_planes(result["full"]["planes"]), "", *_lazy(result["full"]["lazy"])]
    return "\n".join(text)


def _headline(result: dict[str, Any]) -> str:
    """Say in one line what the row that counts came to."""
    row = next(row for row in result["rows"] if row["name"] == result["headline"])
    compared = [
        f"{row[key]:.2f} x {peer}"
        for key, peer in (("times_bare", "bare"), ("times_monai", "monai"))
        if row[key] is not None
    ]
    return ", ".join(
        [
            f"{row['name']}: {row['median_seconds']:.2f} s",
            f"{row['share']:.2f} of the matrix product",
            *compared,
        ]
    )


def _columns(lines: Sequence[tuple[str, ...]]) -> list[str]:
    """Lay out cells, the first one of a line to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _machine(machine: dict[str, Any]) -> str:
    parts = [
        machine["processor"],
        f"{machine['cores']} cores, {machine['threads']} threads",
        f"torch {machine['torch']}",
    ]
    if machine["device"] != "cpu":
        parts.append(machine["device"])
    if "load_at_start" in machine:
        parts.append(f"load {machine['load_at_start']} at the start")
    return ", ".join(parts)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    def cell(value: float | None, pattern: str, unit: float = 1) -> str:
        return "-" if value is None else format(value / unit, pattern)

    seconds = row["seconds"]
    return (
        row["name"],
        cell(row["side"], ".0f"),
        cell(row["median_seconds"], ".2f"),
        f"{min(seconds):.2f} - {max(seconds):.2f}" if seconds else "-",
        cell(row["megapixels_per_second"], ".3f"),
        cell(row["gflops"], ".1f"),
        cell(row["share"], ".2f"),
        f"{row['peak_bytes'] / 1e9:.2f} GB" if row["peak_bytes"] is not None else "-",
        cell(row["times_bare"], ".2f"),
        cell(row["times_monai"], ".2f"),
    )


def _planes(rows: list[dict[str, Any]]) -> list[str]:
    """Lay out the memory of large planes."""
    lines = [("zarr to OME-Zarr, one worker", "pixels", "tile", "halo", "s", "memory")]
    for row in rows:
        height, width = row["shape"]
        ended = row["seconds"] is None
        lines.append(
            (
                f"{height * width / 1e6:.0f} MP gray, {row['network']} network",
                f"{height} x {width}",
                str(row["tile"]),
                str(row["halo"]),
                "ended" if ended else f"{row['seconds']:.0f}",
                "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e9:.2f} GB",
            )
        )
    return _columns(lines)


def _lazy(facts: dict[str, Any] | None) -> list[str]:
    """Say what a lazy result and its tiles cost."""
    if facts is None:
        return ["lazy array: its process was ended by the system"]
    side, first, later = facts["side"], facts["first"], facts["next"]
    needed = math.prod(facts["read"])
    peak = facts["peak_bytes_to_make"]
    memory = "" if peak is None else f" and {peak / 1e6:.1f} MB"
    return [
        f"lazy result over a zarr array of {side} x {side}: made in "
        f"{facts['seconds_to_make']:.3f} s{memory}, {facts['tiles']} tiles",
        f"its first tile: {first['seconds']:.2f} s, reads {first['pixels']} pixels; other tiles: "
        f"{statistics.median(later['seconds']):.2f} s, read {later['pixels']} pixels",
        f"a tile with its halo has {needed} pixels, on which the bare network with demoe's "
        f"allocator settings takes {statistics.median(facts['bare_seconds']):.2f} s: a tile costs "
        f"{facts['times_bare']:.2f} of that",
        "The first tile also reads the places that stand for the plane, whose pooling all share.",
    ]
