"""Requests to upstreams, and their answers on the way to clients: asked again, translated, cut off or passed on."""

import asyncio
from dataclasses import dataclass

from serve_apps.common.errors import InvalidRequest, ServingError, UpstreamFailed, UpstreamTimeout
from serve_apps.common.middleware import Receive, Send
from serve_apps.common.protocol import ABSENT_HEADER, DEGRADED_HEADER
from serve_apps.gateway import refusals
from serve_apps.gateway.deadline import Deadline
from serve_apps.gateway.exchange import Exchange
from serve_apps.gateway.headers import RawHeaders
from serve_apps.gateway.passage import Client, Passage
from serve_apps.gateway.request import Disconnected
from serve_apps.gateway.upstream import Answer, Pool, Request, Unanswered, Unreachable, UpstreamError
from serve_apps.gateway.usage import Reader

#: Before each further attempt at an upstream that is not there, in seconds. A proxy that starts anew, or a head that
#: comes back and lets routers start, takes no longer; who asks a model that is broken waits that long for the refusal.
PAUSES_S = (0.2, 0.5, 1.0, 2.0)
#: How long a replica may take to accept a connection, in seconds. It is in our cluster, and the proxy knows others.
TARGET_CONNECT_TIMEOUT_S = 1
#: As much of an error's body as is read, in bytes; a larger one is no OpenAI error.
ERROR_BODY_BYTES = 64 * 1024

_SSE = b"text/event-stream"
_JSON = b"application/json"
_LENGTH = b"content-length"
#: The response headers a client gets to see. The request id is the caller's to add.
_PASSED_HEADERS = frozenset(
    {
        b"content-type",
        _LENGTH,
        b"content-disposition",
        b"cache-control",
        b"allow",
        b"retry-after",
        DEGRADED_HEADER.encode(),
    }
)


class StreamBroken(Exception):
    """An answer that is not an event stream broke after it began: only closing the connection can tell the client."""


class ContextOverflow(InvalidRequest):
    """The prompt is too long for the model that was asked; another may take it."""


@dataclass(slots=True)
class Outbound(Request):
    """A request for an upstream, and what may be done where that is not there."""

    repeatable: bool
    """Whether it may be sent once more if a kept connection turns out closed before any answer."""
    target: tuple[str, int] | None = None
    """Host and port to dial instead of the URL's: a replica's own. If it refuses, the URL is asked."""
    alternatives: bool = False
    """Whether another model would be asked: then an absent upstream is not waited for, and what another could do
    better (a refusal, a failure, too long a prompt) is raised, not passed on."""


