"""HTTP/1.1 to upstreams, as little of it as a relay needs: no redirects, no cookies, no decompression.

Bodies come in pieces. Whatever one read of the socket brought is one piece, and ``Answer.pour`` hands it on from within
the socket's own callback: no task wakes up for a piece, which is what makes a relayed token cheap.
"""

import asyncio
import contextlib
import functools
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

import httptools

from serve_apps.common.rounds import round_of

#: How long an upstream may take to accept a connection, in seconds.
CONNECT_TIMEOUT_S = 5
#: How long an idle connection is kept, in seconds: less than uvicorn's 5 s (vLLM's server), so that we close it first.
KEEPALIVE_S = 4
#: The largest head of a response, in bytes.
MAX_HEAD_BYTES = 64 * 1024
#: As much of a body as is held for a reader that is not there yet, in bytes.
_MAX_HELD_BYTES = 256 * 1024
#: A request goes out in writes of this many bytes, so that no transport holds a copy of all of it.
_WRITE_BYTES = 256 * 1024

Headers = list[tuple[bytes, bytes]]
_NO_BODY = frozenset({204, 304})
#: The headers that say where a body ends.
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


class UpstreamError(Exception):
    """There is no (whole) answer."""


class Unreachable(UpstreamError):
    """Nobody accepted a connection: the request was not seen by anybody."""


class Unanswered(UpstreamError):
    """The connection was closed before any byte of an answer, as a kept one is that was closed by the other side."""


class Broken(UpstreamError):
    """The answer is not HTTP, or it broke off."""


class _Origin(NamedTuple):
    host: str
    port: int
    tls: str | None
    """The name in the certificate; None without TLS."""


@dataclass(slots=True)
class Request:
    """A request, without the headers that the connection itself decides."""

    method: str
    url: str
    """Absolute and already percent-encoded."""
    headers: dict[str, str]
    body: bytes


