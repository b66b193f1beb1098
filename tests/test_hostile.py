"""Files that want more than to be read: one short sentence, and nothing else is touched."""

import json
import os
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from demoe.errors import DemoeError, ImageError
from demoe.io import open_image
from demoe.io.zarr import coarser_levels

SECRET = np.full((40, 50), 77, np.uint8)


def sentence(caught: pytest.ExceptionInfo[DemoeError]) -> str:
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text and len(text) <= 1000
    return text


def refused(path: Path, match: str, **options: object) -> str:
    with pytest.raises(ImageError, match=match) as caught:
        open_image(path, **options).data.compute()
    return sentence(caught)


# --- nothing outside of what was named ---


def ome_zarr(path: Path, dataset: str, version: int = 3, levels: int = 1) -> Path:
    group = zarr.create_group(path, zarr_format=version)
    for level in range(levels):
        array = np.arange(40 * 50, dtype="u2").reshape(40, 50) >> level
        group.create_array(str(level), data=array, chunks=(20, 25))
    shape = {"axes": [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]}
    datasets = [{"path": dataset}] + [{"path": str(level)} for level in range(1, levels)]
    multiscales = [{**shape, "datasets": datasets}]
    if version == 3:
        group.attrs["ome"] = {"version": "0.5", "multiscales": multiscales}
    else:
        group.attrs["multiscales"] = multiscales
    return path


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("how", ["relative", "absolute", "through", "link"])
def test_zarr_datasets_that_lie_elsewhere(tmp_path: Path, how: str, version: int) -> None:
    zarr.create_array(tmp_path / "secret.zarr", data=SECRET, zarr_format=version)
    dataset = {
        "relative": "../secret.zarr",
        "absolute": str(tmp_path / "secret.zarr"),
        "through": "0/../../secret.zarr",
        "link": "linked",
    }[how]
    path = ome_zarr(tmp_path / "a.zarr", dataset, version)
    (path / "linked").symlink_to(tmp_path / "secret.zarr")
    assert "outside" in refused(path, r"a\.zarr")


def test_zarr_datasets_that_lie_within(tmp_path: Path) -> None:
    path = ome_zarr(tmp_path / "a.zarr", "./0")
    wanted = open_image(path).data.compute()
    assert wanted[39, 49] == 1999
    (path / "1").symlink_to(path / "0")
    shutil.copy(path / "zarr.json", tmp_path / "kept")
    ours = json.loads((path / "zarr.json").read_text())
    ours["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = "1"
    (path / "zarr.json").write_text(json.dumps(ours))
    np.testing.assert_array_equal(open_image(path).data.compute(), wanted)
    (tmp_path / "link.zarr").symlink_to(path)  # what a person names may be a link
    np.testing.assert_array_equal(open_image(tmp_path / "link.zarr").data.compute(), wanted)


def test_zarr_chunks_that_are_links(tmp_path: Path) -> None:
    path = ome_zarr(tmp_path / "a.zarr", "0")
    chunk = path / "0" / "c" / "1" / "1"
    chunk.replace(tmp_path / "chunk")
    chunk.symlink_to(tmp_path / "chunk")
    assert "outside" in refused(path, r"a\.zarr")


def test_coarser_levels_that_lie_elsewhere(tmp_path: Path) -> None:
    path = ome_zarr(tmp_path / "a.zarr", "0", levels=2)
    assert [level.shape for level in coarser_levels(str(path), "YX")] == [(40, 50)]
    (path / "1").rename(tmp_path / "1")
    (path / "1").symlink_to(tmp_path / "1")
    with pytest.raises(ImageError, match="outside") as caught:
        coarser_levels(str(path), "YX")
    sentence(caught)


@pytest.mark.parametrize("marker", ["zarr.json", ".zarray", ".zattrs"])
def test_metadata_without_end(tmp_path: Path, marker: str) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_array(path, data=SECRET, zarr_format=3 if marker == "zarr.json" else 2)
    (path / marker).unlink()
    (path / marker).symlink_to("/dev/zero")
    assert "outside" in refused(path, r"a\.zarr")
    (path / marker).unlink()
    os.mkfifo(path / marker)
    refused(path, r"a\.zarr")


def test_pipes_and_devices(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tif")
    refused(tmp_path / "a.tif", "pipe")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    refused(tmp_path / "b.png", "device")


def ome_tiff(path: Path, other: str, planes: int = 2) -> Path:
    """Write an OME-TIFF of two planes, of which the second lies in another file."""
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="50" '
        f'SizeY="40" SizeZ="{planes}" SizeC="1" SizeT="1"><Channel ID="Channel:0:0"/>'
        '<TiffData IFD="0" FirstZ="0" PlaneCount="1"/>'
        f'<TiffData IFD="0" FirstZ="1" PlaneCount="1"><UUID FileName="{other}">urn:uuid:2</UUID>'
        "</TiffData></Pixels></Image></OME>"
    )
    tifffile.imwrite(path, np.zeros((40, 50), np.uint8), description=xml, metadata=None)
    return path


def test_tiffs_of_several_files(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "b.tif", SECRET)
    path = ome_tiff(tmp_path / "a.ome.tif", "b.tif")
    assert open_image(path).data.compute()[:, 0, 0].tolist() == [0, 77]


@pytest.mark.parametrize("how", ["relative", "absolute", "link", "device", "null"])
def test_tiffs_that_point_elsewhere(tmp_path: Path, how: str) -> None:
    (tmp_path / "inner").mkdir()
    tifffile.imwrite(tmp_path / "secret.tif", SECRET)
    (tmp_path / "inner" / "linked.tif").symlink_to(tmp_path / "secret.tif")
    other = {
        "relative": "../secret.tif",
        "absolute": str(tmp_path / "secret.tif"),
        "link": "linked.tif",
        "device": "/dev/zero",
        "null": "../" * 2000 + "etc/passwd",
    }[how]
    path = ome_tiff(tmp_path / "inner" / "a.ome.tif", other)
    refused(path, r"a\.ome\.tif")


def test_folders_with_links_out_of_them(tmp_path: Path) -> None:
    (tmp_path / "stack").mkdir()
    for number in range(2):
        tifffile.imwrite(tmp_path / "stack" / f"{number}.tif", SECRET)
    assert open_image(tmp_path / "stack").shape == (2, 40, 50)
    tifffile.imwrite(tmp_path / "secret.tif", SECRET)
    (tmp_path / "stack" / "2.tif").symlink_to(tmp_path / "secret.tif")
    refused(tmp_path / "stack", "outside")


def test_entities_are_not_expanded(tmp_path: Path) -> None:
    path = ome_tiff(tmp_path / "a.ome.tif", "b.tif")
    bomb = '<?xml version="1.0"?><!DOCTYPE z [<!ENTITY a "aaaaaaaaaa">'
    bomb += "".join(f'<!ENTITY {c} "{f"&{b};" * 10}">' for b, c in pairwise("abcdefgh"))
    with tifffile.TiffFile(path) as file:
        text = file.ome_metadata
    text = bomb + "]>" + text.replace('ID="Image:0"', 'ID="Image:0" Name="&h;"')
    tifffile.imwrite(path, np.zeros((40, 50), np.uint8), description=text, metadata=None)
    assert "entities" in refused(path, r"a\.ome\.tif")
