"""Kill runs at random moments, resume each until it is done, and compare its pixels.

    python benchmarks/kills.py [KILLS] [SEED]

Each run is a process of its own, forked from this one, which has loaded the network. It is killed
with SIGKILL after a random time in one of its phases: while tiles are computed, while the output is
written, while names are given and tiles deleted. How long each takes is found by a run that is only
watched. Every kill is followed by a resume, which may be killed too. In the end each output is
compared with one that was never interrupted, its folder has to hold nothing else, and tiles are
counted that were kept and computed again all the same. Two thirds of the runs replace an older
output. A stand-in that makes pictures a little flatter takes the network's place, and the picture
is of 2 x 2 shards, across whose borders tiles lie.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TextIO

import numpy as np
import tifffile
import torch

import demoe
import demoe.io._write
import demoe.io._zarr_metadata
import demoe.io.photos
import demoe.io.tiff
import demoe.io.zarr
from demoe.engine.runner import TileRunner
from demoe.execution import run as running
from demoe.execution.store import TileStore

SIDE, TILE = 2300, 192
SUFFIXES = (".ome.zarr", ".ome.tif", ".png")
PHASES = ("computing", "writing", "naming", "done")
MOST_A_RUN = 4


def begin(act: Callable[[Callable[[str], None]], None]) -> tuple[int, TextIO]:
    """Start something in a fork of this process; return its id, and what it says."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            act(lambda word: os.write(writing, f"{word}\n".encode()))
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    os.close(writing)
    return child, os.fdopen(reading)


def deblur(source: Path, target: Path, recipe: demoe.Recipe, resume: bool, overwrite: bool):
    """Return what runs, and says which phase it enters and which tiles it keeps."""

    def act(say: Callable[[str], None]) -> None:
        note, finish, whole = TileStore.note, running._finish, TileStore.note_whole

        def kept(self, tiles):
            ready = note(self, tiles)
            for tile in tiles:
                say("tile " + "-".join(map(str, tile.index)))
            return ready

        def writing(*arguments):
            say("writing")
            return finish(*arguments)

        def naming(self, placings):
            say("naming")
            whole(self, placings)

        TileStore.note, running._finish, TileStore.note_whole = kept, writing, naming
        say("computing")
        demoe.run(source, target, recipe, resume=resume, overwrite=overwrite)
        say("done")

    return act


def kill_in(child: int, said: TextIO, phase: str, after: float) -> tuple[str, list[str]]:
    """Kill a process some seconds into a phase; return what it reached, and the tiles it kept."""
    reached, tiles = "", []
    with said:
        for line in said:
            word = line.strip()
            if word.startswith("tile"):
                tiles.append(word)
                continue
            reached = word
            if word == phase:
                time.sleep(after)
                os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise SystemExit("a run failed")
    return ("done" if code == 0 else reached), tiles


def watch(child: int, said: TextIO) -> dict[str, float]:
    """Return how many seconds each phase of an undisturbed run takes."""
    with said:
        at = {line.strip(): time.monotonic() for line in said if not line.startswith("tile")}
    os.waitpid(child, 0)
    return {phase: at[after] - at[phase] for phase, after in pairwise(PHASES)}


def same_pixels(first: Path, second: Path) -> bool:
    """Whether two pictures hold the same; in a fork, for zarr starts a thread."""

    def act(say: Callable[[str], None]) -> None:
        images = (np.asarray(demoe.open_image(path).data) for path in (first, second))
        say(str(np.array_equal(*images)))

    child, said = begin(act)
    with said:
        answer = said.read()
    os.waitpid(child, 0)
    return answer == "True\n"


def make_older(whole: Path, folder: Path) -> None:
    """Put an output into a folder that has the names of a finished one, and nothing else of it."""
    shutil.copytree(whole, folder)
    for path in folder.iterdir():
        if path.is_dir():
            (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
        else:
            path.write_bytes(b"older")


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    rng = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    torch.set_num_threads(1)
    TileRunner.restore = lambda self, pixels, *rest, **options: 0.9 * pixels + np.float32(0.05)
    recipe = demoe.Recipe(
        tile=TILE, halo=16, psf=None, routing="defocus", precision="full", device="cpu"
    )
    demoe.load_model(recipe.model, recipe.device)
    base = Path(tempfile.mkdtemp(prefix="demoe-kills-"))
    source = base / "in.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    tifffile.imwrite(source, pixels)
    seconds = {}
    for suffix in SUFFIXES:
        folder = base / f"whole{suffix}"
        folder.mkdir()
        act = deblur(source, folder / f"out{suffix}", recipe, False, False)
        seconds[suffix] = watch(*begin(act))
    found: Counter[str] = Counter()
    outputs = wrong = dirty = twice = 0
    while found.total() < kills:
        suffix = SUFFIXES[outputs % len(SUFFIXES)]
        folder, whole = base / f"run-{outputs}", base / f"whole{suffix}"
        target = folder / f"out{suffix}"
        overwrite = rng.random() < 2 / 3
        if overwrite:
            make_older(whole, folder)
        else:
            folder.mkdir()
        tiles: Counter[str] = Counter()
        killed_here = 0
        reached = ""
        while reached != "done":
            phase = rng.choice(PHASES[:3]) if killed_here < MOST_A_RUN else "none"
            after = rng.uniform(0, seconds[suffix].get(phase, 0))
            act = deblur(source, target, recipe, killed_here > 0, overwrite)
            reached, kept = kill_in(*begin(act), phase, after)
            tiles.update(kept)
            if reached != "done":
                found[reached] += 1
                killed_here += 1
        outputs += 1
        twice += sum(count - 1 for count in tiles.values())
        wrong += not same_pixels(target, whole / f"out{suffix}")
        dirty += sorted(os.listdir(folder)) != sorted(os.listdir(whole))
        shutil.rmtree(folder)
        print(f"{found.total()} kills, {outputs} outputs, {wrong} wrong", file=sys.stderr)
    shutil.rmtree(base)
    figures = {
        "kills": found.total(),
        "while": dict(found),
        "outputs": outputs,
        "with other pixels": wrong,
        "with something left behind": dirty,
        "kept tiles computed again": twice,
    }
    print(json.dumps(figures, indent=2))
    sys.exit(bool(wrong or dirty or twice))


if __name__ == "__main__":
    main()
