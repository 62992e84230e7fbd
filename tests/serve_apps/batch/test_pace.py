"""Turns, in virtual time: a model that has room for so many, and lines that try again."""

import asyncio
from dataclasses import dataclass

import pytest

from serve_apps.batch.pace import Pace, Paces
from tests.serve_apps.gateway.virtual_time import run


@dataclass
class Model:
    """Answers in a second, and refuses what is more than it has room for."""

    room: int
    under_way: int = 0
    most: int = 0
    refused: int = 0
    answered: int = 0

    async def line(self, pace: Pace, retry_after_s: float | None = 5) -> None:
        while True:
            async with pace.turn():
                if self.under_way >= self.room:
                    self.refused += 1
                    pace.refused(retry_after_s)
                    continue
                self.under_way += 1
                self.most = max(self.most, self.under_way)
                await asyncio.sleep(1)
                self.under_way -= 1
                self.answered += 1
                pace.answered()
                return


def test_as_many_are_under_way_as_may_be_and_all_come_to_their_turn() -> None:
    async def story() -> None:
        model, pace = Model(room=100), Pace(lambda: 8)
        await asyncio.gather(*(model.line(pace) for _ in range(40)))
        assert (model.answered, model.refused, model.most) == (40, 0, 8)
        assert asyncio.get_running_loop().time() == pytest.approx(5)

    run(story())


def test_a_model_without_room_is_left_alone_and_asked_by_fewer() -> None:
    async def story() -> None:
        model, pace = Model(room=3), Pace(lambda: 64)
        await asyncio.gather(*(model.line(pace) for _ in range(300)))
        assert model.answered == 300
        # Of 61 at once, and then now and then of one more than there is room for.
        assert model.refused < 61 + 61
        assert pace.limit <= 8

    run(story())


def test_nobody_starts_while_a_refusal_says_to_stay_away() -> None:
    async def story() -> None:
        pace = Pace(lambda: 4)
        pace.refused(30)
        async with pace.turn():
            assert asyncio.get_running_loop().time() == pytest.approx(30)

    run(story())


def test_a_crowd_of_refusals_halves_once_and_answers_raise_again() -> None:
    async def story() -> None:
        pace = Pace(lambda: 16)
        for _ in range(16):
            pace.refused(None)
        assert pace.limit == 8
        for _ in range(8):
            pace.answered()
        assert pace.limit == 9
        for _ in range(1000):
            pace.answered()
        assert pace.limit == 16

    run(story())


def test_a_cancelled_line_does_not_take_anothers_turn_with_it() -> None:
    async def story() -> None:
        model, pace = Model(room=9), Pace(lambda: 1)
        first = asyncio.create_task(model.line(pace))
        waiting = [asyncio.create_task(model.line(pace)) for _ in range(3)]
        first.add_done_callback(lambda _: [task.cancel() for task in waiting[:2]])
        await asyncio.gather(*waiting, return_exceptions=True)
        assert model.answered == 2

    run(story())


def test_models_have_paces_of_their_own_that_are_forgotten_with_their_lines() -> None:
    async def story() -> None:
        paces = Paces(lambda: 4)
        chat = paces.at("chat")
        chat.refused(10)
        assert (paces.at("chat").limit, paces.at("other").limit) == (2, 4)
        del chat
        assert paces.at("chat").limit == 4

    run(story())
