"""Reader, writer and sample data, through layers as napari hands them over."""

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from napari.components import ViewerModel
from npe2 import PluginManifest

import demoe
from demoe.io import write_image
from demoe.samples.images import sample_names, sample_titles
from napari_demoe import _sample_data
from napari_demoe._layers import to_lazy
from napari_demoe._reader import get_reader, read
from napari_demoe._writer import write_layers


@pytest.fixture
def manifest(root):
    return PluginManifest.from_file(root / "napari_demoe" / "napari.yaml")


@pytest.fixture
def result(session, viewer, worker):
    """An image and its expert map, as a run leaves them: a stack with pixel sizes."""
    stack = np.random.default_rng(0).integers(0, 255, (2, 70, 100), np.uint8)
    viewer.add_image(stack, name="cells", scale=(2, 0.5, 0.5), units=("um",) * 3)
    session.choices.tile = 128
    session.start()
    worker.finish()
    return session.result, session.overlay


def tuples(*layers):
    return [layer.as_layer_data_tuple() for layer in layers]


@pytest.mark.parametrize("name", ["out.ome.zarr", "out.ome.tif"])
def test_a_result_survives_the_disk_with_sizes_and_map(result, tmp_path, name):
    image, overlay = result
    path = tmp_path / name
    assert write_layers(str(path), tuples(image)) == [str(path)]
    again = ViewerModel()
    for data, kwargs, kind in read(str(path)):
        getattr(again, f"add_{kind}")(data, **kwargs)
    back, sure, cells = again.layers
    np.testing.assert_array_equal(np.asarray(back.data), image.data)
    assert back.data.dtype == image.data.dtype
    assert tuple(back.scale) == (2, 0.5, 0.5)
    assert [str(unit) for unit in back.units] == ["micrometer"] * 3
    np.testing.assert_array_equal(cells.data, overlay.data)
    np.testing.assert_allclose(cells.scale, overlay.scale)
    np.testing.assert_allclose(cells.translate, overlay.translate)
    assert cells.features["blur"].tolist() == overlay.features["blur"].tolist()
    np.testing.assert_array_equal(sure.data, image.metadata["demoe"]["confidence"])
    np.testing.assert_allclose(sure.translate, overlay.translate)
    assert (sure.contrast_limits, sure.visible) == ([0, 1], False)


def test_provenance_is_saved_beside_the_pixels(result, tmp_path):
    image, _ = result
    write_layers(str(tmp_path / "out.ome.tif"), tuples(image))
    record = json.loads((tmp_path / "out.demoe.json").read_text())
    assert record == json.loads(json.dumps(image.metadata["demoe"]["provenance"]))


def test_a_corrected_map_is_saved_with_its_image(result, session, tmp_path):
    image, overlay = result
    other = ViewerModel().add_image(image.data, name="other")
    with pytest.raises(demoe.OutputError, match="'other' is no map"):
        write_layers(str(tmp_path / "two.ome.zarr"), tuples(image, other))
    overlay.data = np.full_like(overlay.data, 4)
    path = tmp_path / "out.ome.zarr"
    write_layers(
        str(path), tuples(overlay, session.confidence, image)
    )  # whatever the order in the layer list
    (_, _, (cells, _, kind)) = read(str(path))
    assert kind == "labels"
    assert np.unique(cells).tolist() == [4]


def test_labels_of_something_else_are_refused(result, tmp_path):
    image, _ = result
    viewer = ViewerModel()
    cells = viewer.add_labels(np.zeros((2, 70, 100), np.uint8), name="nuclei")
    with pytest.raises(demoe.OutputError, match="nuclei"):
        write_layers(str(tmp_path / "out.ome.zarr"), tuples(image, cells))
    assert list(tmp_path.iterdir()) == []


def test_a_plain_image_is_saved_without_a_map(tmp_path):
    layer = ViewerModel().add_image(np.zeros((20, 30, 3), np.uint8), rgb=True, name="photo")
    path = tmp_path / "photo.png"
    assert write_layers(str(path), tuples(layer)) == [str(path)]
    assert [file.name for file in tmp_path.iterdir()] == ["photo.png"]
    assert len(read(str(path))) == 1


