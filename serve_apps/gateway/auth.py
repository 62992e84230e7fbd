"""Who is calling: the holder of an API key or token, one of our own pipelines, or anybody where that is allowed."""

from dataclasses import dataclass
from typing import Literal

from serve_apps.common.errors import InvalidRequest, Unauthenticated
from serve_apps.common.protocol import BACKGROUND_HEADER, INTERNAL_HEADER, TENANT_HEADER
from serve_apps.common.secrets import ApiKeys, InternalCredential
from serve_apps.gateway.headers import RawHeaders, find
from serve_apps.gateway.oidc import Tokens

#: The tenant of callers without a key, where keys are not asked for.
ANONYMOUS = "anonymous"
#: The tenant of a pipeline that calls for itself, for example to probe a model.
INTERNAL = "internal"

#: Every API key begins so, and no token does.
_KEY_PREFIX = "sk-"
_INTERNAL_HEADER = INTERNAL_HEADER.encode()
_TENANT_HEADER = TENANT_HEADER.encode()
_BACKGROUND_HEADER = BACKGROUND_HEADER.encode()


@dataclass(frozen=True, slots=True)
class Caller:
    """For whom a request is made, and whether one of our own apps makes it."""

    tenant: str
    internal: bool = False
    background: bool = False
    """Whether an app of ours sends on, some time later, what the tenant itself has written: a line of a batch."""


class Authenticator:
    """Turns a request's headers into its caller."""

    def __init__(
        self,
        mode: Literal["apiKeys", "jwt", "none"],
        keys: ApiKeys,
        credential: InternalCredential,
        tokens: Tokens | None = None,
    ) -> None:
        """``tokens`` are taken in the mode ``jwt``, which needs them, and beside the keys in the mode ``apiKeys``."""
        if mode == "jwt" and tokens is None:
            raise ValueError("gateway.auth is jwt, and gateway.jwt does not say how tokens are checked")
        self._mode = mode
        self._keys = keys
        self._credential = credential
        self._tokens = tokens

    async def caller(self, headers: RawHeaders) -> Caller:
        """The caller. The headers of tenant and background count only beside the internal credential.

        Raises:
            Unauthenticated: a key or token is needed, and there is none or it does not count.
            InvalidRequest: there are several, and no telling which one counts.
            Unavailable: tokens cannot be checked now.
        """
        if self.is_internal(headers):
            tenant = (find(headers, _TENANT_HEADER) or b"").decode("latin-1")
            return Caller(tenant or INTERNAL, internal=True, background=find(headers, _BACKGROUND_HEADER) is not None)
        if self._mode == "none":
            return Caller(ANONYMOUS)
        shown = _shown(headers)
        if not shown:
            raise self._unauthenticated()
        if self._tokens is not None and not shown.startswith(_KEY_PREFIX):
            return Caller(await self._tokens.tenant(shown))
        if self._mode == "jwt":
            raise self._unauthenticated()
        tenant_of_key = self._keys.identify(shown)
        if tenant_of_key is None:
            raise Unauthenticated("The API key is not one of ours, or no longer.", code="invalid_api_key")
        return Caller(tenant_of_key)

    async def close(self) -> None:
        """End what goes on in the background."""
        if self._tokens is not None:
            await self._tokens.close()

    def is_internal(self, headers: RawHeaders) -> bool:
        """Whether the request shows the internal credential."""
        shown = find(headers, _INTERNAL_HEADER)
        return shown is not None and self._credential.matches(shown.decode("latin-1"))

    def check_readable(self) -> None:
        """Prove that credentials can be looked up; an issuer that is down makes no replica less ready.

        Raises:
            RuntimeError: the internal credential or the keys cannot be read.
        """
        self._credential.value()
        if self._mode == "apiKeys":
            self._keys.check_readable()

    def _unauthenticated(self) -> Unauthenticated:
        if self._mode == "jwt":
            return Unauthenticated('Send a token as "Authorization: Bearer …".', code="invalid_token")
        return Unauthenticated('Send your API key as "Authorization: Bearer sk-…".', code="invalid_api_key")


def _shown(headers: RawHeaders) -> str:
    """The key or token of ``Authorization: Bearer`` or of ``x-api-key`` (Anthropic's clients); empty without one.

    Raises:
        InvalidRequest: there are two that differ, or one header comes twice.
    """
    bearer = api_key = None
    for name, value in headers:
        if name == b"authorization":
            if bearer is not None:
                raise InvalidRequest("The header Authorization came twice; send it once.", code="duplicate_header")
            scheme, _, credential = value.decode("latin-1").partition(" ")
            bearer = credential.strip() if scheme.lower() == "bearer" else ""
        elif name == b"x-api-key":
            if api_key is not None:
                raise InvalidRequest("The header x-api-key came twice; send it once.", code="duplicate_header")
            api_key = value.decode("latin-1").strip()
    if bearer and api_key and bearer != api_key:
        raise InvalidRequest(
            "Authorization and x-api-key hold different keys; send one of them.", code="duplicate_header"
        )
    return bearer or api_key or ""
