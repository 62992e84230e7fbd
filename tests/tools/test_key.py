import json
import re
import sys
from pathlib import Path

import pytest

from serve_apps.common.secrets import ApiKeys
from tools import key


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["key", *arguments])
    return key.main()


def test_the_printed_key_is_recognised_by_the_printed_entry(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(monkeypatch, "team-a") == 0
    printed = capsys.readouterr().out
    made = re.search(r"^  (sk-team-a-\S+)$", printed, re.MULTILINE)
    entry = re.search(r"^  (team-a)=(\S+)$", printed, re.MULTILINE)
    assert made
    assert entry
    (tmp_path / entry[1]).write_text(entry[2])
    assert ApiKeys(tmp_path).identify(made[1]) == "team-a"


def test_a_rotation_makes_a_key_beside_the_old_one_and_says_what_to_remove_later(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(monkeypatch, "team-a", "--rotate") == 0
    printed = capsys.readouterr().out
    made = re.search(r"^  (sk-team-a\.\d{12}-\S+)$", printed, re.MULTILINE)
    added, removed = (json.loads(patch) for patch in re.findall(r"--patch '(.*)'$", printed, re.MULTILINE))
    assert made
    [(entry, record)] = added["stringData"].items()
    assert re.fullmatch(r"[-._a-zA-Z0-9]+", entry), "not a key of a Secret"
    assert removed == {"data": {"team-a": None}}
    (tmp_path / entry).write_text(record)
    assert ApiKeys(tmp_path).identify(made[1]) == "team-a"


def test_a_key_may_end_on_a_day(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "team-a", "--expires", "2999-01-31") == 0
    assert re.search(r"^  team-a=sha256:\S+:2999-01-31$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("day", "problem"),
    [("soon", "'soon' is not written as 2027-01-31"), ("2020-01-31", "2020-01-31 is not after today")],
)
def test_a_day_that_is_none_or_over_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], day: str, problem: str
) -> None:
    assert run(monkeypatch, "team-a", "--expires", day) == 1
    assert capsys.readouterr().err == f"key: the day {problem}\n"


@pytest.mark.parametrize("wrong", ["", "Team", "a/b", "-a", "a" * 64, "team-a.2"])
def test_an_id_that_is_no_file_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    assert run(monkeypatch, "--", wrong) == 1
    assert f"the id {wrong!r} is not of lower-case letters" in capsys.readouterr().err
