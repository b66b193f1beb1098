"""A network with other choices than DeMoE's in the session behind the widget."""

from __future__ import annotations

import numpy as np
import pytest
from toy import THREE, settled

import demoe
from demoe.choices import BLURS
from demoe.io.record import choices_of
from napari_demoe._reader import read
from napari_demoe._writer import write_layers


@pytest.fixture
def toy(monkeypatch, tmp_path, session):
    path = settled(monkeypatch, tmp_path / "toy.safetensors")
    session.brush = 5
    session.choose_network(str(path))
    return session


@pytest.fixture
def ran(toy, viewer, worker):
    shade = np.tile(np.linspace(0, 255, 384).astype(np.uint8), (384, 1))
    viewer.add_image(shade, name="shade", units=("um", "um"))
    toy.choices.routing = "local"
    toy.start()
    worker.finish()
    assert toy.error == ""
    return toy


def test_the_session_offers_what_the_network_has(toy):
    assert toy.experts == THREE
    assert toy.brush == 3
    assert toy.understand("the picture is out of focus") is None
    assert "has no expert for it" in toy.said
    toy.choose_network("default")
    assert toy.experts == BLURS
    assert toy.understand("the picture is out of focus") == "defocus"


def test_a_run_is_shown_in_its_words_and_colours(ran, viewer):
    assert len(ran.shares) == 4
    assert sum(ran.shares) == pytest.approx(1)
    assert list(ran.overlay.features["blur"]) == ["not decided", "haze", "rain", "snow"]
    assert ran.describe_cell((10.0, 10.0)).startswith("haze ")
    assert ran.describe_cell((10.0, 380.0)).startswith("snow ")
    colour = ran.overlay.colormap.map(np.array([2]))[0][:3]
    np.testing.assert_allclose(colour, np.array(THREE[1].colour) / 255, atol=1e-6)


def test_corrections_and_files_keep_its_choices(ran, worker, tmp_path):
    ran.choose_brush(2)
    ran.overlay.paint((0, 0), 2)
    ran.correct()
    worker.finish()
    assert ran.error == ""
    assert ran.result.metadata["demoe"]["expert_map"][0, 0] == 2
    path = str(tmp_path / "out.ome.zarr")
    write_layers(path, [ran.result.as_layer_data_tuple()])
    assert choices_of(tmp_path / "out.ome.zarr") == THREE
    *_, (_, kwargs, kind) = read(path)
    assert kind == "labels"
    assert list(kwargs["features"]["blur"])[1:] == ["haze", "rain", "snow"]
    assert demoe.open_image(path).dtype == np.uint8


def test_the_brush_stays_within_what_is_offered(toy, viewer):
    viewer.add_shapes([[[0, 0], [8, 8]]], shape_type="rectangle")
    toy.choose_brush(3)
    assert toy.brush == 3
    assert list(toy.painted.current_properties["task"]) == ["snow"]
