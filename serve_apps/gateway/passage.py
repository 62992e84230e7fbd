"""One answer's way from an upstream's socket to the client's: the hottest code of the project.

Where the server around us shows its connection (``Client``), a piece goes from one socket's callback into the other's
write: nothing awaits, and nothing is copied but for its frame.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Protocol

from serve_apps.gateway.upstream import Answer
from serve_apps.gateway.usage import Reader

#: How vLLM, and we, tell in a stream that the answer goes no further. What a model writes has its quotes escaped.
_FAILURE = b'data: {"error"'


class Client(Protocol):
    """The server's connection to the client of one request.

    It cancels the request's task when the client leaves, and cuts a client that does not read.
    """

    drained: Callable[[], None] | None
    """Called when ``full`` ends."""

    @property
    def chunked(self) -> bool:
        """Whether the response has begun and goes out in HTTP chunks, so that ``write`` may be used."""
        ...

    @property
    def full(self) -> bool:
        """Whether the client reads more slowly than we write."""
        ...

    def write(self, data: bytes) -> None:
        """Send ``data`` as one chunk of the response's body; it must not be empty."""
        ...


class Passage:
    """An answer on its way through, what was seen of it and when."""

    __slots__ = (
        *("_before_last", "_feed", "_last", "_reader", "_resumed_s", "_stall_s"),
        *("answer", "client", "held", "last_s", "pieces"),
    )

    def __init__(self, answer: Answer, reader: Reader | None, client: Client | None, stall_s: float) -> None:
        self.answer = answer
        self.client = client
        self.pieces = 0
        self.last_s = time.perf_counter()
        self.held = False
        """Whether it is the client we wait for."""
        self._reader = reader
        self._feed = reader.feed if reader is not None else None
        self._resumed_s = self.last_s
        self._stall_s = stall_s
        self._before_last = self._last = b""

    @property
    def failed(self) -> bool:
        """Whether a stream has ended with the upstream's word that it failed; ``[DONE]`` may be behind that."""
        return _FAILURE in self._before_last + self._last

    def seen(self, piece: bytes) -> bytes:
        """What goes to the client now that ``piece`` has come."""
        self.pieces += 1
        self.last_s = time.perf_counter()
        self._before_last, self._last = self._last, piece
        return piece if self._feed is None else self._feed(piece)

    def end(self) -> bytes:
        """What still goes to the client after the last piece."""
        return b"" if self._reader is None else self._reader.end()

    def resume(self) -> None:
        """Go on: the client has taken what there was."""
        self.held = False
        self._resumed_s = time.perf_counter()
        self.answer.resume()

    async def flow(self, client: Client) -> None:
        """Pass the rest on from within the upstream's callback."""

        def pass_on(piece: bytes) -> None:
            if piece := self.seen(piece):
                client.write(piece)
                if client.full and not self.held:
                    self.held = True
                    self.answer.pause()

        client.drained = self.resume
        try:
            await self.answer.pour(pass_on)
        finally:
            client.drained = None

    async def watched(self, passing: Coroutine[None, None, None]) -> None:
        """Await ``passing``.

        Raises:
            TimeoutError: the upstream stood still for too long.
        """
        async with asyncio.timeout(None) as deadline:
            watch = _Watch(self, deadline, self._stall_s)
            try:
                await passing
            finally:
                watch.end()

    def idle_s(self) -> float:
        """How long nothing has come from the upstream, in seconds; 0 while it is the client we wait for."""
        return 0 if self.held else time.perf_counter() - max(self.last_s, self._resumed_s)


class _Watch:
    """Ends a passage that stands still: one timer for the whole answer, not one for each piece.

    A method, not a function that sets its own timer: that would hold itself, and every answer be left to the garbage
    collector, which stops the gateway for milliseconds at a time.
    """

    __slots__ = ("_deadline", "_passage", "_stall_s", "_timer")

    def __init__(self, passage: Passage, deadline: asyncio.Timeout, stall_s: float) -> None:
        self._passage = passage
        self._deadline = deadline
        self._stall_s = stall_s
        self._timer = asyncio.get_running_loop().call_later(stall_s, self._look)

    def end(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        left_s = self._stall_s - self._passage.idle_s()
        if left_s <= 0:
            self._deadline.reschedule(loop.time())
        else:
            self._timer = loop.call_later(left_s, self._look)
