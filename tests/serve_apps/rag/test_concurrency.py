import asyncio
from functools import partial

import pytest

from serve_apps.common.errors import Unavailable
from serve_apps.rag.concurrency import gathered


def test_calls_overlap_up_to_the_limit_and_answer_in_order() -> None:
    running: list[int] = []
    most = 0

    async def call(number: int) -> int:
        nonlocal most
        running.append(number)
        most = max(most, len(running))
        await asyncio.sleep(0.001 * (5 - number))
        running.remove(number)
        return number

    assert asyncio.run(gathered([partial(call, number) for number in range(5)], 3)) == [0, 1, 2, 3, 4]
    assert most == 3


def test_the_first_failure_cancels_the_others() -> None:
    ended: list[str] = []

    async def fail() -> None:
        raise Unavailable("down")

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    with pytest.raises(Unavailable, match="down"):
        asyncio.run(gathered([wait, fail], 2))
    assert ended == ["cancelled"]
