import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from serve_apps.gateway.deadline import Deadline
from tests.serve_apps.gateway.virtual_time import run


async def within(seconds: float, work: Coroutine[Any, Any, str]) -> str:
    with Deadline(seconds):
        return await work


async def answer(after_s: float) -> str:
    await asyncio.sleep(after_s)
    return "answer"


async def failure(after_s: float) -> str:
    await asyncio.sleep(after_s)
    raise ValueError("a failure")


def test_what_is_done_in_time_is_left_alone() -> None:
    async def play() -> str:
        said = await within(2, answer(1))
        await asyncio.sleep(10)  # nor is anything cancelled later
        return said

    assert run(play()) == "answer"


def test_what_is_not_done_in_time_is_cancelled() -> None:
    async def play() -> int:
        with pytest.raises(TimeoutError):
            await within(1, answer(2))
        task = asyncio.current_task()
        assert task is not None
        await asyncio.sleep(10)  # the task goes on
        return task.cancelling()

    assert run(play()) == 0


def test_a_failure_in_time_is_itself() -> None:
    with pytest.raises(ValueError, match="a failure"):
        run(within(2, failure(1)))


def test_who_is_cancelled_by_somebody_else_is_not_late() -> None:
    async def play() -> None:
        task = asyncio.ensure_future(within(2, answer(3)))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(play())


def test_who_is_late_and_cancelled_by_somebody_else_is_cancelled() -> None:
    async def play() -> None:
        task = asyncio.ensure_future(within(1, answer(3)))
        loop = asyncio.get_running_loop()
        loop.call_at(loop.time() + 1, task.cancel)
        await asyncio.wait((task,))
        assert task.cancelled()

    run(play())


def test_of_two_the_one_that_is_over_is_late() -> None:
    async def play() -> str:
        with Deadline(3):
            try:
                await within(1, answer(2))
            except TimeoutError:
                return await answer(1)
        raise AssertionError("the inner one is over first")

    assert run(play()) == "answer"


def test_it_is_for_tasks_only() -> None:
    async def play() -> str:
        caught: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def enter() -> None:
            try:
                Deadline(1).__enter__()
            except RuntimeError as error:
                caught.set_result(str(error))

        asyncio.get_running_loop().call_soon(enter)
        return await caught

    assert run(play()) == "a deadline is for what a task does"
