"""What comes at the same time is done together."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Answer = TypeVar("Answer")

#: Items that are done at once.
MOST = 64


class Together(Generic[Key, Item, Answer]):
    """Gathers, by key, what is added in one round of the event loop."""

    def __init__(
        self,
        do: Callable[[Key, list[Item]], Coroutine[Any, Any, list[Answer]]],
        begin: Callable[[Coroutine[Any, Any, list[Answer]]], asyncio.Task[list[Answer]]],
    ) -> None:
        """Nothing is to be done yet.

        Args:
            do: does all of it, and has an answer for each item, in their order.
            begin: makes a task of that.
        """
        self._do = do
        self._begin = begin
        self._gathered: dict[Key, tuple[list[Item], asyncio.Task[list[Answer]]]] = {}

    def add(self, key: Key, item: Item) -> tuple[asyncio.Task[list[Answer]], int]:
        """Have ``item`` done with the others; the task that does it, and the number of its answer there."""
        items, task = self._gathered.get(key, (None, None))
        if items is None or task is None or len(items) == MOST:
            items = []
            task = self._begin(self._next_round(key, items))
            self._gathered[key] = items, task
        items.append(item)
        return task, len(items) - 1

    async def _next_round(self, key: Key, items: list[Item]) -> list[Answer]:
        if self._gathered[key][0] is items:
            del self._gathered[key]
        return await self._do(key, items)
