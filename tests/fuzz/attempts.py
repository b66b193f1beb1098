"""Reading a file as people would: what comes of it, in a word and a sentence."""

import os
import sys
from itertools import islice, product
from pathlib import Path
from typing import Any

import dask
import numpy as np

from demoe.cli.options import read_recipe
from demoe.errors import DemoeError, RecipeError
from demoe.image.lazy_image import LazyImage
from demoe.io import open_image
from demoe.io.psf import read_psf
from demoe.io.record import choices_of, read_record
from demoe.limits import read_text
from demoe.model.checkpoint import read_state_dict
from demoe.model.kernels.psf import make_psf
from demoe.model.loading import load_model
from demoe.routing.painted import paint

BLOCKS = 12
"""Blocks of an image that are read, at most: one that is claimed to be huge is not damage."""

_FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect")
_seen: list[str] = []


def watch(secret: Path) -> None:
    """Note whenever this process starts a program, connects, or opens what is secret."""
    places = (str(secret), "/etc/passwd", "/dev/zero")

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _FORBIDDEN:
            _seen.append(event)
        elif event == "open" and isinstance(arguments[0], str | bytes):
            place = os.path.realpath(os.fsdecode(arguments[0]))
            if place.startswith(places):
                _seen.append(f"open {place}")

    sys.addaudithook(note)


def attempt(kind: str, path: Path, secret: Path) -> tuple[str, str]:
    """Return what became of reading a file.

    Returns
    -------
    (str, str)
        "opened", "refused" (with a good sentence), "sentence" (with a bad one), "traceback" or
        "escaped", and the words that say more.
    """
    _seen.clear()
    with dask.config.set(scheduler="synchronous"):
        try:
            _READERS[kind](path)
            verdict = "opened", ""
        except DemoeError as error:
            text = str(error)
            good = text.endswith((".", "?")) and "\n" not in text and len(text) <= 1000
            verdict = ("refused" if good else "sentence"), text
        except (Exception, SystemExit) as error:
            at = error.__traceback__
            while at is not None and at.tb_next is not None:
                at = at.tb_next
            where = f"{Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}" if at else ""
            verdict = "traceback", f"{type(error).__name__}: {str(error)[:200]} ({where})"
    if (secret / "ran").exists():
        (secret / "ran").rmdir()
        _seen.append("code ran")
    return ("escaped", "; ".join(_seen)) if _seen else verdict


def _image(path: Path) -> None:
    data = open_image(path).data
    first = product(*(range(count) for count in data.numblocks))
    last = tuple(count - 1 for count in data.numblocks)
    for index in [*islice(first, BLOCKS), last]:
        data.blocks[index].compute()


def _weights(path: Path) -> None:
    read_state_dict(path)
    load_model(path, device="cpu")


def _map(path: Path) -> None:
    source = LazyImage.from_array(np.zeros((256, 320), np.uint8), scale={"Y": 1.0, "X": 1.0})
    paint(source, open_image(path), 64, 5)


def _record(path: Path) -> None:
    image = path.with_name(path.name.replace(".demoe.json", ".tif"))
    choices_of(image)
    read_record(image)


_READERS = {
    "image": _image,
    "weights": _weights,
    "recipe": lambda path: make_psf(read_recipe(path).psf),
    "map": _map,
    "psf": lambda path: make_psf(read_psf(str(path))),
    "words": lambda path: make_psf(read_psf(read_text(path, RecipeError, "The text"))),
    "record": _record,
}
