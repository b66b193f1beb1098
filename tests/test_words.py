"""Words: sentences become gates, other topics stay unclear, and bad input is a clear error."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_weights

import demoe
from demoe.choices import TASKS
from demoe.cli import main
from demoe.errors import RecipeError
from demoe.recipe import Recipe
from demoe.routing.words.classifier import (
    CLEAR_FROM,
    OUTPUTS,
    SENTENCES,
    UNCLEAR,
    WEIGHTS,
    classifier,
)
from demoe.routing.words.phrases import Lexicon, features, tokens
from demoe.training.words import learning as training
from demoe.training.words.sentences import FOREIGN, Writer, examples, read_examples, read_lines

HELD_OUT = sorted((Path(__file__).parent / "data").glob("words_held_out*.txt"))
TEXT = SENTENCES.read_text(encoding="utf-8")
LINES = read_lines(TEXT)


@pytest.fixture(scope="module", params=HELD_OUT, ids=lambda path: path.stem)
def judged(request):
    return training.measure(read_examples(request.param.read_text(encoding="utf-8")))


def share_right(judged):
    return np.mean([training.is_right(kinds, answer) for kinds, answer, _ in judged])


# -- what it is worth on sentences that it never saw --------------------------------------------


def test_nine_of_ten_unseen_sentences_are_understood(judged):
    assert len(judged) > 100
    assert share_right(judged) >= 0.9, training.report(judged)


@pytest.mark.parametrize("name", OUTPUTS)
def test_no_kind_is_left_behind(judged, name):
    these = [item for item in judged if item[0] == (name,)]
    assert len(these) >= 10
    assert share_right(these) >= 0.8, training.report(judged)


def test_other_topics_are_unclear_instead_of_a_guess(judged):
    others = [item for item in judged if not item[0]]
    assert len(others) >= 40
    assert share_right(others) >= 0.87, training.report(judged)


def test_confidence_is_the_share_of_right_answers(judged):
    english = [item for item in judged if item[0] != FOREIGN and item[1] != "foreign"]
    stated = np.mean([confidence for *_, confidence in english])
    assert abs(stated - share_right(english)) < 0.07
    sure = [item for item in english if item[2] >= 0.95]
    assert len(sure) > len(english) / 3
    assert share_right(sure) >= 0.95
    assert share_right([item for item in english if item[2] < 0.8]) < share_right(sure)


def test_nothing_measured_was_learnt():
    seen = {example.sentence.lower().strip(" .!?") for example in examples(TEXT, LINES)}
    for path in HELD_OUT:
        sentences = read_examples(path.read_text(encoding="utf-8"))
        # Other people also say "camera moved" or "denoise": a few words, no whole phrase.
        learnt = [s for _, s in sentences if s.lower().strip(" .!?") in seen]
        assert len(learnt) <= len(sentences) / 20, learnt


# -- single answers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sentence", "task"),
    [
        ("background out of focus", "defocus"),
        ("BACKGROUND OUT OF FOKUS!!", "defocus"),
        ("camera shake", "global_motion"),
        ("Camera Shake.", "global_motion"),
        ("my sample moved during exposure", "local_motion"),
        ("this was made by averaging frames", "synth_global_motion"),
        ("shaky night shot", "low_light"),
        ("not motion blur but defocus", "defocus"),
        ("it\N{RIGHT SINGLE QUOTATION MARK}s not out of focus, the camera shook", "global_motion"),
    ],
)
def test_the_kind_that_a_sentence_names(sentence, task):
    found = demoe.task_from_text(sentence)
    assert found.task == found.routing == task
    assert np.argmax(found.gates) == TASKS.index(task)
    assert found.confidence > 0.7


@pytest.mark.parametrize(
    "sentence",
    [
        *("make it blue", "segment the nuclei", "what is the weather", "it is blurry", "denoise"),
        *(
            "photobleaching",
            "upscale",
            "crop",
            "more contrast",
            "no camera shake",
            "?!",
            "42",
            "µm",
        ),
    ],
)
def test_an_unclear_sentence_leaves_the_choice_to_the_router(sentence):
    found = demoe.task_from_text(sentence)
    assert found.task == UNCLEAR
    assert found.routing == Recipe().routing == "auto"
    router = np.array([0.5, 0.2, 0.1, 0.15, 0.05])
    both = router * found.gates
    np.testing.assert_allclose(both / both.sum(), router)


@pytest.mark.parametrize(
    ("sentence", "first", "second"),
    [
        ("defocus and camera shake", "defocus", "global_motion"),
        ("the background is out of focus and a dog ran past", "defocus", "local_motion"),
        (
            "the frames were averaged and the lens was out of focus",
            "synth_global_motion",
            "defocus",
        ),
    ],
)
def test_two_kinds_share_the_gates(sentence, first, second):
    found = demoe.task_from_text(sentence)
    gates = dict(zip(TASKS, found.gates, strict=True))
    assert found.task in (first, second)
    assert min(gates[first], gates[second]) > 0.15
    assert gates[first] + gates[second] > 0.9


def test_answers_hold_their_limits_and_stay_the_same():
    for _, sentence in read_examples(HELD_OUT[0].read_text(encoding="utf-8"))[:150:5]:
        found = demoe.task_from_text(sentence)
        assert found == demoe.task_from_text(sentence)
        assert all(type(gate) is float and gate >= 0 for gate in found.gates)
        assert sum(found.gates) == pytest.approx(1)
        assert 0 <= found.confidence <= 1
        assert Recipe(routing=found.routing).routing in ("auto", *TASKS)


# -- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sentence", "says"),
    [
        ("", "is empty"),
        (" \t\n", "is empty"),
        (None, "not a value of type NoneType"),
        (b"camera shake", "not a value of type bytes"),
        (3, "not a value of type int"),
        (["camera shake"], "not a value of type list"),
        ("camera shake " * 100, "has 1300 characters"),
        ("Das Bild ist leider nicht scharf", "not in English"),
        ("la photo est floue parce que j'ai bougé", "not in English"),
        ("la imagen está desenfocada", "not in English"),
        ("背景模糊", "not in English"),
        ("задний план размыт", "not in English"),
        ("写真がぶれている", "not in English"),
    ],
)
def test_bad_input_is_an_error_of_one_sentence(sentence, says):
    with pytest.raises(RecipeError, match=says) as caught:
        demoe.task_from_text(sentence)
    message = str(caught.value)
    assert len(message) < 250
    assert message.endswith(".")
    assert ". " not in message


def test_english_is_not_taken_for_another_language(judged):
    english = [answer for kinds, answer, _ in judged if kinds != FOREIGN]
    assert english.count("foreign") <= len(english) / 100


# -- on the command line ------------------------------------------------------------------------


def test_a_description_routes_a_run(tmp_path, capsys):
    source, output = tmp_path / "in.png", tmp_path / "out.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)).save(source)
    weights = tiny_weights(tmp_path / "tiny.safetensors")
    options = ["--model", str(weights), "--device", "cpu", "--quiet", "--json"]
    assert main(["run", str(source), str(output), "--describe", "my sample moved", *options]) == 0
    captured = capsys.readouterr()
    assert "understood local_motion" in captured.err
    shares = json.loads(captured.out)["shares"]
    assert shares["local_motion"] == 1
    assert output.exists()


@pytest.mark.parametrize(
    ("sentence", "more", "says"),
    [
        ("what is the weather", [], "names no kind of blur clearly"),
        ("", [], "is empty"),
        ("das bild ist nicht scharf", [], "not in English"),
        ("camera shake", ["--routing", "defocus"], "either --describe or --routing"),
    ],
)
def test_a_bad_description_stops_before_anything_runs(tmp_path, capsys, sentence, more, says):
    output = tmp_path / "out.png"
    command = ["run", str(tmp_path / "none.png"), str(output), "--describe", sentence, *more]
    assert main(command) == 2  # a usage error, and not the missing input
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1
    assert not output.exists()
    if "clearly" in says:
        assert all(task in message for task in TASKS)


# -- how it is made -----------------------------------------------------------------------------


def test_no_torch_and_no_dask_are_needed():
    code = "import demoe; demoe.task_from_text('camera shake'); import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "dask", "scipy", "napari"} & set(done.stdout.split())


def test_the_weights_were_learnt_from_the_sentences_beside_them():
    with np.load(WEIGHTS, allow_pickle=False) as stored:
        assert stored["sentences"] == zlib.crc32(TEXT.encode())
        assert stored["weights"].shape == (len(stored["keys"]) + 1, len(OUTPUTS))
    assert WEIGHTS.stat().st_size < 1_000_000


def test_the_command_writes_weights_again(tmp_path, monkeypatch, capsys):
    # One line in forty: the whole file takes a minute.
    few = [line for line in LINES if zlib.crc32(line.pattern.encode()) % 41 == 3]
    assert {kind for line in few for kind in line.kinds} == set(OUTPUTS)
    monkeypatch.setattr(training, "read_lines", lambda text: few)
    monkeypatch.setattr(training, "FOLDS", 2)
    paths = [tmp_path / "one.npz", tmp_path / "two.npz"]
    for path in paths:
        assert training.main(["--out", str(path)]) == 0
    assert f"2-fold cross-validation over {len(few)} lines" in capsys.readouterr().out
    assert paths[0].read_bytes() == paths[1].read_bytes()
    monkeypatch.setattr("demoe.routing.words.classifier.WEIGHTS", paths[0])
    classifier.cache_clear()
    try:
        learnt = [(example.kinds, example.sentence) for example in examples(TEXT, few)]
        assert share_right(training.measure(learnt)) > 0.95
    finally:
        monkeypatch.undo()
        classifier.cache_clear()


def test_the_command_measures_and_complains(tmp_path, capsys):
    path = tmp_path / "some.txt"
    path.write_text("# kind | sentence\ndefocus | out of focus\nunclear | camera shake\n")
    assert training.main(["--measure", str(path)]) == 0
    assert "1 of     2 right" in capsys.readouterr().out
    assert training.main(["--measure", str(tmp_path / "none.txt")]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_the_stored_weights_are_the_best_for_the_sentences():
    """Where the loss is lowest its slope is nought: checked on the constants, over everything."""
    model = classifier()
    made = examples(TEXT, LINES)[::10]
    says = np.array([model.probabilities(example.sentence) for example in made])
    wanted = np.array([[float(name in e.kinds) for name in OUTPUTS] for e in made])
    weight = np.array([e.weight for e in made])[:, None]
    assert ((says > 0.5) == (wanted > 0.5)).mean() > 0.98
    drift = (weight * (says - wanted)).sum(axis=0) / weight.sum()
    np.testing.assert_allclose(drift, 0, atol=0.01)


def test_a_denial_reaches_to_the_end_of_its_clause():
    lexicon = Lexicon({"SHAKE": "shak* shook", "FOCUS": "focus*"})
    found = set(features("no camera shake, focus", lexicon))
    assert {("word", "!shake"), ("sense", "!SHAKE"), ("word", "focus"), ("sense", "FOCUS")} <= found
    assert ("word", "shake") not in found
    assert ("letters", "shake") not in found


def test_words_are_split_and_joined_as_spoken():
    assert tokens("It ISN\N{RIGHT SINGLE QUOTATION MARK}T out-of-focus, is it?") == [
        *("it", "is", "not", "outoffocus", ",", "is", "it", "?")
    ]


def test_a_pattern_says_one_of_its_choices():
    writer = Writer({"THING": "car dog*"}, "seed")
    said = {writer.say("the {THING} (ran|drove (off|away)|)") for _ in range(200)}
    assert {"the car ran", "the car drove off", "the car drove away", "the car"} <= said
    assert not [sentence for sentence in said if set("(){}|*") & set(sentence)]


def test_an_answer_is_unclear_just_below_the_threshold():
    model = replace(classifier(), confidence=np.array([[0.0, -1.0], [0.0, 1.0]]))
    below = model.answer(np.array([CLEAR_FROM - 1e-6, 0.1, 0.1, 0.1, 0.1]))
    above = model.answer(np.array([CLEAR_FROM, 0.1, 0.1, 0.1, 0.1]))
    assert (below.task, above.task) == (UNCLEAR, "defocus")
    assert below.gates == (0.2,) * 5
    assert above.gates == pytest.approx((0.5, 0.125, 0.125, 0.125, 0.125))
    assert above.confidence == pytest.approx(CLEAR_FROM)
    assert below.confidence == pytest.approx(1 - CLEAR_FROM, abs=1e-5)
