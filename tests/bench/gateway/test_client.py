"""The load generator against servers that answer in every way HTTP allows, and against the mock model."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from bench.gateway import backend
from bench.gateway.client import run
from bench.gateway.load import Load, Outcome
from bench.gateway.mock import Engines

CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def served(answer: Answer, make: Callable[[int], Load]) -> Outcome:
    """The outcome of a load at a server whose connections are handled by ``answer``."""
    handlers: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.append(task)
        try:
            await answer(reader, writer)
        except ConnectionError:  # the client hung up
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        outcome = await run(make(server.sockets[0].getsockname()[1]))
        await asyncio.gather(*handlers)
        await asyncio.sleep(0.01)  # for the sockets to be closed
        return outcome


async def against(pieces: list[bytes], requests: int = 2) -> Outcome:
    """Requests to a server that answers each with ``pieces``, one packet at a time."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.002)

    return await served(answer, lambda port: Load(port, {}, "{}", requests=requests))


def test_events_are_counted_wherever_the_packets_are_cut() -> None:
    stream = backend.chunk(b"data: one\n\n") + backend.chunk(b"data: two\n\n") + b"0\r\n\r\n"
    whole = CHUNKED + stream
    for cut in range(1, len(whole)):
        outcome = asyncio.run(against([whole[:cut], whole[cut:]], requests=1))
        assert (outcome.events, outcome.failed) == (2, 0), whole[:cut]


@pytest.mark.parametrize(
    "answer",
    [
        backend.whole(b'{"choices": []}'),
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"2\r\n{}\r\n0\r\n\r\n",
    ],
    ids=["length", "chunked"],
)
def test_an_answer_that_is_no_stream_is_timed_to_its_end(answer: bytes) -> None:
    outcome = asyncio.run(against([answer]))
    assert (len(outcome.first_ms), outcome.events, outcome.failed) == (2, 0, 0)
    assert all(first <= whole for first, whole in zip(outcome.first_ms, outcome.whole_ms, strict=True))


def test_another_status_is_a_failure_that_is_named() -> None:
    refusal = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\n{}"
    outcome = asyncio.run(against([refusal]))
    assert (outcome.failed, outcome.problem, outcome.first_ms) == (2, "HTTP/1.1 429 Too Many Requests", [])


def test_a_stream_that_breaks_off_is_a_failure() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(65536):
            writer.write(CHUNKED + backend.chunk(b"data: one\n\n"))

    outcome = asyncio.run(served(answer, lambda port: Load(port, {}, "{}", requests=1)))
    assert (outcome.failed, outcome.problem) == (1, "the connection was closed")


def test_a_server_may_say_that_a_connection_has_had_its_last_request() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(65536):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            await writer.drain()
        writer.close()

    outcome = asyncio.run(served(answer, lambda port: Load(port, {}, "{}", requests=3)))
    assert (outcome.failed, len(outcome.whole_ms)) == (0, 3)


async def against_mock(make: Callable[[int], Load]) -> Outcome:
    engines = Engines()
    server = await asyncio.get_running_loop().create_server(lambda: backend.Connection(engines), "127.0.0.1", 0)
    async with server:
        outcome = await run(make(server.sockets[0].getsockname()[1]))
        await asyncio.sleep(0.01)  # for the sockets to be closed
        return outcome


def body(**fields: object) -> str:
    return json.dumps({"model": "mock", "messages": [], "max_tokens": 5, "seed": 1, **fields})


def test_every_connection_sends_its_requests_to_the_mock_model() -> None:
    outcome = asyncio.run(
        against_mock(lambda port: Load(port, {}, body(stream=True), connections=3, requests=2, spread_s=0.01))
    )
    # Five tokens and the mark of the end.
    assert (len(outcome.whole_ms), outcome.events, outcome.failed) == (6, 6 * 6, 0)


def test_requests_at_a_rate_come_from_all_connections_in_turn() -> None:
    outcome = asyncio.run(against_mock(lambda port: Load(port, {}, body(), connections=4, seconds=2, interval_s=0.2)))
    assert outcome.failed == 0
    assert 5 <= len(outcome.first_ms) <= 12  # about one in 200 ms for 2 s, on a machine that does other things, too


def test_a_prompt_of_any_length_is_read_to_its_end() -> None:
    outcome = asyncio.run(against_mock(lambda port: Load(port, {}, body(user="x" * 300_000), requests=2)))
    assert (len(outcome.first_ms), outcome.failed) == (2, 0)
