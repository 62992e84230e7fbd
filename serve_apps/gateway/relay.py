"""Bytes between a client and an upstream, passed on as they come.

The loop over chunks is the hottest code of the project: it looks at nothing and allocates one message a chunk.
"""

import asyncio
import io
from dataclasses import dataclass

import aiohttp
from yarl import URL

from serve_apps.common.errors import ServingError, UpstreamFailed, UpstreamTimeout
from serve_apps.common.middleware import Receive, Send
from serve_apps.common.protocol import ABSENT_HEADER, DEGRADED_HEADER
from serve_apps.gateway.exchange import Exchange
from serve_apps.gateway.refusals import absent, translated
from serve_apps.gateway.request import Disconnected, RawHeaders

#: How long an upstream may take to accept a connection, in seconds.
CONNECT_TIMEOUT_S = 5
#: Before each further attempt at an upstream that is not there, in seconds. A proxy that starts anew, or a head that
#: comes back and lets routers start, takes no longer; who asks a model that is broken waits that long for the refusal.
PAUSES_S = (0.2, 0.5, 1.0, 2.0)
#: How long an idle connection is kept, in seconds: less than uvicorn's 5 s, so that we close it first.
KEEPALIVE_S = 4
#: As much of an error's body as is read, in bytes; a larger one is no OpenAI error.
ERROR_BODY_BYTES = 64 * 1024
#: aiohttp writes larger ``bytes`` in one go and warns; a file object goes out in pieces.
_ONE_WRITE_BYTES = 1024 * 1024

_SSE = b"text/event-stream"
#: The response headers a client gets to see. The request id is the caller's to add.
_PASSED_HEADERS = frozenset(
    {
        b"content-type",
        b"content-length",
        b"content-disposition",
        b"cache-control",
        b"allow",
        b"retry-after",
        DEGRADED_HEADER.encode(),
    }
)
_SKIPPED_AUTO_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class StreamBroken(Exception):
    """An answer that is not an event stream broke after it began: only closing the connection can tell the client."""


