"""The connections of clients, in a server of uvicorn's as Serve starts one."""

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from serve_apps.common.middleware import ASGIApp, Receive, Scope, Send
from serve_apps.common.rounds import round_of
from serve_apps.gateway import compat, server
from tests.serve_apps.gateway.servers import PATIENCE_S, begin, client_of, empty, read_all, read_until, request


def test_what_is_written_to_the_connection_is_a_chunk_of_the_response() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = compat.connection(scope)
        assert connection is not None
        chunked.append(connection.chunked)
        await begin(send)
        chunked.append(connection.chunked)
        connection.write(b"a" * 17)
        await send({"type": "http.response.body", "body": b"end"})
        chunked.append(connection.chunked)

    chunked: list[bool] = []
    with client_of(app) as client:
        client.sendall(request())
        assert read_until(client, b"0\r\n\r\n").endswith(b"\r\n\r\n11\r\n" + b"a" * 17 + b"\r\n3\r\nend\r\n0\r\n\r\n")
    assert chunked == [False, True, False]


def test_a_response_with_a_length_is_not_chunked() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = compat.connection(scope)
        assert connection is not None
        await begin(send, (b"content-length", b"2"))
        await send({"type": "http.response.body", "body": b"no" if not connection.chunked else b""})

    with client_of(app) as client:
        client.sendall(request())
        assert read_until(client, b"no")


class Wire(asyncio.Transport):
    """A transport that keeps what is written to it, write by write, and tells of each."""

    def __init__(self, told: Callable[[str], None]) -> None:
        super().__init__({"sockname": ("127.0.0.1", 8000), "peername": ("127.0.0.1", 9000)})
        self.written: list[bytes] = []
        self._told = told
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))
        self._told("written")

    def close(self) -> None:
        self._closing = True
        self._told("closed")

    def is_closing(self) -> bool:
        return self._closing


async def exchanged(app: ASGIApp, *received: bytes, told: Callable[[str], None] = lambda _: None) -> list[list[bytes]]:
    """What connections write, each of which has received some bytes, all in one round of the event loop."""
    config = SimpleNamespace(loaded_app=app, root_path="", timeout_keep_alive=5)
    state = SimpleNamespace(connections=set(), tasks=set(), default_headers=[], total_requests=0)
    bounds = {"header_timeout_s": PATIENCE_S, "write_timeout_s": PATIENCE_S, "max_connections": 9, "added_headers": ()}
    wires = []
    for data in received:
        wire, connection = Wire(told), type("Connection", (server.Connection,), bounds)(config, state, {})
        wires.append(wire)
        connection.connection_made(wire)
        connection.data_received(data)
    await asyncio.gather(*state.tasks)
    await asyncio.sleep(0)  # what is ready then is the writing
    return [wire.written for wire in wires]


@pytest.mark.parametrize("late", [False, True])
def test_a_head_is_written_with_the_body_that_follows_it_at_once_or_by_itself(late: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send, (b"content-length", b"4"))
        if late:
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b"bo", "more_body": True})
        await send({"type": "http.response.body", "body": b"dy"})

    ((head, *pieces),) = asyncio.run(exchanged(app, request()))
    assert head.startswith(b"HTTP/1.1 200")
    assert (head.endswith(b"\r\n\r\n"), pieces) == ((True, [b"bo", b"dy"]) if late else (False, []))


def test_requests_that_come_together_are_all_answered_before_any_client_is_woken() -> None:
    events: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await empty(scope, receive, send)
        events.append("answered")

    first, second = asyncio.run(exchanged(app, request(), request(), told=events.append))
    assert events == ["answered", "answered", "written", "written"]
    assert len(first) == len(second) == 1


def test_while_streams_flow_the_first_response_of_a_round_does_not_wait_for_its_end() -> None:
    events: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        round_of(asyncio.get_running_loop()).streams = 1
        await begin(send, (b"content-length", b"2"))
        await send({"type": "http.response.body", "body": b"ok"})
        events.append("answered")

    first, second = asyncio.run(exchanged(app, request(), request(), told=events.append))
    assert events == ["written", "answered", "answered", "written"]
    assert len(first) == len(second) == 1


