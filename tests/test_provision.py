"""The window tests say what they need, instead of not running."""

import importlib.util
import subprocess

import pytest


@pytest.fixture
def provision(root):
    spec = importlib.util.spec_from_file_location("provision", root / "tests/gui/provision.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def installs(provision, monkeypatch) -> list[list[str]]:
    """Commands that would have been run; none is."""
    calls: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: calls.append(command))
    monkeypatch.setitem(provision.LIBRARIES, "libno-such-thing.so.9", "libno-such-thing9")
    monkeypatch.setitem(provision.PROGRAMS, "no-such-program", "no-such-package")
    return calls


def test_nothing_is_installed_where_all_is_here(provision, installs, monkeypatch):
    monkeypatch.setattr(provision, "LIBRARIES", {"libc.so.6": "libc6"})
    monkeypatch.setattr(provision, "PROGRAMS", {"sh": "dash"})
    assert provision.main() == 0
    assert installs == []


def test_a_person_without_rights_gets_the_line_to_run(provision, installs, monkeypatch, capsys):
    monkeypatch.setattr(provision.os, "geteuid", lambda: 1000)
    assert provision.main() == 1
    said = capsys.readouterr().err
    assert "sudo apt-get update && sudo apt-get install -y" in said
    assert "libno-such-thing9 no-such-package\n" in said
    assert installs == []


def test_root_installs_just_what_is_missing(provision, installs, monkeypatch):
    monkeypatch.setattr(provision.os, "geteuid", lambda: 0)
    monkeypatch.setattr(provision.shutil, "which", lambda name: None if "such" in name else name)
    assert provision.main() == 1  # nothing was really installed
    assert installs[0][:2] == ["apt-get", "update"]
    assert installs[1][-2:] == ["libno-such-thing9", "no-such-package"]
