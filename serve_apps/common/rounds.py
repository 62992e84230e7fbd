"""When what is written is sent: at the end of the event loop's round.

A write wakes whoever reads at its other end, which may have gone to sleep since the last one. What is written together
wakes it once; and a new request need not stand behind the writes of all the streams that got a token before it came.
"""

import asyncio
import logging
from collections.abc import Callable
from weakref import WeakValueDictionary

logger = logging.getLogger(__name__)


class Round:
    """What one event loop runs between two looks at its sockets."""

    __slots__ = ("__weakref__", "_ends", "_is_first", "_loop", "_waiting", "streams")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.streams = 0
        """How many streams flow on this loop."""
        self._waiting: list[Callable[[], None]] = []
        self._is_first = True
        self._ends = False

    def at_end(self, send: Callable[[], None]) -> None:
        """Call ``send`` when all that is ready has run."""
        self._waiting.append(send)
        self._have_ended()

    def goes_at_once(self) -> bool:
        """Whether what begins now need not wait for the end of the round.

        While streams flow, rounds are long, and the first request or response of one goes before their tokens. Where
        there are none, or many begin at once, waking the other end once for all of them is worth more.
        """
        if not (self.streams and self._is_first):
            return False
        self._is_first = False
        self._have_ended()
        return True

    def _have_ended(self) -> None:
        if not self._ends:
            self._ends = True
            self._loop.call_soon(self._end)

    def _end(self) -> None:
        self._ends, self._is_first = False, True
        waiting, self._waiting = self._waiting, []
        for send in waiting:
            try:
                send()
            except Exception:  # the others' answers wait, too
                logger.exception("what was written could not be sent")


#: By the loop's ``id``, which no other loop has while a round holds that one.
_rounds: WeakValueDictionary[int, Round] = WeakValueDictionary()


def round_of(loop: asyncio.AbstractEventLoop) -> Round:
    """The rounds of ``loop``, for all who write there; call it from the loop's thread."""
    found = _rounds.get(id(loop))
    if found is None:
        found = _rounds[id(loop)] = Round(loop)
    return found
