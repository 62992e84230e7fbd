"""uvicorn's connections, but that what they write is sent at the end of the event loop's round.

A step of an engine brings a token of each stream that runs, and the server a task for each. Sent one by one, every
token would wake the gateway anew, which had just gone to sleep over the one before; so it is woken once for all. The
first answer of a round does not wait for the tokens of others.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http import auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve_apps.common.rounds import round_of

#: Which piece of an answer its client waits for: the head alone tells it little.
FIRST_OF_BODY = 2


def gather_writes() -> None:
    """Have every server that is started in this process from now on gather what it writes.

    Serve starts its own after the deployment's constructor has run, and leaves uvicorn to choose the protocol class.
    """
    auto.AutoHTTPProtocol = GatheringProtocol


class GatheringProtocol(HttpToolsProtocol):
    """A client's connection, as uvicorn has it by default."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(GatheringTransport(transport))

    def on_response_complete(self) -> None:
        cast(GatheringTransport, self.transport).end_answer()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        cast(GatheringTransport, self.transport).end_answer()
        super().connection_lost(exc)


class GatheringTransport(asyncio.Transport):
    """A transport around another one; what is not about writing is that one's."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._round = round_of(asyncio.get_running_loop())
        self._unsent: list[bytes] = []
        self._pieces = 0
        """How often the answer that is under way was written to: its head, what comes first, and what streams."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._unsent:
            self._round.at_end(self._send)
        self._unsent.append(bytes(data))
        self._pieces += 1
        if self._pieces == FIRST_OF_BODY and self._round.goes_at_once():
            self._send()
        elif self._pieces == FIRST_OF_BODY + 1:
            self._round.streams += 1

    def end_answer(self) -> None:
        """What is written from now on is another answer's."""
        if self._pieces > FIRST_OF_BODY:
            self._round.streams -= 1
        self._pieces = 0

    def close(self) -> None:
        self._send()
        self._transport.close()

    def abort(self) -> None:
        self._unsent.clear()
        self._transport.abort()

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent and not self._transport.is_closing():
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size() + sum(map(len, self._unsent))
