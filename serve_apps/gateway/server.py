"""The connections that clients make: HTTP/1.1, as much of it as a gateway needs, behind an ASGI app.

It takes the place of uvicorn's protocol class in the servers that uvicorn and Ray Serve start: with fewer steps, copies
and timers for a request, and with bounds. A client that is slow to send its headers, that does not read its answer, or
that comes when too many are connected is cut.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import unquote

import httptools

from serve_apps.common.errors import HeadersTooLarge, InvalidRequest, RequestTimeout, ServingError, Unavailable
from serve_apps.common.middleware import ASGIApp, Message, Scope
from serve_apps.common.rounds import round_of

logger = logging.getLogger(__name__)

#: The name under which a request's scope shows its ``Client``.
EXTENSION = "llm.connection"
#: What a connection may bring that is no piece of a body, before the next piece: headers, trailers, the frames of
#: chunks. The parser keeps any amount. The gateway's own limit for headers lies below, and says more.
MAX_OVERHEAD_BYTES = 128 * 1024
#: As much of a body waits for the application before the socket is read no further, in bytes.
_MAX_UNREAD_BYTES = 64 * 1024

Headers = list[tuple[bytes, bytes]]

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_NO_BODY = frozenset({204, 304})
_LAST_CHUNK = b"0\r\n\r\n"


class Server(Protocol):
    """What the connections of a server share: uvicorn's ``ServerState``."""

    connections: set[Any]
    tasks: set[asyncio.Task[None]]
    default_headers: Headers
    total_requests: int


