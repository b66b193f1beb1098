"""Kill real runs at random moments, resume each until it is done, and compare its pixels.

    python benchmarks/kills.py [KILLS] [SEED]

A run is killed with SIGKILL after a random time, so that about a third of the kills each falls into
computing, writing, and renaming and deleting; these times are found by a run that is only watched.
Every kill is followed by a resume, which may be killed too. In the end each output is compared with
one that was never interrupted, the folder has to hold nothing else, and the tiles that were
computed more often than once are counted. Two thirds of the runs replace an older output.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import tifffile

import demoe

SIDE = 1024
TILE = 256
SUFFIXES = (".ome.zarr", ".ome.tif", ".png")

# The child says when it reaches what, and which tiles it keeps.
CHILD = """
import sys, torch
torch.set_num_threads(1)
import demoe
from demoe.execution import run as running, store
source, target, recipe = sys.argv[1:4]
put, finish, whole = store.TileStore.put, running._finish, store.TileStore.note_whole
def say(word):
    print(word, flush=True)
def kept(self, index, *tile):
    put(self, index, *tile)
    say("tile " + "-".join(map(str, index)))
def finishing(*arguments):
    say("writing")
    return finish(*arguments)
def named(self, placings):
    say("naming")
    whole(self, placings)
store.TileStore.put, running._finish, store.TileStore.note_whole = kept, finishing, named
say("begun")
recipe = demoe.Recipe.from_json(recipe)
demoe.run(source, target, recipe, resume="resume" in sys.argv, overwrite="over" in sys.argv)
say("done")
"""
PHASES = ("begun", "writing", "naming", "done")


def start(source: Path, target: Path, recipe: demoe.Recipe, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(source), str(target), recipe.to_json(), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def watch(process: subprocess.Popen[str]) -> dict[str, float]:
    """Return how many seconds each phase of an undisturbed run took."""
    assert process.stdout is not None
    at = {line.strip(): time.monotonic() for line in process.stdout if not line.startswith("tile")}
    process.wait()
    return {a: at[b] - at[a] for a, b in pairwise(PHASES)}


def kill_in(process: subprocess.Popen[str], phase: str, after: float) -> tuple[str, list[str]]:
    """Kill a process some seconds into a phase; return what it reached, and the tiles it kept."""
    assert process.stdout is not None
    reached, tiles = "start", []
    for line in process.stdout:
        word = line.strip()
        if word.startswith("tile"):
            tiles.append(word)
        else:
            reached = word
        if word == phase:
            time.sleep(after)
            process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"a run failed: {errors}")
    return ("done" if process.returncode == 0 else reached), tiles


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    rng = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    base = Path(tempfile.mkdtemp(prefix="demoe-kills-"))
    source = base / "in.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    tifffile.imwrite(source, pixels)
    recipe = demoe.Recipe(tile=TILE, halo=16, psf=None, routing="defocus", precision="full")
    seconds, wanted, names = {}, {}, {}
    for suffix in SUFFIXES:
        folder = base / f"whole{suffix}"
        folder.mkdir()
        seconds[suffix] = watch(start(source, folder / f"out{suffix}", recipe))
        wanted[suffix] = np.asarray(demoe.open_image(folder / f"out{suffix}").data)
        names[suffix] = sorted(os.listdir(folder))
    found: Counter[str] = Counter()
    twice = wrong = dirty = outputs = done_at_once = 0
    while found.total() < kills:
        suffix = SUFFIXES[outputs % len(SUFFIXES)]
        folder = base / f"run-{outputs}"
        if rng.random() < 2 / 3:
            shutil.copytree(base / f"whole{suffix}", folder)
            for path in folder.glob("out*"):  # what is replaced must not look like the new one
                if path.is_file():
                    path.write_bytes(b"older")
                else:
                    (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
            words = ["over"]
        else:
            folder.mkdir()
            words = []
        tiles: Counter[str] = Counter()
        killed_here = 0
        reached = ""
        while reached != "done":
            resume = ["resume"] if killed_here else []
            process = start(source, folder / f"out{suffix}", recipe, *words, *resume)
            phase = rng.choice(PHASES[:3]) if killed_here < 3 else "never"
            after = rng.uniform(0, 1.1 * seconds[suffix].get(phase, 0))
            reached, kept = kill_in(process, phase, after)
            tiles.update(kept)
            if reached != "done":
                found[reached] += 1
                killed_here += 1
        outputs += 1
        done_at_once += not killed_here
        twice += sum(count - 1 for count in tiles.values())
        shown = np.asarray(demoe.open_image(folder / f"out{suffix}").data)
        wrong += not np.array_equal(shown, wanted[suffix])
        dirty += sorted(os.listdir(folder)) != names[suffix]
        shutil.rmtree(folder)
        print(f"{found.total()} kills, {outputs} outputs, {wrong} wrong", file=sys.stderr)
    shutil.rmtree(base)
    figures = {
        "kills": found.total(),
        "in": dict(found),
        "outputs": outputs,
        "never killed": done_at_once,
        "with other pixels": wrong,
        "with something left behind": dirty,
        "kept tiles computed again": twice,
    }
    print(json.dumps(figures, indent=2))
    sys.exit(bool(wrong or dirty or twice))


if __name__ == "__main__":
    main()
