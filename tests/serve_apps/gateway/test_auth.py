import asyncio
from pathlib import Path
from typing import Literal

import pytest

from serve_apps.common.errors import InvalidRequest, Unauthenticated
from serve_apps.common.secrets import ApiKeys, InternalCredential, new_api_key
from serve_apps.gateway.auth import Authenticator, Caller
from serve_apps.gateway.headers import RawHeaders
from serve_apps.gateway.oidc import Tokens


@pytest.fixture
def acme_key(tmp_path: Path) -> str:
    """The key of tenant acme; its record and the internal token lie under ``tmp_path``."""
    made = new_api_key("acme")
    (tmp_path / "api-keys").mkdir()
    (tmp_path / "api-keys" / "acme").write_text(made.record)
    (tmp_path / "internal").mkdir()
    (tmp_path / "internal" / "token").write_text("internal-token\n")
    return made.key


Mode = Literal["apiKeys", "jwt", "none"]


class OneToken(Tokens):
    """An issuer of one token; the real ones are those of test_oidc.py."""

    def __init__(self) -> None:
        pass

    async def tenant(self, token: str) -> str:
        if token != "a.good.token":
            raise Unauthenticated("The token is not accepted: it has expired (exp).", code="invalid_token")
        return "from-claim"


def authenticator(root: Path, mode: Mode = "apiKeys", tokens: Tokens | None = None) -> Authenticator:
    return Authenticator(mode, ApiKeys(root / "api-keys"), InternalCredential(root / "internal" / "token"), tokens)


def caller(root: Path, headers: RawHeaders, mode: Mode = "apiKeys", tokens: Tokens | None = None) -> Caller:
    return asyncio.run(authenticator(root, mode, tokens).caller(headers))


def bearer(key: str) -> RawHeaders:
    return [(b"authorization", f"Bearer {key}".encode())]


def test_a_key_makes_its_holder_the_tenant(tmp_path: Path, acme_key: str) -> None:
    assert caller(tmp_path, bearer(acme_key)) == Caller("acme")


def test_the_scheme_may_be_in_any_case(tmp_path: Path, acme_key: str) -> None:
    headers = [(b"authorization", f"bearer  {acme_key} ".encode())]
    assert caller(tmp_path, headers) == Caller("acme")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Basic c2s6")],
        [(b"authorization", b"Bearer sk-acme-00")],
        [(b"authorization", b"Bearer \xff\xfe")],
        [(b"authorization", b"Bearer a.good.token")],
        [(b"x-api-key", b"")],
        [(b"x-api-key", b"sk-acme-00")],
        [(b"x-llm-internal", b"guess")],
        [(b"x-llm-internal", b"")],
        [(b"x-llm-tenant", b"acme")],
    ],
)
def test_without_a_key_of_ours_a_caller_is_refused(tmp_path: Path, acme_key: str, headers: RawHeaders) -> None:
    with pytest.raises(Unauthenticated) as caught:
        caller(tmp_path, headers)
    assert caught.value.code == "invalid_api_key"


def test_a_keys_holder_cannot_name_another_tenant(tmp_path: Path, acme_key: str) -> None:
    headers = [*bearer(acme_key), (b"x-llm-tenant", b"other"), (b"x-llm-internal", b"guess")]
    assert caller(tmp_path, headers) == Caller("acme")


def test_a_pipeline_of_ours_names_the_tenant_it_works_for(tmp_path: Path, acme_key: str) -> None:
    headers = [(b"x-llm-internal", b"internal-token"), (b"x-llm-tenant", b"other")]
    assert caller(tmp_path, headers) == Caller("other", internal=True)


def test_only_an_app_of_ours_asks_in_the_background(tmp_path: Path, acme_key: str) -> None:
    background = (b"x-llm-background", b"true")
    internal = [(b"x-llm-internal", b"internal-token"), (b"x-llm-tenant", b"other"), background]
    assert caller(tmp_path, internal) == Caller("other", internal=True, background=True)
    assert caller(tmp_path, [*bearer(acme_key), background]) == Caller("acme")


