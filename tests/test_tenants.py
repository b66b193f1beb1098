"""A network that is none of DeMoE's family, with other choices, goes through every corner."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from toy import THREE, TWELVE, settled

import demoe
from demoe.choices import names_of
from demoe.cli import main
from demoe.errors import ImageError, RecipeError, WeightsError
from demoe.io.record import choices_of
from demoe.model import zoo

FIELDS = {"tile": 64, "halo": 16, "pitch": 16, "window": 32}


@pytest.fixture(params=[THREE, TWELVE], ids=["three", "twelve"])
def choices(request):
    return request.param


@pytest.fixture
def weights(monkeypatch, tmp_path, choices) -> Path:
    return settled(monkeypatch, tmp_path / "toy.safetensors", choices)


@pytest.fixture
def picture() -> np.ndarray:
    """From dark to bright, so that every choice has its place."""
    shade = np.linspace(0, 65535, 192)
    noise = np.random.default_rng(0).normal(0, 300, (128, 192))
    return np.clip(shade + noise, 0, 65535).astype(np.uint16)


def test_a_lazy_result_has_the_networks_choices(weights, picture, choices):
    assert zoo.choices_of(weights) == choices
    out = demoe.deblur(picture, model=weights, intensity="full", routing="local", **FIELDS)
    assert out.choices == choices == demoe.load_model(weights).choices
    assert out.gates.shape == (len(choices), 8, 12)
    np.testing.assert_allclose(out.gates.compute().sum(axis=0), 1, atol=1e-6)
    experts = out.expert_map.compute()
    assert experts.min() == 1
    assert len(choices) >= experts.max() > 0.7 * len(choices)
    assert (np.diff(experts.astype(int), axis=1) >= 0).all()
    found = out.image.compute()
    assert (found != picture).any()
    whole = demoe.deblur(
        picture, model=weights, intensity="full", routing="local", **{**FIELDS, "tile": 256}
    )
    np.testing.assert_array_equal(found, whole.image.compute())
    assert [one["name"] for one in out.provenance["weights"]["choices"]] == [*names_of(choices)]
    assert out.provenance["weights"]["architecture"] == "toy"


def test_a_choice_is_named_or_painted(weights, picture, choices):
    name = choices[-1].name
    named = demoe.deblur(picture, model=weights, routing=name, **FIELDS)
    assert (named.expert_map.compute() == len(choices)).all()
    painted = np.full((8, 12), len(choices))
    by_hand = demoe.deblur(picture, model=weights, expert_map=painted, **FIELDS)
    np.testing.assert_array_equal(by_hand.image.compute(), named.image.compute())
    corrected = demoe.deblur(picture, model=weights, **FIELDS).corrected(painted)
    np.testing.assert_array_equal(corrected.image.compute(), named.image.compute())
    with pytest.raises(ImageError, match=f"0 to {len(choices)}, but this one goes from"):
        demoe.deblur(picture, model=weights, expert_map=painted + 1)


def test_what_it_does_not_have_is_refused(weights, picture, choices):
    with pytest.raises(RecipeError, match=f"no choice 'defocus'.*{choices[0].name}"):
        demoe.deblur(picture, model=weights, routing="defocus")
    with pytest.raises(RecipeError, match=f"only {len(choices)} choices"):
        demoe.deblur(picture, model=weights, top_k=len(choices) + 1)
    assert demoe.deblur(picture, model=weights, top_k=len(choices)).image.compute().any()


@pytest.mark.parametrize("suffix", [".ome.zarr", ".ome.tif"])
def test_files_say_what_their_maps_mean(weights, picture, choices, tmp_path, suffix):
    target = tmp_path / f"out{suffix}"
    report = demoe.run(picture, target, model=weights, intensity="full", routing="local", **FIELDS)
    assert list(report.shares) == list(names_of(choices))
    assert sum(report.shares.values()) == pytest.approx(1)
    assert choices_of(target) == choices
    if suffix == ".ome.zarr":
        label = zarr.open(target, mode="r")["labels/expert_map"].attrs["ome"]["image-label"]
        assert [one["expert"] for one in label["properties"]] == [*names_of(choices)]
        assert [tuple(one["rgba"][:3]) for one in label["colors"]] == [c.colour for c in choices]


def test_a_finished_output_is_corrected(weights, picture, choices, tmp_path):
    source, target, after = (tmp_path / name for name in ("in.tif", "a.ome.zarr", "b.ome.zarr"))
    tifffile.imwrite(source, picture)
    fields = {"model": str(weights), "routing": choices[0].name, **FIELDS}
    demoe.run(source, target, **fields)
    painted = np.zeros((8, 12), np.uint8)
    painted[0, 0] = len(choices)
    report = demoe.run(source, after, earlier=target, expert_map=painted)
    assert report.computed < report.tiles
    full = demoe.deblur(source, expert_map=painted, **fields)
    np.testing.assert_array_equal(np.asarray(demoe.open_image(after).data), full.image.compute())


def test_the_command_line_knows_its_choices(weights, picture, choices, tmp_path, capsys):
    source = tmp_path / "in.tif"
    tifffile.imwrite(source, picture)
    chosen = choices[1].name
    command = ["run", str(source), str(tmp_path / "out.tif"), "--model", str(weights), "--quiet"]
    assert main([*command, "--routing", chosen, "--json"]) == 0
    shares = json.loads(capsys.readouterr().out)["shares"]
    assert shares == {name: float(name == chosen) for name in names_of(choices)}
    again = [*command, "--overwrite"]
    assert main([*again, "--routing", "low_light"]) == 2
    assert f"its choices are {choices[0].name}" in capsys.readouterr().err
    assert main([*again, "--describe", "the picture is out of focus"]) == 2
    assert "no choice 'defocus'" in capsys.readouterr().err
    assert main(["info", str(source), "--model", str(weights), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["choices"] == list(names_of(choices))
    assert main(["models", "import", str(weights), "mine"]) == 0
    assert zoo.choices_of("mine") == choices


def test_the_demo_shows_its_choices(weights, choices, tmp_path, capsys):
    command = ["demo", "--out", str(tmp_path / "demo"), "--model", str(weights), "--quiet"]
    assert main(command) == 0
    assert any(name in capsys.readouterr().out for name in names_of(choices))
    assert (tmp_path / "demo" / "demo.png").is_file()


def test_weights_that_nobody_knows_name_what_is_known(weights, monkeypatch):
    from demoe.model.architectures import ARCHITECTURES

    monkeypatch.delitem(ARCHITECTURES, "toy")
    weights.touch()  # loaded files are remembered by their time
    with pytest.raises(WeightsError, match=r"of no known architecture \(DeMoE"):
        demoe.load_model(weights)
    assert zoo.choices_of(weights) is None