def test_a_file_is_replaced_but_never_a_folder(tmp_path):
    layer = ViewerModel().add_image(np.zeros((20, 30), np.uint8))
    write_layers(str(tmp_path / "a.tif"), tuples(layer))
    layer.data = np.ones((20, 30), np.uint8)
    write_layers(str(tmp_path / "a.tif"), tuples(layer))
    assert tifffile.imread(tmp_path / "a.tif").min() == 1
    write_layers(str(tmp_path / "a.ome.zarr"), tuples(layer))
    with pytest.raises(demoe.OutputError, match=r"a\.ome\.zarr"):
        write_layers(str(tmp_path / "a.ome.zarr"), tuples(layer))


def test_reading_is_lazy(tmp_path):
    path = tmp_path / "big.tif"
    tifffile.imwrite(path, shape=(40, 2000, 2000), dtype=np.uint8, tile=(256, 256), metadata=None)
    ((data, kwargs, kind),) = read(str(path))
    assert kind == "image"
    assert data.shape == (40, 2000, 2000)
    assert not isinstance(data, np.ndarray)
    assert kwargs["contrast_limits"] == (0, 255)


@pytest.mark.parametrize(("shape", "axes"), [((30, 5000), "YX"), ((2, 30, 5000, 3), "ZYXS")])
def test_a_large_image_is_shown_from_its_pyramid(tmp_path, shape, axes):
    pixels = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    path = tmp_path / "wide.ome.zarr"
    write_image(path, demoe.LazyImage.from_array(pixels, axes, scale={"X": 0.5}))
    ((levels, kwargs, _),) = read(str(path))
    layer = ViewerModel().add_image(levels, **kwargs)
    assert layer.multiscale
    assert len(levels) == 5
    assert layer.scale[-1] == 0.5
    assert layer.rgb == ("S" in axes)
    lazy = to_lazy(*layer.as_layer_data_tuple()[:2])
    assert lazy.axes == axes
    np.testing.assert_array_equal(lazy.data.compute(), pixels)
    coarse = np.asarray(levels[1]).astype(float)
    assert abs(coarse.mean() - pixels.mean()) < 2


def test_a_huge_plane_without_a_pyramid_is_shown_in_parts(tmp_path):
    """All of it would be 80 GB."""
    path = tmp_path / "huge.zarr"
    array = zarr.create_array(path, shape=(200_000,) * 2, chunks=(1024,) * 2, dtype=np.uint16)
    array[100_000:101_000, 100_000:101_000] = 77
    ((levels, kwargs, _),) = read(str(path))
    layer = ViewerModel().add_image(levels, **kwargs)
    assert layer.multiscale
    assert layer.data_level == len(levels) - 1
    assert max(levels[-1].shape) <= 512
    part = np.asarray(levels[1][50_000:50_300, 50_000:50_300])
    assert (part == 77).all()
    assert levels[1].shape == (100_000, 100_000)


def test_the_reader_takes_single_images_only(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8))
    assert get_reader(str(path)) is read
    assert get_reader([str(path), str(path)]) is None
    assert get_reader(str(tmp_path / "notes.txt")) is None
    assert get_reader(str(tmp_path / "empty")) is None


def test_the_manifest_claims_no_more_than_is_ours(manifest):
    patterns = manifest.contributions.readers[0].filename_patterns
    assert set(patterns) == {"*.ome.tif", "*.ome.tiff", "*.ome.zarr"}
    assert not any(Path("photo" + suffix).match(p) for suffix in (".tif", ".png") for p in patterns)


def test_every_sample_is_in_the_menu_and_opens(manifest):
    entries = {entry.key: entry.display_name for entry in manifest.contributions.sample_data}
    assert entries == sample_titles()
    for name in sample_names():
        viewer = ViewerModel()
        for data, kwargs, kind in getattr(_sample_data, name)():
            assert kind == "image"
            viewer.add_image(data, **kwargs)
        *sharp, blurred = viewer.layers
        assert blurred.name == name
        assert blurred.visible
        assert not any(layer.visible for layer in sharp)
        assert all(layer.data.shape == blurred.data.shape for layer in sharp)


def test_every_command_of_the_manifest_exists(manifest):
    for command in manifest.contributions.commands:
        module, _, attribute = command.python_name.partition(":")
        if module != "napari_demoe._widget":  # needs Qt: see tests/gui
            assert callable(getattr(import_module(module), attribute))
