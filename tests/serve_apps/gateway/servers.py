"""Real HTTP servers on loopback ports: the gateway, and upstreams that behave as a test tells them to."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from serve_apps.common.middleware import ASGIApp, Receive, Scope, Send
from serve_apps.gateway import compat

#: Longer than any event of these tests takes on a busy machine, in seconds. Reached only where a test fails.
PATIENCE_S = 60


def until(happened: Callable[[], object]) -> None:
    """Wait until ``happened()``."""
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextlib.contextmanager
def serving(app: ASGIApp, lifespan: str = "off", keep_alive_s: int = 5) -> Iterator[str]:
    """Serve ``app`` in a thread; gives its URL."""
    # asyncio turns Nagle's algorithm off, which costs 40 ms a request, only where the protocol is named.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    config = uvicorn.Config(
        app,
        lifespan=lifespan,  # type: ignore[arg-type]
        log_config=None,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=keep_alive_s,
    )
    server = uvicorn.Server(config)
    started = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(server, listener, started)))
    thread.start()
    if not started.wait(PATIENCE_S):
        raise RuntimeError("the test server did not start")
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        server.force_exit = lifespan == "off"  # an app with a lifespan has something to close
        thread.join(PATIENCE_S)
        listener.close()
        if thread.is_alive():
            raise RuntimeError("the test server did not end")


async def _serve(server: uvicorn.Server, listener: socket.socket, started: threading.Event) -> None:
    task = asyncio.ensure_future(server.serve(sockets=[listener]))
    while not server.started and not task.done():
        await asyncio.sleep(0.01)
    started.set()
    await task


@contextlib.contextmanager
def client_of(app: ASGIApp, clients: int = 1, keep_alive_s: int = 5, **bounds: float) -> Iterator[socket.socket]:
    """A client of ``app`` behind connections of our own; of several, the last."""
    compat.own_server(PATIENCE_S, **bounds)  # type: ignore[arg-type]
    with serving(app, keep_alive_s=keep_alive_s) as url, contextlib.ExitStack() as connections:
        for _ in range(clients):
            client = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), PATIENCE_S)
            connections.enter_context(client)
        yield client


def request(path: str = "/") -> bytes:
    """A request without a body."""
    return b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path.encode()


def read_until(client: socket.socket, end: bytes) -> bytes:
    """What comes until ``end``."""
    received = b""
    while not received.endswith(end):
        piece = client.recv(65536)
        assert piece, f"closed after {received!r}"
        received += piece
    return received


async def begin(send: Send, *headers: tuple[bytes, bytes]) -> None:
    """Send the head of a response."""
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})


async def empty(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body and answers with nothing."""
    while (await receive()).get("more_body"):
        pass
    await begin(send, (b"content-length", b"0"))
    await send({"type": "http.response.body"})


def read_all(client: socket.socket) -> bytes:
    """What comes until the server closes; it resets the connection where it has not read all that was sent."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            received += piece
    return received


@dataclass
class Received:
    """A request as an upstream saw it."""

    method: str
    path: str
    query: bytes
    headers: dict[str, str]
    body: bytes


Behaviour = Callable[["Answer"], Awaitable[None]]


@dataclass
class Answer:
    """The upstream's side of one request, for a behaviour to play."""

    send: Send
    receive: Receive
    upstream: "Upstream"

    async def whole(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """Send a complete response."""
        await self.begin(status, headers | {"content-length": str(len(body))})
        await self.send({"type": "http.response.body", "body": body})

    async def begin(self, status: int, headers: dict[str, str]) -> None:
        """Send the response's head."""
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": pairs})

    async def chunk(self, body: bytes, more: bool = True) -> None:
        """Send a piece of the response's body."""
        await self.send({"type": "http.response.body", "body": body, "more_body": more})

    async def released(self) -> None:
        """Wait until the test calls ``upstream.release``."""
        await asyncio.to_thread(self.upstream.release.wait, PATIENCE_S)

    async def client_gone(self) -> None:
        """Wait until the other side closes its connection, then tell the test."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.upstream.aborted.set()


@dataclass
class Upstream:
    """A server that answers everything as ``behaviour`` says and remembers what it was asked."""

    behaviour: Behaviour
    received: list[Received] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)
    aborted: threading.Event = field(default_factory=threading.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        more = True
        while more:
            message: Any = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        self.received.append(Received(scope["method"], scope["path"], scope["query_string"], headers, body))
        self.asked.set()
        await self.behaviour(Answer(send, receive, self))
