"""JSON Web Tokens of an OpenID Connect issuer: whose they are, and why one does not count.

The issuer's keys (JWKS) are fetched when they are first needed, again when a token names one that is not known, and
now and then so that a withdrawn key ends. An issuer that is down changes nothing for tokens whose key is known.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import jwt
import orjson

from serve_apps.common.errors import Unauthenticated, Unavailable
from serve_apps.gateway.config import Jwt

logger = logging.getLogger(__name__)

#: Between two fetches because of unknown keys, in seconds: anybody can make up a key's name.
AGAIN_S = 30.0
#: The same while no key is known at all, and nobody can be let in.
FIRST_AGAIN_S = 1.0
#: The age of the keys, in seconds, at which they are fetched anew.
STALE_S = 3600.0
#: The longest that a fetch may take, in seconds.
FETCH_S = 5.0
#: What is read of an issuer's answer, in bytes, and how many keys are looked at.
MAX_ANSWER_BYTES = 256 * 1024
MAX_KEYS = 64
#: For how long a token that was checked is not checked again, in seconds, and how many are remembered.
REMEMBERED_S = 60.0
MAX_REMEMBERED = 4096

#: A tenant's name goes into headers, logs and keys of Redis.
_TENANT = re.compile(r"[A-Za-z0-9._@:|/+=-]{1,128}")
_KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_HINT_OF_CHECK: tuple[tuple[type[Exception], str], ...] = (
    (jwt.ExpiredSignatureError, "it has expired (exp)"),
    (jwt.ImmatureSignatureError, "it is not valid yet (nbf, iat)"),
    (jwt.InvalidSignatureError, "its signature is not that of the issuer's key"),
    (jwt.InvalidKeyError, "the issuer's key does not fit its algorithm (alg)"),
    (jwt.DecodeError, "it is no JSON Web Token"),
)


class Tokens:
    """Turns tokens into tenants."""

    def __init__(self, rules: Jwt, clock: Callable[[], float] = time.time) -> None:
        self._rules = rules
        self._clock = clock
        self._keys = KeySet(rules.issuer, rules.jwks_url)
        if (rules.jwks_url or rules.issuer).startswith("http://"):
            logger.warning("the issuer's keys come without TLS: whoever is on their way can make tokens")
        self._remembered: dict[str, tuple[str, float]] = {}

    async def tenant(self, token: str) -> str:
        """The tenant that the token names.

        Raises:
            Unauthenticated: it does not count; the message says which check failed, and nothing of the token.
            Unavailable: the issuer's keys are not known, since it could not be reached yet.
        """
        tenant, until_s = self._remembered.get(token, ("", 0.0))
        if self._clock() < until_s:
            return tenant
        claims = await self._claims(token)
        tenant = self._named(claims)
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered = {}
        ends_s = float(claims["exp"]) + self._rules.leeway_s
        self._remembered[token] = (tenant, min(ends_s, self._clock() + REMEMBERED_S))
        return tenant

    async def close(self) -> None:
        """End what is fetched in the background."""
        await self._keys.close()

    async def _claims(self, token: str) -> dict[str, Any]:
        rules = self._rules
        try:
            header = jwt.get_unverified_header(token)
            algorithm = header.get("alg")
            if algorithm not in rules.algorithms:
                raise _refused(f"its algorithm is none of {', '.join(rules.algorithms)} (alg)")
            key = await self._keys.find(header.get("kid"), algorithm)
            if key is None:
                raise _refused("the issuer lists no key for it (kid)")
            return jwt.decode(
                token,
                key,
                algorithms=list(rules.algorithms),
                audience=rules.audience,
                issuer=rules.issuer,
                leeway=rules.leeway_s,
                options={"require": ["exp", "iss", "aud"], "enforce_minimum_key_length": True},
            )
        except jwt.InvalidAudienceError:
            raise _refused(f'it is not for "{rules.audience}" (aud)') from None
        except jwt.InvalidIssuerError:
            raise _refused(f'it was not issued by "{rules.issuer}" (iss)') from None
        except jwt.MissingRequiredClaimError as error:
            raise _refused(f'it has no "{error.claim}"') from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            hint = next(
                (hint for kind, hint in _HINT_OF_CHECK if isinstance(error, kind)), "one of its claims is malformed"
            )
            raise _refused(hint) from None

    def _named(self, claims: dict[str, Any]) -> str:
        claim = self._rules.tenant_claim
        value: Any = claims
        if claim in claims:  # namespaced claims have dots of their own: https://example.com/tenant
            value = claims[claim]
        else:
            for name in claim.split("."):
                value = value.get(name) if isinstance(value, dict) else None
        if not isinstance(value, str) or not _TENANT.fullmatch(value):
            raise _refused(f'its claim "{claim}" is no name of a tenant')
        return value


class KeySet:
    """The issuer's public keys."""

    def __init__(self, issuer: str, url: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        """``url``: where the keys are; None: where the issuer's discovery document says."""
        self._issuer = issuer
        self._url = url
        self._clock = clock
        self._documents: list[dict[str, Any]] = []
        self._keys: dict[tuple[str | None, str], jwt.PyJWK] = {}
        self._fetched_s = self._tried_s = float("-inf")
        self._turn = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        """The key with this id (a token without one means the only key there is), for this algorithm.

        Raises:
            Unavailable: no key is known at all; the issuer could not be reached.
            jwt.PyJWTError: the key is not one of this algorithm.
        """
        key = self._known(key_id, algorithm)
        if key is None:
            await self._refresh(AGAIN_S if self._documents else FIRST_AGAIN_S)
            if not self._documents:
                raise Unavailable(
                    "Tokens cannot be checked: the issuer's keys could not be fetched.",
                    code="issuer_unavailable",
                    retry_after_s=int(FIRST_AGAIN_S),
                )
            key = self._known(key_id, algorithm)
        elif self._clock() - self._fetched_s > STALE_S and (self._refreshing is None or self._refreshing.done()):
            # Nobody waits for it: the issuer may be down, and the key is known.
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh(AGAIN_S))
        return key

    async def close(self) -> None:
        """End the fetch that nobody waits for."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])

    def _known(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        key = self._keys.get((key_id, algorithm))
        if key is None:
            fitting = [document for document in self._documents if _fits(document, key_id, algorithm)]
            if not fitting or (key_id is None and len(fitting) > 1):
                return None
            key = self._keys[key_id, algorithm] = jwt.PyJWK(fitting[0], algorithm)
        return key

    async def _refresh(self, at_most_every_s: float) -> None:
        async with self._turn:
            now = self._clock()
            if now - self._tried_s < at_most_every_s:
                return
            self._tried_s = now
            try:
                documents = await self._fetch()
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                problem = f"{type(error).__name__}: {error}"
                logger.error("the issuer's keys cannot be fetched; those known stay", extra={"problem": problem})
                return
            self._documents, self._keys, self._fetched_s = documents, {}, now

    async def _fetch(self) -> list[dict[str, Any]]:
        timeout = aiohttp.ClientTimeout(total=FETCH_S)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as session:
            url = self._url or await self._discovered(session)
            keys = (await _document(session, url)).get("keys")
        if not isinstance(keys, list) or not keys:
            raise ValueError(f"{url} lists no keys")
        return [key for key in keys[:MAX_KEYS] if isinstance(key, dict) and key.get("use", "sig") == "sig"]

    async def _discovered(self, session: aiohttp.ClientSession) -> str:
        """Where the keys are, by OpenID Connect Discovery 1.0, §4."""
        where = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
        found = await _document(session, where)
        if found.get("issuer") != self._issuer:
            raise ValueError(f"{where} is not of the issuer {self._issuer}")
        url = found.get("jwks_uri")
        if not isinstance(url, str) or url.partition("://")[0] != self._issuer.partition("://")[0]:
            raise ValueError(f"the jwks_uri of {where} is no address of the issuer's scheme")
        return url


def _fits(document: dict[str, Any], key_id: str | None, algorithm: str) -> bool:
    """Whether a key may check this algorithm, which is one of the allowed: what a token says of itself is no reason."""
    return (
        (key_id is None or document.get("kid") == key_id)
        and document.get("kty") == _KEY_TYPES[algorithm[:2]]
        and document.get("alg", algorithm) == algorithm
    )


async def _document(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with session.get(url, allow_redirects=False) as response:
        if response.status != 200:
            raise ValueError(f"{url} answered {response.status}")
        body = b""
        async for chunk in response.content.iter_chunked(MAX_ANSWER_BYTES):
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise ValueError(f"{url} answered more than {MAX_ANSWER_BYTES} bytes")
    document = orjson.loads(body)
    if not isinstance(document, dict):
        raise ValueError(f"{url} answered no JSON object")
    return document


def _refused(why: str) -> Unauthenticated:
    return Unauthenticated(f"The token is not accepted: {why}.", code="invalid_token")
