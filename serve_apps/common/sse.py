"""Server-sent events, as far as OpenAI's API uses them: one ``data:`` line an event."""

from collections.abc import AsyncIterator

import orjson

#: The payload that ends an OpenAI stream.
DONE = b"[DONE]"


async def payloads(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What stands after ``data:`` in each event of ``body``, whatever pieces the network cut it into."""
    pending = b""
    async for piece in body:
        *lines, pending = (pending + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()


def data(payload: bytes) -> bytes:
    """An event without a name, as in OpenAI's streams."""
    return b"data: " + payload + b"\n\n"


def event(name: str, value: object) -> bytes:
    """A named event with ``value`` as JSON."""
    return b"event: " + name.encode() + b"\n" + data(orjson.dumps(value))
