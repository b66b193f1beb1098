"""A finished output is corrected: only what changes is computed, and nothing is taken on trust."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

import demoe
from demoe.cli import main
from demoe.io import write_image

pytestmark = pytest.mark.usefixtures("in_this_thread")

SMALL = {"tile": 64, "pitch": 16, "window": 32, "device": "cpu", "intensity": "full"}
PIXELS = np.random.default_rng(0).integers(0, 255, (2, 200, 264), np.uint8)
TILES = 2 * 4 * 5


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "stack.ome.tif"
    write_image(path, demoe.LazyImage.from_array(PIXELS, "ZYX", scale={"Y": 0.5, "X": 0.5, "Z": 2}))
    return path


@pytest.fixture(scope="module", params=["zarr", "tif"])
def finished(request, source, shallow, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("finished") / f"out.ome.{request.param}"
    demoe.run(source, path, model=shallow, routing="local", **SMALL)
    return path


def map_of(path: Path) -> np.ndarray:
    place = path / "labels/expert_map" if path.is_dir() else path.with_name("out.experts.tif")
    return np.asarray(demoe.open_image(place).data)


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(demoe.open_image(path).data)


def change(cells: np.ndarray, *places: tuple[int, ...]) -> np.ndarray:
    """Give cells the expert after their own."""
    changed = cells.copy()
    for place in places:
        changed[place] = changed[place] % 5 + 1
    return changed


def test_only_what_changes_is_computed_and_equals_a_full_run(
    finished, source, shallow, computed, tmp_path
) -> None:
    edited = change(map_of(finished), (0, 0, 0), (0, 0, 1))
    output = tmp_path / finished.name
    report = demoe.run(source, output, earlier=finished, expert_map=edited)
    # A tile of each plane has the cells within its reach; another one is computed as a check.
    assert 0 < report.computed < TILES / 4
    assert len(computed) == report.computed + 1
    assert report.tiles == TILES
    wished = np.where(edited != map_of(finished), edited, 0)
    whole = demoe.deblur(source, expert_map=wished, model=shallow, routing="local", **SMALL)
    np.testing.assert_array_equal(pixels_of(output), whole.image)
    np.testing.assert_array_equal(map_of(output), whole.expert_map)
    assert (pixels_of(output) != pixels_of(finished)).any()

    # Corrections add up, and 0 gives a cell back to the router.
    again = change(map_of(output), (1, 12, 16))
    again[0, 0, 1] = 0
    last = tmp_path / f"last{''.join(finished.suffixes)}"
    demoe.run(source, last, earlier=output, expert_map=again)
    wished[1, 12, 16], wished[0, 0, 1] = again[1, 12, 16], 0
    whole = demoe.deblur(source, expert_map=wished, model=shallow, routing="local", **SMALL)
    np.testing.assert_array_equal(pixels_of(last), whole.image)


def test_the_map_in_the_output_may_be_painted_on(finished, source, tmp_path) -> None:
    shutil.copytree(finished.parent, tmp_path, dirs_exist_ok=True)
    earlier = tmp_path / finished.name
    edited = change(map_of(earlier), (0, 0, 0))
    if earlier.is_dir():
        zarr.open_array(str(earlier / "labels/expert_map/0"))[:] = edited
    else:
        tifffile.imwrite(tmp_path / "out.experts.tif", edited, metadata={"axes": "ZYX"})
    outputs = [tmp_path / f"{letter}{finished.name}" for letter in "ab"]
    demoe.run(source, outputs[0], earlier=earlier)
    demoe.run(source, outputs[1], earlier=finished, expert_map=edited)
    np.testing.assert_array_equal(pixels_of(outputs[0]), pixels_of(outputs[1]))
    assert (pixels_of(outputs[0]) != pixels_of(finished)).any()


def test_an_interrupted_correction_goes_on(finished, source, computed, tmp_path) -> None:
    edited = change(map_of(finished), (0, 0, 0), (1, 6, 8))
    output = tmp_path / finished.name

    class Stop:
        def is_set(self) -> bool:
            return len(computed) > 2

    with pytest.raises(demoe.Cancelled):
        demoe.run(source, output, earlier=finished, expert_map=edited, cancel=Stop())
    assert not output.exists()
    report = demoe.run(source, output, earlier=finished, expert_map=edited, resume=True)
    whole = demoe.run(source, tmp_path / f"a{finished.name}", earlier=finished, expert_map=edited)
    assert report.computed < whole.computed
    np.testing.assert_array_equal(pixels_of(output), pixels_of(whole.output))


def test_the_output_may_take_the_place_of_the_earlier_one(finished, source, tmp_path) -> None:
    shutil.copytree(finished.parent, tmp_path, dirs_exist_ok=True)
    output = tmp_path / finished.name
    edited = change(map_of(output), (0, 3, 3))
    demoe.run(source, output, earlier=output, expert_map=edited, overwrite=True)
    assert map_of(output)[0, 3, 3] == edited[0, 3, 3]
    assert (pixels_of(output) != pixels_of(finished)).any()


def test_cells_that_failed_are_remembered(finished, source, tmp_path) -> None:
    shutil.copytree(finished.parent, tmp_path, dirs_exist_ok=True)
    earlier = tmp_path / finished.name
    edited = map_of(earlier)
    if earlier.is_dir():
        zarr.open_array(str(earlier / "labels/expert_map/0"))[1, 12, 16] = 0
    else:
        failed = edited.copy()
        failed[1, 12, 16] = 0
        tifffile.imwrite(tmp_path / "out.experts.tif", failed, metadata={"axes": "ZYX"})
    edited = change(edited, (0, 0, 0))
    edited[1, 12, 16] = 0
    output = tmp_path / f"b{finished.name}"
    report = demoe.run(source, output, earlier=earlier, expert_map=edited)
    assert report.failed == 1


def copy_with(finished: Path, folder: Path, **changes: object) -> Path:
    """Copy an output, with other entries in its record."""
    shutil.copytree(finished.parent, folder, dirs_exist_ok=True)
    path = folder / finished.name
    place = path / "zarr.json" if path.is_dir() else folder / "out.demoe.json"
    text = json.loads(place.read_text())
    record = text["attributes"]["demoe"] if path.is_dir() else text
    for name, value in changes.items():
        record[name] = value
    place.write_text(json.dumps(text))
    return path


def test_what_does_not_belong_together_is_refused(finished, source, shallow, tmp_path) -> None:
    edited = change(map_of(finished), (0, 0, 0))
    other = np.roll(PIXELS, 7, axis=2)
    record = {"weights": {"sha256": "0" * 64}}
    cases = {
        "says what .* follows already": ({"expert_map": None}, demoe.RecipeError),
        "takes the settings that it was made with": ({"top_k": 2}, demoe.RecipeError),
        "another image": ({"source": PIXELS[:1]}, demoe.RecipeError),
        "does not hold what image gives": ({"source": other}, demoe.ImageError),
        "no file or folder": ({"earlier": tmp_path / "none.tif"}, demoe.ImageError),
        "no record of how it was made": ({"earlier": source}, demoe.ImageError),
        "another network": (
            {"earlier": copy_with(finished, tmp_path / "w", **record)},
            demoe.RecipeError,
        ),
        "record of .* is damaged": (
            {"earlier": copy_with(finished, tmp_path / "r", recipe=[1])},
            demoe.ImageError,
        ),
        "painted": (
            {"earlier": copy_with(finished, tmp_path / "p", painted="abc")},
            demoe.ImageError,
        ),
        "holds integers from 0 to 5": ({"expert_map": edited + 7}, demoe.ImageError),
    }
    for said, (changes, kind) in cases.items():
        given = {"source": source, "earlier": finished, "expert_map": edited} | changes
        output = tmp_path / "out" / finished.name
        output.parent.mkdir(exist_ok=True)
        with pytest.raises(kind, match=said):
            demoe.run(given.pop("source"), output, **given)
        assert not list(output.parent.iterdir())


def test_from_the_command_line(finished, source, tmp_path, capsys) -> None:
    painted = tmp_path / "map.tif"
    tifffile.imwrite(painted, change(map_of(finished), (0, 0, 0)), metadata={"axes": "ZYX"})
    output = tmp_path / finished.name
    line = ["run", str(source), str(output), "--earlier", str(finished), "--quiet", "--json"]
    assert main([*line, "--expert-map", str(painted)]) == 0
    assert 0 < json.loads(capsys.readouterr().out)["computed"] < TILES / 4
    assert main(line) == 2
    assert "follows already" in capsys.readouterr().err
    assert main([*line[:2], str(tmp_path / "folder"), *line[3:]]) == 2
    assert "--earlier is for a single image" in capsys.readouterr().err
    assert main([*line, "--expert-map", str(painted), "--top-k", "2", "--overwrite"]) == 2
    assert "takes the settings" in capsys.readouterr().err
