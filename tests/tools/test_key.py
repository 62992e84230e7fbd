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


@pytest.mark.parametrize("wrong", ["", "Team", "a/b", "-a", "a" * 64])
def test_an_id_that_is_no_file_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    assert run(monkeypatch, "--", wrong) == 1
    assert f"the id {wrong!r} is not of lower-case letters" in capsys.readouterr().err
