"""The models, as the gateway offers them to our own applications: chat completions, and any path that takes JSON.

Every call carries the internal credential and the tenant it is made for, so versions, limits and metering apply to an
application's calls as to anyone's. A failed call becomes the ``ServingError`` that the application's client should see.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from serve_apps.common import sse, tracing
from serve_apps.common.errors import (
    InvalidRequest,
    PermissionDenied,
    RateLimited,
    ServingError,
    TooLarge,
    Unavailable,
    UpstreamFailed,
    UpstreamTimeout,
)
from serve_apps.common.logging import request_id as logged_request_id
from serve_apps.common.protocol import BACKGROUND_HEADER, INTERNAL_HEADER, REQUEST_ID_HEADER, TENANT_HEADER
from serve_apps.common.secrets import InternalCredential

CONNECT_TIMEOUT_S = 10

#: What a refusal by the gateway means for the application's client. 401 and 404 are not here: the credential and the
#: model's name are this server's, so they are its fault.
_REFUSALS: dict[int, type[ServingError]] = {
    400: InvalidRequest,
    403: PermissionDenied,
    413: TooLarge,
    422: InvalidRequest,
    429: RateLimited,
    503: Unavailable,
    504: UpstreamTimeout,
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a request is made for."""

    tenant: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What was answered, whatever it was."""

    status: int
    body: bytes
    retry_after_s: int | None = None
    """When to come back, if it says."""
    final: bool = False
    """Whether it says that coming back will not help (``x-should-retry: false``)."""


def caller_of(headers: Mapping[str, str]) -> Caller:
    """Whom a request that the gateway passed on is made for; log lines and spans belong to it from now on."""
    caller = Caller(headers.get(TENANT_HEADER, ""), headers.get(REQUEST_ID_HEADER, ""))
    logged_request_id.set(caller.request_id)
    tracing.join(headers)
    return caller


class GatewayClient:
    """Calls models through the gateway. One per process."""

    def __init__(self, base_url: str, credential: InternalCredential, timeout_s: float) -> None:
        """``timeout_s``: how long a model may take to begin its answer, and a stream may stay silent, in seconds."""
        self._base_url = base_url
        self._credential = credential
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def chat(self, request: dict[str, Any], caller: Caller) -> dict[str, Any]:
        """A whole chat completion."""
        return await self.ask("/v1/chat/completions", {**request, "stream": False}, caller, _model(request))

    async def stream_chat(self, request: dict[str, Any], caller: Caller) -> AsyncGenerator[bytes, None]:
        """The payloads of a streamed chat completion, ``[DONE]`` included, as they come.

        Closing the iterator closes the connection, which makes the gateway abort the generation.

        Raises:
            ServingError: before the first payload, as for every call; later, ``UpstreamFailed`` if the stream broke.
        """
        whom = _model(request)
        async with self._post("/v1/chat/completions", {**request, "stream": True}, caller, whom) as response:
            try:
                async for payload in sse.payloads(response.content.iter_any()):
                    yield payload
                    if payload == sse.DONE:
                        return
            except (aiohttp.ClientError, TimeoutError) as error:
                raise UpstreamFailed("The answer broke off: the model's stream ended early.") from error
        raise UpstreamFailed("The answer broke off: the model's stream ended early.")

    async def ask(self, path: str, request: dict[str, Any], caller: Caller, whom: str) -> dict[str, Any]:
        """The JSON object that ``path`` answers.

        Args:
            path: below the gateway's URL.
            request: the body.
            caller: whom it is asked for.
            whom: who answers there, as errors name it: ``Model 'chat'``.

        Raises:
            ServingError: there is no such answer.
        """
        async with self._post(path, request, caller, whom) as response:
            try:
                answer = orjson.loads(await response.read())
            except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError) as error:
                raise unreadable(whom) from error
        if not isinstance(answer, dict):
            raise unreadable(whom)
        return answer

    async def reply(self, path: str, body: bytes, caller: Caller) -> Reply:
        """What ``path`` answers to a request that need not be answered soon, refusals included.

        Raises:
            ServingError: nothing came, or not all of it.
        """
        more = {BACKGROUND_HEADER: "true"}
        async with await self._response(path, body, caller, "The gateway", more) as response:
            try:
                return await read_reply(response)
            except (aiohttp.ClientError, TimeoutError) as error:
                raise unreadable("The gateway") from error

    async def close(self) -> None:
        """Break off what is still running."""
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def _post(
        self, path: str, request: dict[str, Any], caller: Caller, whom: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A response that has begun, with status 200."""
        async with await self._response(path, orjson.dumps(request), caller, whom) as response:
            if response.status != 200:
                raise await _refusal(whom, response)
            yield response

    async def _response(
        self, path: str, body: bytes, caller: Caller, whom: str, more_headers: Mapping[str, str] | None = None
    ) -> aiohttp.ClientResponse:
        """A response that has begun."""
        headers = {
            "content-type": "application/json",
            INTERNAL_HEADER: self._credential.value(),
            TENANT_HEADER: caller.tenant,
            REQUEST_ID_HEADER: caller.request_id,
            **tracing.headers(),
            **(more_headers or {}),
        }
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._connections().post(self._base_url + path, data=body, headers=headers)
        except (TimeoutError, aiohttp.ClientError) as error:
            # aiohttp's own errors of timeouts are both; one to connect is no answer that is late.
            if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError):
                raise UpstreamTimeout(f"{whom} did not begin to answer within {self._timeout_s:g} s.") from error
            logger.error("gateway unreachable", extra={"error": str(error), "asked": whom})
            raise Unavailable(f"{whom} cannot be reached; try again.", retry_after_s=1) from error

    def _connections(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # No bound here: the deployment's max_ongoing_requests is one. No reuse: a POST on a connection that
                # the proxy is just closing fails, and a new one to this node's own proxy costs next to nothing.
                connector=aiohttp.TCPConnector(limit=0, force_close=True),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=self._timeout_s),
            )
        return self._session


async def read_reply(response: aiohttp.ClientResponse) -> Reply:
    """The whole of a response that has begun."""
    body = await response.read()
    return Reply(response.status, body, _retry_after_s(response), response.headers.get("x-should-retry") == "false")


def unreadable(whom: str) -> UpstreamFailed:
    """The error for an answer that is not what was asked for."""
    return UpstreamFailed(f"{whom} gave an answer that cannot be read.")


def _model(request: dict[str, Any]) -> str:
    return f"Model {request['model']!r}"


async def _refusal(whom: str, response: aiohttp.ClientResponse) -> ServingError:
    """The gateway's refusal, as the application's client should see it."""
    try:
        error = orjson.loads(await response.read())["error"]
        message, code = str(error["message"]), error.get("code")
    except (aiohttp.ClientError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        message, code = f"{whom} answered with status {response.status}.", None
    kind = _REFUSALS.get(response.status)
    if kind is None:
        logger.error("gateway refused", extra={"asked": whom, "status": response.status, "error": message})
        return UpstreamFailed(f"{whom} failed.")
    return kind(message, code=code, retry_after_s=_retry_after_s(response))


def _retry_after_s(response: aiohttp.ClientResponse) -> int | None:
    given = response.headers.get("retry-after", "")
    return int(given) if given.isdecimal() else None
