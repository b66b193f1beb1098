"""Uses the installed wheel as a person without napari would; run by the tox environment `wheel`."""

import importlib.util
import json
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import demoe
from demoe.io import is_readable

GUI = ("napari", "npe2", "qtpy", "magicgui", "superqt", "vispy", "PySide6", "PyQt6")
DATA = (
    "demoe/py.typed",
    "demoe/weights/default.safetensors",
    "demoe/weights/default.md",
    "demoe/weights/instructir.safetensors",
    "demoe/weights/LICENSES.md",
    "demoe/weights/words.npz",
    "demoe/weights/words.txt",
    "demoe/samples/data/LICENSES.md",
    "demoe/samples/data/samples.json",
    "napari_demoe/napari.yaml",
)


def check(holds: bool, what: str) -> None:
    """Print one fact, and stop where it does not hold."""
    print("ok  " if holds else "FAIL", what, flush=True)
    if not holds:
        sys.exit(1)


def main() -> None:
    """Check the place, the data files, and a whole run from Python and from the command line."""
    package = Path(demoe.__file__).parent
    check("site-packages" in package.parts, "demoe comes from the wheel, not from the source tree")
    check(not any(map(importlib.util.find_spec, GUI)), "no GUI package is installed")

    files = {str(file) for file in distribution("napari-demoe").files or []}
    for name in DATA:
        check(name in files, f"the wheel has {name}")
    for name in ("LICENSE", "LICENSES.md"):
        check(
            any(file.endswith(f"/{name}") and "dist-info" in file for file in files),
            f"it has {name}",
        )
    check(not any(name.startswith(("tests", "src")) for name in files), "the wheel has no tests")

    samples = list(filter(is_readable, (package / "samples" / "data").iterdir()))
    check(bool(samples), "the wheel has sample images")
    photo = demoe.open_image(min(samples, key=lambda file: file.stat().st_size))
    y, x = photo.axes.index("Y"), photo.axes.index("X")
    corner = [slice(None)] * photo.ndim
    corner[y] = corner[x] = slice(0, 96)
    small = photo.with_data(photo.data[tuple(corner)])
    source, output = Path("in.tif"), Path("out.ome.zarr")
    demoe.save(small, source, overwrite=True)

    restored = demoe.deblur(small).image.compute()
    check(restored.shape == small.shape, "deblurring from Python keeps the shape")
    check(restored.dtype == small.dtype, "deblurring from Python keeps the dtype")
    check((restored != small.data.compute()).any(), "deblurring changes the image")

    command = Path(sys.executable).with_name("demoe")
    subprocess.run([command, "run", source, output, "--overwrite", "--quiet"], check=True)
    written = demoe.open_image(output)
    check(written.shape == small.shape, "`demoe run` keeps the shape")
    check((written.data.compute() == restored).all(), "`demoe run` gives the same pixels")

    listing = subprocess.run(
        [command, "models", "list", "--json"], check=True, capture_output=True, text=True
    )
    check("default" in str(json.loads(listing.stdout)), "`demoe models list --json` is JSON")
    check(not set(GUI) & set(sys.modules), "no GUI package was imported")
    print(f"napari-demoe {demoe.__version__}: the wheel works without napari")


if __name__ == "__main__":
    main()
