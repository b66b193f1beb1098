"""What a person can do wrong, as exceptions of one family.

Every message is one sentence that says what was wrong, where, and what would be right.
"""

LONGEST = 1000
"""Characters of a message, at most; what is more is left out in the middle, where input stands."""


class DemoeError(Exception):
    """Base of every error that a person can cause and mend."""

    def __str__(self) -> str:
        """Return the sentence on one line, whatever it repeats of its input."""
        text = super().__str__()
        if len(text) > LONGEST:
            half = (LONGEST - 1) // 2
            text = f"{text[:half]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}"
        # Line ends and what else terminals would follow.
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class ImageError(DemoeError):
    """The pixels or the file they come from cannot be used."""


class AxesError(DemoeError):
    """The axes do not fit the image."""


class RecipeError(DemoeError):
    """A setting of a run is out of range or contradicts another."""


class WeightsError(DemoeError):
    """Network weights are missing, damaged, unsafe or of another design."""


class DeviceError(DemoeError):
    """The wanted device is absent or too small."""


class OutputError(DemoeError):
    """The result cannot be written where it was asked for."""


class Cancelled(DemoeError):
    """The person asked the run to stop; what is done so far is kept."""
