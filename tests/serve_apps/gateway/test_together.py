import asyncio
import itertools

import pytest

from serve_apps.gateway.together import MOST, Together


def gathered(done: list[list[int]]) -> Together[str, int, int]:
    """One that notes in ``done`` what it does at once, and answers with ten times each item."""

    async def do(key: str, items: list[int]) -> list[int]:
        done.append(items)
        return [10 * item for item in items]

    return Together(do, asyncio.create_task)


def test_what_is_added_in_one_round_is_done_at_once_by_key_and_each_has_its_own_answer() -> None:
    async def story() -> None:
        done: list[list[int]] = []
        together = gathered(done)

        async def answer(key: str, item: int) -> int:
            doing, number = together.add(key, item)
            return (await doing)[number]

        answers = await asyncio.gather(answer("a", 1), answer("b", 2), answer("a", 3))
        assert [*answers] == [10, 20, 30]
        assert done == [[1, 3], [2]]
        assert await answer("a", 4) == 40
        assert done == [[1, 3], [2], [4]]

    asyncio.run(story())


def test_so_many_are_done_at_once_and_no_more() -> None:
    async def story() -> None:
        done: list[list[int]] = []
        together = gathered(done)
        await asyncio.wait({together.add("a", item)[0] for item in range(2 * MOST + 1)})
        assert [len(items) for items in done] == [MOST, MOST, 1]
        assert [*itertools.chain(*done)] == [*range(2 * MOST + 1)]

    asyncio.run(story())


def test_what_fails_fails_for_all_of_them_and_not_for_the_next() -> None:
    async def story() -> None:
        failing = True

        async def do(key: str, items: list[int]) -> list[int]:
            if failing:
                raise ValueError(key)
            return items

        together = Together(do, asyncio.create_task)
        (first, _), (second, _) = together.add("a", 1), together.add("a", 2)
        assert first is second
        with pytest.raises(ValueError, match="a"):
            await first
        failing = False
        assert await together.add("a", 3)[0] == [3]

    asyncio.run(story())
