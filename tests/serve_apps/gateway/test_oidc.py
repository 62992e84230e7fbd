import asyncio
import base64
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, RSAAlgorithm

from serve_apps.common.errors import Unauthenticated, Unavailable
from serve_apps.common.middleware import Receive, Scope, Send
from serve_apps.gateway import oidc
from serve_apps.gateway.config import Jwt
from serve_apps.gateway.oidc import KeySet, Tokens
from tests.serve_apps.clock import Clock
from tests.serve_apps.gateway.servers import serving

AUDIENCE = "llm"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def public(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, kid: str, **more: str) -> dict[str, Any]:
    """A key as a JWKS lists it."""
    if isinstance(key, rsa.RSAPrivateKey):
        listed = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        listed = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**listed, "kid": kid, **more}


@dataclass
class Issuer:
    """An OpenID Connect issuer on a loopback port, as far as its keys go."""

    keys: list[dict[str, Any]] = field(default_factory=lambda: [public(RSA_KEY, "one", use="sig", alg="RS256")])
    url: str = ""
    issuer: str | None = None
    """What its discovery document says it is."""
    jwks_uri: str | None = None
    down: bool = False
    answer: bytes | None = None
    """Instead of the keys."""
    fetches: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body: bytes = json.dumps({"keys": self.keys}).encode()
        if scope["path"].startswith("/.well-known"):
            found = {"issuer": self.issuer or self.url, "jwks_uri": self.jwks_uri or f"{self.url}/keys"}
            body = json.dumps(found).encode()
        else:
            self.fetches += 1
            body = body if self.answer is None else self.answer
        await send({"type": "http.response.start", "status": 503 if self.down else 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    def rules(self, **more: Any) -> Jwt:
        """How its tokens are checked."""
        return Jwt.model_validate({"issuer": self.url, "audience": AUDIENCE, **more})

    def token(self, key: Any = RSA_KEY, algorithm: str = "RS256", kid: str | None = "one", **claims: Any) -> str:
        """A token of tenant acme that is good for a minute; claims that are None are left out."""
        now = time.time()
        payload = {"iss": self.url, "aud": AUDIENCE, "sub": "acme", "iat": now, "exp": now + 60, **claims}
        payload = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode(payload, key, algorithm, headers={"kid": kid} if kid else None)


@pytest.fixture
def issuer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Issuer()
    with serving(server) as url:
        server.url = url
        yield server


def tenant(issuer: Issuer, token: str, **rules: Any) -> str:
    return asyncio.run(Tokens(issuer.rules(**rules)).tenant(token))


def refusal(issuer: Issuer, token: str, **rules: Any) -> str:
    """Why a token is not accepted; nothing of it may be in the message."""
    with pytest.raises(Unauthenticated) as caught:
        tenant(issuer, token, **rules)
    assert caught.value.code == "invalid_token"
    assert not any(len(part) > 8 and part in caught.value.message for part in token.split("."))
    return caught.value.message.removeprefix("The token is not accepted: ")


def test_a_token_of_the_issuer_makes_its_subject_the_tenant(issuer: Issuer) -> None:
    assert tenant(issuer, issuer.token()) == "acme"


def test_the_keys_may_be_at_an_address_of_their_own(issuer: Issuer) -> None:
    url, issuer.url = issuer.url, "https://issuer.invalid"
    assert tenant(issuer, issuer.token(), jwks_url=f"{url}/keys") == "acme"


def test_elliptic_curves_count_too(issuer: Issuer) -> None:
    issuer.keys.append(public(EC_KEY, "curve"))
    assert tenant(issuer, issuer.token(EC_KEY, "ES256", "curve")) == "acme"


@pytest.mark.parametrize("audience", [["other", AUDIENCE], AUDIENCE])
def test_an_audience_may_be_one_of_several(issuer: Issuer, audience: object) -> None:
    assert tenant(issuer, issuer.token(aud=audience)) == "acme"


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"exp": time.time() - 86_400}, "it has expired (exp)."),
        ({"exp": None}, 'it has no "exp".'),
        ({"nbf": time.time() + 86_400}, "it is not valid yet (nbf, iat)."),
        ({"aud": "another"}, 'it is not for "llm" (aud).'),
        ({"aud": None}, 'it has no "aud".'),
        ({"aud": []}, 'it has no "aud".'),
        ({"iss": None}, 'it has no "iss".'),
        ({"exp": "soon"}, "it is no JSON Web Token."),
        ({"sub": None}, 'its claim "sub" is no name of a tenant.'),
        ({"sub": ""}, 'its claim "sub" is no name of a tenant.'),
        ({"sub": "a b"}, 'its claim "sub" is no name of a tenant.'),
        ({"sub": "a}:{b"}, 'its claim "sub" is no name of a tenant.'),
        ({"sub": "a\r\nx-llm-tenant: b"}, 'its claim "sub" is no name of a tenant.'),
        ({"sub": "a" * 129}, 'its claim "sub" is no name of a tenant.'),
    ],
)
def test_a_claim_that_does_not_fit_is_named(issuer: Issuer, claims: dict[str, Any], why: str) -> None:
    assert refusal(issuer, issuer.token(**claims)) == why


