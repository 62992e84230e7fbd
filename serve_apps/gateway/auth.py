"""Who is calling: an API key's holder, one of our own pipelines, or anybody where that is allowed."""

from dataclasses import dataclass
from typing import Literal

from serve_apps.common.errors import Unauthenticated
from serve_apps.common.protocol import INTERNAL_HEADER, TENANT_HEADER
from serve_apps.common.secrets import ApiKeys, InternalCredential
from serve_apps.gateway.request import RawHeaders, find

#: The tenant of callers without a key, where keys are not asked for.
ANONYMOUS = "anonymous"
#: The tenant of a pipeline that calls for itself, for example to probe a model.
INTERNAL = "internal"

_INTERNAL_HEADER = INTERNAL_HEADER.encode()
_TENANT_HEADER = TENANT_HEADER.encode()


@dataclass(frozen=True, slots=True)
class Caller:
    """For whom a request is made, and whether one of our own apps makes it."""

    tenant: str
    internal: bool = False


class Authenticator:
    """Turns a request's headers into its caller."""

    def __init__(self, mode: Literal["apiKeys", "none"], keys: ApiKeys, credential: InternalCredential) -> None:
        self._mode = mode
        self._keys = keys
        self._credential = credential

    def caller(self, headers: RawHeaders) -> Caller:
        """The caller. The tenant header counts only beside the internal credential.

        Raises:
            Unauthenticated: a key is needed, and there is none or it is not one of ours.
        """
        if self.is_internal(headers):
            tenant = (find(headers, _TENANT_HEADER) or b"").decode("latin-1")
            return Caller(tenant or INTERNAL, internal=True)
        if self._mode == "none":
            return Caller(ANONYMOUS)
        scheme, _, key = (find(headers, b"authorization") or b"").decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Unauthenticated('Send your API key as "Authorization: Bearer sk-…".', code="invalid_api_key")
        tenant_id = self._keys.identify(key.strip())
        if tenant_id is None:
            raise Unauthenticated("The API key is not one of ours, or no longer.", code="invalid_api_key")
        return Caller(tenant_id)

    def is_internal(self, headers: RawHeaders) -> bool:
        """Whether the request shows the internal credential."""
        shown = find(headers, _INTERNAL_HEADER)
        return shown is not None and self._credential.matches(shown.decode("latin-1"))

    def check_readable(self) -> None:
        """Prove that credentials can be looked up.

        Raises:
            RuntimeError: the internal credential or the keys cannot be read.
        """
        self._credential.value()
        if self._mode == "apiKeys":
            self._keys.check_readable()
