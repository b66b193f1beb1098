"""Kill a run before each step that gives names, deletes or waits for the disk, and resume it.

    python kills.py FOLDER ".zarr over" RECIPE

Processes are forked from this one, which has loaded all that takes long. Prints a line of JSON for
each kill: what was to be done next, what it left, and what the resumed run made of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch

import demoe
import demoe.execution.run
import demoe.io._write
import demoe.io._zarr_metadata
import demoe.io.photos
import demoe.io.tiff
import demoe.io.zarr
from demoe.execution.store import TileStore

KILLED = 9
STEPS = ("rename", "replace", "unlink", "rmdir", "fsync", "sync")


def kill_at(step: int, note: Path) -> None:
    """End this process, without a chance to clean up, before the step of this number.

    Steps are counted from when all is written and only names are missing.
    """
    count = 0
    counting = False
    note_whole = TileStore.note_whole

    def begin(self: TileStore, placings: Any) -> None:
        nonlocal counting
        counting = True
        note_whole(self, placings)

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            if counting:
                if count == step:
                    words = [Path(a).name for a in arguments if isinstance(a, str | os.PathLike)]
                    note.write_bytes(" ".join([name, *words]).encode())
                    os._exit(KILLED)
                count += 1
            return call(*arguments, **options)

        return checked

    TileStore.note_whole = begin  # type: ignore[method-assign]
    for name in STEPS:
        setattr(os, name, watched(name, getattr(os, name)))


def in_a_process(act: Callable[[], None]) -> int:
    """Do something in a fork of this process; return its exit code, 1 after an exception."""
    child = os.fork()
    if not child:
        try:
            act()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def prepare(folder: Path, target: Path, *, with_old: bool) -> None:
    """Make the folder new, with an earlier output in it or without."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if with_old and target.suffix == ".zarr":
        target.mkdir()
        old = {"zarr_format": 3, "node_type": "group", "attributes": {}}
        (target / "zarr.json").write_text(json.dumps(old))
    elif with_old:
        for name in (target.name, "out.experts.tif", "out.confidence.tif", "out.demoe.json"):
            (folder / name).write_bytes(b"old")


def main() -> None:
    base, case, text = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    recipe = demoe.Recipe.from_json(text)
    torch.set_num_threads(1)
    demoe.load_model(recipe.model, recipe.device)
    suffix, *words = case.split()
    overwrite = "over" in words
    source, folder = base / "in.tif", base / "out"
    target, note, found = folder / f"out{suffix}", base / "at", base / "found"
    values = np.random.default_rng(0).integers(0, 256, (64, 96), dtype=np.uint8)
    tifffile.imwrite(source, values)

    def run(step: int) -> None:
        kill_at(step, note)
        demoe.run(source, target, recipe, overwrite=overwrite)

    def resume() -> None:
        report = demoe.run(source, target, recipe, overwrite=overwrite, resume=True)
        shown = np.asarray(demoe.open_image(target).data)
        facts = {
            "computed": report.computed,
            "is_new": bool((shown != values).any()),
            "digest": hashlib.sha256(shown).hexdigest(),
            "said": [report.tiles, report.shares, report.skipped, report.failed],
            "left": sorted(os.listdir(folder)),
        }
        found.write_text(json.dumps(facts))

    code = KILLED
    step = 0
    while code == KILLED:
        prepare(folder, target, with_old=overwrite)
        code = in_a_process(lambda step=step: run(step))
        line = {"code": code, "next": note.read_text() if code == KILLED else "the end"}
        line["between"] = sorted(os.listdir(folder))
        line["resumed"] = in_a_process(resume)
        if line["resumed"] == 0:
            line |= json.loads(found.read_text())
        print(json.dumps(line), flush=True)
        step += 1


if __name__ == "__main__":
    main()
