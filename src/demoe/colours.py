"""One colour for each expert, the same in pictures and in the viewer."""

from __future__ import annotations

EXPERT_COLOURS: dict[int, tuple[int, int, int]] = {
    1: (0, 114, 178),
    2: (213, 94, 0),
    3: (0, 158, 115),
    4: (204, 121, 167),
    5: (240, 228, 66),
}
"""Expert map value (index of the task + 1) to RGB, 0..255.

The colours are those of Okabe and Ito ("Color Universal Design", 2008), told apart with every
common colour vision. Value 0, not decided, has no colour: show it transparent.
"""
