"""The load generator: ``python -m bench.gateway.client`` reads lists of loads from stdin, writes outcomes.

It reads no JSON and no header but the three it needs: it notes when the first event comes, counts events and sees the
end. So it costs less than what it measures, and every system's answers cost it the same.
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict
from typing import cast

import uvloop

from bench.gateway.load import Load, Outcome

EVENT = b"data:"
CHUNKS_END = b"\r\n0\r\n\r\n"
#: A request that takes longer has failed.
REQUEST_TIMEOUT_S = 180


class Broken(Exception):
    """An answer that is no answer; the message says how."""


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[None] | None = None
        self.events = 0
        self.first_s = 0.0
        self.is_last = False
        """Whether the server said that no request may follow: a HAProxy that another one replaces does."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        self._finish(Broken("the connection was closed"))

    async def exchange(self, request: bytes) -> None:
        """Send a request and wait for the whole answer.

        Raises:
            Broken: there is none, or its status is not 200.
        """
        if self._transport is None:
            raise Broken("the connection was closed")
        self.events, self.first_s = 0, 0.0
        self._head, self._tail, self._left = b"", b"", -1
        self._in_body = self._stream = self._chunked = False
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        await asyncio.wait_for(self._done, REQUEST_TIMEOUT_S)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if not self._in_body:
            self._head += data
            head, found, data = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            self._read_head(head)
        joined = self._tail + data
        if self._stream:
            events = joined.count(EVENT) - self._tail.count(EVENT)
            self.events += events
            if events and not self.first_s:
                self.first_s = now
        elif data and not self.first_s:
            self.first_s = now
        if self._chunked:
            if joined.endswith(CHUNKS_END):
                self._finish()
        elif self._left >= 0:
            self._left -= len(data)
            if self._left <= 0:
                self._finish()
        self._tail = joined[-len(CHUNKS_END) :]

    def _read_head(self, head: bytes) -> None:
        self._in_body = True
        lines = head.lower().split(b"\r\n")
        if b" 200 " not in lines[0] + b" ":
            self._finish(Broken(head.split(b"\r\n", 1)[0].decode("latin-1")))
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            if name == b"content-length":
                self._left = int(value)
            elif name == b"transfer-encoding":
                # What comes before the first chunk is the empty line, so that the end is found in an empty body, too.
                self._chunked, self._tail = True, b"\r\n"
            elif name == b"content-type":
                self._stream = b"event-stream" in value
            elif name == b"connection":
                self.is_last = b"close" in value

    def _finish(self, problem: Exception | None = None) -> None:
        if self._done is None or self._done.done():
            return
        if problem is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(problem)


def request_of(load: Load) -> bytes:
    """The bytes of a request."""
    body = load.body.encode()
    headers = {
        "host": f"{load.host}:{load.port}",
        "content-type": "application/json",
        "content-length": str(len(body)),
        **load.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {load.path} HTTP/1.1\r\n{lines}\r\n".encode() + body


async def run(load: Load) -> Outcome:
    """Send a load."""
    outcome = Outcome()
    request = request_of(load)
    # Connections are made before the clock starts: what is compared is requests.
    connections = [await _connect(load) for _ in range(load.connections)]
    begin = time.perf_counter()
    await asyncio.gather(*(_send(load, request, begin, index, one, outcome) for index, one in enumerate(connections)))
    outcome.seconds = time.perf_counter() - begin
    return outcome


async def _connect(load: Load) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(Connection, load.host, load.port)
    return connection


async def _send(load: Load, request: bytes, begin: float, index: int, connection: Connection, outcome: Outcome) -> None:
    """What one connection does."""
    sent = 0
    try:
        while True:
            planned = begin + load.spread_s * index / load.connections if sent == 0 else 0.0
            if load.interval_s:
                planned = begin + (sent * load.connections + index) * load.interval_s
            if load.requests and sent >= load.requests:
                return
            if load.seconds and max(planned, time.perf_counter()) - begin >= load.seconds:
                return
            if (early_s := planned - time.perf_counter()) > 0:
                await asyncio.sleep(early_s)
            started = planned if load.interval_s else time.perf_counter()
            sent += 1
            try:
                await connection.exchange(request)
            except (Broken, TimeoutError, OSError) as error:
                outcome.failed += 1
                outcome.problem = outcome.problem or str(error) or type(error).__name__
                connection.close()
                await asyncio.sleep(0.01)
                connection = await _connect(load)
                continue
            ended = time.perf_counter()
            outcome.first_ms.append((connection.first_s - started) * 1000)
            outcome.whole_ms.append((ended - started) * 1000)
            outcome.events += connection.events
            if connection.is_last:
                connection.close()
                connection = await _connect(load)
    finally:
        connection.close()


async def serve() -> None:
    """Take orders until stdin ends."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        loads = [Load(**one) for one in json.loads(line)]
        outcomes = await asyncio.gather(*(run(load) for load in loads))
        sys.stdout.write(json.dumps([asdict(one) for one in outcomes]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(serve())
