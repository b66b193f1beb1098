"""What the names of tensors tell of a network."""

from __future__ import annotations

import re
from collections.abc import Iterable


def count_in(keys: Iterable[str], pattern: str) -> int:
    """Return one more than the largest number that a pattern's first group finds; 0 for none.

    Patterns ask for a few digits: a file must not make anything count to a billion.
    """
    return max((int(m[1]) + 1 for key in keys if (m := re.match(pattern, key))), default=0)
