"""A network with other choices than DeMoE's in the session behind the widget."""

from __future__ import annotations

import numpy as np
import pytest
from small_mimdit import small_weights as mimdit_weights
from small_moceir import COSTS, small_weights
from told import CHOICES, a_picture, bring_reader, told_weights
from toy import THREE, settled

import demoe
from demoe.choices import BLURS, names_of
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


def test_a_network_that_takes_words_takes_sentences_as_choices(session, viewer, worker, tmp_path):
    session.choose_network(str(told_weights(tmp_path / "told.safetensors")))
    assert session.takes_words
    assert session.understand(" ") is None
    assert "sentence of 1 to 1000 characters" in session.said
    assert session.understand("remove the fog") == "remove the fog"
    assert session.understand("rain") == "rain"
    assert [expert.name for expert in session.experts] == [*names_of(CHOICES), "remove the fog"]
    assert "instructions=('remove the fog',)" in script_of(session, viewer)
    session.choose_network("default")
    assert not session.takes_words
    assert session.choices.recipe().instructions == ()
    assert session.experts == BLURS


def test_a_sentence_is_followed_and_painted(session, viewer, worker, tmp_path, monkeypatch):
    bring_reader(monkeypatch)
    session.choose_network(str(told_weights(tmp_path / "told.safetensors")))
    viewer.add_image((a_picture(128, 192) * 255).astype(np.uint8), name="fog")
    session.choices.routing = session.understand("remove the fog")
    session.start()
    worker.finish()
    assert session.error == ""
    assert session.shares == [0, 0, 0, 0, 1]
    assert session.describe_cell((10.0, 10.0)).startswith("remove the fog ")
    assert session.understand("brighten it") == "brighten it"
    assert len(session.experts) == 5


def script_of(session, viewer) -> str:
    viewer.add_image(np.zeros((64, 64), np.uint8))
    return session.script()


def test_the_brush_stays_within_what_is_offered(toy, viewer):
    viewer.add_shapes([[[0, 0], [8, 8]]], shape_type="rectangle")
    toy.choose_brush(3)
    assert toy.brush == 3
    assert list(toy.painted.current_properties["task"]) == ["snow"]


def test_what_experts_cost_is_a_map_of_the_result(session, viewer, worker, tmp_path):
    session.choose_network(str(small_weights(tmp_path / "small.safetensors")))
    assert [choice.words for choice in session.experts] == [
        "expert 1, cheapest",
        "expert 2, costliest",
    ]
    shade = np.linspace(0, 1, 384, dtype=np.float32) ** 2
    noise = 0.5 + np.random.default_rng(0).random((96, 384), np.float32)
    viewer.add_image(shade * noise, name="shade", units=("um", "um"))
    session.choices.routing = "local"
    session.start()
    worker.finish()
    assert session.error == ""
    complexity = session.complexity
    assert complexity in viewer.layers
    assert complexity.data.shape == session.overlay.data.shape
    assert 0 < complexity.data.min() < complexity.data.max() <= 1
    target = tmp_path / "saved.ome.zarr"
    layers = [session.result, complexity, session.confidence, session.overlay]
    (written,) = write_layers(str(target), [layer.as_layer_data_tuple() for layer in layers])
    again = demoe.open_image(f"{written}/demoe/complexity")
    np.testing.assert_allclose(np.asarray(again.data), complexity.data)
    kinds = {attributes["name"]: values for values, attributes, _ in read(written)}
    shown = next(values for name, values in kinds.items() if name.endswith("complexity"))
    np.testing.assert_allclose(shown, complexity.data)
    other = 3 - int(session.overlay.data[0, 0])
    session.overlay.paint((0, 0), other)
    session.correct()
    worker.finish()
    assert session.error == ""
    assert session.complexity is complexity
    assert complexity.data[0, 0] == pytest.approx(np.mean([row[other - 1] for row in COSTS]))


def test_kinds_of_processing_are_offered_shown_and_painted(session, viewer, worker, tmp_path):
    session.choose_network(str(mimdit_weights(tmp_path / "small.safetensors")))
    assert [choice.words for choice in session.experts] == [
        "attention between places",
        "attention between channels",
        "attention in shifted windows",
        "squeeze and excitation",
    ]
    shade = np.linspace(0, 1, 192, dtype=np.float32)
    noise = 0.5 + np.random.default_rng(0).random((96, 192), np.float32)
    viewer.add_image(shade * noise, name="shade", units=("um", "um"))
    session.choices.routing = "local"
    session.start()
    worker.finish()
    assert session.error == ""
    assert sum(session.shares) == pytest.approx(1)
    assert list(session.overlay.features["blur"])[1:] == [one.words for one in session.experts]
    assert session.complexity is None  # all of them work everywhere
    before = session.result.data.copy()
    other = 5 - int(session.overlay.data[0, 0])
    session.overlay.paint((0, 0), other)
    session.correct()
    worker.finish()
    assert session.error == ""
    assert session.describe_cell((1.0, 1.0)).startswith(session.experts[other - 1].words)
    assert np.abs(session.result.data[:32, :32] - before[:32, :32]).max() > 1e-4
