"""What the names and shapes of tensors tell of a network."""

from __future__ import annotations

import re
from collections.abc import Mapping

from demoe.errors import WeightsError

WIDEST = 4096
"""Channels that no network comes near, so that a file cannot make anybody build millions."""


class Keys:
    """The names and shapes of a state dict, read as those of one family of networks.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Tensor shapes by their state-dict keys, without prefixes.
    family : str
        Its name.
    instead : str
        What people should use where these are not such weights, after "use".
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], family: str, instead: str) -> None:
        self._shapes, self._family, self._instead = shapes, family, instead

    def __contains__(self, key: str) -> bool:
        """Tell whether there is a tensor of this name."""
        return key in self._shapes

    def count(self, pattern: str) -> int:
        """Return one more than the largest number that a pattern's first group finds; 0 for none.

        Patterns ask for a few digits: a file must not make anything count to a billion.
        """
        matches = (re.match(pattern, key) for key in self._shapes)
        return max((int(match[1]) + 1 for match in matches if match), default=0)

    def size(self, key: str, axis: int = 0) -> int:
        """Return how long a tensor is on an axis.

        Raises
        ------
        WeightsError
            If it is missing, or shorter than 1 or longer than `WIDEST` there.
        """
        if key not in self._shapes:
            raise self.missing(key)
        shape = self._shapes[key]
        if len(shape) <= axis or not 1 <= shape[axis] <= WIDEST:
            raise WeightsError(
                f"These weights are not of the {self._family} family: {key} has the shape {shape}, "
                f"whose axis {axis} should be 1 to {WIDEST} long."
            )
        return shape[axis]

    def missing(self, what: str) -> WeightsError:
        """Return the error that tensors are missing."""
        return WeightsError(
            f"These weights are not of the {self._family} family: {what} is missing; use "
            f"{self._instead}."
        )
