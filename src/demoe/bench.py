"""``demoe bench``: speed and memory, beside the bare network and the machine's matrix product."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

GRID = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``demoe bench``."""
    parser.add_argument(
        "--size", type=_side, default=2048, help="side of the square RGB photo (default 2048)"
    )
    parser.add_argument(
        "--repeats", type=_count, default=3, help="runs of each; medians count (default 3)"
    )
    parser.add_argument("--model", default="default", help="name or path of weights")
    parser.add_argument("--tile", type=_tile, default="auto", help="tile side in pixels, or auto")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures to this file")


def main(arguments: argparse.Namespace) -> int:
    """Measure, print the table, write the JSON; returns 0.

    Raises
    ------
    DemoeError
        If weights, device or tile cannot be used, or the JSON cannot be written.
    """
    # Late, because torch comes with it and other commands share this parser.
    from demoe.bench_rows import measure_all
    from demoe.io._atomic import check_target, partial_output

    target: Path | None = arguments.json
    if target is not None:
        check_target(target, overwrite=True)
    result = measure_all(
        size=arguments.size,
        repeats=arguments.repeats,
        model=arguments.model,
        tile=arguments.tile,
        device=arguments.device,
        say=lambda text: print(f"measuring: {text}", file=sys.stderr),
    )
    print(table(result))
    if target is not None:
        with partial_output(target, overwrite=True) as partial:
            partial.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def table(result: dict[str, Any]) -> str:
    """Return the figures of ``measure_all`` as plain text."""
    machine, network, settings = result["machine"], result["network"], result["settings"]
    blocks = "-".join(map(str, network["encoder_blocks"]))
    back = "-".join(map(str, network["decoder_blocks"]))
    tile = " x ".join(map(str, settings["tile"]))
    repeats = settings["repeats"]
    facts = [
        ("machine", _machine(machine)),
        (
            "network",
            f"{network['name']}, sha256 {network['sha256'][:12]}, width {network['width']}, blocks "
            f"{blocks} / {network['middle_blocks']} / {back}, "
            f"{network['flops_per_pixel'] / 1e3:.1f} kFLOP a pixel",
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
        (
            "product",
            " ".join(f"{rate:.0f}" for rate in result["matrix_product_gflops"])
            + " GFLOP/s, float32 matrix product before, between and after the rows",
        ),
    ]
    heads = (
        *("", "px", "s", "min - max", "MP/s", "GFLOP/s", "of product", "memory"),
        *("x bare", "x same"),
    )
    lines = [heads, *(_cells(row) for row in result["rows"])]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    text = [f"{name:<8} {value}" for name, value in facts]
    text.append("")
    for line in lines:
        first, *rest = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        text.append("  ".join([first, *rest]).rstrip())
    text.append("")
    text += [f"{row['name']}: {row['note']}" for row in result["rows"] if row["note"]]
    text += [
        "GFLOP/s: useful ones, delivered pixels times the network's operations; halos not counted.",
        "memory: the most above the idle process (on CUDA: of the device).",
        "x bare, x same: pixels a second relative to the first and to the second row. The first",
        "row runs in a process of its own, because allocator settings cannot be undone.",
    ]
    return "\n".join(text)


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
        cell(row["times_bare_same_allocator"], ".2f"),
    )


def _side(text: str) -> int:
    side = _count(text)
    if side < 4 * GRID or side % GRID:
        raise argparse.ArgumentTypeError(
            f"must be a multiple of {GRID} of at least {4 * GRID} pixels, not {text}"
        )
    return side


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text}")
    return int(text)


def _tile(text: str) -> str | int:
    return text if text == "auto" else _side(text)