class Relay:
    """Sends requests upstream and passes the answers on."""

    def __init__(self, *, first_byte_timeout_s: float, stall_timeout_s: float, write_timeout_s: float = 60) -> None:
        self._first_byte_timeout_s = first_byte_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._write_timeout_s = write_timeout_s
        self._pool = Pool()

    async def close(self) -> None:
        """Close every connection to an upstream."""
        self._pool.close()

    async def relay(
        self,
        outbound: Outbound,
        receive: Receive,
        send: Send,
        exchange: Exchange,
        headers: RawHeaders,
        reader: Reader | None = None,
        first_byte_timeout_s: float | None = None,
        *,
        client: Client | None = None,
    ) -> None:
        """Send ``outbound`` and pass its answer on, with ``headers`` added.

        The upstream's connection closes at once when the client goes away, streaming or not: that is what makes
        vLLM abort the generation.

        Args:
            outbound: what is asked.
            receive: tells of the client's leaving, where there is no ``client``.
            send: takes the response.
            exchange: is told of the answer's beginning, pieces, end and usage.
            headers: what is added to those of the answer.
            reader: sees every piece of the answer.
            first_byte_timeout_s: for this attempt, in place of the relay's own.
            client: the connection to the client, where the server shows it.

        Raises:
            ServingError: there is no answer to pass on; nothing was sent to the client.
            Disconnected: the client went away.
            StreamBroken: the connection to the client must be closed.
        """
        timeout_s = self._first_byte_timeout_s if first_byte_timeout_s is None else first_byte_timeout_s
        passing = self._exchange(outbound, send, exchange, headers, reader, timeout_s, client)
        if client is not None:
            await passing
            return
        work = asyncio.ensure_future(passing)
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
                await asyncio.wait((work,))  # it notes what was passed on
                raise Disconnected
            work.result()
        finally:
            gone.cancel()
            work.cancel()
            await asyncio.wait((work, gone))  # what is kept about the exchange is whole then

    async def discard(self, outbound: Outbound) -> int:
        """Send ``outbound`` and drop its answer; the answer's status, 0 if there was no whole one."""
        try:
            async with asyncio.timeout(self._first_byte_timeout_s) as deadline:
                answer = await self._respond(outbound, "")
                try:
                    while await answer.read():
                        deadline.reschedule(asyncio.get_running_loop().time() + self._stall_timeout_s)
                finally:
                    answer.close()
        except (TimeoutError, UpstreamError, ServingError):
            return 0
        return answer.status

    async def _exchange(
        self,
        outbound: Outbound,
        send: Send,
        exchange: Exchange,
        headers: RawHeaders,
        reader: Reader | None,
        timeout_s: float,
        client: Client | None,
    ) -> None:
        # Nothing is sent until the first byte is here: up to then any failure can still be an error of its own.
        answer, first = await self._begin(outbound, exchange, timeout_s)
        events = _is_sse(answer)
        passage = Passage(answer, reader, client, self._stall_timeout_s)
        try:
            exchange.began(answer.status)
            await send(
                {
                    "type": "http.response.start",
                    "status": answer.status,
                    "headers": _passed(answer, first, may_shrink=events and reader is not None) + headers,
                }
            )
            await self._pass_on(passage, first, send)
        except StreamBroken:
            exchange.broken = True
            raise
        except (TimeoutError, UpstreamError) as failure:
            exchange.broken = True
            answer.close()
            error = self._failure(failure, exchange.model)
            if not events:
                raise StreamBroken(error.message) from None
            await send({"type": "http.response.body", "body": passage.end() + refusals.event(error, exchange.path)})
        finally:
            answer.close()  # closes the connection, unless the answer was read to its end
            exchange.broken = exchange.broken or (events and passage.failed)
            exchange.pieces = passage.pieces
            exchange.last_byte_s = passage.last_s - exchange.started_s
            if reader is not None and (tokens := reader.tokens()) is not None:
                exchange.prompt_tokens, exchange.completion_tokens = tokens.prompt, tokens.completion

    async def _begin(self, outbound: Outbound, exchange: Exchange, timeout_s: float) -> tuple[Answer, bytes]:
        """The upstream's answer and the first piece of its body, or all of an error's.

        Raises:
            ServingError: there is none that may be passed on.
        """
        try:
            with Deadline(timeout_s):
                answer = await self._respond(outbound, exchange.model)
                try:
                    if answer.status >= 300:
                        return answer, await _refusal(answer, outbound, exchange)
                    first = await answer.read()
                    if _is_sse(answer) and (error := refusals.begun_with(exchange.model, first)) is not None:
                        raise error
                    return answer, first
                except BaseException:
                    answer.close()
                    raise
        except TimeoutError:
            raise UpstreamTimeout(
                f'The model "{exchange.model}" did not begin to answer within {timeout_s:g} s.',
                code="first_byte_timeout",
            ) from None
        except UpstreamError as failure:
            raise self._failure(failure, exchange.model) from None

    async def _respond(self, outbound: Outbound, model: str) -> Answer:
        """The upstream's answer, its head read. One that is not there is asked again: it has done nothing yet.

        Raises:
            Unavailable: it is still not there.
        """
        if outbound.target is not None:
            answer = await self._at_target(outbound, outbound.target)
            if answer is not None:
                return answer
        for pause_s in (*PAUSES_S, None):
            try:
                answer = await self._at_url(outbound)
                if not _is_absence(answer):
                    return answer
                answer.close()
            except Unreachable:
                pass
            if pause_s is None or outbound.alternatives:
                break
            await asyncio.sleep(pause_s)
        raise refusals.absent(model)

    async def _at_target(self, outbound: Outbound, address: tuple[str, int]) -> Answer | None:
        """The answer of one replica; None if it is not there or has no room, which the proxy may know better."""
        try:
            answer = await self._pool.ask(
                outbound, address=address, kept=outbound.repeatable, connect_timeout_s=TARGET_CONNECT_TIMEOUT_S
            )
        except Unreachable:
            return None
        except Unanswered:
            if not outbound.repeatable:
                raise
            return None
        if answer.status in (404, 429, 503) and not _is_json(answer):  # Serve's word, not the model's
            answer.close()
            return None
        return answer

    async def _at_url(self, outbound: Outbound) -> Answer:
        """One attempt; a second one where a kept connection turns out closed."""
        try:
            return await self._pool.ask(outbound, kept=outbound.repeatable)
        except Unanswered:
            if not outbound.repeatable:
                raise
        return await self._pool.ask(outbound, kept=False)

    async def _pass_on(self, passage: Passage, first: bytes, send: Send) -> None:
        body = passage.seen(first) if first else b""
        if not passage.answer.complete:
            if body:
                await self._send(passage, body, send)
                body = b""
            if passage.client is not None and passage.client.chunked:
                await passage.watched(passage.flow(passage.client))
            else:
                await passage.watched(self._pieces(passage, send))
        await send({"type": "http.response.body", "body": body + passage.end()})

    async def _pieces(self, passage: Passage, send: Send) -> None:
        while piece := await passage.answer.read():
            if body := passage.seen(piece):
                await self._send(passage, body, send)

    async def _send(self, passage: Passage, body: bytes, send: Send) -> None:
        passage.held = True
        try:
            with Deadline(self._write_timeout_s):
                await send({"type": "http.response.body", "body": body, "more_body": True})
        except TimeoutError:
            raise StreamBroken(f"the client read nothing for {self._write_timeout_s:g} s") from None
        passage.resume()

    def _failure(self, failure: Exception, model: str) -> ServingError:
        if isinstance(failure, TimeoutError):
            return UpstreamTimeout(
                f'The answer of "{model}" stood still for {self._stall_timeout_s:g} s.', code="stream_stalled"
            )
        return UpstreamFailed(f'The answer of "{model}" broke off.', code="upstream_failed")


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _refusal(answer: Answer, outbound: Outbound, exchange: Exchange) -> bytes:
    """The body of an error that may be passed on.

    Raises:
        ServingError: the one to send instead.
    """
    body = b""
    while len(body) <= ERROR_BODY_BYTES and (piece := await answer.read()):
        body += piece
    status, retry_after = answer.status, (answer.header(b"retry-after") or b"").decode("latin-1")
    if len(body) > ERROR_BODY_BYTES:
        body = b""
    if outbound.alternatives and refusals.is_context_overflow(status, body):
        raise ContextOverflow(
            f'The prompt is longer than the model "{exchange.model}" takes.', code="context_length_exceeded"
        )
    error = refusals.translated(exchange.model, status, retry_after, body)
    if outbound.alternatives and (error is None or isinstance(error, InvalidRequest)):
        error = refusals.for_another(exchange.model, status, retry_after) or error
    if error is not None:
        raise error
    return refusals.passed(body, status, exchange.path)


def _passed(answer: Answer, first: bytes, *, may_shrink: bool) -> RawHeaders:
    """The headers that go on to the client. The length is left out where a reader may withhold something."""
    headers = [(name, value) for name, value in answer.headers if name in _PASSED_HEADERS and name != _LENGTH]
    if answer.status >= 300:
        headers.append((_LENGTH, b"%d" % len(first)))
    elif not may_shrink and (length := answer.header(_LENGTH)) is not None:
        headers.append((_LENGTH, length))
    return headers


def _is_absence(answer: Answer) -> bool:
    """Whether it is a proxy's word that nobody stands behind it, and not the upstream's, which speaks JSON.

    A refusal under load says when to come back.
    """
    if answer.status not in (404, 503):
        return False
    theirs = _is_json(answer) or answer.header(b"retry-after") is not None
    return answer.header(ABSENT_HEADER.encode()) is not None or not theirs


def _is_json(answer: Answer) -> bool:
    return (answer.header(b"content-type") or b"").startswith(_JSON)


def _is_sse(answer: Answer) -> bool:
    return (answer.header(b"content-type") or b"").startswith(_SSE)