class Connection(asyncio.Protocol):
    """One client's connection, within bounds. Its requests are answered one after the other, as they came."""

    write_timeout_s: float
    """How long a client may leave unread what it was sent, in seconds."""
    header_timeout_s: float
    """How long a request's headers may take to come, in seconds."""
    max_connections: int
    added_headers: tuple[tuple[bytes, bytes], ...] = ()
    """Put to the headers of every request, for whoever stands between us and the application."""

    transport: asyncio.Transport

    def __init__(
        self,
        config: Any,
        server_state: Server,
        app_state: Mapping[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """The arguments are those that uvicorn gives; ``config`` is its own."""
        self.loop = _loop or asyncio.get_running_loop()
        self.thread = threading.get_ident()
        """Where the loop runs."""
        self.app: ASGIApp = config.loaded_app
        self.server = server_state
        self.full = False
        """Whether the client reads more slowly than we write."""
        self._app_state = app_state
        self._root_path: str = config.root_path
        self._keep_alive_s: float = config.timeout_keep_alive
        self._parser = httptools.HttpRequestParser(self)
        # Whatever follows a request that asks to close is no reason to refuse that one.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._answered: Client | None = None
        """The client's request that is being answered."""
        self._next: deque[Client] = deque()
        self._arriving: Client | None = None
        """The one whose body is coming in."""
        self._in_head = False
        self._url = b""
        self._headers: Headers = []
        self._overhead_bytes = 0
        """What has come since the last piece of a body, or since the request began."""
        self._reading = True
        self._round = round_of(self.loop)
        self._unsent = b""
        """What is sent at the end of the event loop's round."""
        self._head_waits = False
        """Whether that is a response's head, and nothing behind it yet."""
        self._writable: asyncio.Future[None] | None = None
        self._cut: asyncio.TimerHandle | None = None
        self._unread_bytes = 0
        self._due_s: float | None = None
        self._late: Callable[[], None] = self._miss_headers
        self._timer: asyncio.TimerHandle | None = None

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.server.connections.add(self)
        self._here = _address(transport.get_extra_info("sockname"))
        self._there = _address(transport.get_extra_info("peername"))
        if len(self.server.connections) > self.max_connections:
            self.refuse(Unavailable("Too many connections; try again.", code="too_many_connections", retry_after_s=1))
        else:
            self._expect(self.header_timeout_s, self._miss_headers)

    def connection_lost(self, _: Exception | None) -> None:
        self.server.connections.discard(self)
        self._due_s = None
        for timer in (self._timer, self._cut):
            if timer is not None:
                timer.cancel()
        self._next.clear()
        self._unsent = b""
        if self._answered is not None:
            self._answered.left()
        self._set_writable()
        # Each holds us as we hold it: the garbage collector need not look for them.
        self._answered = self._arriving = None
        del self._parser, self._late

    def data_received(self, data: bytes) -> None:
        self._overhead_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # that request is answered as if it had not asked for it, and is the last
        except httptools.HttpParserError:
            self.refuse(InvalidRequest("Invalid HTTP request received.", code="invalid_http"))
            return
        if self._arriving is not None and self._arriving.unread_bytes > _MAX_UNREAD_BYTES:
            self.pause_reading()
        if self._overhead_bytes > MAX_OVERHEAD_BYTES and not self.transport.is_closing():
            self.refuse(HeadersTooLarge("The headers are larger than we take.", code="headers_too_large"))
        elif not (self._in_head or self._answered is None):
            self._due_s = None
        elif self._due_s is None or self._late != self._miss_headers:
            self._expect(self.header_timeout_s, self._miss_headers)

    def pause_writing(self) -> None:
        self.full = True
        self._watch_reading()

    def resume_writing(self) -> None:
        self._set_writable()
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None
        if self._answered is not None and self._answered.drained is not None:
            self._answered.drained()

    # What the parser calls

    def on_message_begin(self) -> None:
        self._in_head = True
        self._url = b""
        self._headers = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # a trailer is no header
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._overhead_bytes = 0
        parser = self._parser
        version = parser.get_http_version()
        path, query = _target(self._url)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "method": parser.get_method().decode("ascii"),
            "scheme": "http",
            "path": self._root_path + _plain(path),
            "raw_path": self._root_path.encode("ascii") + path,
            "query_string": query,
            "root_path": self._root_path,
            "headers": self._headers,
            "client": self._there,
            "server": self._here,
            "state": dict(self._app_state),
        }
        keeps = version != "1.0" and parser.should_keep_alive() and not parser.should_upgrade()
        self._arriving = client = Client(self, scope, keeps)
        scope["extensions"] = {EXTENSION: client}
        self._headers += self.added_headers
        if self._answered is None:
            self._answer(client)
        else:
            self.pause_reading()
            self._next.append(client)

    def on_body(self, body: bytes) -> None:
        self._overhead_bytes = 0
        if self._arriving is not None:
            self._arriving.take_in(body)

    def on_message_complete(self) -> None:
        arriving, self._arriving = self._arriving, None
        if arriving is not None:
            arriving.end_of_body()

    # What requests, and the server, do with it

    def finished(self, client: "Client") -> None:
        """The response to ``client`` is complete."""
        self._answered = None
        self.server.total_requests += 1
        if not client.keeps:
            self.close()
        if self.transport.is_closing():
            return
        self.resume_reading()
        if self._next:
            self._answer(self._next.popleft())
        elif not self._in_head:
            self._expect(self._keep_alive_s, self.close)

    def refuse(self, error: ServingError) -> None:
        """Answer with ``error`` and close; a response that has begun is only cut."""
        if self._answered is None or not self._answered.begun:
            body = error.encoded()
            headers = {**error.headers(), "content-length": str(len(body)), "connection": "close"}
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            self.write(b"%b%b\r\n%b" % (_status_line(error.status), lines.encode(), body))
        self.close()

    def shutdown(self) -> None:
        """Close after what is being answered: the server ends."""
        if self._answered is None:
            self.close()
        else:
            self._answered.keeps = False

    def pause_reading(self) -> None:
        """Have the client wait."""
        if self._reading and not self.transport.is_closing():
            self._reading = False
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if not self._reading and not self.transport.is_closing():
            self._reading = True
            self.transport.resume_reading()

    def begin(self, head: bytes) -> None:
        """Send a response's head with the beginning of its body."""
        self._head_waits = True
        self.write_later(head)

    def write(self, data: bytes) -> None:
        """Send ``data``: with what waits, or else at once."""
        if not self._unsent:
            self.transport.write(data)
            return
        self._unsent += data
        if self._head_waits:
            self._head_waits = False
            if self._round.goes_at_once():
                self._flush()

    def write_later(self, data: bytes) -> None:
        """Send ``data`` at the end of the event loop's round."""
        if not self._unsent:
            self._round.at_end(self._flush)
        self._unsent += data

    def close(self) -> None:
        """Close when everything is sent."""
        self._flush()
        self.transport.close()

    async def writable(self) -> None:
        """Wait until the client has read what it was sent, or is gone."""
        while self.full:
            if self._writable is None:
                self._writable = self.loop.create_future()
            await asyncio.shield(self._writable)

    def _answer(self, client: "Client") -> None:
        self._answered = client
        task = self.loop.create_task(client.run())
        self.server.tasks.add(task)
        task.add_done_callback(self.server.tasks.discard)

    def _flush(self) -> None:
        if self._unsent and not self.transport.is_closing():
            self.transport.write(self._unsent)
        self._unsent = b""
        self._head_waits = False

    def _set_writable(self) -> None:
        self.full = False
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None

    def _expect(self, seconds: float, late: Callable[[], None]) -> None:
        """Call ``late`` unless something comes within so many seconds.

        The timer is not set anew for each request: it looks what is due when it rings.
        """
        self._due_s, self._late = self.loop.time() + seconds, late
        if self._timer is not None and self._timer.when() > self._due_s:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self.loop.call_at(self._due_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._due_s is None or self.transport.is_closing():
            return
        if self.loop.time() >= self._due_s:
            self._due_s = None
            self._late()
        else:
            self._timer = self.loop.call_at(self._due_s, self._look)

    def _miss_headers(self) -> None:
        text = f"The request's headers were not here after {self.header_timeout_s:g} s; send them faster."
        self.refuse(RequestTimeout(text, code="request_timeout"))

    def _watch_reading(self) -> None:
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._cut = self.loop.call_later(self.write_timeout_s, self._cut_if_unread)

    def _cut_if_unread(self) -> None:
        if self.transport.get_write_buffer_size() < self._unread_bytes:
            self._watch_reading()
        else:
            self.transport.abort()


class Client:
    """One request of a client and the response to it; see also ``passage.Client``."""

    __slots__ = (
        *("begun", "chunked", "complete", "drained", "gone", "keeps", "loop", "scope", "task", "thread"),
        *("unread_bytes", "whole"),
        *("_connection", "_ends_with_connection", "_left_bytes", "_pieces", "_read", "_told_to_go_on"),
        *("_waiter", "_write", "_write_later"),
    )

    def __init__(self, connection: Connection, scope: Scope, keeps: bool) -> None:
        """``keeps``: whether the connection goes on after this response."""
        self.loop = connection.loop
        self.thread = connection.thread
        self.scope = scope
        self.keeps = keeps
        self.task: asyncio.Task[Any] | None = None
        """What is cancelled when the client leaves."""
        self.drained: Callable[[], None] | None = None
        self.begun = self.complete = self.gone = False
        self.chunked = self._ends_with_connection = False
        self._connection = connection
        self._write: Callable[[bytes], None] = connection.write
        self._write_later: Callable[[bytes], None] = connection.write_later
        self._told_to_go_on = False
        self._left_bytes = 0
        self._pieces: list[bytes] = []
        self.unread_bytes = 0
        """What has come of the body and was not taken."""
        self.whole = False
        """Whether all of the request's body has come."""
        self._read = False
        self._waiter: asyncio.Future[None] | None = None

    # ASGI

    async def run(self) -> None:
        """Have the application answer."""
        connection = self._connection
        try:
            await connection.app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            pass  # the client has left, or the server ends
        except Exception as error:
            if self.begun:
                logger.info("a response broke off", extra={"problem": str(error)})
            else:
                logger.exception("the application failed")
        del self.scope["extensions"]  # where it is itself
        if not (self.complete or self.gone):
            connection.refuse(ServingError("The request was not answered; the log has more."))

    async def receive(self) -> Message:
        """What is here of the body, or that the client has left."""
        while not (self._pieces or (self.whole and not self._read) or self.gone or self.complete):
            self._tell_to_go_on()
            self._connection.resume_reading()
            self._waiter = self.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.gone or self.complete:
            return {"type": "http.disconnect"}
        pieces, self._pieces, self.unread_bytes = self._pieces, [], 0
        self._read = self.whole
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return {"type": "http.request", "body": body, "more_body": not self.whole}

    async def send(self, message: Message) -> None:
        """The response's head, then the pieces of its body."""
        if self._connection.full and not self.gone:
            await self._connection.writable()
        if self.gone:
            return
        if not self.begun:
            self._begin(message["status"], message.get("headers", ()))
        elif self.complete:
            raise RuntimeError("the response was complete already")
        else:
            self._go_on(message.get("body", b""), message.get("more_body", False))

    def _tell_to_go_on(self) -> None:
        """For a client that waits to be told before it sends its body."""
        if self._told_to_go_on or self.whole or self.begun or self._connection.transport.is_closing():
            return
        self._told_to_go_on = True
        if any(name == b"expect" and value.lower() == b"100-continue" for name, value in self.scope["headers"]):
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _begin(self, status: int, headers: Headers) -> None:
        head_only = self.scope["method"] == "HEAD"
        lines = [_status_line(status)]
        length: int | None = None
        closes = False
        for name, value in (*self._connection.server.default_headers, *headers):
            name = name.lower()
            if name == b"content-length":
                length = int(value)
            elif name == b"connection":
                closes = closes or b"close" in value.lower()
            lines.append(b"%b: %b\r\n" % (name, value))
        self.keeps = self.keeps and not closes
        if not (self.keeps or closes):
            lines.append(b"connection: close\r\n")
        if length is None and not head_only and status not in _NO_BODY:
            self._ends_with_connection = self.scope["http_version"] == "1.0"  # which knows no chunks
            self.chunked = not self._ends_with_connection
            if self.chunked:
                lines.append(b"transfer-encoding: chunked\r\n")
        head = b"".join(lines)
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines):
            raise RuntimeError("a line break in a header of a response")
        self._left_bytes = 0 if head_only else length or 0
        self.begun = True
        self._connection.begin(head + b"\r\n")

    def _go_on(self, body: bytes, more: bool) -> None:
        if self.chunked:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if chunk or not more:
                self._write(chunk if more else chunk + _LAST_CHUNK)
        elif body and self.scope["method"] != "HEAD":
            if not self._ends_with_connection:
                self._left_bytes -= len(body)
                if self._left_bytes < 0:
                    raise RuntimeError("the response is longer than it says")
            self._write(body)
        if not more:
            if self._left_bytes:
                raise RuntimeError("the response is shorter than it says")
            self.chunked = False
            self.complete = True
            self._wake()
            self._connection.finished(self)

    # What the connection tells

    def take_in(self, body: bytes) -> None:
        """A piece of the body has come."""
        if self.complete:
            return
        self._pieces.append(body)
        self.unread_bytes += len(body)
        self._wake()

    def end_of_body(self) -> None:
        """All of the body has come."""
        self.whole = True
        self._wake()

    def left(self) -> None:
        """The client has gone: nobody waits for the response."""
        self.gone = True
        self._wake()
        if self.task is not None:
            self.task.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # The way past ASGI

    @property
    def full(self) -> bool:
        """Whether the client reads more slowly than we write."""
        return self._connection.full

    def write(self, data: bytes) -> None:
        """Send ``data``, which must not be empty, as one chunk of the response's body: at the end of the round."""
        self._write_later(b"%x\r\n%b\r\n" % (len(data), data))


def _status_line(status: int) -> bytes:
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def _address(name: Any) -> tuple[str, int] | None:
    return (str(name[0]), int(name[1])) if isinstance(name, (list, tuple)) else None


def _target(url: bytes) -> tuple[bytes, bytes]:
    """A request target's path, still encoded, and its query."""
    if url.startswith(b"/") and b"#" not in url:
        path, _, query = url.partition(b"?")
        return path, query
    parsed = httptools.parse_url(url)
    return parsed.path, parsed.query or b""


def _plain(path: bytes) -> str:
    decoded = path.decode("ascii")
    return unquote(decoded) if "%" in decoded else decoded
