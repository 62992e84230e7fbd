"""Several calls at the same time, but not all of them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def gathered(calls: Iterable[Callable[[], Awaitable[T]]], limit: int) -> list[T]:
    """What the calls give, in their order, ``limit`` of them running at a time.

    The first that fails cancels the others, and its error is raised.
    """
    slots = asyncio.Semaphore(limit)

    async def run(call: Callable[[], Awaitable[T]]) -> T:
        async with slots:
            return await call()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(call)) for call in calls]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
