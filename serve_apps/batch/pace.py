"""How many lines may be at a model at a time: fewer when it refuses, more again while it answers.

A refusal halves the number and keeps everybody away for as long as it says; as many answers as the number raise it by
one. So batches take what is spare, and leave it when others come.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

#: How long to stay away where a refusal does not say, in seconds.
REST_S = 1.0


class Pace:
    """Turns at one model, or of one batch, on one event loop."""

    def __init__(self, most: Callable[[], int]) -> None:
        """``most()``: lines at a time at most; it may change."""
        self._most = most
        self._limit = most()
        self._under_way = 0
        self._answers = 0
        self._away_until_s = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        """Lines that may be under way now."""
        return min(self._limit, self._most())

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until one more line may be under way; it is until the end."""
        await self._wait()
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._wake()

    def answered(self) -> None:
        """The model answered a line."""
        self._answers += 1
        if self._answers >= self._limit:
            self._answers = 0
            self._limit = min(self._limit + 1, self._most())

    def refused(self, retry_after_s: float | None) -> None:
        """The model, or the gateway before it, has no room."""
        now = asyncio.get_running_loop().time()
        if now >= self._away_until_s:  # several refusals at once come of one crowd
            self._limit = max(1, self.limit // 2)
            self._answers = 0
        self._away_until_s = max(self._away_until_s, now + (retry_after_s or REST_S))

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                if (away_s := self._away_until_s - loop.time()) > 0:
                    await asyncio.sleep(away_s)
                elif self._under_way < self.limit:
                    return
                else:
                    woken = loop.create_future()
                    self._waiting.append(woken)
                    await woken
        except asyncio.CancelledError:
            self._wake()  # it may have been woken for a turn that is another's now
            raise

    def _wake(self) -> None:
        free = self.limit - self._under_way
        while free > 0 and self._waiting:
            woken = self._waiting.popleft()
            if not woken.done():
                woken.set_result(None)
                free -= 1


class Paces:
    """The pace at each model, for as long as there are lines for it: clients name models as they like."""

    def __init__(self, most: Callable[[], int]) -> None:
        """``most()``: lines at one model at a time at most."""
        self._most = most
        self._paces: WeakValueDictionary[str, Pace] = WeakValueDictionary()

    def at(self, model: str) -> Pace:
        """The pace at a model."""
        pace = self._paces.get(model)
        if pace is None:
            pace = self._paces[model] = Pace(self._most)
        return pace