def test_another_issuers_token_is_refused(issuer: Issuer) -> None:
    token = issuer.token(iss="https://elsewhere.example")
    assert refusal(issuer, token) == f'it was not issued by "{issuer.url}" (iss).'


def test_clocks_may_differ_by_the_leeway(issuer: Issuer) -> None:
    late = issuer.token(exp=time.time() - 20)
    assert tenant(issuer, late, leewayS=30) == "acme"
    assert refusal(issuer, late, leewayS=0) == "it has expired (exp)."


def test_a_signature_of_another_key_is_refused(issuer: Issuer) -> None:
    assert refusal(issuer, issuer.token(OTHER_RSA_KEY)) == "its signature is not that of the issuer's key."


def test_a_changed_token_is_refused(issuer: Issuer) -> None:
    header, payload, signature = issuer.token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    forged = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "other"}).encode()).rstrip(b"=").decode()
    assert refusal(issuer, f"{header}.{forged}.{signature}") == "its signature is not that of the issuer's key."


def test_the_public_key_is_no_shared_secret(issuer: Issuer) -> None:
    """Algorithm confusion: HS256, signed with what anybody can fetch."""
    pem = RSA_KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    good = issuer.token().split(".")[1]
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"one"}').rstrip(b"=").decode()
    mac = HMACAlgorithm(HMACAlgorithm.SHA256).sign(f"{header}.{good}".encode(), pem)
    token = f"{header}.{good}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    assert refusal(issuer, token) == "its algorithm is none of RS256, ES256 (alg)."


def test_a_token_that_is_not_signed_is_refused(issuer: Issuer) -> None:
    token = issuer.token("", "none")
    assert refusal(issuer, token) == "its algorithm is none of RS256, ES256 (alg)."


def test_only_the_algorithms_that_are_listed_count(issuer: Issuer) -> None:
    issuer.keys = [public(RSA_KEY, "one")]
    token = issuer.token(RSA_KEY, "RS384")
    assert refusal(issuer, token) == "its algorithm is none of RS256, ES256 (alg)."
    assert tenant(issuer, token, algorithms=["RS384"]) == "acme"


def test_a_key_counts_for_its_own_algorithm_only(issuer: Issuer) -> None:
    token = issuer.token(RSA_KEY, "RS384")
    assert refusal(issuer, token, algorithms=["RS256", "RS384"]) == "the issuer lists no key for it (kid)."


def test_a_shared_secret_in_the_list_is_no_key(issuer: Issuer) -> None:
    secret = base64.urlsafe_b64encode(b"0" * 32).rstrip(b"=").decode()
    issuer.keys = [{"kty": "oct", "kid": "one", "k": secret}, public(RSA_KEY, "two")]
    assert refusal(issuer, issuer.token(b"0" * 32, "HS256")) == "its algorithm is none of RS256, ES256 (alg)."
    assert tenant(issuer, issuer.token(kid="two")) == "acme"


def test_a_key_for_encryption_signs_nothing(issuer: Issuer) -> None:
    issuer.keys = [public(RSA_KEY, "one", use="enc"), public(OTHER_RSA_KEY, "two")]
    assert refusal(issuer, issuer.token()) == "the issuer lists no key for it (kid)."


def test_a_token_without_a_key_id_means_the_only_key(issuer: Issuer) -> None:
    assert tenant(issuer, issuer.token(kid=None)) == "acme"
    issuer.keys.append(public(OTHER_RSA_KEY, "two"))
    assert refusal(issuer, issuer.token(kid=None)) == "the issuer lists no key for it (kid)."


@pytest.mark.parametrize(
    "token",
    ["x", "a.b.c", "..", "é.é.é", base64.urlsafe_b64encode(b"[" * 9000).decode() + ".e30.e30", "e30.e30.e30"],
)
def test_what_is_no_token_is_refused(issuer: Issuer, token: str) -> None:
    assert refusal(issuer, token) in ("it is no JSON Web Token.", "its algorithm is none of RS256, ES256 (alg).")


@pytest.mark.parametrize(
    ("claim", "claims"),
    [
        ("org.team", {"org": {"team": "nested"}}),
        ("https://example.com/tenant", {"https://example.com/tenant": "nested"}),
    ],
)
def test_the_tenant_may_be_in_another_claim(issuer: Issuer, claim: str, claims: dict[str, Any]) -> None:
    assert tenant(issuer, issuer.token(**claims), tenantClaim=claim) == "nested"
    assert refusal(issuer, issuer.token(org="x"), tenantClaim=claim) == f'its claim "{claim}" is no name of a tenant.'


