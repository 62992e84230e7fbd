from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from serve_apps.common import secrets
from serve_apps.common.secrets import FRESH_S, MAX_RECORDS, ApiKeys, InternalCredential, UpstreamKeys, new_api_key
from tests.serve_apps.clock import Clock


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
    "key",
    [
        "",
        "sk-",
        "sk--",
        "sk-a",
        "Bearer",
        "sk-../../x-1",
        "sk-a/b-1",
        "sk-ключ-1",
        "sk-a\0b-1",
        "sk-a.-1",
        "sk-.a-1",
        "sk-a..b-1",
        "sk-a.b.c-1",
    ],
)
def test_what_is_no_key_is_not_recognised(tmp_path: Path, key: str) -> None:
    assert ApiKeys(tmp_path).identify(key) is None


def test_a_record_that_is_no_hash_recognises_nothing(tmp_path: Path) -> None:
    (tmp_path / "team-a").write_text("plain")
    assert ApiKeys(tmp_path).identify("sk-team-a-plain") is None


def test_a_key_is_nowhere_in_its_record() -> None:
    made = new_api_key("team-a")
    assert made.key.rpartition("-")[2] not in made.record


def test_a_key_that_was_taken_away_is_not_recognised_after_a_second(tmp_path: Path) -> None:
    key = stored(tmp_path, "team-a")
    clock = Clock()
    keys = ApiKeys(tmp_path, clock)
    assert keys.identify(key) == "team-a"
    (tmp_path / "team-a").unlink()
    clock.now += FRESH_S / 2
    assert keys.identify(key) == "team-a"
    clock.now += FRESH_S / 2
    assert keys.identify(key) is None


def test_a_key_that_was_added_is_recognised_after_a_second(tmp_path: Path) -> None:
    clock = Clock()
    keys = ApiKeys(tmp_path, clock)
    made = new_api_key("team-a")
    assert keys.identify(made.key) is None
    (tmp_path / "team-a").write_text(made.record)
    clock.now += FRESH_S
    assert keys.identify(made.key) == "team-a"


def test_a_clock_that_is_set_back_keeps_no_record_for_longer(tmp_path: Path) -> None:
    key = stored(tmp_path, "team-a")
    clock = Clock()
    keys = ApiKeys(tmp_path, clock)
    assert keys.identify(key) == "team-a"
    (tmp_path / "team-a").unlink()
    clock.now -= 3600
    assert keys.identify(key) is None


def test_several_keys_of_a_tenant_work_side_by_side(tmp_path: Path) -> None:
    old, new = stored(tmp_path, "team-a"), stored(tmp_path, "team-a.202611241809")
    stored(tmp_path, "team-b")
    keys = ApiKeys(tmp_path)
    assert keys.identify(old) == keys.identify(new) == "team-a"
    secret = new.rpartition("-")[2]
    assert keys.identify(f"sk-team-a-{secret}") is None
    assert keys.identify(f"sk-team-b.202611241809-{secret}") is None


def test_the_old_key_can_be_taken_away_and_the_new_one_works_on(tmp_path: Path) -> None:
    old, new = stored(tmp_path, "team-a"), stored(tmp_path, "team-a.2")
    (tmp_path / "team-a").unlink()
    keys = ApiKeys(tmp_path)
    assert keys.identify(old) is None
    assert keys.identify(new) == "team-a"


def test_a_key_ends_when_its_day_begins(tmp_path: Path) -> None:
    made = new_api_key("team-a", date(2026, 12, 1))
    (tmp_path / "team-a").write_text(made.record)
    clock = Clock(datetime(2026, 11, 30, 23, 59, 59, 500_000, tzinfo=UTC).timestamp())
    keys = ApiKeys(tmp_path, clock)
    assert keys.identify(made.key) == "team-a"
    clock.now += FRESH_S / 2
    assert keys.identify(made.key) is None


def test_a_key_is_hashed_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = stored(tmp_path, "team-a")
    clock = Clock()
    keys = ApiKeys(tmp_path, clock)
    assert keys.identify(key) == "team-a"
    monkeypatch.setattr(secrets, "_digest", lambda *_: "")
    assert keys.identify(key) == "team-a"
    assert keys.identify(f"{key}x") is None
    clock.now += FRESH_S
    assert keys.identify(key) is None, "it is hashed again"


@pytest.mark.parametrize("behind", [":", ":soon", ":2026-12-1", ":2999-01-01:more", "\n"])
def test_a_record_with_something_else_behind_it_is_none(tmp_path: Path, behind: str) -> None:
    made = new_api_key("team-a")
    (tmp_path / "team-a").write_text(made.record + behind)
    assert ApiKeys(tmp_path).identify(made.key) == ("team-a" if behind == "\n" else None)


def test_a_mounted_secrets_own_links_are_no_keys(tmp_path: Path) -> None:
    made = new_api_key("x")
    (tmp_path / "..data").write_text(made.record)
    assert ApiKeys(tmp_path).identify(made.key.replace("sk-x-", "sk-..data-")) is None


def test_guessed_ids_fill_no_memory(tmp_path: Path) -> None:
    key = stored(tmp_path, "team-a")
    keys = ApiKeys(tmp_path, Clock())
    for guess in range(MAX_RECORDS + 2):
        assert keys.identify(f"sk-guess{guess}-00") is None
    assert len(keys._records) < MAX_RECORDS
    assert keys.identify(key) == "team-a"


def test_the_internal_credential_matches_itself_only(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    credential = InternalCredential(tmp_path / "token")
    assert credential.matches("secret")
    assert not credential.matches("secreT")
    assert not credential.matches("")


def test_a_rotated_credential_counts_after_a_second(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    clock = Clock()
    credential = InternalCredential(file, clock)
    assert credential.matches("old")
    file.write_text("new")
    assert credential.matches("old")
    clock.now += FRESH_S
    assert credential.matches("new")
    assert not credential.matches("old")


def test_a_missing_credential_says_which_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"internal credential: cannot read .*token"):
        InternalCredential(tmp_path / "token").value()


def test_an_empty_credential_does_not_open_the_door(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    with pytest.raises(RuntimeError, match="is empty"):
        InternalCredential(tmp_path / "token").matches("")


def test_another_providers_key_is_read_again_after_a_second(tmp_path: Path) -> None:
    clock = Clock()
    keys = UpstreamKeys(tmp_path, clock)
    (tmp_path / "openai").write_text("old\n")
    assert keys.value("openai") == "old"
    (tmp_path / "openai").write_text("new\n")
    assert keys.value("openai") == "old"
    clock.now += FRESH_S
    assert keys.value("openai") == "new"


def test_without_another_providers_key_none_is_shown(tmp_path: Path) -> None:
    assert UpstreamKeys(tmp_path).value("openai") == ""
