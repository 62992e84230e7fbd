import asyncio
from collections.abc import AsyncIterator

from serve_apps.common import sse


def read(*pieces: bytes) -> list[bytes]:
    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def collect() -> list[bytes]:
        return [payload async for payload in sse.payloads(body())]

    return asyncio.run(collect())


def test_payloads_are_found_however_the_network_cut_them() -> None:
    stream = b': comment\r\ndata: {"a":1}\r\n\r\nevent: x\ndata:[DONE]\n\n'
    whole = [b'{"a":1}', sse.DONE]
    assert read(stream) == whole
    assert read(*(stream[at : at + 1] for at in range(len(stream)))) == whole


def test_an_event_that_never_ended_is_none() -> None:
    assert read(b"data: half") == []


def test_a_named_event_carries_json() -> None:
    assert sse.event("token", {"text": "é"}) == 'event: token\ndata: {"text":"é"}\n\n'.encode()
