"""What the README and its neighbours say holds: code runs, commands parse, links lead somewhere."""

import configparser
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from demoe.cli import build_parser

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOX = re.compile(r"tox run -e ([\w,]+)")


def blocks(page: Path, *languages: str) -> list[str]:
    """Fenced code blocks in one of the languages, in order."""
    fenced = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [code for language, code in fenced if language in languages]


def commands(page: Path) -> list[str]:
    """`demoe …` lines of shell blocks, continued lines joined, comments dropped."""
    text = "\n".join(blocks(page, "", "sh", "bash", "shell", "console")).replace("\\\n", " ")
    lines = [line.removeprefix("$ ").strip() for line in text.splitlines()]
    return [line for line in lines if line.startswith("demoe ")]


def ids(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Path:
    """A working directory with the files that the examples name."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    stack = random.integers(0, 4000, (2, 48, 64), dtype=np.uint16)
    tifffile.imwrite("stack.ome.tif", stack, metadata={"axes": "ZYX"})
    Image.fromarray(random.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save("photo.png")
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_python_examples_run(page, desk):
    names = {"__name__": "example", "array": np.zeros((2, 48, 64), np.uint16)}
    for number, code in enumerate(blocks(page, "python"), start=1):
        exec(compile(code, f"{page.name}, example {number}", "exec"), names)


def test_the_readme_has_examples():
    readme = ROOT / "README.md"
    assert blocks(readme, "python")
    assert any(line.startswith("demoe run ") for line in commands(readme))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_parse(page):
    for line in commands(page):
        words = shlex.split(line, comments=True)[1:]
        try:
            build_parser().parse_args(words)
        except SystemExit as stop:
            assert stop.code == 0, f"{page.name}: {line}"


def test_the_two_commands():
    readme = (ROOT / "README.md").read_text()
    test = "python3 -m pip install tox && python3 -m tox run"
    assert f"{test}\n" in readme
    assert f"{test} -e demo\n" in readme
    script = (ROOT / ".ci" / "run").read_text()
    assert script.splitlines()[-1] == test
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_environments_and_links_exist(page):
    text = page.read_text()
    settings = configparser.RawConfigParser()
    settings.read(ROOT / "tox.ini")
    for names in TOX.findall(text):
        for name in names.split(","):
            assert settings.has_section(f"testenv:{name}"), f"{page.name}: tox run -e {name}"
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