@dataclass(frozen=True, slots=True)
class Outbound:
    """A request for an upstream."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes
    repeatable: bool
    """Whether it may be sent once more if a kept connection turns out closed before any answer."""


class Relay:
    """Sends requests upstream and passes the answers on."""

    def __init__(self, *, first_byte_timeout_s: float, stall_timeout_s: float) -> None:
        self._first_byte_timeout_s = first_byte_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Open the connection pool; needs the event loop that requests run on."""
        self._session = aiohttp.ClientSession(
            # No limit: admission is decided before a request gets here.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_SKIPPED_AUTO_HEADERS,
        )

    async def close(self) -> None:
        """Close the pool and every connection in it."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def relay(
        self,
        outbound: Outbound,
        receive: Receive,
        send: Send,
        exchange: Exchange,
        headers: RawHeaders,
    ) -> None:
        """Send ``outbound`` and pass its answer on, with ``headers`` added.

        The upstream's connection closes at once when the client goes away, streaming or not: that is what makes
        vLLM abort the generation.

        Raises:
            ServingError: there is no answer to pass on; nothing was sent to the client.
            Disconnected: the client went away.
            StreamBroken: the connection to the client must be closed.
        """
        work = asyncio.ensure_future(self._exchange(outbound, send, exchange, headers))
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise Disconnected
            work.result()
        finally:
            gone.cancel()
            work.cancel()

    async def _exchange(self, outbound: Outbound, send: Send, exchange: Exchange, headers: RawHeaders) -> None:
        response: aiohttp.ClientResponse | None = None
        try:
            async with asyncio.timeout(self._first_byte_timeout_s) as deadline:
                response = await self._respond(outbound, exchange.model)
                await self._pass_on(response, send, exchange, headers, deadline)
        except TimeoutError:
            await self._fail(response, send, exchange, self._timeout(exchange))
        except aiohttp.ClientError:
            broke = UpstreamFailed(f'The answer of "{exchange.model}" broke off.', code="upstream_failed")
            await self._fail(response, send, exchange, broke)
        finally:
            if response is not None:
                response.close()  # closes the connection, unless the answer was read to its end

    async def _respond(self, outbound: Outbound, model: str) -> aiohttp.ClientResponse:
        """The upstream's response, headers read. One that is not there is asked again: it has done nothing yet.

        Raises:
            Unavailable: it is still not there.
        """
        for pause_s in (*PAUSES_S, None):
            try:
                response = await self._request(outbound)
                if not _is_absence(response):
                    return response
                response.close()
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
                pass
            if pause_s is not None:
                await asyncio.sleep(pause_s)
        raise absent(model)

    async def _request(self, outbound: Outbound) -> aiohttp.ClientResponse:
        """One attempt; a second one where a kept connection turns out closed."""
        if self._session is None:
            raise RuntimeError("the relay is not open")
        attempts = 2 if outbound.repeatable else 1
        while True:
            attempts -= 1
            try:
                return await self._session.request(
                    outbound.method,
                    URL(outbound.url, encoded=True),
                    headers=outbound.headers,
                    data=_payload(outbound.body),
                    allow_redirects=False,
                )
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
                raise
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError):
                if not attempts:
                    raise

    async def _pass_on(
        self,
        response: aiohttp.ClientResponse,
        send: Send,
        exchange: Exchange,
        headers: RawHeaders,
        deadline: asyncio.Timeout,
    ) -> None:
        read = response.content.readany
        if response.status >= 300:
            chunk = await _error_body(response, exchange.model)
        else:
            chunk = await read()
        # Held back until the first byte is here: up to then any failure can still be an error of its own.
        passed = [(name.lower(), value) for name, value in response.raw_headers if name.lower() in _PASSED_HEADERS]
        exchange.began(response.status)
        await send({"type": "http.response.start", "status": response.status, "headers": passed + headers})
        now, stall_s = asyncio.get_running_loop().time, self._stall_timeout_s
        while chunk:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            deadline.reschedule(now() + stall_s)
            chunk = await read()
        await send({"type": "http.response.body", "body": b""})

    async def _fail(
        self, response: aiohttp.ClientResponse | None, send: Send, exchange: Exchange, error: ServingError
    ) -> None:
        if response is None or not exchange.status:
            raise error from None
        exchange.broken = True
        if not _is_sse(response):
            raise StreamBroken(error.message) from None
        # The blank line first ends an event that may have been cut in two.
        event = b"\n\ndata: " + error.encoded() + b"\n\n"
        await send({"type": "http.response.body", "body": event})

    def _timeout(self, exchange: Exchange) -> UpstreamTimeout:
        if exchange.status:
            return UpstreamTimeout(
                f'The answer of "{exchange.model}" stood still for {self._stall_timeout_s:g} s.',
                code="stream_stalled",
            )
        return UpstreamTimeout(
            f'The model "{exchange.model}" did not begin to answer within {self._first_byte_timeout_s:g} s.',
            code="first_byte_timeout",
        )


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _error_body(response: aiohttp.ClientResponse, model: str) -> bytes:
    """The body of an error that may be passed on as it is.

    Raises:
        ServingError: the one to send instead.
    """
    body = b""
    while len(body) <= ERROR_BODY_BYTES and (chunk := await response.content.readany()):
        body += chunk
    whole = body if len(body) <= ERROR_BODY_BYTES else b""
    error = translated(model, response.status, response.headers.get("retry-after"), whole)
    if error is not None:
        raise error
    return body


def _is_absence(response: aiohttp.ClientResponse) -> bool:
    """Whether it is a proxy's word that nobody stands behind it, and not the upstream's, which speaks JSON.

    A refusal under load says when to come back.
    """
    if response.status not in (404, 503):
        return False
    theirs = response.content_type == "application/json" or "retry-after" in response.headers
    return ABSENT_HEADER in response.headers or not theirs


def _is_sse(response: aiohttp.ClientResponse) -> bool:
    return any(name.lower() == b"content-type" and value.startswith(_SSE) for name, value in response.raw_headers)


def _payload(body: bytes) -> bytes | io.BytesIO | None:
    if not body:
        return None
    return body if len(body) <= _ONE_WRITE_BYTES else io.BytesIO(body)
