"""Outputs that are either whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Placing:
    """A whole file or folder that is to get its name, or has it already.

    Attributes
    ----------
    partial, final : Path
        The hidden name that it was written under, and the name that it gets.
    inode : int
        What the file system knows it by, whatever its name.
    """

    partial: Path
    final: Path
    inode: int

    @property
    def is_done(self) -> bool:
        """Whether what was written stands under its name."""
        return _inode(self.final) == self.inode

    @property
    def is_possible(self) -> bool:
        """Whether it has its name or can get it."""
        return self.is_done or _inode(self.partial) == self.inode

    def finish(self) -> None:
        """Give it its name, unless it has it, and remove what had it."""
        aside = _beside(self.final, "old", _number(self.partial))
        if not self.is_done:
            _put_in_place(self.partial, self.final, aside)
        remove(aside)


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
    with partial_outputs([target], overwrite=overwrite) as (partial,):
        yield partial


@contextmanager
def partial_outputs(
    targets: Sequence[Path],
    *,
    overwrite: bool,
    when_whole: Callable[[list[Placing]], None] | None = None,
    made: Path | None = None,
) -> Iterator[list[Path]]:
    """Offer hidden siblings of several names, which get their names together.

    Parameters
    ----------
    targets : sequence of Path
        The final names. The first gets its name last: whoever sees it finds the others beside it.
    overwrite : bool
        As for `partial_output`.
    when_whole : callable, optional
        Told what is to be renamed, in this order, once all of it is safe on the disk.
    made : Path, optional
        What the first is made of: a folder on the same disk that gets its name, and stays where it
        is after an error. Its own name ends in a hyphen and a number.

    Yields
    ------
    list of Path
        For each target a name to write to.

    Raises
    ------
    OutputError
        As for `partial_output`.
    """
    for target in targets:
        check_target(target, overwrite=overwrite)
    partials = [_beside(target, "partial", str(os.getpid())) for target in targets]
    ours = partials if made is None else partials[1:]
    if made is not None:
        partials = [made, *ours]
    try:
        for partial in ours:
            remove(partial)
        yield partials
        for partial in partials:
            flush(partial)
        whole = [
            Placing(partial, target, partial.stat().st_ino)
            for partial, target in zip(partials[::-1], targets[::-1], strict=True)
        ]
        if when_whole is not None:
            when_whole(whole)
        _finish(whole)
        flush(targets[0].parent)
    except OSError as error:
        for partial in ours:
            remove(partial)
        raise refused(targets[0], error) from error
    except BaseException:
        for partial in ours:
            remove(partial)
        raise


def refused(target: Path, error: OSError) -> OutputError:
    """Say in one sentence why the system does not let an output be written."""
    return OutputError(f"{target} cannot be written: {reason_of(error)}.")


def reason_of(error: OSError) -> str:
    """Say in words for people why the system refused, and what would be right."""
    return _REASONS.get(error.errno or 0, str(error).rstrip("."))


def check_folder(target: Path) -> None:
    """Refuse a name in a folder that nothing can be written to."""
    folder = target.parent
    if not folder.is_dir():
        raise OutputError(f"{target} cannot be written: there is no folder {folder}.")
    if os.access(folder, os.W_OK | os.X_OK):
        return
    if hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise OutputError(f"{target} cannot be written: {_REASONS[errno.EROFS]}.")
    raise OutputError(
        f"{target} cannot be written: this user may not write to the folder {folder}."
    )


def check_target(target: Path, *, overwrite: bool) -> None:
    """Refuse a name that cannot be written to, before anything is computed."""
    check_folder(target)
    if not target.exists():
        return
    if not overwrite:
        raise OutputError(f"{target} exists already; allow overwriting or choose another name.")
    if target.is_dir() and not is_zarr(target) and any(target.iterdir()):
        raise OutputError(f"{target} is a folder that is not zarr, so it is not overwritten.")


def recover(target: Path) -> None:
    """Mend what a process left that died while it wrote an output; nobody else may be writing it.

    Where it died between taking the old folder aside and giving the new one its name, the new one,
    which was whole by then, gets it. All else that it left is removed.
    """
    try:
        for aside in _left(target, "old"):
            partial = _beside(target, "partial", _number(aside))
            if not os.path.lexists(target):
                os.rename(partial if partial.exists() else aside, target)
            remove(aside)
        for partial in _left(target, "partial"):
            remove(partial)
    except OSError as error:
        raise refused(target, error) from error


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if os.path.isdir(path) and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def flush(path: Path) -> None:
    """Wait until the disk has a file, or all files of a zarr folder, or the names in a folder."""
    if is_zarr(path) and hasattr(os, "sync"):
        os.sync()  # one wait instead of one for each of its files
    if sys.platform == "win32" and path.is_dir():
        return  # folders cannot be opened there
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write text whole or not at all; an existing file is replaced."""
    with partial_output(path, overwrite=True) as partial:
        partial.write_text(text, encoding="utf-8")


def _finish(whole: list[Placing]) -> None:
    """Give names to all, also where somebody asks to stop in between."""
    try:
        for placing in whole:
            placing.finish()
    except OSError:
        raise
    except BaseException:
        for placing in whole:
            placing.finish()
        raise


def _put_in_place(partial: Path, target: Path, aside: Path) -> None:
    if not (target.is_dir() or (partial.is_dir() and target.exists())):
        os.replace(partial, target)
        return
    # Folders cannot be replaced in one step: the old one steps aside until the new one stands.
    try:
        os.rename(target, aside)
        os.rename(partial, target)
    except BaseException:
        if aside.exists() and not target.exists():
            os.rename(aside, target)
        raise


def _beside(target: Path, kind: str, number: str) -> Path:
    """Return the hidden name of a process for what it writes, or for what it takes aside."""
    return target.with_name(f".{target.name}.{kind}-{number}")


def _number(hidden: Path) -> str:
    return hidden.name.rpartition("-")[2]


def _left(target: Path, kind: str) -> list[Path]:
    """List what processes left of a kind beside a name."""
    found = target.parent.glob(_beside(Path(glob.escape(str(target))), kind, "*").name)
    return sorted(path for path in found if _number(path).isdecimal())


def _inode(path: Path) -> int | None:
    with suppress(OSError):
        return path.stat().st_ino
    return None
