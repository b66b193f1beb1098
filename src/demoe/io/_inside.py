"""What a file names is read only inside the folder that the person named."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from demoe.errors import ImageError
from demoe.limits import quoted


def inside(folder: str | os.PathLike[str], name: str, said_by: str | os.PathLike[str]) -> Path:
    """Return the place of a name within a folder.

    Parameters
    ----------
    folder : path-like
        What the person named, or the folder of the file that the person named. It may itself be
        a link.
    name : str
        As the file's metadata have it; a path with parts is taken relative to `folder`.
    said_by : path-like
        The file, for the sentence.

    Returns
    -------
    Path
        The place, which need not exist.

    Raises
    ------
    ImageError
        If it lies elsewhere: through "..", as an absolute path or by a link.
    """
    try:
        place = Path(folder) / name
        real, root = os.path.realpath(place), os.path.realpath(folder)
    except (OSError, ValueError) as error:  # a null character, a name that is too long
        raise ImageError(f"{said_by} names a file that cannot be ({quoted(name)}).") from error
    if real != root and not real.startswith(root.rstrip(os.sep) + os.sep):
        raise ImageError(
            f"{said_by} points to {quoted(name)}, which lies outside of the folder {folder} and is "
            "not read; bring what belongs together into one folder."
        )
    return place


def check_plain(place: str | os.PathLike[str], said_by: str | os.PathLike[str]) -> int | None:
    """Return the size of a file in bytes; None if there is none, or it is a folder.

    Raises
    ------
    ImageError
        For what may never end, such as a device or a pipe.
    """
    try:
        status = os.stat(place)
    except OSError:
        return None
    if stat.S_ISDIR(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{said_by} has {quoted(Path(place).name)}, which is no plain file.")
    return status.st_size
