"""docs/comparison.md: each thing we say we have is shown by a command that works or a test that exists."""

import re
import shlex
import subprocess

import pytest

from tests.docs.markdown import REPOSITORY
from tools.gotools import helm

FILE = REPOSITORY / "docs" / "comparison.md"
PEERS = 3


def rows() -> list[list[str]]:
    """The cells of every row: the point, ours, the peers', what shows ours."""
    lines = [line for line in FILE.read_text().splitlines() if line.startswith("| ") and not line.startswith("| point")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def shown_by(row: list[str]) -> str:
    return row[-1].strip("`")


COMMANDS = sorted({shown_by(row) for row in rows() if not shown_by(row).startswith("tests/")} - {""})


@pytest.mark.parametrize("row", rows(), ids=lambda row: str(row[0]))
def test_a_row_has_a_mark_for_everybody_and_what_shows_ours(row: list[str]) -> None:
    _, *marks, shown = row
    assert len(marks) == 1 + PEERS
    assert all(re.match(r"(yes|partly|no)\b", mark) for mark in marks)
    assert bool(shown) == (not marks[0].startswith("no"))


@pytest.mark.parametrize("test", sorted({shown_by(row) for row in rows() if shown_by(row).startswith("tests/")}))
def test_a_test_that_shows_it_exists(test: str) -> None:
    assert "\ndef test_" in (REPOSITORY / test).read_text() or "\nasync def test_" in (REPOSITORY / test).read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_shows_it_works(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "helm":
        words[0] = str(helm())
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
