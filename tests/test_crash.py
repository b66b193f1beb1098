"""What befalls a run: other runs, lost tiles, sources that change, kills, signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

import demoe
from demoe.errors import Cancelled, ImageError, OutputError
from demoe.execution.store import run_folder
from demoe.io import write_image

SHAPE = (2, 96, 130)
TILES = 2 * 2 * 3


@pytest.fixture(scope="module")
def recipe(weights: Path) -> demoe.Recipe:
    return demoe.Recipe(
        model=str(weights), tile=64, halo=16, pitch=32, window=64, routing="local", device="cpu"
    )


def stack(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(500, 60000, SHAPE, dtype=np.uint16)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "stack.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, stack(), metadata={"axes": "ZYX"})
    return path


@pytest.fixture(scope="module")
def expected(recipe: demoe.Recipe) -> np.ndarray:
    return np.asarray(demoe.deblur(stack(), "ZYX", recipe=recipe).image)


class At:
    """Does something once, when a run has so many tiles done, or says some words."""

    def __init__(self, when: int | str, what: Callable[[], object]) -> None:
        self.when, self.what = when, what
        self.times = 0

    def __call__(self, done: int, total: int, message: str) -> None:
        is_now = done == self.when if isinstance(self.when, int) else self.when in message
        if is_now and not self.times:
            self.times += 1
            self.what()


def interrupt(source: Any, target: Path, recipe: demoe.Recipe, **options: Any) -> None:
    stop = threading.Event()
    with pytest.raises(Cancelled):
        demoe.run(source, target, recipe, progress=At(3, stop.set), cancel=stop, **options)


def pixels(target: Path) -> np.ndarray:
    return np.asarray(demoe.open_image(target).data)


# -- two runs on one output -----------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".ome.zarr", ".tif"])
@pytest.mark.parametrize("second", ["run", "resume", "save", "save image", "write"])
def test_a_second_run_is_refused_while_the_first_lives(
    tmp_path: Path,
    source: Path,
    recipe: demoe.Recipe,
    expected: np.ndarray,
    suffix: str,
    second: str,
) -> None:
    target = tmp_path / f"out{suffix}"
    image = demoe.open_image(source)

    def another() -> None:
        with pytest.raises(OutputError, match="is being written by another run"):
            if second == "run":
                demoe.run(source, target, recipe, overwrite=True)
            elif second == "resume":
                demoe.run(source, target, recipe, overwrite=True, resume=True)
            elif second == "save":
                demoe.save(demoe.deblur(source, recipe=recipe), target, overwrite=True)
            elif second == "save image":
                demoe.save(image, target, overwrite=True)
            else:
                write_image(target, image, overwrite=True)

    at = At(5, another)
    assert demoe.run(source, target, recipe, progress=at).computed == TILES
    assert at.times == 1
    np.testing.assert_array_equal(pixels(target), expected)


def test_a_run_that_lost_its_lock_names_nothing(
    tmp_path: Path, source: Path, recipe: demoe.Recipe
) -> None:
    target = tmp_path / "out.tif"
    taken = At("writing", tmp_path.joinpath(".out.tif.demoe-lock").unlink)
    with pytest.raises(OutputError, match="taken over by another run"):
        demoe.run(source, target, recipe, progress=taken)
    assert {path.name for path in tmp_path.iterdir()} == {"in", run_folder(target).name}


# -- stored tiles that are lost -------------------------------------------------------------


def damaged(chunk: Path) -> None:
    content = chunk.read_bytes()
    chunk.write_bytes(content[:9] + bytes([content[9] ^ 255]) + content[10:])


def pixel_files(target: Path) -> list[Path]:
    """Return the files that hold pixels of a run: shards, and tiles that are not in them yet."""
    kept = run_folder(target)
    found = [*kept.glob("image-*/0/c/**/*"), *kept.glob("tiles-*/*")]
    return sorted(place for place in found if place.is_file())


@pytest.mark.parametrize("suffix", [".ome.zarr", ".tif"])
@pytest.mark.parametrize("when", [5, "writing out.", "50%"])
@pytest.mark.parametrize("what", ["file", "damage", "pixels", "folder"])
def test_a_tile_that_is_lost_in_mid_run_is_computed_again(
    tmp_path: Path,
    source: Path,
    recipe: demoe.Recipe,
    expected: np.ndarray,
    suffix: str,
    when: int | str,
    what: str,
) -> None:
    if (suffix, what, when) == (".ome.zarr", "damage", "50%"):
        pytest.skip("what was read already is the output, and may be damaged at any later time")
    target = tmp_path / f"out{suffix}"
    kept = run_folder(target)

    def lose() -> None:
        if what == "folder":
            shutil.rmtree(kept)
        elif what == "pixels":
            for place in (*kept.glob("image-*"), *kept.glob("tiles-*")):
                shutil.rmtree(place)
        else:
            (Path.unlink if what == "file" else damaged)(pixel_files(target)[-1])

    at = At(when, lose)
    demoe.run(source, target, recipe, progress=at)
    assert at.times == 1
    np.testing.assert_array_equal(pixels(target), expected)
    assert not kept.exists()


def test_tiles_that_are_lost_each_time_are_an_error(
    tmp_path: Path, source: Path, recipe: demoe.Recipe
) -> None:
    target = tmp_path / "out.tif"

    def progress(done: int, total: int, message: str) -> None:
        if message.startswith("writing") and message.endswith(" 0%"):
            pixel_files(target)[-1].unlink()

    with pytest.raises(OutputError, match="lost or damaged again and again; check the disk"):
        demoe.run(source, target, recipe, progress=progress)
    assert not target.exists()
    # What is lost is a shard: here, a plane.
    assert demoe.run(source, target, recipe, resume=True).computed == TILES // 2


# -- sources that change --------------------------------------------------------------------


def a_tiff(place: Path, values: np.ndarray) -> Path:
    # In one step, because somebody may be reading it.
    tifffile.imwrite(place / "new.tif", values, metadata={"axes": "ZYX"})
    return (place / "new.tif").replace(place / "s.tif")


def a_zarr(place: Path, values: np.ndarray) -> Path:
    path = place / "s.zarr"
    if path.exists():  # metadata stay as they are, as where a microscope writes on
        zarr.open_array(path, mode="r+")[...] = values
        return path
    array = zarr.create_array(
        path, shape=SHAPE, chunks=(1, 48, 65), dtype="u2", dimension_names=list("zyx")
    )
    array[...] = values
    return path


def a_zarr_object(place: Path, values: np.ndarray) -> Any:
    return zarr.open_array(a_zarr(place, values), mode="r")


def a_folder(place: Path, values: np.ndarray) -> Path:
    folder = place / "photos"
    folder.mkdir(exist_ok=True)
    for number, plane in enumerate(values):
        made = place / f"{number}.png"
        Image.fromarray((plane // 256).astype(np.uint8)).save(made)
        made.replace(folder / made.name)  # a run that reads it meanwhile sees no half of it
    return folder


def several_tiffs(place: Path, values: np.ndarray) -> Path:
    """Write an OME-TIFF whose second plane lies in a file of its own."""
    names = [place / "a.ome.tif", place / "b.ome.tif"]
    ids = ["urn:uuid:00000000-0000-0000-0000-00000000000" + n for n in "12"]
    planes = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{name.name}">{number}</UUID></TiffData>'
        for z, (name, number) in enumerate(zip(names, ids, strict=True))
    )
    for plane, name, number in zip(values, names, ids, strict=True):
        text = (
            '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="{number}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
            f'Type="uint16" SizeX="{SHAPE[2]}" SizeY="{SHAPE[1]}" SizeZ="2" SizeC="1" SizeT="1">'
            f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{planes}</Pixels></Image></OME>'
        )
        tifffile.imwrite(place / "part.tif", plane, description=text.encode(), metadata=None)
        (place / "part.tif").replace(name)
    return names[0]


SOURCES = [a_tiff, a_zarr, a_zarr_object, a_folder, several_tiffs]


def files_of(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path.is_file()]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def changed(last: int = 1) -> np.ndarray:
    """Return the stack with other pixels at its very end."""
    values = stack()
    values[-1, -last:, -last:] ^= 0x5500
    return values


@pytest.mark.parametrize("make", SOURCES)
@pytest.mark.parametrize("when", [3, "writing out."])
def test_a_source_that_changes_in_mid_run_is_an_error(
    tmp_path: Path, place: Path, recipe: demoe.Recipe, make: Callable[..., Any], when: int | str
) -> None:
    target = tmp_path / "out.ome.zarr"
    source = make(place, stack())
    values = changed() if when != 3 else stack(1)
    at = At(when, lambda: make(place, values))
    with pytest.raises(ImageError, match=r"other pixels now than when .* put it back, or start"):
        demoe.run(source, target, recipe, axes="ZYX", progress=at)
    assert not target.exists()
    source = make(place, values)
    with pytest.raises(ImageError, match="other pixels now"):
        demoe.run(source, target, recipe, axes="ZYX", resume=True)
    demoe.run(source, target, recipe, axes="ZYX", overwrite=True)
    wanted = demoe.deblur(source, "ZYX", recipe=recipe).image
    np.testing.assert_array_equal(pixels(target), wanted)


@pytest.mark.parametrize("make", SOURCES)
def test_a_source_that_changed_is_not_resumed(
    tmp_path: Path, place: Path, recipe: demoe.Recipe, make: Callable[..., Any]
) -> None:
    target = tmp_path / "out.ome.zarr"
    interrupt(make(place, stack()), target, recipe, axes="ZYX")
    times = {path: path.stat().st_mtime_ns for path in files_of(place)}
    source = make(place, stack(1))
    for path, time in times.items():  # whoever copies files with their times
        os.utime(path, ns=(time, time))
    with pytest.raises(ImageError, match="other pixels now"):
        demoe.run(source, target, recipe, axes="ZYX", resume=True)
    # Put back, with another time, it is the same.
    source = make(place, stack())
    assert demoe.run(source, target, recipe, axes="ZYX", resume=True).computed == TILES - 3
    wanted = demoe.deblur(source, "ZYX", recipe=recipe).image
    np.testing.assert_array_equal(pixels(target), wanted)


@pytest.mark.parametrize("make", SOURCES)
@pytest.mark.parametrize("when", [3, "writing out."])
def test_a_source_that_is_only_touched_is_the_same(
    tmp_path: Path, place: Path, recipe: demoe.Recipe, make: Callable[..., Any], when: int | str
) -> None:
    source = make(place, stack())
    at = At(when, lambda: [os.utime(path) for path in files_of(place)])
    report = demoe.run(source, tmp_path / "out.tif", recipe, axes="ZYX", progress=at)
    assert (at.times, report.computed) == (1, TILES)


def test_a_change_where_nothing_was_computed_yet_is_found(
    tmp_path: Path, place: Path, recipe: demoe.Recipe
) -> None:
    """The end of the stack has a say in the intensity scale of its beginning."""
    target = tmp_path / "out.ome.zarr"
    options: dict[str, Any] = {"axes": "ZYX", "intensity": "percentile"}
    interrupt(a_tiff(place, stack()), target, recipe, **options)
    values = stack()
    values[-1] //= 64
    with pytest.raises(ImageError, match="in the sample that decides on its intensities"):
        demoe.run(a_tiff(place, values), target, recipe, resume=True, **options)


def test_a_moved_source_is_the_same(tmp_path: Path, place: Path, recipe: demoe.Recipe) -> None:
    source = a_tiff(place, stack())
    interrupt(source, tmp_path / "out.tif", recipe)
    moved = source.rename(tmp_path / "moved.tif")
    assert demoe.run(moved, tmp_path / "out.tif", recipe, resume=True).computed == TILES - 3


@pytest.mark.parametrize("make", [a_tiff, a_zarr, several_tiffs])
def test_a_source_that_disappears_is_told(
    tmp_path: Path, place: Path, recipe: demoe.Recipe, make: Callable[..., Path]
) -> None:
    target = tmp_path / "out.tif"
    source = make(place, stack())
    aside = tmp_path / "aside"
    with pytest.raises(ImageError, match=r"is not there any more|There is no|lacks \d+ blocks"):
        demoe.run(source, target, recipe, axes="ZYX", progress=At(3, lambda: place.rename(aside)))
    aside.rename(place)
    assert demoe.run(source, target, recipe, axes="ZYX", resume=True).computed < TILES


def test_a_picture_that_changes_while_it_is_saved_is_an_error(tmp_path: Path, place: Path) -> None:
    image = demoe.open_image(a_zarr(place, stack()))
    progress = At(2, lambda: a_zarr(place, stack(1)))
    with pytest.raises(ImageError, match="changed while it was read"):
        demoe.save(image, tmp_path / "out.tif", progress=progress)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


# -- chunks that a zarr lacks ---------------------------------------------------------------


def lacking(source: Path) -> None:
    (source / "c" / "1" / "1" / "1").unlink()


def test_chunks_that_a_zarr_lacks_are_counted_or_refused(
    tmp_path: Path, place: Path, recipe: demoe.Recipe
) -> None:
    source = a_zarr(place, stack())
    assert demoe.run(source, tmp_path / "whole.tif", recipe, all_blocks=True).absent == 0
    lacking(source)
    with pytest.raises(ImageError, match="lacks 1 blocks, which read as its fill value"):
        demoe.run(source, tmp_path / "out.tif", recipe, all_blocks=True)
    assert demoe.run(source, tmp_path / "out.tif", recipe).absent == 1


@pytest.mark.parametrize("shards", [None, (2, 96, 65)])
@pytest.mark.parametrize("kind", ["v3", "v2", "v2 nested"])
def test_absent_chunks_are_counted_by_their_files(
    place: Path, kind: str, shards: tuple[int, ...] | None
) -> None:
    options: dict[str, Any] = {"shards": shards} if kind == "v3" else {"zarr_format": 2}
    if kind == "v2 nested":
        options["chunk_key_encoding"] = {"name": "v2", "separator": "/"}
    array = zarr.create_array(
        place / "s.zarr", shape=SHAPE, chunks=(1, 48, 65), dtype="u2", **options
    )
    origin = demoe.open_image(place / "s.zarr", "ZYX").origins[0]
    whole = 2 if shards and kind == "v3" else 8
    assert origin.absent() == whole
    array[0, :10, :10] = 7
    assert origin.absent() == whole - 1
    array[...] = 7
    assert origin.absent() == 0


def test_absent_chunks_of_no_value_are_refused(
    tmp_path: Path, place: Path, recipe: demoe.Recipe
) -> None:
    zarr.create_array(place / "s.zarr", shape=(64, 64), chunks=(32, 32), dtype="u2", zarr_format=2)[
        :32
    ] = 7
    described = json.loads((place / "s.zarr" / ".zarray").read_text())
    (place / "s.zarr" / ".zarray").write_text(json.dumps({**described, "fill_value": None}))
    with pytest.raises(ImageError, match="lacks 2 of 4 chunks and does not say what value"):
        demoe.run(place / "s.zarr", tmp_path / "out.tif", recipe)


@pytest.mark.parametrize("when", [0, 11, "writing out."])
def test_a_chunk_that_is_lost_in_mid_run_is_an_error(
    tmp_path: Path, place: Path, recipe: demoe.Recipe, when: int | str
) -> None:
    source = a_zarr(place, stack())
    with pytest.raises(ImageError, match="lacks 1 blocks that it had when the run began"):
        demoe.run(source, tmp_path / "out.tif", recipe, progress=At(when, lambda: lacking(source)))
    a_zarr(place, stack())
    demoe.run(source, tmp_path / "out.tif", recipe, overwrite=True)


def test_a_chunk_that_is_lost_before_resume_is_an_error(
    tmp_path: Path, place: Path, recipe: demoe.Recipe
) -> None:
    source = a_zarr(place, stack())
    interrupt(source, tmp_path / "out.tif", recipe)
    lacking(source)
    with pytest.raises(ImageError, match="lacks 1 blocks that it had when the run began"):
        demoe.run(source, tmp_path / "out.tif", recipe, resume=True)


# -- kills ----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [".zarr over", ".tif"])
def test_a_run_that_is_killed_at_any_step_of_its_end_ends_right(
    tmp_path: Path, recipe: demoe.Recipe, case: str
) -> None:
    """See kills.py: each line is a run that was killed before another step, and resumed."""
    settings = recipe.replace(routing="defocus", psf=None, precision="full").to_json()
    command = [sys.executable, str(Path(__file__).with_name("kills.py")), str(tmp_path), case]
    done = subprocess.run([*command, settings], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    *kills, end = lines
    assert (end["code"], end["next"]) == (0, "the end")
    steps = [kill["next"] for kill in kills]
    suffix = case.split()[0]
    final = {f"out{suffix}"}
    if suffix == ".zarr":
        both_renames = [n for n, step in enumerate(steps) if step.startswith("rename")]
        assert len(both_renames) == 2
        # Between them, neither the old nor the new has the name.
        assert f"out{suffix}" not in kills[both_renames[1]]["between"]
    else:
        final |= {"out.experts.tif", "out.confidence.tif", "out.demoe.json"}
        assert sum(step.startswith("replace .out.") for step in steps) == len(final)
    assert f"rmdir .out{suffix}.demoe-run" in steps
    assert steps[-1] == f"unlink .out{suffix}.demoe-lock"
    for line in lines:
        assert line["resumed"] == 0, (line, done.stderr)
        assert line["computed"] == 0, line
        assert line["is_new"], line
        assert set(line["left"]) == final, line
        for same in ("digest", "said"):
            assert line[same] == end[same], line
    assert all(kill["code"] == 9 for kill in kills)


def test_what_a_save_left_is_removed_by_the_next(
    tmp_path: Path, source: Path, recipe: demoe.Recipe
) -> None:
    for name in (".out.tif.partial-7", ".out.experts.tif.partial-7", ".out.tif.demoe-lock"):
        (tmp_path / name).write_text("left")
    os.utime(tmp_path / ".out.tif.demoe-lock", (1, 1))
    shutil.copytree(source.parent, tmp_path / ".out.tif.demoe-save")
    write_image(tmp_path / "out.tif", demoe.open_image(source))
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out.tif", ".out.tif.demoe-save"}
    demoe.save(demoe.deblur(source, recipe=recipe), tmp_path / "out.tif", overwrite=True)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("new", ["whole", "absent"])
def test_an_output_that_was_taken_aside_gets_its_name_back(
    tmp_path: Path, source: Path, new: str
) -> None:
    target = tmp_path / "out.zarr"
    write_image(target, demoe.open_image(source))
    target.rename(tmp_path / ".out.zarr.old-7")
    if new == "whole":
        zarr.save_array(tmp_path / ".out.zarr.partial-7", np.ones((8, 8), np.uint8))
    with pytest.raises(OutputError, match="exists already"):
        write_image(target, demoe.open_image(source))
    assert {path.name for path in tmp_path.iterdir()} == {"in", target.name}
    assert demoe.open_image(target).shape == ((8, 8) if new == "whole" else SHAPE)


@pytest.mark.parametrize("suffix", [".ome.zarr", ".tif"])
def test_a_finished_output_is_known_as_such(
    tmp_path: Path, source: Path, recipe: demoe.Recipe, suffix: str
) -> None:
    target = tmp_path / f"out{suffix}"
    first = demoe.run(source, target, recipe)
    again = demoe.run(source, target, recipe, resume=True)
    assert again.computed == 0
    for same in ("output", "tiles", "shares", "skipped", "failed", "consistency", "absent"):
        assert getattr(again, same) == getattr(first, same)
    with pytest.raises(OutputError, match="exists already"):
        demoe.run(source, target, recipe.replace(top_k=2), resume=True)
    tifffile.imwrite(source, stack(1), metadata={"axes": "ZYX"})
    with pytest.raises(OutputError, match="exists already"):
        demoe.run(source, target, recipe, resume=True)


def test_an_output_in_the_place_of_its_source_is_known_when_it_is_named(
    tmp_path: Path, source: Path, recipe: demoe.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the name was given, the run must not deblur its own output."""

    class Killed(BaseException):
        pass

    def dies(store: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("demoe.execution.store.TileStore.delete", dies)
        with pytest.raises(Killed):
            demoe.run(source, source, recipe, overwrite=True)
    assert run_folder(source).exists()
    written = source.read_bytes()
    report = demoe.run(source, source, recipe, overwrite=True, resume=True)
    assert report.computed == 0
    assert source.read_bytes() == written
    assert not run_folder(source).exists()


def test_a_file_that_somebody_put_there_since_is_kept(
    tmp_path: Path, source: Path, recipe: demoe.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when all was whole and nothing had a name yet."""

    class Killed(BaseException):
        pass

    def dies(placing: object) -> None:
        raise Killed

    target = tmp_path / "out.tif"
    with monkeypatch.context() as patch:
        patch.setattr("demoe.io.atomic.Placing.finish", dies)
        patch.setattr("demoe.io.atomic.remove", lambda path: None)
        with pytest.raises(Killed):
            demoe.run(source, target, recipe)
    target.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already"):
        demoe.run(source, target, recipe, resume=True)
    assert target.read_bytes() == b"mine"
    assert demoe.run(source, target, recipe, resume=True, overwrite=True).computed == 0
    assert demoe.open_image(target).shape == SHAPE
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


# -- signals --------------------------------------------------------------------------------

RUN = """
import signal, sys, time, torch
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background, both are ignored
signal.signal(signal.SIGHUP, signal.SIG_DFL)
torch.set_num_threads(1)
from demoe.cli import main
from demoe.execution.store import TileStore
note = TileStore.note
def slow(self, kept):
    for one in kept:
        note(self, [one])
        print(len(self.done), flush=True)
        if len(self.done) == 3:
            time.sleep(120)
    return []
TileStore.note = slow
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("SIGINT", 130, "demoe: interrupted; a run goes on with --resume"),
        ("SIGTERM", 143, "demoe: stopped by SIGTERM; a run goes on with --resume"),
        ("SIGHUP", 129, "demoe: stopped by SIGHUP; a run goes on with --resume"),
    ],
)
def test_a_signal_ends_a_run_with_a_sentence(
    tmp_path: Path, source: Path, recipe: demoe.Recipe, name: str, code: int, said: str
) -> None:
    target = tmp_path / "out.ome.zarr"
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    options = ["--recipe", str(tmp_path / "recipe.json"), "--quiet"]
    command = [sys.executable, "-c", RUN, "run", str(source), str(target), *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == ["1\n", "2\n", "3\n"]
        process.send_signal(getattr(signal, name))
        _, errors = process.communicate()
    assert process.returncode == code
    assert errors == said + "\n"
    assert {path.name for path in tmp_path.iterdir()} == {
        "in",
        "recipe.json",
        run_folder(target).name,
    }
    assert demoe.run(source, target, recipe, resume=True).computed == TILES - 3


@pytest.mark.parametrize("suffix", [".zarr", ".tif"])
@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_who_asks_to_stop_when_only_names_are_missing_gets_them(
    tmp_path: Path,
    source: Path,
    recipe: demoe.Recipe,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    step: int,
) -> None:
    target = tmp_path / f"out{suffix}"
    zarr.save_array(tmp_path / "out.zarr", np.zeros((4, 4), np.uint8))
    calls = 0

    def interrupting(name: str) -> Callable[..., Any]:
        call = getattr(os, name)

        def maybe(old: Path, new: Path) -> None:
            nonlocal calls
            ours = Path(new).parent == tmp_path
            before, after = 2 * calls == step, 2 * calls + 1 == step
            calls += ours
            if ours and before:
                raise KeyboardInterrupt
            call(old, new)
            if ours and after:
                raise KeyboardInterrupt

        return maybe

    with monkeypatch.context() as patch:
        for name in ("rename", "replace"):
            patch.setattr(os, name, interrupting(name))
        with pytest.raises(KeyboardInterrupt):
            demoe.run(source, target, recipe, overwrite=True)
    hidden = {path.name for path in tmp_path.iterdir() if path.name.startswith(".")}
    assert hidden == {run_folder(target).name}
    assert demoe.open_image(target).shape == SHAPE
    assert demoe.run(source, target, recipe, resume=True).computed == 0
    assert not run_folder(target).exists()


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As `nohup` wants it."""
    from demoe.cli.signals import signals_stop

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_stop():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert callable(signal.getsignal(signal.SIGTERM))
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
