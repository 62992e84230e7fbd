import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
import uvloop
from uvicorn.protocols.http import auto

from serve_apps.common.gathering import GatheringProtocol, GatheringTransport, gather_writes
from serve_apps.common.middleware import ASGIApp, Receive, Scope, Send
from serve_apps.common.rounds import round_of

ASKED = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
BODY = "http.response.body"


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    """What ``gather_writes`` puts in place is taken back."""
    chosen = auto.AutoHTTPProtocol
    yield
    auto.AutoHTTPProtocol = chosen


class Wire(asyncio.Transport):
    """A transport that keeps what is written to it, write by write."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.ended = ""

    def write(self, data: Any) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def is_closing(self) -> bool:
        return bool(self.ended)

    def get_write_buffer_size(self) -> int:
        return 100


def gathered(test: Callable[[GatheringTransport, Wire], Awaitable[None]]) -> Wire:
    """The wire after a test with a transport around it."""

    async def play() -> Wire:
        wire = Wire()
        await test(GatheringTransport(wire), wire)
        await asyncio.sleep(0)
        return wire

    return uvloop.run(play())


def test_what_one_round_writes_is_one_write() -> None:
    async def test(transport: GatheringTransport, wire: Wire) -> None:
        transport.write(b"a")
        transport.write(bytearray(b"b"))
        assert (wire.written, transport.get_write_buffer_size()) == ([], 102)
        await asyncio.sleep(0)
        transport.write(b"c")

    assert gathered(test).written == [b"ab", b"c"]


def test_what_comes_first_in_an_answer_does_not_wait_for_the_tokens_of_others() -> None:
    async def test(transport: GatheringTransport, wire: Wire) -> None:
        other = GatheringTransport(Wire())
        for piece in (b"head", b"first", b"token"):
            other.write(piece)  # so that one streams
        transport.write(b"head")
        transport.write(b"first")
        assert wire.written == [b"headfirst"]
        transport.write(b"token")
        assert wire.written == [b"headfirst"]

    assert gathered(test).written == [b"headfirst", b"token"]


def test_what_comes_first_waits_where_nothing_streams() -> None:
    async def test(transport: GatheringTransport, wire: Wire) -> None:
        transport.write(b"head")
        transport.write(b"first")
        assert wire.written == []

    assert gathered(test).written == [b"headfirst"]


def test_an_answer_streams_until_it_ends() -> None:
    async def test(transport: GatheringTransport, wire: Wire) -> None:
        round_ = round_of(asyncio.get_running_loop())
        counts = []
        for _ in range(2):
            for piece in (b"head", b"first", b"token", b"token"):
                transport.write(piece)
                counts.append(round_.streams)
            transport.end_answer()
            counts.append(round_.streams)
        transport.end_answer()  # once more where the connection is lost after it
        assert [*counts, round_.streams] == [*[0, 0, 1, 1, 0] * 2, 0]

    gathered(test)


def test_what_is_written_goes_before_the_end() -> None:
    async def test(transport: GatheringTransport, wire: Wire) -> None:
        transport.write(b"a")
        transport.close()

    wire = gathered(test)
    assert (wire.written, wire.ended) == ([b"a"], "closed")


def test_an_abort_sends_nothing_more() -> None:
    async def test(transport: GatheringTransport, wire: Wire) -> None:
        transport.write(b"a")
        transport.abort()

    wire = gathered(test)
    assert (wire.written, wire.ended) == ([], "aborted")


def test_nothing_is_sent_where_the_other_side_has_gone() -> None:
    async def test(transport: GatheringTransport, wire: Wire) -> None:
        transport.write(b"a")
        wire.close()

    assert gathered(test).written == []


def test_it_is_what_uvicorn_chooses_from_then_on() -> None:
    def chosen() -> Any:
        config = uvicorn.Config(lambda: None)
        config.load()
        return config.http_protocol_class

    assert chosen() is not GatheringProtocol
    gather_writes()
    assert chosen() is GatheringProtocol


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to ``app`` in a server of uvicorn's."""
    gather_writes()
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    task = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.should_exit = True
        await task


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with three pieces, the last one after a while."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": BODY, "body": b"one", "more_body": True})
    await send({"type": BODY, "body": b"two", "more_body": True})
    await asyncio.sleep(0.05)
    await send({"type": BODY, "body": b"end"})


def test_a_server_streams_as_before() -> None:
    async def play() -> tuple[bytes, bytes]:
        async with serving(stream) as (reader, writer):
            writer.write(ASKED)
            head = await reader.readuntil(b"\r\n\r\n")
            return head, await reader.readuntil(b"0\r\n\r\n")

    head, body = uvloop.run(play())
    assert head.startswith(b"HTTP/1.1 200")
    assert body == b"3\r\none\r\n3\r\ntwo\r\n3\r\nend\r\n0\r\n\r\n"


def test_requests_that_come_together_are_answered_in_their_order_and_an_asked_end_comes_after_its_answer() -> None:
    async def play() -> bytes:
        async with serving(stream) as (reader, writer):
            writer.write(ASKED + ASKED.replace(b"host: x", b"host: x\r\nconnection: close"))
            return await reader.read()

    assert uvloop.run(play()).count(b"3\r\nend\r\n0\r\n\r\n") == 2


@pytest.mark.parametrize("hangs_up", [False, True])
def test_a_server_counts_the_answers_that_stream(hangs_up: bool) -> None:
    async def play() -> tuple[int, int]:
        async with serving(stream) as (reader, writer):
            round_ = round_of(asyncio.get_running_loop())
            writer.write(ASKED)
            await reader.readuntil(b"two\r\n")
            streamed = round_.streams
            if hangs_up:
                writer.transport.abort()
                await asyncio.sleep(0.01)
            else:
                await reader.readuntil(b"0\r\n\r\n")
            return streamed, round_.streams

    assert uvloop.run(play()) == (1, 0)