def test_pieces_of_streams_are_written_at_the_end_of_the_round() -> None:
    events: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = compat.connection(scope)
        assert connection is not None
        await begin(send)
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await asyncio.sleep(0.01)  # the round in which it began is over
        for piece in (b"a", b"b"):
            connection.write(piece)
            events.append("passed on")
        await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b"end"})

    (sent,) = asyncio.run(exchanged(app, request(), told=events.append))
    assert events == ["written", "passed on", "passed on", "written", "written"]
    assert sent[1:] == [b"1\r\na\r\n1\r\nb\r\n", b"3\r\nend\r\n0\r\n\r\n"]


def test_what_waits_goes_before_a_refusal_and_before_the_end() -> None:
    events: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await empty(scope, receive, send)
        scope["extensions"][server.EXTENSION]._connection.data_received(b"no HTTP\r\n\r\n")

    ((sent,),) = asyncio.run(exchanged(app, request(), told=events.append))
    answered, refused = sent.split(b"\r\n\r\n", 1)
    assert answered.startswith(b"HTTP/1.1 200")
    assert refused.startswith(b"HTTP/1.1 400")
    assert events == ["written", "closed"]


def test_a_response_that_breaks_off_after_its_head_is_begun_and_cut() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send, (b"content-length", b"4"))
        raise RuntimeError("broken")

    with client_of(app) as client:
        client.sendall(request())
        assert read_all(client).endswith(b"content-length: 4\r\n\r\n")


def test_http_1_0_knows_no_chunks_and_its_response_ends_with_the_connection() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send)
        for piece in (b"one, ", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    with client_of(app) as client:
        client.sendall(request().replace(b"HTTP/1.1", b"HTTP/1.0"))
        head, _, body = read_all(client).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert body == b"one, two"


def test_each_of_two_pipelined_requests_has_its_own_connection() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = compat.connection(scope)
        assert connection is not None
        await begin(send)
        await asyncio.sleep(0.01)
        assert connection.chunked
        connection.write(scope["path"].encode())
        await send({"type": "http.response.body", "body": b"."})

    with client_of(app) as client:
        client.sendall(request("/one") + request("/two"))
        received = read_until(client, b"4\r\n/two\r\n1\r\n.\r\n0\r\n\r\n")
        assert b"4\r\n/one\r\n1\r\n.\r\n0\r\n\r\n" in received


def test_a_client_that_leaves_cancels_its_request() -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        compat.connection(scope)
        begun.set()
        try:
            await asyncio.sleep(PATIENCE_S)
        except asyncio.CancelledError:
            cancelled.set()

    with client_of(app) as client:
        client.sendall(request())
        assert begun.wait(PATIENCE_S)
        assert not cancelled.is_set()
        client.close()
        assert cancelled.wait(PATIENCE_S)


def test_a_client_that_leaves_after_a_large_body_cancels_its_request() -> None:
    """A connection that is not read any further does not show that the other side has closed it."""
    read, cancelled = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        compat.connection(scope)
        while (await receive())["more_body"]:
            pass
        read.set()
        try:
            await asyncio.sleep(PATIENCE_S)
        except asyncio.CancelledError:
            cancelled.set()

    with client_of(app) as client:
        client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n" + bytes(100_000))
        assert read.wait(PATIENCE_S)
        client.close()
        assert cancelled.wait(PATIENCE_S)


def test_a_client_that_leaves_after_its_response_cancels_nothing() -> None:
    left, finished = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        compat.connection(scope)
        await begin(send, (b"content-length", b"0"))
        await send({"type": "http.response.body"})
        await asyncio.to_thread(left.wait, PATIENCE_S)
        await asyncio.sleep(0.05)
        finished.set()

    with client_of(app) as client:
        client.sendall(request())
        read_until(client, b"\r\n\r\n")
        client.close()
        left.set()
        assert finished.wait(PATIENCE_S)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the body."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    await begin(send, (b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize("size", [0, 1, 100_000, 1_000_000])
def test_a_body_is_what_was_sent(size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    with client_of(echo) as client:
        for sent in (body[:size], b"end"):
            client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(sent), sent))
            assert read_until(client, b"\r\n\r\n" + sent).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_response_to_head_has_a_length_and_no_body() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send, (b"content-length", b"3"))
        await send({"type": "http.response.body", "body": b"abc"})

    with client_of(app) as client:
        client.sendall(
            request().replace(b"GET", b"HEAD") + request().replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
        )
        received = read_all(client)
    assert received.count(b"content-length: 3\r\n") == 2
    assert received.count(b"abc") == 1


