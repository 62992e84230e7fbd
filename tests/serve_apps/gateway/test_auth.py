from pathlib import Path
from typing import Literal

import pytest

from serve_apps.common.errors import Unauthenticated
from serve_apps.common.secrets import ApiKeys, InternalCredential, new_api_key
from serve_apps.gateway.auth import Authenticator, Caller
from serve_apps.gateway.request import RawHeaders


@pytest.fixture
def acme_key(tmp_path: Path) -> str:
    """The key of tenant acme; its record and the internal token lie under ``tmp_path``."""
    made = new_api_key("acme")
    (tmp_path / "api-keys").mkdir()
    (tmp_path / "api-keys" / "acme").write_text(made.record)
    (tmp_path / "internal").mkdir()
    (tmp_path / "internal" / "token").write_text("internal-token\n")
    return made.key


def authenticator(root: Path, mode: Literal["apiKeys", "none"] = "apiKeys") -> Authenticator:
    return Authenticator(mode, ApiKeys(root / "api-keys"), InternalCredential(root / "internal" / "token"))


def bearer(key: str) -> RawHeaders:
    return [(b"authorization", f"Bearer {key}".encode())]


def test_a_key_makes_its_holder_the_tenant(tmp_path: Path, acme_key: str) -> None:
    assert authenticator(tmp_path).caller(bearer(acme_key)) == Caller("acme")


def test_the_scheme_may_be_in_any_case(tmp_path: Path, acme_key: str) -> None:
    headers = [(b"authorization", f"bearer  {acme_key} ".encode())]
    assert authenticator(tmp_path).caller(headers) == Caller("acme")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Basic c2s6")],
        [(b"authorization", b"Bearer sk-acme-00")],
        [(b"authorization", b"Bearer \xff\xfe")],
        [(b"x-llm-internal", b"guess")],
        [(b"x-llm-internal", b"")],
        [(b"x-llm-tenant", b"acme")],
    ],
)
def test_without_a_key_of_ours_a_caller_is_refused(tmp_path: Path, acme_key: str, headers: RawHeaders) -> None:
    with pytest.raises(Unauthenticated) as caught:
        authenticator(tmp_path).caller(headers)
    assert caught.value.code == "invalid_api_key"


def test_a_keys_holder_cannot_name_another_tenant(tmp_path: Path, acme_key: str) -> None:
    headers = [*bearer(acme_key), (b"x-llm-tenant", b"other"), (b"x-llm-internal", b"guess")]
    assert authenticator(tmp_path).caller(headers) == Caller("acme")


def test_a_pipeline_of_ours_names_the_tenant_it_works_for(tmp_path: Path, acme_key: str) -> None:
    headers = [(b"x-llm-internal", b"internal-token"), (b"x-llm-tenant", b"other")]
    assert authenticator(tmp_path).caller(headers) == Caller("other", internal=True)


def test_a_pipeline_that_names_no_tenant_works_for_itself(tmp_path: Path, acme_key: str) -> None:
    assert authenticator(tmp_path).caller([(b"x-llm-internal", b"internal-token")]) == Caller("internal", internal=True)


def test_where_keys_are_not_asked_for_everybody_is_anonymous(tmp_path: Path, acme_key: str) -> None:
    headers = [*bearer("anything"), (b"x-llm-tenant", b"acme")]
    assert authenticator(tmp_path, "none").caller(headers) == Caller("anonymous")


def test_where_keys_are_not_asked_for_a_pipeline_still_names_its_tenant(tmp_path: Path, acme_key: str) -> None:
    headers = [(b"x-llm-internal", b"internal-token"), (b"x-llm-tenant", b"other")]
    assert authenticator(tmp_path, "none").caller(headers) == Caller("other", internal=True)


def test_credentials_that_can_be_read_are_ready(tmp_path: Path, acme_key: str) -> None:
    authenticator(tmp_path).check_readable()


@pytest.mark.parametrize("missing", ["api-keys/acme", "internal/token"])
def test_credentials_that_cannot_be_read_are_named(tmp_path: Path, acme_key: str, missing: str) -> None:
    (tmp_path / missing).unlink()
    if missing.startswith("api-keys"):
        (tmp_path / "api-keys").rmdir()
    with pytest.raises(RuntimeError, match=f"cannot read .*{missing.partition('/')[0]}"):
        authenticator(tmp_path).check_readable()


def test_keys_that_are_not_asked_for_need_not_be_there(tmp_path: Path, acme_key: str) -> None:
    (tmp_path / "api-keys" / "acme").unlink()
    (tmp_path / "api-keys").rmdir()
    authenticator(tmp_path, "none").check_readable()
