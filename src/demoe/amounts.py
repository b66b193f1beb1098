"""Amounts as people read them."""

from __future__ import annotations


def amount(size: float) -> str:
    """Put a number of bytes into words, for example "1.3 GB"."""
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} bytes"
