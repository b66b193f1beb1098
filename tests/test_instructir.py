"""InstructIR: agreement with the published network, tiles, places, words, and what is refused."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from safetensors.torch import load_file
from told import (
    CHOICES,
    CONFIG,
    HIDDEN,
    LAYERS,
    WORDS,
    a_picture,
    bring_reader,
    random_encoder,
    told_network,
    told_weights,
    word_pieces,
)
from torch import Tensor, nn
from torch.nn import functional as F

import demoe
from demoe.choices import INSTRUCTIONS, MOST, names_of, to_record
from demoe.cli import main
from demoe.errors import RecipeError, WeightsError
from demoe.io.record import choices_of as choices_in_file
from demoe.model import load_model, zoo
from demoe.model.architectures import build, choices_in
from demoe.model.checkpoint import read_state_dict, write_weights
from demoe.model.instructir.config import PUBLISHED, STORED, NetworkConfig, detect_config
from demoe.model.instructir.encoder import SentenceEncoder, read_encoder
from demoe.model.instructir.head import build_head
from demoe.model.instructir.network import InstructIRNet
from demoe.model.instructir.receptive_field import exact_halo, flops_per_pixel, reach
from demoe.model.instructir.tenant import DIRECTIONS, InstructIR, plain
from demoe.model.loading import Model
from demoe.recipe import Recipe

DATA = Path(__file__).parent / "data"
TINY = {"tile": 64, "halo": 32, "pitch": 16, "window": 32}


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(DATA / "instructir_w8.safetensors")


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(DATA / "instructir_w8.safetensors", "cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return told_weights(tmp_path_factory.mktemp("told") / "told.safetensors")


@pytest.fixture(scope="module")
def tenant() -> InstructIR:
    return plain(told_network())


@pytest.fixture(scope="module")
def head() -> nn.Module:
    path = DATA / "lm_instructir-7d.safetensors"
    return build_head(read_state_dict(path)[0], str(path))


def picture(height: int, width: int) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def alone(position: int, count: int = len(CHOICES)) -> Tensor:
    return torch.eye(count)[position : position + 1]


# -- the published network ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "told", "wanted"), [("a", "a", "a"), ("a", "a_other", "a_other"), ("b", "b", "b")]
)
def test_results_are_the_published_ones(model, golden, shown, told, wanted) -> None:
    with torch.inference_mode():
        restored = model.network(golden[f"input.{shown}"], golden[f"text_embedding.{told}"])
    torch.testing.assert_close(restored, golden[f"output.{wanted}"], atol=1e-5, rtol=0)


def test_the_golden_instructions_matter(golden) -> None:
    assert (golden["output.a"] - golden["output.a_other"]).abs().max() > 1e-2


def test_one_instruction_serves_a_batch(model, golden) -> None:
    x, told = golden["input.a"], golden["text_embedding.a"][:1]
    with torch.inference_mode():
        together = model.network(x, told)
        torch.testing.assert_close(together, model.network(x, told.expand(2, -1)))


def test_embeddings_of_another_length_are_refused(model, golden) -> None:
    with pytest.raises(RecipeError, match=r"shape \(2, 24\), one for each picture, not \(2, 23\)"):
        model.network(golden["input.a"], golden["text_embedding.a"][:, 1:])


def test_the_text_head_gives_the_published_numbers() -> None:
    stored = load_file(DATA / "instructir_lm_head.safetensors")
    model = load_model(DATA / "instructir_lm_head.safetensors", "cpu")
    embedding, logits = model.network_text(stored["input"])
    torch.testing.assert_close(embedding, stored["output.embedding"], atol=1e-5, rtol=0)
    torch.testing.assert_close(logits, stored["output.logits"], atol=1e-5, rtol=0)
    assert model.network is model.network_text
    with pytest.raises(RecipeError, match="knows no instruction by name"):
        demoe.deblur(a_picture(64, 64), model=model)
    with pytest.raises(WeightsError, match="text head of an InstructIR network alone"):
        model.tenant.restore(picture(16, 16), torch.ones(1, 1))


def test_the_released_architecture_has_the_published_tensors() -> None:
    lines = (DATA / "instructir_7d_keys.txt").read_text().splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    wanted = {key: ast.literal_eval(shape) for key, shape, _ in rows}
    with torch.device("meta"):
        network = InstructIRNet(PUBLISHED)
    found = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert found == wanted
    assert sum(map(math.prod, found.values())) == 15_843_363
    assert detect_config(found) == PUBLISHED
    assert (reach(PUBLISHED), exact_halo(PUBLISHED)) == (214, 224)
    assert flops_per_pixel(PUBLISHED) * 256**2 / 2 == pytest.approx(16.16e9, rel=1e-3)


def test_the_released_file_knows_seven_instructions(tmp_path) -> None:
    with torch.device("meta"):
        shapes = InstructIRNet(PUBLISHED).state_dict()
    path = tmp_path / "im_instructir-7d.pt"
    torch.save({key: torch.zeros(value.shape) for key, value in shapes.items()}, path)
    architecture, network = build(*read_state_dict(path))
    assert architecture.name == "instructir"
    assert network.choices == INSTRUCTIONS == zoo.choices_of("instructir")
    torch.testing.assert_close(network.stored, load_file(DIRECTIONS)[STORED])


def test_the_seven_are_what_the_released_head_tells_apart(head) -> None:
    stored = load_file(DIRECTIONS)[STORED]
    torch.testing.assert_close(stored, head.directions(), atol=1e-6, rtol=0)
    logits = head.fc2(stored)
    assert (logits.argmax(dim=1) == torch.arange(len(INSTRUCTIONS))).all()
    assert (torch.softmax(logits, dim=1).diagonal() > 0.999).all()


def test_the_released_head_keeps_little_else_of_a_sentence(head) -> None:
    """So that a class is nearly one embedding, and its direction stands for its sentences."""
    directions, strengths, _ = torch.linalg.svd(head.fc1.weight)
    assert strengths[6] > 2 * strengths[7]
    inside = head.directions() @ directions[:, :7]
    assert (inside.square().sum(dim=1) > 0.9).all()


# -- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        NetworkConfig(4, (1,), 0, (2,), text=3, instructions=3),
        NetworkConfig(6, (0, 1, 2), 2, (1, 0, 1), text=5, instructions=3),
    ],
)
def test_an_architecture_is_read_off_its_tensors(config) -> None:
    network = told_network(config)
    tensors = network.state_dict()
    assert detect_config({key: tuple(value.shape) for key, value in tensors.items()}) == config
    again = build(tensors, {"choices": json.dumps(to_record(CHOICES))})[1]
    x, told = picture(21, 30), network.stored[:1]
    torch.testing.assert_close(again(x, told), network(x, told), rtol=0, atol=0)


def test_a_file_says_its_instructions_without_torch(weights) -> None:
    assert choices_in(weights) == CHOICES == load_model(weights).choices


def test_without_stored_instructions_only_words_are_left(model) -> None:
    assert model.choices == ()
    with pytest.raises(RecipeError, match="knows no instruction by name; give one in words"):
        demoe.deblur(a_picture(64, 64), model=model)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t.pop("ending.weight"), "ending.weight is missing"),
        (lambda t: t.pop("decoders.0.0.beta"), "missing: decoders.0.0.beta"),
        (lambda t: t.update(more=torch.zeros(1)), "unexpected: more"),
        (lambda t: t.update({"enc_cond.0.fc.weight": torch.zeros(4)}), "axis 1"),
        (lambda t: t.update({"enc_cond.1.fc.weight": torch.zeros(8, 7)}), "misshapen"),
        (lambda t: t.update({STORED: torch.zeros(2, 6)}), "name 3 instructions, but store 2"),
        (lambda t: t.update({"text.fc1.weight": torch.zeros(6)}), "text head in .* is damaged"),
    ],
)
def test_files_that_are_wrong_say_where(change, complaint) -> None:
    tensors = dict(told_network().state_dict())
    change(tensors)
    with pytest.raises(WeightsError, match=complaint):
        build(tensors, {"choices": json.dumps(to_record(CHOICES))})


def test_names_that_are_missing_are_asked_for() -> None:
    with pytest.raises(WeightsError, match="name their instructions wrongly"):
        build(told_network().state_dict(), {})


def test_names_that_are_nested_without_end_are_refused() -> None:
    with pytest.raises(WeightsError, match="nested"):
        build(told_network().state_dict(), {"choices": "[" * 100_000})


# -- places and tiles -----------------------------------------------------------------------------


def test_the_tenant_gives_the_bare_networks_numbers(tenant) -> None:
    x = picture(45, 70)
    for position, told in enumerate(tenant.network.stored):
        wanted = tenant.network(x, told[None])
        torch.testing.assert_close(tenant.restore(x, alone(position)), wanted)
        statistics = tenant.survey(x, alone(position))
        torch.testing.assert_close(tenant.restore(x, alone(position), statistics), wanted)


def test_gates_mix_inside_the_instruction_blocks(tenant) -> None:
    x, network = picture(32, 32), tenant.network
    weights = torch.tensor([[0.25, 0.75, 0.0]])

    def gate(block: nn.Module, _: Tensor) -> Tensor:
        return (weights[0, :2] @ block.gates(network.stored[:2]))[None, :, None, None]

    wanted = network.correction(x, gate) + x
    torch.testing.assert_close(tenant.restore(x, weights), wanted)
    mean = 0.25 * tenant.restore(x, alone(0)) + 0.75 * tenant.restore(x, alone(1))
    assert (wanted - mean).abs().max() > 1e-3  # results are not what is mixed


def test_half_a_plane_each_is_either_instruction_far_from_the_border(tenant) -> None:
    x, side = picture(96, 160), 160 // tenant.multiple
    statistics = tenant.survey(x, alone(0), every=True)
    weights = torch.zeros(1, 3, 96 // tenant.multiple, side)
    weights[:, 0, :, : side // 2] = 1
    weights[:, 2, :, side // 2 :] = 1
    both = tenant.restore(x, weights, statistics)
    away = tenant.halo + tenant.multiple
    for position, part in ((0, slice(0, 80 - away)), (2, slice(80 + away, None))):
        one = tenant.restore(x, alone(position), statistics)
        torch.testing.assert_close(both[..., part], one[..., part], atol=1e-5, rtol=0)
    assert (both - tenant.restore(x, alone(0), statistics)).abs().max() > 0.05


def test_statistics_are_those_of_each_instruction(tenant) -> None:
    x = picture(40, 40)
    every = tenant.survey(x, alone(1), every=True)
    for position in range(len(CHOICES)):
        own = tenant.survey(x, alone(position))
        assert {key.split(".")[0] for key in own} == {str(position)}
        assert all(torch.equal(every[key], value) for key, value in own.items())
    assert len(every) == 3 * len(tenant.survey(x, alone(0)))


def test_each_instruction_restores_as_by_itself(tenant) -> None:
    x = picture(33, 40)
    restored, statistics = tenant.restore_each(x)
    again, same = tenant.restore_each(x, statistics)
    for position in range(len(CHOICES)):
        torch.testing.assert_close(restored[position], tenant.restore(x, alone(position)))
    torch.testing.assert_close(again, restored)
    assert list(same) == list(statistics)


@pytest.mark.parametrize("config", [CONFIG, NetworkConfig(4, (2, 1), 2, (1, 2), 6, 3)])
def test_the_exact_halo_is_exact_and_no_larger(config) -> None:
    network = told_network(config).double()
    tenant = InstructIR(network, CHOICES, network.stored)
    halo, grid = tenant.halo, tenant.multiple
    x = picture(8 * grid, 6 * halo + 8 * grid).double()
    statistics = tenant.survey(x, alone(0))
    whole = tenant.restore(x, alone(0), statistics)
    core = slice(3 * halo, 3 * halo + 4 * grid)

    def error(around: int) -> float:
        read = x[..., core.start - around : core.stop + around]
        part = tenant.restore(read, alone(0), statistics)[..., around : around + 4 * grid]
        return float((part - whole[..., core]).abs().max())

    assert error(halo) < 1e-14
    assert error(halo - 2 * grid) > 1e-14


def test_tiles_equal_the_whole(weights) -> None:
    image = a_picture(200, 264)
    painted = np.zeros((13, 17), np.uint8)
    painted[3:9, 4:12] = 2
    painted[9:, 10:] = 3
    fields = {"model": weights, "routing": "noise", "expert_map": painted, "intensity": "full"}
    fields |= {"pitch": 16, "window": 32}
    tiled = demoe.deblur(image, tile=64, halo="auto", **fields).image.compute()
    whole = demoe.deblur(image, tile=512, **fields).image.compute()
    np.testing.assert_allclose(tiled, whole, atol=1e-4)
    bare = demoe.deblur(image, tile=512, **{**fields, "expert_map": None}).image.compute()
    assert np.abs(whole - bare).max() > 0.05


def test_painting_changes_nothing_where_it_is_not(weights) -> None:
    image = a_picture(256, 256)
    fields = {"model": weights, "routing": "noise", "intensity": "full", **TINY}
    bare = demoe.deblur(image, **fields)
    painted = np.zeros((16, 16), np.uint8)
    painted[:4, :4] = 3
    after = bare.corrected(painted)
    assert after.changed_from(bare) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    np.testing.assert_array_equal(after.image[128:].compute(), bare.image[128:].compute())
    only = demoe.deblur(image, **{**fields, "routing": "rain"}).image.compute()
    np.testing.assert_allclose(after.image.compute()[:24, :24], only[:24, :24], atol=1e-5)


def test_only_painted_instructions_are_surveyed(weights, monkeypatch) -> None:
    asked: list[list[int]] = []
    survey = InstructIR.survey

    def noting(self: InstructIR, samples: Tensor, given: Tensor, **how: object) -> object:
        asked.append(given.amax(dim=0).flatten().nonzero()[:, 0].tolist())
        return survey(self, samples, given, **how)

    monkeypatch.setattr(InstructIR, "survey", noting)
    painted = np.zeros((12, 16), np.uint8)
    painted[:4, :4] = 3
    out = demoe.deblur(
        a_picture(192, 256), model=weights, routing="noise", expert_map=painted, **TINY
    )
    out.image.compute(scheduler="synchronous")
    assert sorted(asked) == [[0], [2]]


# -- through every corner -------------------------------------------------------------------------


def test_a_person_must_choose(weights) -> None:
    with pytest.raises(RecipeError, match=r"not decide by itself; .* choices: noise, haze, rain"):
        demoe.deblur(a_picture(64, 64), model=weights)
    out = demoe.deblur(a_picture(64, 64), model=weights, routing="haze")
    assert (out.expert_map.compute() == 2).all()
    assert out.provenance["weights"]["architecture"] == "instructir"
    loaded = load_model(weights)
    with pytest.raises(RecipeError, match="does not decide by itself"):
        loaded.tenant.decide(picture(16, 16))


@pytest.mark.parametrize("suffix", [".ome.zarr", ".ome.tif"])
def test_files_say_what_their_maps_mean(weights, tmp_path, suffix) -> None:
    source, target = tmp_path / "in.tif", tmp_path / f"out{suffix}"
    tifffile.imwrite(source, (a_picture(128, 192) * 255).astype(np.uint8))
    painted = np.zeros((8, 12), np.uint8)
    painted[:, 6:] = 3
    fields = {"model": str(weights), "routing": "noise", **TINY}
    report = demoe.run(source, target, expert_map=painted, **fields)
    assert report.shares == pytest.approx({"noise": 0.5, "haze": 0, "rain": 0.5})
    assert choices_in_file(target) == CHOICES
    after = demoe.deblur(source, expert_map=painted, **fields)
    np.testing.assert_array_equal(np.asarray(demoe.open_image(target).data), after.image.compute())


def test_a_finished_output_is_corrected(weights, tmp_path) -> None:
    source, target, after = (tmp_path / name for name in ("in.tif", "a.ome.zarr", "b.ome.zarr"))
    tifffile.imwrite(source, (a_picture(192, 256) * 65535).astype(np.uint16))
    fields = {"model": str(weights), "routing": "haze", **TINY}
    demoe.run(source, target, **fields)
    painted = np.zeros((12, 16), np.uint8)
    painted[0, 0] = 1
    report = demoe.run(source, after, earlier=target, expert_map=painted)
    assert report.computed < report.tiles
    full = demoe.deblur(source, expert_map=painted, **fields)
    np.testing.assert_array_equal(np.asarray(demoe.open_image(after).data), full.image.compute())


def test_the_command_line_takes_names(weights, tmp_path, capsys) -> None:
    source = tmp_path / "in.tif"
    tifffile.imwrite(source, (a_picture(96, 96) * 255).astype(np.uint8))
    command = ["run", str(source), str(tmp_path / "out.tif"), "--model", str(weights), "--quiet"]
    assert main([*command, "--routing", "rain", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shares"] == {"noise": 0, "haze": 0, "rain": 1}
    assert main([*command, "--overwrite"]) == 2
    assert "does not decide by itself" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--routing", "fog"]) == 2
    assert "its choices are noise, haze, rain" in capsys.readouterr().err
    assert main(["info", str(source), "--model", str(weights), "--json"]) == 2
    assert "does not decide by itself" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["evaluate", "--mixed", "--model"], "--mixed and --reference are for networks for blur"),
        (["bench", "--model"], "`demoe bench` measures networks that decide"),
    ],
)
def test_commands_for_networks_that_decide_say_so(
    weights, tmp_path, monkeypatch, capsys, command, complaint
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command, str(weights)]) == 2
    assert complaint in capsys.readouterr().err


def test_the_demo_follows_an_instruction(weights, tmp_path, capsys) -> None:
    command = ["demo", "--out", str(tmp_path / "demo"), "--model", str(weights), "--quiet"]
    assert main([*command, "--routing", "haze"]) == 0
    assert "haze 100%" in capsys.readouterr().out
    assert (tmp_path / "demo" / "demo.png").is_file()


def test_each_tile_may_pool_by_itself(weights) -> None:
    image = a_picture(128, 192)
    fields = {"model": weights, "routing": "noise", "intensity": "full", **TINY}
    plane = demoe.deblur(image, **fields).image.compute()
    by_tile = demoe.deblur(image, pooling="tile", **fields).image.compute()
    assert 0 < np.abs(plane - by_tile).max() < 0.5


# -- words ----------------------------------------------------------------------------------------


@pytest.fixture
def reader(monkeypatch) -> nn.Module:
    return bring_reader(monkeypatch)


def test_the_encoder_is_a_bert() -> None:
    tensors = random_encoder()
    tokens = torch.tensor([1, 3, 4, 5, 2])
    found = SentenceEncoder(tensors, word_pieces()).hidden(tokens)
    x = tensors["embeddings.word_embeddings.weight"][tokens]
    x = x + tensors["embeddings.position_embeddings.weight"][:5]
    x = x + tensors["embeddings.token_type_embeddings.weight"][0]
    names = {
        "self_attn.out_proj": "attention.output.dense",
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm1": "attention.output.LayerNorm",
        "norm2": "output.LayerNorm",
    }
    norm = [tensors[f"embeddings.LayerNorm.{part}"] for part in ("weight", "bias")]
    x = F.layer_norm(x, (HIDDEN,), *norm, 1e-12)[None]
    for number in range(LAYERS):
        layer = nn.TransformerEncoderLayer(
            HIDDEN, 12, 2 * HIDDEN, 0.0, F.gelu, 1e-12, batch_first=True
        ).eval()
        state = {}
        for part in ("weight", "bias"):
            own = {
                name: tensors[f"encoder.layer.{number}.{theirs}.{part}"]
                for name, theirs in names.items()
            }
            state |= {f"{name}.{part}": value for name, value in own.items()}
            state[f"self_attn.in_proj_{part}"] = torch.cat(
                [
                    tensors[f"encoder.layer.{number}.attention.self.{which}.{part}"]
                    for which in ("query", "key", "value")
                ]
            )
        layer.load_state_dict(state)
        x = layer(x)
    torch.testing.assert_close(found, x[0].detach(), atol=1e-5, rtol=0)


def test_a_sentence_is_the_mean_of_its_tokens() -> None:
    encoder = SentenceEncoder(random_encoder(), word_pieces())
    one, other = encoder(["Remove the fog.", "brighten it"])
    pieces = ("[CLS]", "remove", "the", "fog", ".", "[SEP]")
    tokens = torch.tensor([WORDS.index(piece) for piece in pieces])
    torch.testing.assert_close(one, F.normalize(encoder.hidden(tokens).mean(dim=0), dim=0))
    torch.testing.assert_close(encoder(["brighten it"])[0], other)
    assert encoder(["fog " * 50]).isfinite().all()  # cut at the longest that it can read


def test_sentences_become_choices(weights, reader) -> None:
    sentences = ("remove the fog", "brighten it")
    model = load_model(weights, "cpu", sentences)
    assert model is load_model(weights, "cpu", sentences)
    assert names_of(model.choices) == ("noise", "haze", "rain", *sentences)
    assert len({choice.colour for choice in model.choices}) == 5
    encoder = SentenceEncoder(random_encoder(), word_pieces())
    embedding, _ = reader(encoder(sentences))
    x = picture(40, 40)
    restored = model.tenant.restore(x, alone(4, 5))
    torch.testing.assert_close(restored, model.network(x, embedding[1:]))
    assert len(load_model(weights, "cpu").choices) == 3
    assert model.network_text(encoder(sentences))[0].shape == (2, 6)


def test_a_sentence_is_followed_everywhere_or_where_it_is_painted(weights, reader) -> None:
    image = a_picture(128, 192)
    fields = {"model": weights, "intensity": "full", **TINY}
    told = demoe.deblur(image, instructions="remove the fog", **fields)
    assert told.recipe.instructions == ("remove the fog",)
    assert (told.expert_map.compute() == 4).all()
    named = demoe.deblur(image, routing="noise", **fields)
    assert np.abs(told.image.compute() - named.image.compute()).max() > 0.01
    painted = np.full((8, 12), 4)
    both = {"routing": "noise", "instructions": ("remove the fog", "brighten it")}
    by_hand = demoe.deblur(image, expert_map=painted, **both, **fields)
    np.testing.assert_array_equal(by_hand.image.compute(), told.image.compute())
    by_name = demoe.deblur(image, **{**both, "routing": "brighten it"}, **fields)
    assert (by_name.expert_map.compute() == 5).all()
    model = load_model(weights, "cpu").told(["remove the fog"])
    same = demoe.deblur(image, model=model, **{k: v for k, v in fields.items() if k != "model"})
    np.testing.assert_array_equal(same.image.compute(), told.image.compute())


def test_the_command_line_takes_words(weights, reader, tmp_path, capsys) -> None:
    source, target = tmp_path / "in.tif", tmp_path / "out.ome.zarr"
    tifffile.imwrite(source, (a_picture(96, 96) * 255).astype(np.uint8))
    command = ["run", str(source), str(target), "--model", str(weights), "--quiet", "--json"]
    assert main([*command, "--instruction", "remove the fog"]) == 0
    shares = json.loads(capsys.readouterr().out)["shares"]
    assert shares == {"noise": 0, "haze": 0, "rain": 0, "remove the fog": 1}
    assert names_of(choices_in_file(target))[3] == "remove the fog"
    again = [*command, "--overwrite", "--instruction", "remove the fog"]
    assert main([*again, "--instruction", "brighten it", "--routing", "brighten it"]) == 0
    assert json.loads(capsys.readouterr().out)["shares"]["brighten it"] == 1
    assert main([*again, "--routing", "rain"]) == 0
    assert main([*again, "--instruction", "haze"]) == 2
    assert "knows already" in capsys.readouterr().err


def test_words_need_a_reader_but_names_do_not(weights) -> None:
    assert demoe.deblur(a_picture(64, 64), model=weights, routing="rain").image.compute().any()
    with pytest.raises(WeightsError, match="get it with `demoe models download instructir`"):
        demoe.deblur(a_picture(64, 64), model=weights, instructions="it is unread")
    with pytest.raises(WeightsError, match=r"lm_instructir-7d\.pt of 'instructir' is not on this"):
        _ = load_model(weights).network_text


def test_a_reader_of_another_length_is_refused(weights, monkeypatch) -> None:
    bring_reader(monkeypatch, text=7)
    with pytest.raises(WeightsError, match="embeddings of 6 numbers, but the released text head"):
        load_model(weights, "cpu", ("it is unread",))


def test_an_encoder_of_another_length_is_refused(weights, monkeypatch, tmp_path) -> None:
    bring_reader(monkeypatch, hidden=36)
    path = tmp_path / "both.safetensors"
    head = {f"text.{key}": value for key, value in bring_head().items()}
    metadata = {"choices": json.dumps(to_record(CHOICES))}
    write_weights(path, told_network().state_dict() | head, metadata)
    with pytest.raises(WeightsError, match="reads 24 features of a sentence, but the encoder give"):
        load_model(path, "cpu", ("brighten it",))


def test_a_head_in_the_same_file_comes_first(reader, tmp_path) -> None:
    head = {f"text.{key}": value for key, value in bring_head().items()}
    path = tmp_path / "both.safetensors"
    metadata = {"choices": json.dumps(to_record(CHOICES))}
    write_weights(path, told_network().state_dict() | head, metadata)
    model = load_model(path, "cpu", ("brighten it",))
    assert model.network_text is model.network.text
    assert torch.equal(model.network_text.fc1.weight, head["text.fc1.weight"])
    assert not torch.equal(model.network_text.fc1.weight, reader.fc1.weight)


def bring_head() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    shapes = {"fc1.weight": (6, HIDDEN), "fc1.bias": (6,), "fc2.weight": (3, 6), "fc2.bias": (3,)}
    return {key: torch.randn(*shape, generator=generator) for key, shape in shapes.items()}


def test_networks_without_words_say_so(shallow) -> None:
    with pytest.raises(RecipeError, match="takes no instructions in words; its choices are defoc"):
        demoe.deblur(a_picture(64, 64), model=shallow, instructions="remove the fog")
    with pytest.raises(WeightsError, match="takes no instructions in words"):
        _ = load_model(shallow).network_text


@pytest.mark.parametrize("which", ["model.safetensors", "tokenizer.json"])
def test_a_damaged_reader_is_no_riddle(tmp_path, which) -> None:
    write_weights(tmp_path / "model.safetensors", random_encoder(), {})
    word_pieces().save(str(tmp_path / "tokenizer.json"))
    assert read_encoder(tmp_path / "model.safetensors", tmp_path / "tokenizer.json")(["it"]).any()
    if which == "tokenizer.json":
        (tmp_path / which).write_text("{}")
    else:
        write_weights(tmp_path / which, {"weight": torch.zeros(2)}, {})
    with pytest.raises(WeightsError, match=which):
        read_encoder(tmp_path / "model.safetensors", tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("", "sentence of 1 to 1000 characters"),
        (("a" * 1001,), "sentence of 1 to 1000 characters"),
        (("auto",), "sentence of 1 to 1000 characters"),
        (("it", " it "), "the same"),
        (3, "must be sentences, not 3"),
        ((None,), "must be sentences"),
    ],
)
def test_instructions_that_are_none_are_refused(given, complaint) -> None:
    with pytest.raises(RecipeError, match=complaint):
        Recipe(instructions=given)


def test_a_recipe_keeps_its_instructions() -> None:
    recipe = Recipe(instructions=[" remove the fog ", "it is too dark"])
    assert recipe.instructions == ("remove the fog", "it is too dark")
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_no_more_sentences_than_numbers(weights, reader) -> None:
    with pytest.raises(RecipeError, match=f"at most {MOST - 3} can be told apart"):
        load_model(weights, "cpu", [f"it {n}" for n in range(MOST)])
