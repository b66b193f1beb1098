"""Outputs that are either whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from demoe.errors import OutputError
from demoe.io.names import is_zarr

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another place",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another place",
    errno.EFBIG: "the file would be larger than allowed here; choose another place",
    errno.EACCES: "this user may not write there; choose another place",
    errno.EPERM: "this user may not write there; choose another place",
    errno.EROFS: "the disk is read-only; choose another place",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


@contextmanager
def partial_output(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Offer a hidden sibling to write to, and rename it to `target` when the block ends well.

    Parameters
    ----------
    target : Path
        The final name.
    overwrite : bool
        Whether a file or zarr folder of that name may be replaced, once the new one is whole.

    Yields
    ------
    Path
        A name in the same folder that does not exist yet; it may become a file or a folder.

    Raises
    ------
    OutputError
        If `target` may not be replaced, or the system refuses to write; the sibling is removed
        then, and after every other exception too.
    """
    check_target(target, overwrite=overwrite)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        _remove(partial)
        yield partial
        _put_in_place(partial, target)
    except OSError as error:
        _remove(partial)
        reason = _REASONS.get(error.errno or 0, str(error).rstrip("."))
        raise OutputError(f"{target} cannot be written: {reason}.") from error
    except BaseException:
        _remove(partial)
        raise


def check_target(target: Path, *, overwrite: bool) -> None:
    """Refuse a name that cannot be written to, before anything is computed."""
    if not target.parent.is_dir():
        raise OutputError(f"{target} cannot be written: there is no folder {target.parent}.")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"{target} cannot be written: this user may not write to the folder {target.parent}."
        )
    if not target.exists():
        return
    if not overwrite:
        raise OutputError(f"{target} exists already; allow overwriting or choose another name.")
    if target.is_dir() and not is_zarr(target) and any(target.iterdir()):
        raise OutputError(f"{target} is a folder that is not zarr, so it is not overwritten.")


def _put_in_place(partial: Path, target: Path) -> None:
    if not (target.is_dir() or (partial.is_dir() and target.exists())):
        os.replace(partial, target)
        return
    # Folders cannot be replaced in one step: the old one steps aside until the new one stands.
    aside = target.with_name(f".{target.name}.old-{os.getpid()}")
    os.rename(target, aside)
    try:
        os.rename(partial, target)
    except OSError:
        os.rename(aside, target)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    if os.path.isdir(path) and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write text whole or not at all; an existing file is replaced."""
    with partial_output(path, overwrite=True) as partial:
        partial.write_text(text, encoding="utf-8")
