import os
from pathlib import Path

import pytest

from serve_apps.common.secrets import ApiKeys, InternalCredential, new_api_key


def stored(folder: Path, key_id: str) -> str:
    """Make a key, store its record, return the key."""
    made = new_api_key(key_id)
    (folder / key_id).write_text(made.record)
    return made.key


def test_a_stored_key_is_recognised_by_its_id(tmp_path: Path) -> None:
    key = stored(tmp_path, "team-a")
    assert ApiKeys(tmp_path).identify(key) == "team-a"


def test_a_changed_key_is_not_recognised(tmp_path: Path) -> None:
    key = stored(tmp_path, "team-a")
    assert ApiKeys(tmp_path).identify(f"{key[:-1]}{'0' if key[-1] != '0' else '1'}") is None


def test_a_key_is_not_recognised_under_another_id(tmp_path: Path) -> None:
    secret = stored(tmp_path, "team-a").rpartition("-")[2]
    stored(tmp_path, "team-b")
    assert ApiKeys(tmp_path).identify(f"sk-team-b-{secret}") is None


@pytest.mark.parametrize(
    "key", ["", "sk-", "sk--", "sk-a", "Bearer", "sk-../../x-1", "sk-a/b-1", "sk-ключ-1", "sk-a\0b-1"]
)
def test_what_is_no_key_is_not_recognised(tmp_path: Path, key: str) -> None:
    assert ApiKeys(tmp_path).identify(key) is None


def test_a_record_that_is_no_hash_recognises_nothing(tmp_path: Path) -> None:
    (tmp_path / "team-a").write_text("plain")
    assert ApiKeys(tmp_path).identify("sk-team-a-plain") is None


def test_a_key_is_nowhere_in_its_record() -> None:
    made = new_api_key("team-a")
    assert made.key.rpartition("-")[2] not in made.record


def test_a_key_that_was_taken_away_is_no_longer_recognised(tmp_path: Path) -> None:
    key = stored(tmp_path, "team-a")
    keys = ApiKeys(tmp_path)
    assert keys.identify(key) == "team-a"
    (tmp_path / "team-a").unlink()
    assert keys.identify(key) is None


def test_the_internal_credential_matches_itself_only(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    credential = InternalCredential(tmp_path / "token")
    assert credential.matches("secret")
    assert not credential.matches("secreT")
    assert not credential.matches("")


def test_a_rotated_credential_needs_no_restart(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    credential = InternalCredential(file)
    assert credential.matches("old")
    file.write_text("new")
    os.utime(file, ns=(1, 1))
    assert credential.matches("new")
    assert not credential.matches("old")


def test_a_missing_credential_says_which_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"internal credential: cannot read .*token"):
        InternalCredential(tmp_path / "token").value()


def test_an_empty_credential_does_not_open_the_door(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    with pytest.raises(RuntimeError, match="is empty"):
        InternalCredential(tmp_path / "token").matches("")
