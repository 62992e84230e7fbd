"""The stages of an answer: each with a deadline, a bound on how many questions are in it, and a timer."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import TypeVar

from serve_apps.common.errors import UpstreamTimeout
from serve_apps.rag.observation import Observer, observed

T = TypeVar("T")


class Stages:
    """Runs the stages of one pipeline."""

    def __init__(self, pipeline: str, max_concurrent: int, observer: Observer) -> None:
        self._pipeline = pipeline
        self._observer = observer
        self._slots = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(max_concurrent))

    async def run(self, stage: str, timeout_s: float, work: Callable[[], Awaitable[T]]) -> T:
        """What ``work`` gives; waiting for a slot counts.

        Raises:
            UpstreamTimeout: it took longer than ``timeout_s``; the work is cancelled.
        """
        with observed(self._observer, self._pipeline, stage):
            try:
                async with asyncio.timeout(timeout_s), self._slots[stage]:
                    return await work()
            except TimeoutError as error:
                raise UpstreamTimeout(f"{stage} took longer than {timeout_s:g} s") from error
