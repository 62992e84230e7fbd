"""tools/chart: what writes files, and how values.yaml's comments are read."""

import sys
from pathlib import Path

import pytest

from tools.chart import generated
from tools.chart.reference import read_manual


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generated, "REPOSITORY", tmp_path)


def test_files_are_written_where_they_belong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tool"])
    assert generated.write_or_check({tmp_path / "a" / "b.txt": "text"}, "make x") == 0
    assert (tmp_path / "a" / "b.txt").read_text() == "text"


def test_a_check_names_what_differs_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tool", "--check"])
    (tmp_path / "same").write_text("1")
    (tmp_path / "other").write_text("2")
    files = {tmp_path / "same": "1", tmp_path / "other": "1", tmp_path / "missing": "1"}
    assert generated.write_or_check(files, "make x") == 1
    assert capsys.readouterr().err.splitlines() == [
        "other is out of date; run `make x`",
        "missing is out of date; run `make x`",
    ]
    assert (tmp_path / "other").read_text() == "2"
    assert not (tmp_path / "missing").exists()


def test_a_check_of_what_is_current_succeeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tool", "--check"])
    (tmp_path / "same").write_text("1")
    assert generated.write_or_check({tmp_path / "same": "1"}, "make x") == 0


def test_a_folder_of_generated_files_holds_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {tmp_path / "golden" / "kept": "1"}
    (tmp_path / "golden").mkdir()
    for name in ("kept", "left"):
        (tmp_path / "golden" / name).write_text("1")
    monkeypatch.setattr(sys, "argv", ["tool", "--check"])
    assert generated.write_or_check(files, "make x", tmp_path / "golden") == 1
    assert capsys.readouterr().err.splitlines() == ["golden/left is out of date; run `make x`"]
    monkeypatch.setattr(sys, "argv", ["tool"])
    assert generated.write_or_check(files, "make x", tmp_path / "golden") == 0
    assert not (tmp_path / "golden" / "left").exists()


def test_a_keys_meaning_is_the_first_paragraph_above_it() -> None:
    manual = read_manual(
        """\
## Gateway

# Not a meaning.
gateway:
  # -- The port
  # of it.
  #
  #   an example
  port: 8000
  replicas: {min: 1}
## Rest

# -- More.
extra: {}
"""
    )
    assert manual.descriptions == {"gateway.port": "The port of it.", "extra": "More."}
    assert manual.sections == {"gateway": "Gateway", "extra": "Rest"}