class Pool:
    """Connections to upstreams, kept for a few seconds between requests. There is no limit: who asks is limited."""

    def __init__(self) -> None:
        self._idle: dict[_Origin, list[_Connection]] = {}
        self._busy: set[_Connection] = set()
        self._tls: ssl.SSLContext | None = None
        self._sweep: asyncio.TimerHandle | None = None

    async def ask(
        self,
        request: Request,
        *,
        address: tuple[str, int] | None = None,
        kept: bool = True,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> "Answer":
        """Send ``request`` and wait for the head of its answer.

        Args:
            request: what to send.
            address: the host and port to connect to, instead of the URL's.
            kept: whether a kept connection may be used; the other side may close one as we write to it.
            connect_timeout_s: how long the other side may take to accept a connection, in seconds.

        Raises:
            Unreachable: nobody accepted a connection.
            Unanswered: the connection was closed without an answer.
            Broken: the answer is not HTTP.
        """
        origin, authority, path = _parted(request.url, address)
        connection = self._kept(origin) if kept else None
        if connection is None:
            connection = await self._connected(origin, connect_timeout_s)
        self._busy.add(connection)
        try:
            await connection.ask(_head(request, authority, path), request.body)
        except BaseException:
            connection.close()
            raise
        return Answer(connection)

    def close(self) -> None:
        """Close every connection."""
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in [*self._busy, *(one for idle in self._idle.values() for one in idle)]:
            connection.close()
        self._idle.clear()

    def _kept(self, origin: _Origin) -> "_Connection | None":
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.idle_since_s > time.monotonic() - KEEPALIVE_S and connection.usable:
                return connection
            connection.close()
        return None

    async def _connected(self, origin: _Origin, timeout_s: float) -> "_Connection":
        if origin.tls is not None and self._tls is None:
            self._tls = ssl.create_default_context()
        try:
            async with asyncio.timeout(timeout_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: _Connection(self, origin),
                    origin.host,
                    origin.port,
                    ssl=self._tls if origin.tls is not None else None,
                    server_hostname=origin.tls,
                )
        except OSError as error:  # TimeoutError and SSLError are OSErrors, too
            raise Unreachable(str(error)) from error
        return connection

    def left(self, connection: "_Connection") -> None:
        """``connection`` is closed."""
        self._busy.discard(connection)
        with contextlib.suppress(ValueError, KeyError):
            self._idle[connection.origin].remove(connection)

    def free(self, connection: "_Connection") -> None:
        """``connection`` can take another request."""
        self._busy.discard(connection)
        self._idle.setdefault(connection.origin, []).append(connection)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(KEEPALIVE_S, self._close_old)

    def _close_old(self) -> None:
        old_s = time.monotonic() - KEEPALIVE_S
        for connection in [one for idle in self._idle.values() for one in idle if one.idle_since_s <= old_s]:
            connection.close()
        self._idle = {origin: idle for origin, idle in self._idle.items() if idle}
        self._sweep = asyncio.get_running_loop().call_later(KEEPALIVE_S, self._close_old) if self._idle else None


class Answer:
    """An upstream's answer, its head read. Close it, whatever happens: that gives the connection back, or ends it."""

    def __init__(self, connection: "_Connection") -> None:
        self._connection = connection
        self._closed = False
        self.status = connection.status
        self.headers = connection.headers
        """Names in lower case."""

    def header(self, name: bytes) -> bytes | None:
        """The first value of the header ``name`` (lower case)."""
        for key, value in self.headers:  # a generator takes thrice the time
            if key == name:
                return value
        return None

    @property
    def complete(self) -> bool:
        """Whether all of it is here; ``read`` may still have something to give."""
        return self._connection.complete

    async def read(self) -> bytes:
        """What is here of the body, waiting while that is nothing; empty at its end.

        Raises:
            Broken: it ends before its end.
        """
        return await self._connection.read()

    async def pour(self, sink: Callable[[bytes], None]) -> None:
        """Call ``sink`` with each piece of the rest of the body as it comes; returns at its end.

        Raises:
            Broken: it ends before its end.
        """
        await self._connection.pour(sink)

    def pause(self) -> None:
        """Have the upstream wait: its socket is not read until ``resume``."""
        self._connection.pause()

    def resume(self) -> None:
        """Read on."""
        self._connection.resume()

    def close(self) -> None:
        """Give the connection back if the answer was read to its end, else close it: that ends the upstream's work."""
        if not self._closed:
            self._closed = True
            self._connection.release()


class _Connection(asyncio.Protocol):
    """One connection, and the parser of the answer that it carries. Its answers come one after the other."""

    _transport: asyncio.Transport

    def __init__(self, pool: Pool, origin: _Origin) -> None:
        self.origin = origin
        self.idle_since_s = 0.0
        self.status = 0
        self.headers: Headers = []
        self.complete = True
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._loop = asyncio.get_running_loop()
        self._round = round_of(self._loop)
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._sink: Callable[[bytes], None] | None = None
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._head_bytes = 0
        self._begun = self._lost = self._paused = self._full = self._keeps = False
        self._framed = True
        self._error: UpstreamError | None = None

    # What the pool and the answer do with it

    @property
    def usable(self) -> bool:
        """Whether it can carry a request."""
        return not (self._lost or self._transport.is_closing())

    async def ask(self, head: bytes, body: bytes) -> None:
        """Send a request and wait for the head of its answer."""
        self.status, self.headers, self.complete = 0, [], False
        self._begun, self._head_bytes, self._error = False, 0, None
        if len(body) <= _WRITE_BYTES:
            send = functools.partial(self._send, head, body)
            if self._round.goes_at_once():
                send()
            else:
                self._round.at_end(send)
        else:
            self._transport.write(head)
            await self._write(memoryview(body))
        while not self.status:
            self._raise_error()
            await self._wait()

    def _send(self, head: bytes, body: bytes) -> None:
        if self.usable:
            self._transport.writelines((head, body))

    async def _write(self, body: memoryview) -> None:
        for start in range(0, len(body), _WRITE_BYTES):
            if self.status or self._error is not None:
                return  # answered, or gone, before all was said
            self._transport.write(body[start : start + _WRITE_BYTES])
            if self._full:
                self._writable = self._loop.create_future()
                await self._writable
                self._writable = None

    async def read(self) -> bytes:
        while not self._pieces:
            if self.complete:
                return b""
            self._raise_error()
            await self._wait()
        return self._taken()

    async def pour(self, sink: Callable[[bytes], None]) -> None:
        if self._pieces:
            sink(self._taken())
        self._sink = sink
        self._round.streams += 1
        try:
            while not self.complete:
                self._raise_error()
                await self._wait()
        finally:
            self._round.streams -= 1
            self._sink = None

    def pause(self) -> None:
        if not self._paused and not self._lost:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self._lost:
            self._paused = False
            self._transport.resume_reading()

    def release(self) -> None:
        if self.complete and self._keeps and self.usable:
            self._taken()
            self.idle_since_s = time.monotonic()
            self._pool.free(self)
        else:
            self.close()

    def close(self) -> None:
        self._transport.abort()
        self._pool.left(self)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _taken(self) -> bytes:
        pieces = self._pieces
        taken = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._held_bytes = 0
        self.resume()
        return taken

    def _wake(self) -> None:
        for waiter in (self._waiter, self._writable):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def _fail(self, error: UpstreamError) -> None:
        self._error = error
        self._transport.abort()
        self._wake()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        unasked = self.complete
        if unasked:
            self.close()
            return
        self._begun = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.complete:
                self._fail(Broken(f"not HTTP: {error}"))
                return
            self._keeps = False  # what follows the answer is nobody's
        if self._sink is not None:
            if self._pieces:
                pieces = self._pieces
                piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                pieces.clear()
                self._sink(piece)
            if self.complete:
                self._wake()
            return
        if not self.status:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._fail(Broken("its head is too large"))
            return
        if self._pieces:
            self._held_bytes += len(data)
            if self._held_bytes > _MAX_HELD_BYTES:
                self.pause()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        if not self.complete and self._error is None:
            if self.status and not self._framed and error is None:
                self.complete = True  # the answer's end is the connection's
            else:
                self._error = Broken("the connection broke") if self._begun else Unanswered("closed without an answer")
        self._pool.left(self)
        self._wake()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # What the parser calls

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("an answer that nobody asked for")
        self.headers = []
        self._framed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status:
            return  # a trailer is no header
        name = name.lower()
        self.headers.append((name, value))
        if name in _FRAMING:
            self._framed = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # 100, 103: the answer is still to come
            return
        self.status = status
        if status in _NO_BODY:
            self._framed = True

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        if self.status:
            self.complete = True
            self._keeps = self._parser.should_keep_alive()


@functools.lru_cache(1024)
def _parted(url: str, address: tuple[str, int] | None) -> tuple[_Origin, str, str]:
    """Where to connect to, the authority for the Host header, and the request's target."""
    scheme, authority, path, query, _ = urlsplit(url)
    if query:
        path = f"{path}?{query}"
    if address is not None:
        return _Origin(*address, None), authority, path or "/"
    host, _, port = authority.rpartition("@")[2].rpartition(":")
    if not host or "]" in port:  # no port was given
        host, port = authority, "443" if scheme == "https" else "80"
    host = host.strip("[]")
    return _Origin(host, int(port), host if scheme == "https" else None), authority, path or "/"


def _head(request: Request, authority: str, path: str) -> bytes:
    lines = [f"{request.method} {path} HTTP/1.1\r\nhost: {authority}\r\n"]
    lines += [f"{name}: {value}\r\n" for name, value in request.headers.items()]
    if request.body or request.method in ("POST", "PUT"):
        lines.append(f"content-length: {len(request.body)}\r\n")
    lines.append("\r\n")
    head = "".join(lines)
    if head.count("\n") != len(lines) + 1:
        raise ValueError("a line break in a header or in the URL")
    return head.encode("latin-1")
