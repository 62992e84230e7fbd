"""A time limit for what every request does."""

import asyncio
from types import TracebackType


class Deadline:
    """``asyncio.timeout`` in a third of the steps: it is no coroutine, and its time is set once.

    Raises:
        TimeoutError: the ``with`` block took longer; what it awaited was cancelled.
    """

    __slots__ = ("_cancelling", "_expired", "_seconds", "_task", "_timer")

    _task: asyncio.Task[object]
    _timer: asyncio.TimerHandle

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._expired = False

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a deadline is for what a task does")
        self._task = task
        self._cancelling = task.cancelling()
        self._timer = loop.call_later(self._seconds, self._expire)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._timer.cancel()
        # If somebody else has cancelled the task meanwhile, too, it stays cancelled.
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()
