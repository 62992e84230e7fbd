import os
from pathlib import Path

import pytest

from tests.tools.images.programs import program
from tools.images.builder import CannotBuild
from tools.images.program import run


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """First on PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def test_what_a_program_prints_is_returned_and_kept(folder: Path) -> None:
    program(folder, "bake", works=True)
    assert run(["bake", "bread"], folder=folder, log=folder / "log") == "bake was here\n"
    assert (folder / "log").read_text() == "bake was here\n"
    assert (folder / "calls").read_text() == "bread\n"


def test_a_failure_shows_the_end_of_its_log(folder: Path) -> None:
    program(folder, "bake", works=False)
    log = folder / "log"
    with pytest.raises(CannotBuild, match=rf"^bake failed, whole log in {log}:\nbake was here$"):
        run(["bake"], folder=folder, log=log)


def test_a_missing_program_is_named(folder: Path) -> None:
    with pytest.raises(CannotBuild, match=r"^no-such-program not found; install the package no-such-program$"):
        run(["no-such-program"], folder=folder, log=folder / "log")


def test_without_root_it_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CannotBuild, match=r"^bake needs root here; run this as root$"):
        run(["bake"], folder=folder, log=folder / "log")
