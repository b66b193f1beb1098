"""Many images into one folder: which files, and under which names."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from demoe.errors import ImageError, OutputError
from demoe.io import is_readable
from demoe.io.names import SUFFIXES_OUT, stem_of


def folder_jobs(
    source: Path, output: Path, *, pattern: str = "*", suffix: str | None = None
) -> list[tuple[Path, Path]]:
    """Pair every image of a folder with a file of its name in the output folder, which is made.

    Parameters
    ----------
    source : Path
        A folder; hidden files, folders below and what is no image are passed over, but a zarr
        folder and a folder of pictures are images.
    output : Path
        The folder to fill; the one above it has to exist.
    pattern : str
        Names to take, with the wildcards ``*``, ``?`` and ``[...]``; upper and lower case are one.
    suffix : str, optional
        The format of all outputs, one of `demoe.io.SUFFIXES_OUT`; by default each keeps its own
        where that can be written.

    Returns
    -------
    list of (Path, Path)
        Image and output, in the order of the names.

    Raises
    ------
    ImageError
        If there is no such folder, or no image in it.
    OutputError
        If the output folder cannot be made, or two images would have one name in it.
    """
    if not source.exists():
        raise ImageError(f"There is no file or folder {source}.")
    if not source.is_dir() or source.name.lower().endswith(".zarr"):
        raise OutputError(
            f"{output} has no suffix of an image; use one of {', '.join(SUFFIXES_OUT)}, or give a "
            "folder of images as input to fill a folder."
        )
    wanted = pattern.lower()
    found = sorted(
        path
        for path in source.iterdir()
        if not path.name.startswith(".")
        and fnmatchcase(path.name.lower(), wanted)
        and is_readable(path)
    )
    if not found:
        named = "" if pattern == "*" else f" whose name is like {pattern!r}"
        raise ImageError(f"There is no image{named} in the folder {source}.")
    jobs = [(path, output / output_name(path.name, suffix)) for path in found]
    make_folder(output)
    check_distinct([(path.name, target) for path, target in jobs])
    return jobs


def output_name(name: str, suffix: str | None = None) -> str:
    """Return the name of an image's output.

    Parameters
    ----------
    name : str
        The image's file name.
    suffix : str, optional
        Of the output. By default an image keeps its name where its format can be written; else it
        takes one that holds as much.
    """
    path = Path(name)
    if suffix is not None:
        return stem_of(path) + suffix
    if name.lower().endswith(SUFFIXES_OUT):
        return name
    lossless = ".png" if path.suffix.lower() in (".bmp", ".webp") else ".ome.tif"
    return stem_of(path) + lossless


def make_folder(folder: Path) -> None:
    """Make a folder for outputs, if it is not there; `OutputError` if that cannot be."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {folder} cannot be made ({error.strerror}).") from None


def check_distinct(named: Sequence[tuple[str, Path]]) -> None:
    """Refuse two images that would have one name: their maps and records are named by the stem.

    Parameters
    ----------
    named : sequence of (str, Path)
        What each image is called, and its output.

    Raises
    ------
    OutputError
        For the first two outputs of one stem, whatever their case.
    """
    taken: dict[str, str] = {}
    for name, target in named:
        stem = stem_of(target)
        if stem.lower() in taken:
            raise OutputError(
                f"{taken[stem.lower()]} and {name} would both be written as {stem} in "
                f"{target.parent}; rename one of them."
            )
        taken[stem.lower()] = name
