"""What the README and its neighbours say holds: code runs, commands parse, links lead somewhere."""

import configparser
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pages import GUIDE, PAGES, ROOT, blocks, commands, lay_out_files
from told import bring_release

from demoe.cli import build_parser

TOX = re.compile(r"tox run -e ([\w,]+)")


def ids(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [page for page in PAGES if page != GUIDE], ids=ids)
def test_python_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lay_out_files()
    bring_release(monkeypatch)
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
