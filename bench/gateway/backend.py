"""The mock model as a server: ``python -m bench.gateway.backend PORT``, HTTP/1.1 on a bare asyncio protocol."""

import asyncio
import sys
from typing import cast

import orjson
import uvloop

from bench.gateway.mock import WHOLE_BODY, Engines, Order, read

STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
MODELS = orjson.dumps({"object": "list", "data": [{"id": "mock", "object": "model", "owned_by": "vllm"}]})


def whole(body: bytes) -> bytes:
    """A complete response with a JSON body."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def chunk(data: bytes) -> bytes:
    """``data`` as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Connection(asyncio.Protocol):
    """One client: requests one after the other, each with a Content-Length."""

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self._received = bytearray()
        self._streaming: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _: Exception | None) -> None:
        if self._streaming is not None:
            self._streaming.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._received[:end])
        _, found, rest = head.lower().partition(b"\r\ncontent-length:")
        length = int(rest.split(b"\r\n", 1)[0]) if found else 0
        if len(self._received) < end + 4 + length:
            return
        body = bytes(self._received[end + 4 : end + 4 + length])
        del self._received[: end + 4 + length]
        self._answer(body)

    def _answer(self, body: bytes) -> None:
        if not body:  # /v1/models, and whatever a router asks to see whether we live
            self._transport.write(whole(MODELS))
            return
        order = read(orjson.loads(body))
        if order.stream:
            self._streaming = asyncio.get_running_loop().create_task(self._stream(order))
        else:
            self._transport.write(whole(WHOLE_BODY))

    async def _stream(self, order: Order) -> None:
        head = STREAM_HEAD
        async for event in self._engines.tokens(order):
            self._transport.write(head + chunk(event))
            head = b""
        self._transport.write(b"0\r\n\r\n")


async def serve(port: int) -> None:
    """Answer on loopback until the process is ended."""
    engines = Engines()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(engines), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