@pytest.mark.parametrize(
    ("headers", "body", "received"),
    [
        pytest.param([(b"content-length", b"5")], b"four", b"four", id="shorter than it says"),
        pytest.param([(b"content-length", b"3")], b"four", b"\r\n\r\n", id="longer than it says"),
        pytest.param([(b"x-a", b"1\r\nx-b: 2")], b"", b"}", id="a line break in a header"),
    ],
)
def test_a_response_that_cannot_be_told_ends_the_connection(
    headers: list[tuple[bytes, bytes]], body: bytes, received: bytes
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send, *headers)
        await send({"type": "http.response.body", "body": body})

    with client_of(app) as client:
        client.sendall(request() + request())
        seen = read_all(client)
    assert seen.endswith(received)
    assert seen.count(b"HTTP/1.1 ") == 1
    assert b"x-b" not in seen


def test_an_application_that_fails_is_answered_for() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("secret")

    with client_of(app) as client:
        client.sendall(request())
        received = read_all(client)
    assert received.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in received


# The bounds of a connection


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nhost:"])
def test_headers_that_do_not_come_are_not_waited_for(sent: bytes) -> None:
    with client_of(empty, header_timeout_s=0.5) as client:
        client.sendall(sent)
        received = read_all(client)
    assert received.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert received.endswith(b"}")


def test_empty_lines_keep_no_idle_connection() -> None:
    with client_of(empty, header_timeout_s=0.5) as client:
        client.sendall(request())
        read_until(client, b"\r\n\r\n")
        client.sendall(b"\r\n")
        assert read_all(client).startswith(b"HTTP/1.1 408 ")


def test_a_request_may_take_longer_than_its_headers() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(1)
        await empty(scope, receive, send)

    with client_of(app, header_timeout_s=0.5) as client:
        client.sendall(request())
        assert read_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_the_headers_of_the_next_request_are_waited_for_as_long() -> None:
    with client_of(empty, header_timeout_s=0.5) as client:
        client.sendall(request() + request()[:-2])
        received = read_all(client)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.count(b"HTTP/1.1 408 ") == 1


def test_a_connection_is_not_kept_for_ever() -> None:
    with client_of(empty, keep_alive_s=0) as client:
        client.sendall(request())
        assert read_all(client).startswith(b"HTTP/1.1 200 ")


CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("before", [b"GET / HTTP/1.1\r\na: ", b"GET /", CHUNKED + b"1;a=", CHUNKED + b"0\r\na: "])
def test_what_is_no_body_and_does_not_end_is_refused(before: bytes) -> None:
    with client_of(empty) as client:
        client.sendall(before)
        with pytest.raises(OSError):  # noqa: PT011
            for _ in range(100):
                client.sendall(b"a" * server.MAX_OVERHEAD_BYTES)


def test_large_headers_are_refused_with_their_status() -> None:
    with client_of(empty) as client:
        client.sendall(b"GET / HTTP/1.1\r\na: " + b"a" * server.MAX_OVERHEAD_BYTES)
        assert read_all(client).startswith(b"HTTP/1.1 431 ")


def test_a_body_may_be_larger_than_headers() -> None:
    chunk = b"%x\r\n%b\r\n" % (65536, b"a" * 65536)
    with client_of(empty) as client:
        client.sendall(CHUNKED + 8 * chunk + b"0\r\n\r\n" + request())
        assert read_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(("clients", "status"), [(2, b"200"), (3, b"503")])
def test_only_so_many_clients_are_client_of(clients: int, status: bytes) -> None:
    with client_of(empty, clients, max_connections=2) as client:
        client.sendall(request())
        assert client.recv(65536).startswith(b"HTTP/1.1 " + status)
