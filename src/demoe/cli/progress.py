"""A bar on stderr, and words on it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from demoe.execution.run import Progress


def complain(error: object, code: int) -> int:
    """Say on stderr what went wrong, and return the exit code."""
    print(f"demoe: {error}", file=sys.stderr)
    return code


@contextmanager
def bar(name: str, quiet: bool, unit: str = "tile") -> Iterator[Progress]:
    """Show a progress bar on stderr and offer the callable that moves it."""
    with tqdm(
        desc=name, unit=unit, file=sys.stderr, disable=quiet, unit_scale=unit == "B"
    ) as shown:

        def progress(done: int, total: int, message: str) -> None:
            shown.total = total
            shown.set_postfix_str(message if message not in ("", "tiles") else "", refresh=False)
            shown.update(done - shown.n)
            shown.refresh()

        yield progress