def test_a_token_is_checked_again_when_it_ends(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(time.time())

    async def story() -> None:
        tokens = Tokens(issuer.rules(leewayS=0), clock)
        good = issuer.token(exp=time.time() + 30)
        assert await tokens.tenant(good) == "acme"
        monkeypatch.setattr(jwt, "decode", lambda *_, **__: pytest.fail("it was checked already"))
        assert await tokens.tenant(good) == "acme"

        def decode(*_: object, **__: object) -> None:
            raise jwt.ExpiredSignatureError

        monkeypatch.setattr(jwt, "decode", decode)
        clock.now += 31
        with pytest.raises(Unauthenticated, match="expired"):
            await tokens.tenant(good)

    asyncio.run(story())


def test_a_rotated_key_is_found_and_an_unknown_one_asks_the_issuer_twice_a_minute_at_most(issuer: Issuer) -> None:
    async def story() -> None:
        clock = Clock()
        keys = KeySet(issuer.url, None, clock)
        assert await keys.find("one", "RS256")
        issuer.keys = [public(RSA_KEY, "one"), public(OTHER_RSA_KEY, "two")]
        assert await keys.find("two", "RS256") is None
        clock.now += oidc.AGAIN_S
        assert await keys.find("two", "RS256")
        assert await keys.find("one", "RS256")
        assert issuer.fetches == 2
        unknown = await asyncio.gather(*(keys.find(f"guess{n}", "RS256") for n in range(100)))
        assert set(unknown) == {None}
        clock.now += oidc.AGAIN_S
        await asyncio.gather(*(keys.find(f"guess{n}", "RS256") for n in range(100)))
        assert issuer.fetches == 3

    asyncio.run(story())


def test_a_withdrawn_key_ends_when_the_keys_are_fetched_anew(issuer: Issuer) -> None:
    async def story() -> None:
        clock = Clock()
        keys = KeySet(issuer.url, f"{issuer.url}/keys", clock)
        assert await keys.find("one", "RS256")
        issuer.keys = [public(OTHER_RSA_KEY, "two")]
        clock.now += oidc.STALE_S + 1
        assert await keys.find("one", "RS256"), "nobody waits for the fetch"
        assert keys._refreshing
        await keys._refreshing
        assert await keys.find("one", "RS256") is None
        assert await keys.find("two", "RS256")

    asyncio.run(story())


def test_an_issuer_that_is_down_changes_nothing_for_keys_that_are_known(issuer: Issuer) -> None:
    async def story() -> None:
        clock = Clock()
        keys = KeySet(issuer.url, None, clock)
        assert await keys.find("one", "RS256")
        issuer.down = True
        clock.now += oidc.STALE_S + 1
        assert await keys.find("one", "RS256")
        assert keys._refreshing
        await keys._refreshing
        assert await keys.find("one", "RS256")
        clock.now += oidc.AGAIN_S
        assert await keys.find("two", "RS256") is None

    asyncio.run(story())


def test_an_issuer_that_was_never_there_is_no_fault_of_the_token(issuer: Issuer) -> None:
    issuer.down = True

    async def story() -> None:
        clock = Clock()
        keys = KeySet(issuer.url, None, clock)
        with pytest.raises(Unavailable) as caught:
            await keys.find("one", "RS256")
        assert (caught.value.code, caught.value.retry_after_s) == ("issuer_unavailable", 1)
        issuer.down = False
        clock.now += oidc.FIRST_AGAIN_S
        assert await keys.find("one", "RS256")

    asyncio.run(story())


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b" " * (oidc.MAX_ANSWER_BYTES + 1) + b'{"keys": [{}]}'],
)
def test_an_answer_that_is_no_list_of_keys_is_none(issuer: Issuer, answer: bytes) -> None:
    issuer.answer = answer
    with pytest.raises(Unavailable, match="the issuer's keys could not be fetched"):
        tenant(issuer, issuer.token())


def test_keys_that_cannot_be_read_harm_no_others(issuer: Issuer) -> None:
    issuer.keys = [{"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"}, {"kid": 1}, public(RSA_KEY, "one")]
    issuer.keys.insert(0, "no object")  # type: ignore[arg-type]
    assert tenant(issuer, issuer.token()) == "acme"
    assert refusal(issuer, issuer.token(kid="broken")) == "the issuer's key does not fit its algorithm (alg)."


def test_another_issuers_discovery_document_leads_nowhere(issuer: Issuer) -> None:
    issuer.issuer = "https://elsewhere.example"
    with pytest.raises(Unavailable):
        tenant(issuer, issuer.token())


@pytest.mark.parametrize(("scheme", "warned"), [("http", True), ("https", False)])
def test_keys_that_come_without_tls_are_warned_of(scheme: str, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    Tokens(Jwt(issuer=f"{scheme}://issuer.example", audience=AUDIENCE))
    assert ("without TLS" in caplog.text) is warned


def test_a_secure_issuers_keys_are_not_fetched_in_the_clear(issuer: Issuer) -> None:
    issuer.jwks_uri = "ftp://127.0.0.1/keys"
    with pytest.raises(Unavailable):
        tenant(issuer, issuer.token())
