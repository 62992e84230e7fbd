"""How much one replica takes on at a time; beyond it callers wait or are refused before they cost anything."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from serve_apps.common.errors import RateLimited
from serve_apps.common.middleware import Receive
from serve_apps.gateway.config import Queue
from serve_apps.gateway.fairness import Line, Place
from serve_apps.gateway.request import Disconnected

#: When a refused caller may come back, in seconds.
RETRY_AFTER_S = 1
#: What a replica holds of request bodies at a time, in bytes: those being read, waiting, and being answered.
HELD_BYTES = 256 * 1024 * 1024


class Slots:
    """At most ``limit`` of something at a time. Nobody waits: a queue would only hide the overload."""

    def __init__(self, limit: int, what: str) -> None:
        """``what`` names the thing in the refusal, in the plural."""
        self.limit = limit
        self.taken = 0
        self._what = what

    def take(self, *, beyond_limit: bool = False) -> "Slots":
        """Hold a slot until the end of the ``with`` that this is for; with ``beyond_limit`` even if none is free.

        Raises:
            RateLimited: every slot is taken.
        """
        if self.taken >= self.limit and not beyond_limit:
            raise RateLimited(
                f"The gateway is busy with {self.limit} {self._what}; try again later.",
                code="gateway_overloaded",
                retry_after_s=RETRY_AFTER_S,
            )
        self.taken += 1
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.taken -= 1


class Memory:
    """What a replica holds of request bodies: as many large ones as there are slots would be more than it has."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    def hold(self) -> "Held":
        """One request's part of it, free again at the end of its ``with``."""
        return Held(self)


@dataclass(slots=True)
class Held:
    """What one request holds."""

    memory: Memory
    size: int = 0
    """In bytes."""

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *_: object) -> None:
        self.memory.held_bytes -= self.size

    def grow(self, size: int) -> None:
        """Hold ``size`` more bytes.

        Raises:
            RateLimited: that is more than the replica may hold.
        """
        memory = self.memory
        if memory.held_bytes + size > memory.limit_bytes:
            raise RateLimited(
                f"The gateway holds as many bytes of requests as it may, {memory.limit_bytes}; try again later.",
                code="gateway_overloaded",
                retry_after_s=RETRY_AFTER_S,
            )
        memory.held_bytes += size
        self.size += size


def _unheard(_model: str, _value: float) -> None:
    pass


def _always() -> bool:
    return True


class Queues:
    """The queues of all models in this replica."""

    def __init__(
        self, *, waiting: Callable[[str, int], None] = _unheard, waited: Callable[[str, float], None] = _unheard
    ) -> None:
        """``waiting(model, count)`` hears how many wait, ``waited(model, seconds)`` how long each turn waited."""
        self._waiting = waiting
        self._waited = waited
        self._lines: dict[str, Line] = {}

    def turn(
        self,
        model: str,
        queue: Queue | None,
        tenant: str,
        priority: int = 0,
        share: float = 1,
        receive: Receive | None = None,
        patience_s: float | None = None,
        may_end: Callable[[], bool] = _always,
    ) -> AbstractAsyncContextManager[None]:
        """On entering, wait for a place at ``model``; hold it until the end.

        The ``queue`` given last is in force for all, those that wait included. With ``receive`` a client that leaves
        is noticed while it waits; nobody else may read from it then. ``patience_s`` is for who has somewhere else to
        go: it waits no longer, even where the queue would let it. In the background the place is taken back where
        somebody else would wait for one, and ``may_end()``.

        Raises:
            RateLimited: as many wait as may, it took too long, or the place was taken back; it says when to come back.
            Disconnected: the client left.
        """
        if queue is None and model not in self._lines:
            return _FREE
        return self._turn(model, queue, (tenant, priority, share, patience_s), receive, may_end)

    @asynccontextmanager
    async def _turn(
        self,
        model: str,
        queue: Queue | None,
        who: tuple[str, int, float, float | None],
        receive: Receive | None,
        may_end: Callable[[], bool],
    ) -> AsyncIterator[None]:
        line = self._line(model, queue)
        place = line.ask(*who)
        try:
            if place.given is not None:
                await _until_given(place.given, receive)
            self._waited(model, place.began_s - place.asked_s)
            if place.lane.background:
                async with _lent(place, model, may_end):
                    yield
            else:
                yield
        finally:
            line.leave(place)

    def _line(self, model: str, queue: Queue | None) -> Line:
        line = self._lines.get(model)
        if line is None:
            line = self._lines[model] = Line(model, queue, self._waiting)
        line.limit_by(queue)
        if queue is None:
            del self._lines[model]
        return line


class _Free:
    """A turn at a model without a queue."""

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass


_FREE = _Free()


@asynccontextmanager
async def _lent(place: Place, model: str, may_end: Callable[[], bool]) -> AsyncIterator[None]:
    """Until the end somebody else may have ``place`` back.

    Raises:
        RateLimited: somebody did.
    """
    now = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(0 if place.taken_back else None) as end:

            def take_back() -> bool:
                if not may_end():
                    return False
                end.reschedule(now())
                return True

            place.take_back = take_back
            yield
    except TimeoutError:
        if not end.expired():
            raise
        made_room = f'The request to the model "{model}" made room for a more important one; try again later.'
        raise RateLimited(made_room, code="model_overloaded", retry_after_s=RETRY_AFTER_S) from None


async def _until_given(given: asyncio.Future[None], receive: Receive | None) -> None:
    if receive is None or given.done():
        await given
        return
    gone = asyncio.ensure_future(_until_gone(receive))
    try:
        await asyncio.wait((given, gone), return_when=asyncio.FIRST_COMPLETED)
        if not given.done():
            raise Disconnected
        given.result()
    finally:
        gone.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
