"""What packaging must keep: one version, all data files, a licence, nothing of one machine."""

import re
import subprocess
import tomllib
from importlib.metadata import entry_points
from itertools import chain
from pathlib import Path

import pytest

import demoe
from demoe.io import is_readable

# Built from parts, so that this file does not find itself.
FORBIDDEN = {
    "a package index or mirror": r"(?:pypi|pythonhosted|debian|npmjs)\.(?:org|com)\b",
    "a path of one machine": r"(?<![\w.<>/~-])/(?:home|root|work|Users|tmp|opt|mnt)/[\w.-]",
}


@pytest.fixture(scope="module")
def project(root) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def tracked(root) -> list[Path]:
    """Files that belong to the project."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True
    )
    return [root / name for name in listed.stdout.split("\0") if name and (root / name).exists()]


def texts(files: list[Path]) -> dict[Path, str]:
    found = {}
    for file in files:
        try:
            found[file] = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # an image or weights
    return found


def test_one_version(root, project, tracked):
    version = project["version"]
    assert demoe.__version__ == version
    assert f"## {version}" in (root / "CHANGELOG.md").read_text()
    sources = [file for file in tracked if file.suffix == ".py" and "tests" not in file.parts]
    assert not [file for file, text in texts(sources).items() if version in text]


def test_the_core_depends_on_no_gui(project):
    names = {re.split(r"[\[<>=!~ ]", line)[0].lower() for line in project["dependencies"]}
    assert {"torch", "dask", "zarr"} <= names
    assert not names & {"napari", "npe2", "qtpy", "magicgui", "superqt", "vispy"}
    assert not [name for name in names if name.startswith(("pyqt", "pyside"))]


def test_no_dependency_is_pinned_and_each_is_tested_in_one_version(root, project):
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    assert not [line for line in wanted if "==" in line]
    tested = {
        line.split("==")[0].lower()
        for line in (root / "tests" / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    assert {re.split(r"[\[<>=!~ ]", line)[0].lower() for line in wanted} <= tested


def test_licence(root, project):
    assert project["license"] == "BSD-3-Clause"
    assert "napari-demoe developers" in (root / "LICENSE").read_text()


def test_entry_points():
    (script,) = entry_points(group="console_scripts", name="demoe")
    (manifest,) = entry_points(group="napari.manifest", name="napari-demoe")
    assert callable(script.load())
    assert manifest.value == "napari_demoe:napari.yaml"


def test_bundled_data_has_its_papers(root):
    package = root / "src" / "demoe"
    assert (package / "weights" / "default.safetensors").is_file()
    assert "license" in (package / "weights" / "default.md").read_text().lower()
    samples = package / "samples" / "data"
    papers = (samples / "LICENSES.md").read_text()
    images = list(filter(is_readable, samples.iterdir()))
    assert images
    assert not [file.name for file in images if file.name not in papers]


def test_every_package_folder_is_a_package(tracked, root):
    folders = {file.parent for file in tracked if file.suffix == ".py"}
    ours = {f for f in folders if f.is_relative_to(root / "src") or f.name == "napari_demoe"}
    assert not [str(folder) for folder in ours if not (folder / "__init__.py").exists()]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_of_one_machine_is_in_the_tree(tracked, root, what):
    found = [
        f"{file.relative_to(root)}: {match.group()}"
        for file, text in texts(tracked).items()
        for match in re.finditer(FORBIDDEN[what], text)
    ]
    assert not found


def test_no_large_files(tracked, root):
    large = {f.name: f.stat().st_size for f in tracked if f.stat().st_size > 40_000_000}
    assert not large
