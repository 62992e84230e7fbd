import asyncio
from collections.abc import Callable

import pytest

from serve_apps.gateway.passage import Client, Passage
from serve_apps.gateway.upstream import Pool
from serve_apps.gateway.usage import Reader
from tests.serve_apps.gateway.servers import PATIENCE_S
from tests.serve_apps.gateway.test_upstream import CHUNKED, post, run, serving

#: Seconds an upstream may stand still where a test waits for that.
STALL_S = 0.2


class Connection:
    """A client's connection that is as full as a test says."""

    chunked = True

    def __init__(self, *, full: bool = False) -> None:
        self.full = full
        self.drained: Callable[[], None] | None = None
        self.written: list[bytes] = []
        self.got = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self.got.set()

    def read(self) -> None:
        """The client has read what there was."""
        self.full = False
        assert self.drained is not None
        self.drained()


class Silent(Reader):
    """Withholds everything until the end."""

    def feed(self, chunk: bytes) -> bytes:
        return b""

    def end(self) -> bytes:
        return b"end"


async def passage(
    pool: Pool, url: str, client: Client, reader: Reader | None = None, stall_s: float = PATIENCE_S
) -> Passage:
    return Passage(await pool.ask(post(url)), reader, client, stall_s)


def test_pieces_go_to_the_client_and_are_counted() -> None:
    async def test(pool: Pool) -> None:
        client = Connection()
        async with serving(CHUNKED + b"1\r\na\r\n<wait>1\r\nb\r\n0\r\n\r\n") as server:
            passing = await passage(pool, server.url, client)
            flowing = asyncio.ensure_future(passing.watched(passing.flow(client)))
            await client.got.wait()
            server.go_on.set()
            await flowing
            passing.answer.close()
            assert (client.written, passing.pieces, passing.end()) == ([b"a", b"b"], 2, b"")
            assert client.drained is None

    run(test)


def test_what_a_reader_withholds_is_not_written_but_counted() -> None:
    async def test(pool: Pool) -> None:
        client = Connection()
        async with serving(CHUNKED + b"1\r\na\r\n0\r\n\r\n") as server:
            passing = await passage(pool, server.url, client, Silent())
            await passing.watched(passing.flow(client))
            passing.answer.close()
            assert (client.written, passing.pieces, passing.end()) == ([], 1, b"end")

    run(test)


def test_nothing_more_is_read_for_a_full_client_until_it_has_drained() -> None:
    async def test(pool: Pool) -> None:
        client = Connection(full=True)
        async with serving(CHUNKED + b"1\r\na\r\n<wait>1\r\nb\r\n0\r\n\r\n") as server:
            passing = await passage(pool, server.url, client, stall_s=STALL_S)
            flowing = asyncio.ensure_future(passing.watched(passing.flow(client)))
            await client.got.wait()
            server.go_on.set()
            await asyncio.sleep(2 * STALL_S)  # and that is not the upstream's fault
            assert client.written == [b"a"]
            client.read()
            await flowing
            passing.answer.close()
            assert client.written == [b"a", b"b"]

    run(test)


def test_an_upstream_that_stands_still_is_not_waited_for() -> None:
    async def test(pool: Pool) -> None:
        client = Connection()
        async with serving(CHUNKED + b"1\r\na\r\n") as server:
            passing = await passage(pool, server.url, client, stall_s=STALL_S)
            with pytest.raises(TimeoutError):
                await passing.watched(passing.flow(client))
            passing.answer.close()
            await server.closed.wait()
            assert client.written == [b"a"]

    run(test)
