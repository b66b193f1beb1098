"""The walls between the rooms, at run time: which modules an import brings along.

`setup.cfg` checks the same on the source; this catches what comes in through others.
"""

import subprocess
import sys

import pytest

QT = {"PyQt5", "PyQt6", "PySide2", "PySide6", "qtpy"}
GUI = QT | {"magicgui", "napari", "napari_demoe", "npe2", "superqt", "vispy"}
TORCH = {"torch"}

PLANS = (
    "import demoe.image.lazy_image, demoe.image.intensity, demoe.recipe, demoe.choices, demoe.io,"
    "demoe.plan.sizing, demoe.routing.router, demoe.routing.painted, demoe.routing.correction,"
    "demoe.engine.cells, demoe.engine.reader, demoe.model.architectures, demoe.model.zoo"
)
EVERYTHING = """
import importlib, pkgutil, demoe
for module in pkgutil.walk_packages(demoe.__path__, "demoe."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
for name in dir(demoe):
    getattr(demoe, name)
"""
ADAPTERS = "import napari_demoe, napari_demoe._reader, napari_demoe._writer"


def loaded_by(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules, sep='\\n')"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    ("code", "never"),
    [
        ("import demoe; demoe.__version__", GUI | TORCH | {"dask", "numpy", "zarr"}),
        (PLANS, GUI | TORCH),
        (EVERYTHING, GUI),
        ("import napari_demoe", QT | TORCH),
        (ADAPTERS, QT | TORCH),
        ("import napari_demoe._session", QT | TORCH | {"magicgui", "superqt", "vispy"}),
    ],
    ids=["demoe", "plans and files", "all of demoe", "plugin", "reader and writer", "session"],
)
def test_an_import_brings_no_more_than_it_may(code, never):
    loaded = loaded_by(code)
    assert loaded & {"demoe", "napari_demoe"}
    assert not loaded & never


def test_no_module_hides_a_public_name():
    code = f"{EVERYTHING}\nimport types"
    code += (
        "\nassert not [n for n in dir(demoe) if isinstance(getattr(demoe, n), types.ModuleType)]"
    )
    assert "demoe" in loaded_by(code)