def test_a_pipeline_that_names_no_tenant_works_for_itself(tmp_path: Path, acme_key: str) -> None:
    assert caller(tmp_path, [(b"x-llm-internal", b"internal-token")]) == Caller("internal", internal=True)


def test_where_keys_are_not_asked_for_everybody_is_anonymous(tmp_path: Path, acme_key: str) -> None:
    headers = [*bearer("anything"), (b"x-llm-tenant", b"acme")]
    assert caller(tmp_path, headers, mode="none") == Caller("anonymous")


def test_where_keys_are_not_asked_for_a_pipeline_still_names_its_tenant(tmp_path: Path, acme_key: str) -> None:
    headers = [(b"x-llm-internal", b"internal-token"), (b"x-llm-tenant", b"other")]
    assert caller(tmp_path, headers, mode="none") == Caller("other", internal=True)


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


def test_anthropics_clients_show_the_key_in_a_header_of_their_own(tmp_path: Path, acme_key: str) -> None:
    assert caller(tmp_path, [(b"x-api-key", acme_key.encode())]) == Caller("acme")


def test_the_same_key_in_both_headers_counts(tmp_path: Path, acme_key: str) -> None:
    assert caller(tmp_path, [*bearer(acme_key), (b"x-api-key", acme_key.encode())]) == Caller("acme")


@pytest.mark.parametrize(
    ("also", "problem"),
    [
        ((b"authorization", b"Bearer sk-other-00"), "The header Authorization came twice; send it once."),
        ((b"authorization", b"Basic c2s6"), "The header Authorization came twice; send it once."),
        ((b"x-api-key", b"sk-other-00"), "Authorization and x-api-key hold different keys; send one of them."),
    ],
)
def test_two_credentials_are_refused_whichever_comes_first(
    tmp_path: Path, acme_key: str, also: tuple[bytes, bytes], problem: str
) -> None:
    for headers in ([*bearer(acme_key), also], [also, *bearer(acme_key)]):
        with pytest.raises(InvalidRequest) as caught:
            caller(tmp_path, headers)
        assert (caught.value.message, caught.value.code) == (problem, "duplicate_header")


def test_an_api_key_header_that_comes_twice_is_refused(tmp_path: Path, acme_key: str) -> None:
    with pytest.raises(InvalidRequest, match="x-api-key came twice"):
        caller(tmp_path, [(b"x-api-key", acme_key.encode())] * 2)


def test_beside_keys_tokens_count_where_there_is_an_issuer(tmp_path: Path, acme_key: str) -> None:
    assert caller(tmp_path, bearer("a.good.token"), tokens=OneToken()) == Caller("from-claim")
    assert caller(tmp_path, bearer(acme_key), tokens=OneToken()) == Caller("acme")


def test_where_tokens_are_asked_for_a_key_does_not_count(tmp_path: Path, acme_key: str) -> None:
    assert caller(tmp_path, bearer("a.good.token"), "jwt", OneToken()) == Caller("from-claim")
    for headers in (bearer(acme_key), []):
        with pytest.raises(Unauthenticated) as caught:
            caller(tmp_path, headers, "jwt", OneToken())
        assert caught.value.message == 'Send a token as "Authorization: Bearer …".'


def test_a_wrong_token_is_refused_with_the_reason(tmp_path: Path, acme_key: str) -> None:
    with pytest.raises(Unauthenticated, match=r"it has expired \(exp\)"):
        caller(tmp_path, bearer("an.old.token"), tokens=OneToken())


def test_a_gateway_that_asks_for_tokens_needs_their_rules(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not say how tokens are checked"):
        authenticator(tmp_path, "jwt")


def test_where_tokens_are_asked_for_keys_need_not_be_there(tmp_path: Path, acme_key: str) -> None:
    (tmp_path / "api-keys" / "acme").unlink()
    (tmp_path / "api-keys").rmdir()
    authenticator(tmp_path, "jwt", OneToken()).check_readable()
