"""Five hundred damaged and malicious files: each is opened, or refused in one sentence."""

from collections import Counter
from pathlib import Path

from fuzz.corpus import MAKERS, build
from fuzz.guard import BAD, judge

CASES = 500


def test_five_hundred_files(tmp_path: Path) -> None:
    build(tmp_path)
    verdicts = list(judge(range(CASES), tmp_path))
    assert sorted(verdict.seed for verdict in verdicts) == list(range(CASES))
    wrong = [verdict for verdict in verdicts if verdict.what in BAD]
    assert not wrong, "\n".join(f"{v.seed} {v.name} {v.what}: {v.words}" for v in wrong)
    counts = Counter(verdict.what for verdict in verdicts)
    assert counts["refused"] > CASES / 5 and counts["opened"] > CASES / 20
    assert {verdict.name for verdict in verdicts} == set(MAKERS)


def test_what_is_sound_is_opened(tmp_path: Path) -> None:
    from fuzz.attempts import attempt

    build(tmp_path)
    for name, (kind, _) in MAKERS.items():
        found = attempt(kind, tmp_path / "corpus" / name / name, tmp_path / "secret")
        assert found[0] == "opened", (name, found)
