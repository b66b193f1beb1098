"""The command line: every command once, exit codes, and errors in one sentence."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

import demoe
from demoe.cli import main
from demoe.errors import Cancelled
from demoe.execution.store import TileStore
from demoe.training.data import images
from demoe.training.fit import finish

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


@pytest.fixture
def options(weights: Path) -> list[str]:
    return ["--model", str(weights), "--tile", "64", "--halo", "16", "--device", "cpu"]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (70, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    path = tmp_path / "stack.ome.tif"
    pixels = np.random.default_rng(0).integers(0, 60000, (2, 70, 100), dtype=np.uint16)
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"}
    tifffile.imwrite(path, pixels, ome=True, metadata={"axes": "ZYX", **sizes})
    return path


def call(*arguments: object) -> int:
    """Run a command; argparse leaves by SystemExit where the others return."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as exit_:
        assert isinstance(exit_.code, int)
        return exit_.code


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one sentence on stderr."""
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    lines = [line for line in captured.err.splitlines() if line.startswith("demoe: ")]
    assert len(lines) == 1, captured.err
    assert lines[0] == captured.err.splitlines()[-1]
    assert ". " not in lines[0]
    return lines[0]


# -- run ------------------------------------------------------------------------------------


def test_run_deblurs_a_file(
    tmp_path: Path, stack: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.ome.zarr"
    assert call("run", stack, target, *options) == DONE
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{target}: 0.01 MP in ")
    assert captured.out.count("\n") == 1
    assert "8/8" in captured.err  # the bar
    wanted = demoe.deblur(stack, model=options[1], tile=64, halo=16, device="cpu").image
    np.testing.assert_array_equal(demoe.open_image(target).data, wanted)


def test_quiet_and_json_are_for_scripts(
    tmp_path: Path, photo: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.png"
    assert call("run", photo, target, *options, "--quiet", "--json") == DONE
    captured = capsys.readouterr()
    assert captured.err == ""
    report = json.loads(captured.out)
    assert report["output"] == str(target)
    assert (report["tiles"], report["computed"]) == (4, 4)
    assert sum(report["shares"].values()) == pytest.approx(1)
    assert report["provenance"]["recipe"]["tile"] == 64


def test_options_win_over_the_recipe_file(
    tmp_path: Path, photo: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = demoe.Recipe(model=str(weights), tile=64, halo=16, routing="defocus", top_k=2)
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    arguments = ["--recipe", tmp_path / "recipe.json", "--routing", "low_light"]
    arguments += ["--intensity", "0,200", "--photometry", "preserve", "--quiet", "--json"]
    assert call("run", photo, tmp_path / "out.tif", *arguments) == DONE
    used = json.loads(capsys.readouterr().out)["provenance"]["recipe"]
    assert used == json.loads(
        recipe.replace(routing="low_light", intensity=(0, 200), photometry="preserve").to_json()
    )


def test_an_expert_map_is_used(
    tmp_path: Path, photo: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(tmp_path / "map.tif", np.array([[4, 4], [4, 4]], np.uint8))
    arguments = ["--expert-map", tmp_path / "map.tif", "--json", "--quiet"]
    assert call("run", photo, tmp_path / "out.tif", *options, *arguments) == DONE
    assert json.loads(capsys.readouterr().out)["shares"]["synth_global_motion"] == 1


def test_axes_workers_and_overwrite(tmp_path: Path, stack: Path, options: list[str]) -> None:
    target = tmp_path / "out.ome.tif"
    assert call("run", stack, target, *options, "--axes", "TYX", "--workers", 2) == DONE
    assert demoe.open_image(target).axes == "TYX"
    assert call("run", stack, target, *options) == FAILED
    assert demoe.open_image(target).axes == "TYX"
    assert call("run", stack, target, *options, "--overwrite") == DONE
    assert demoe.open_image(target).axes == "ZYX"


def test_a_cluster_is_used_by_its_address(
    tmp_path: Path, photo: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster:
        address = cluster.scheduler_address
        assert call("run", photo, tmp_path / "out.png", *options, "--scheduler", address) == DONE
    assert (tmp_path / "out.png").is_file()
    capsys.readouterr()
    arguments = ["--scheduler", "nonsense://here"]
    assert call("run", photo, tmp_path / "b.png", *options, *arguments) == USAGE
    assert "No Dask scheduler answers at nonsense://here" in complaint(capsys)


def folder_of_images(folder: Path) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.tif", "c.bmp"):
        Image.fromarray(rng.integers(0, 256, (40, 50), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_a_folder_fills_a_folder(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    source = folder_of_images(tmp_path / "in")
    out = tmp_path / "out"
    assert call("run", source, out, *options, "--quiet", "--json") == DONE
    reports = json.loads(capsys.readouterr().out)
    assert [Path(r["output"]).name for r in reports] == ["a.png", "b.tif", "c.png"]
    assert all(demoe.open_image(r["output"]).shape == (40, 50) for r in reports)


def test_a_folder_of_one_image_gives_a_list_too(
    tmp_path: Path, photo: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", tmp_path, tmp_path / "out", *options, "--quiet", "--json") == DONE
    assert len(json.loads(capsys.readouterr().out)) == 1


def test_one_bad_image_does_not_stop_a_folder_and_resume_does_the_rest(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    source = folder_of_images(tmp_path / "in")
    good = (source / "b.tif").read_bytes()
    (source / "b.tif").write_bytes(b"not a TIFF")
    out = tmp_path / "out"
    assert call("run", source, out, *options, "--quiet") == FAILED
    assert "b.tif" in complaint(capsys)
    assert not (out / "b.tif").exists()
    assert (out / "c.png").is_file()
    before = (out / "c.png").stat().st_mtime_ns
    (source / "b.tif").write_bytes(good)
    assert call("run", source, out, *options, "--quiet", "--resume") == DONE
    captured = capsys.readouterr()
    assert captured.err.count("is finished already") == 2
    assert captured.out.startswith(f"{out / 'b.tif'}: ")
    assert (out / "c.png").stat().st_mtime_ns == before


def test_stacks_of_a_folder_keep_their_planes(tmp_path: Path, options: list[str]) -> None:
    series = tmp_path / "in" / "series"
    series.mkdir(parents=True)
    for number in range(2):
        Image.fromarray(np.full((20, 30), number * 9, np.uint8)).save(series / f"{number}.png")
    assert call("run", tmp_path / "in", tmp_path / "out", *options, "--quiet") == DONE
    assert demoe.open_image(tmp_path / "out" / "series.ome.tif").shape == (2, 20, 30)


def test_one_image_of_several_is_chosen(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        for name, side in (("first", 32), ("second", 48)):
            writer.write(np.eye(side, dtype="u1") * 99, metadata={"axes": "YX", "Name": name})
    for series, side in (("1", 48), ("first", 32)):
        out = tmp_path / f"{series}.tif"
        call_options = (*options, "--quiet", "--series", series)
        assert call("run", tmp_path / "a.ome.tif", out, *call_options) == DONE
        assert demoe.open_image(out).shape == (side, side)
    assert call("run", tmp_path / "a.ome.tif", out, *options, "--series", "third") == FAILED
    assert "0 (first), 1 (second)" in complaint(capsys)
    assert call("run", tmp_path, tmp_path / "out", *options, "--series", "1") == USAGE
    assert "--series is for a single image" in complaint(capsys)


def test_two_images_for_one_name_are_refused(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    source = folder_of_images(tmp_path / "in")
    (source / "a.tif").write_bytes((source / "b.tif").read_bytes())
    assert call("run", source, tmp_path / "out", *options) == FAILED
    assert "a.png and a.tif would both be written as a in" in complaint(capsys)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Cancelled("Stopped with 2 of 8 tiles.")])
def test_an_interrupted_run_ends_with_130_and_is_resumed(
    tmp_path: Path,
    stack: Path,
    options: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    stop: BaseException,
) -> None:
    target = tmp_path / "out.ome.zarr"
    note = TileStore.note

    def interrupted(self: TileStore, kept: Any) -> Any:
        for one in kept:
            if len(self.done) == 2:
                raise stop
            note(self, [one])
        return []

    with monkeypatch.context() as patch:
        patch.setattr(TileStore, "note", interrupted)
        assert call("run", stack, target, *options, "--quiet") == INTERRUPTED
    assert ("resume" if isinstance(stop, KeyboardInterrupt) else "2 of 8") in complaint(capsys)
    assert not target.exists()
    assert call("run", stack, target, *options, "--quiet") == FAILED
    assert "unfinished run" in complaint(capsys)
    assert call("run", stack, target, *options, "--quiet", "--resume", "--json") == DONE
    assert json.loads(capsys.readouterr().out)["computed"] == 6


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "absent.png", "out.png"], FAILED, "no file or folder absent.png"),
        (["run", "absent", "out"], FAILED, "no file or folder absent"),
        (["run", "PHOTO", "out"], FAILED, "out has no suffix of an image"),
        (["run", "EMPTY", "out"], FAILED, "no image in the folder"),
        (["run", "PHOTO", "absent/out.png"], FAILED, "there is no folder absent"),
        (["run", "PHOTO", "out.png", "--axes", "ZYXS"], FAILED, "name 4 dimensions"),
        (["run", "PHOTO", "out.png", "--workers", "0"], USAGE, "at least 1, not 0"),
        (["run", "PHOTO", "out.png", "--tile", "100"], USAGE, "tile must be a multiple"),
        (["run", "PHOTO", "out.png", "--top-k", "6"], USAGE, "top_k is 6"),
        (["run", "PHOTO", "out.png", "--routing", "sideways"], USAGE, "its choices are defocus"),
        (["run", "PHOTO", "out.png", "--intensity", "5,2"], USAGE, "intensity needs"),
        (["run", "PHOTO", "out.png", "--device", "gpu"], USAGE, "device must be"),
        (["run", "PHOTO", "out.png", "--device", "cuda:77"], FAILED, "cuda:77 is not available"),
        (["run", "PHOTO", "out.png", "--model", "absent"], FAILED, "no weights at 'absent'"),
        (["run", "PHOTO", "out.png", "--recipe", "absent.json"], USAGE, "cannot be read"),
        (["run", "PHOTO", "out.png", "--expert-map", "PHOTO"], FAILED, "expert map"),
        (["info", "absent.png"], FAILED, "no file or folder absent.png"),
        (["demo", "--out", "FILE"], FAILED, "cannot be made"),
        (["models", "path", "absent"], FAILED, "no weights at 'absent'"),
        (["models", "download", "absent"], FAILED, "no weights at 'absent'"),
        (["models", "import", "FILE", "name"], FAILED, "FILE"),
        (["train", "PHOTO"], USAGE, "make one with `demoe train --make-pack"),
        (["train", "--minutes", "0"], USAGE, "minutes must be"),
        (["train", "--batch", "1"], USAGE, "at least 2 images"),
        (["train", "--start", "0.7", "--stop", "0.5"], USAGE, "start and stop"),
        (["train", "--out", "FILE"], FAILED, "cannot be made"),
        (["train", "--make-pack", "pack.safetensors", "EMPTY"], FAILED, "sharp crops"),
        (["evaluate", "--pack", "absent"], FAILED, "no training pack"),
        (["evaluate", "--json", "absent/scores.json"], FAILED, "no folder absent"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_are_told_in_one_sentence(
    tmp_path: Path,
    photo: Path,
    weights: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (tmp_path / "empty").mkdir()
    (tmp_path / "FILE").write_text("text")
    known = {"PHOTO": photo, "EMPTY": tmp_path / "empty", "FILE": tmp_path / "FILE"}
    filled = [str(known.get(argument, argument)) for argument in arguments]
    if arguments[0] in ("run", "evaluate") and "--model" not in arguments:
        filled += ["--model", str(weights)]
    assert call(*filled) == code
    assert message in complaint(capsys)
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["blur"],
        ["run", "in.png"],
        ["run", "a", "b", "--workers", "2", "--scheduler", "here"],
        ["run", "a", "b", "--tile", "big"],
        ["models"],
        ["train", "--per-task", "0"],
        ["evaluate", "--crop", "-3"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*arguments) == USAGE
    assert "usage: demoe" in capsys.readouterr().err


# -- the other commands ---------------------------------------------------------------------


def test_the_console_script_is_this_program() -> None:
    (script,) = entry_points(group="console_scripts", name="demoe")
    assert script.load() is main
    shown = subprocess.run(
        [sys.executable, "-m", "demoe.cli", "--help"], capture_output=True, text=True, check=True
    )
    assert shown.stderr == ""
    for command in ("run", "demo", "info", "models", "train", "evaluate", "bench"):
        assert f"\n    {command} " in shown.stdout


@pytest.mark.parametrize(
    "command", [["run"], ["demo"], ["info"], ["models", "import"], ["train"], ["evaluate"]]
)
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*command, "--help") == DONE
    assert capsys.readouterr().out.startswith(f"usage: demoe {' '.join(command)}")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == DONE
    assert capsys.readouterr().out.strip() == demoe.__version__


def test_demo_shows_every_blurred_sample(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from demoe.samples.images import sample_damages

    blurred = [name for name, kind in sample_damages().items() if kind == "blur"]
    out = tmp_path / "demo"
    assert call("demo", "--out", out, "--model", weights, "--quiet", "--device", "cpu") == DONE
    printed = capsys.readouterr().out
    assert printed.count("  -> ") == len(blurred)
    for name in blurred:
        (line,) = [line for line in printed.splitlines() if line.startswith(name + " ")]
        assert " dB" in line or "not known" in line
        assert (out / f"{name}.ome.tif").is_file()
        assert (out / f"{name}.experts.tif").is_file()
    assert printed.count(" dB") == 3 * sum("dB" in line for line in printed.splitlines())
    with Image.open(out / "demo.png") as picture:
        assert min(picture.size) > 500


def test_info_describes_without_reading(
    tmp_path: Path, stack: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("info", stack, *options) == DONE
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["size"] == "Z 2, Y 70, X 100; uint16, 28.0 kB"
    assert lines["step"] == "X 0.5 micrometer"
    assert lines["tiles"] == "8 of 64 x 64 pixels, read with 16 more around"
    assert lines["planes"] == "2"
    assert lines["routing"] == "image"
    assert lines["memory"].startswith("about ")
    assert re.match(r"about (a second|\d+ seconds)\b", lines["time"])


def test_info_gives_numbers_to_scripts(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setattr("demoe.execution.estimate._matrix_rate", lambda device: 1e11)
    huge, little = tmp_path / "huge.zarr", tmp_path / "little.png"
    zarr.create_array(huge, shape=(9, 6000, 9000), chunks=(1, 500, 500), dtype="uint16")
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(little)
    assert call("info", huge, *options, "--json") == DONE
    large = json.loads(capsys.readouterr().out)
    assert call("info", little, *options, "--json") == DONE
    small = json.loads(capsys.readouterr().out)
    assert large["shape"] == [9, 6000, 9000]
    assert large["bytes"] == 9 * 6000 * 9000 * 2
    assert large["routing"] == "local"
    assert large["tiles"] == 9 * 94 * 141
    assert large["seconds"] > 1000 * small["seconds"] >= 0
    assert 1e8 < small["memory"] < large["memory"] < 1e9


def test_info_counts_what_the_blur_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setattr("demoe.execution.estimate._matrix_rate", lambda device: 1e11)
    pictures = {"photo": (1500, 1500, 3), "gray": (1500, 1500)}
    found = {}
    for name, shape in pictures.items():
        file = tmp_path / f"{name}.png"
        Image.fromarray(np.zeros(shape, np.uint8)).save(file)
        for psf in ("auto", "none", "radius=3"):
            assert call("info", file, "--psf", psf, "--json") == DONE
            found[name, psf] = json.loads(capsys.readouterr().out)
    for name in pictures:
        alone, auto, given = (found[name, psf] for psf in ("none", "auto", "radius=3"))
        assert alone["blur"] == ""
        assert "looked for" in auto["blur"]
        assert "given" in given["blur"]
        assert 0 < given["seconds"] <= auto["seconds"]
    alone, auto = found["photo", "none"], found["photo", "auto"]
    assert alone["seconds"] < auto["seconds"] < 3 * alone["seconds"]
    assert alone["memory"] < auto["memory"] < 2 * alone["memory"]
    assert auto["halo"] > alone["halo"]  # the fusion looks around, too
    assert found["gray", "auto"]["memory"] < found["gray", "none"]["memory"]
    assert call("info", tmp_path / "photo.png") == DONE
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["blur"].startswith("looked for in places")


def test_models_are_listed_imported_and_found(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("models", "import", weights, "mine-1") == DONE
    place = Path(capsys.readouterr().out.strip())
    assert place.read_bytes() == weights.read_bytes()
    assert call("models", "path", "mine-1") == DONE
    assert capsys.readouterr().out.strip() == str(place)
    assert call("models", "list") == DONE
    text = capsys.readouterr().out
    for name in ("default", "demoe", "mine-1"):
        assert f"\n{name} " in "\n" + text
    assert "`demoe models download demoe`" in text
    assert call("models", "list", "--json") == DONE
    listed = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    assert listed["mine-1"]["path"] == str(place)
    assert listed["demoe"]["available"] is False


@pytest.fixture
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "PROCEDURAL", 12)
    monkeypatch.setattr(images, "PROCEDURAL_HELD_OUT", 10)
    monkeypatch.setattr(finish, "ROUTER_SAMPLES", (24, 24))


@pytest.mark.usefixtures("_few_images")
def test_train_then_resume_then_evaluate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "training"
    small = ["--width", 4, "--batch", 2, "--crop", 32, "--per-task", 1, "--device", "cpu"]
    train = ["train", "--out", out, "--minutes", 0.03, *small]
    assert call(*train, "--stop", 0.5) == DONE
    assert "schedule done up to 50%" in capsys.readouterr().out
    assert not (out / "model.safetensors").exists()
    state = (out / "state.safetensors").read_bytes()
    assert call(*train) == FAILED
    assert "holds a training already" in complaint(capsys)
    assert (out / "state.safetensors").read_bytes() == state

    assert call(*train, "--resume") == DONE
    printed = capsys.readouterr().out
    assert "going on at step " in printed
    assert "| defocus |" in printed
    scores = json.loads((out / "scores.json").read_text())
    assert set(scores["tasks"]) == set(demoe.TASKS)
    card = (out / "model.md").read_text()
    assert "Width 4" in card
    assert "| defocus |" in card
    assert demoe.load_model(out / "model.safetensors", "cpu").card == card

    figures = tmp_path / "figures.json"
    measure = ["evaluate", "--model", out / "model.safetensors", "--device", "cpu"]
    measure += ["--per-task", 1, "--crop", 32, "--json", figures]
    assert call(*measure) == DONE
    assert "Router: " in capsys.readouterr().out
    assert len(json.loads(figures.read_text())["confusion"]) == 5

    other = [*train, "--resume"]
    other[other.index("--width") + 1] = 8
    assert call(*other) == FAILED
    assert "belongs to another architecture" in complaint(capsys)
    nothing = ["train", "--out", tmp_path / "new", "--minutes", 0.01, *small, "--resume"]
    assert call(*nothing) == FAILED
    assert "no weights file" in complaint(capsys)


@pytest.mark.usefixtures("_few_images")
def test_an_interrupted_training_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from demoe.training.fit.blurs import Blurs

    out = tmp_path / "training"
    steps = 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 3:
            raise KeyboardInterrupt
        return losses(*arguments)

    losses = Blurs.losses
    train = ["train", "--out", out, "--minutes", 0.02, "--width", 4, "--batch", 2, "--crop", 32]
    with monkeypatch.context() as patch:
        patch.setattr(Blurs, "losses", staticmethod(interrupted))
        assert call(*train) == INTERRUPTED
    assert "--resume" in complaint(capsys)
    assert call(*train, "--resume", "--stop", 0.9) == DONE
    assert "going on at step 2," in capsys.readouterr().out


@pytest.mark.usefixtures("_few_images")
def test_train_on_own_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(4):
        blocks = np.random.default_rng(seed).integers(20, 236, (48, 48, 3), dtype=np.uint8)
        pixels = blocks.repeat(8, axis=0).repeat(8, axis=1)
        Image.fromarray(pixels).save(photos / f"p{seed}.png")
    pack = tmp_path / "pack.safetensors"
    assert call("train", "--make-pack", pack, photos) == DONE
    assert "16 crops of 4 files" in capsys.readouterr().out
    train = ["train", "--pack", pack, "--out", tmp_path / "out", "--minutes", 0.01, "--width", 4]
    small = ["--batch", 2, "--crop", 32, "--per-task", 1, "--device", "cpu"]
    assert call(*train, *small) == DONE
    card = (tmp_path / "out" / "model.md").read_text()
    for seed in range(4):
        assert f"| p{seed}.png |" in card
    assert "| held out |" in card
    assert "| trained on |" in card
    assert str(tmp_path) not in card
