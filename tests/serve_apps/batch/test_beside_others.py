"""Batches and clients at one model, in virtual time: the pace of lines, the gateway's queue, and an engine's places.

How the same looks on a clock is measured by ``make bench-batch``.
"""

import asyncio
import random

import pytest

from bench.batch.engine import ANSWERS_PER_S, SEQUENCES, STEP_S, TOKENS, Engine
from bench.gateway.figures import percentile
from serve_apps.batch.pace import Pace
from serve_apps.common.errors import RateLimited
from serve_apps.gateway.admission import Queues
from serve_apps.gateway.config import BACKGROUND_PRIORITY, Queue
from tests.serve_apps.gateway.virtual_time import run

QUEUE = Queue(max_concurrent=SEQUENCES)
LINES_AT_A_TIME = 2 * SEQUENCES
SECONDS = 10


class Model:
    """A model behind the gateway's queue."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.queues = Queues()
        self.first_token_ms: list[float] = []
        self.lines = 0

    async def chat(self) -> None:
        """A client's request."""
        now = asyncio.get_running_loop().time
        asked_s = now()
        async with self.queues.turn("chat", QUEUE, "team"):
            tokens = self.engine.tokens(TOKENS, 0)
            await anext(tokens)
            self.first_token_ms.append((now() - asked_s) * 1000)
            async for _ in tokens:
                pass

    async def batch(self, pace: Pace) -> None:
        """One line after the other, of the same tenant."""
        while True:
            async with pace.turn():
                try:
                    async with self.queues.turn("chat", QUEUE, "team", BACKGROUND_PRIORITY):
                        async for _ in self.engine.tokens(TOKENS, BACKGROUND_PRIORITY):
                            pass
                except RateLimited as busy:
                    pace.refused(busy.retry_after_s)
                    continue
                pace.answered()
                self.lines += 1


async def story(requests_per_s: float, *, batch: bool, evenly: bool = False) -> Model:
    """Ten seconds of clients who come as it happens or evenly, to a model that was full of lines."""
    model, pace, randomly = Model(), Pace(lambda: LINES_AT_A_TIME), random.Random(1)
    lines = [asyncio.create_task(model.batch(pace)) for _ in range(LINES_AT_A_TIME if batch else 0)]
    await asyncio.sleep(1)
    model.lines = 0
    chats: list[asyncio.Task[None]] = []
    left_s = float(SECONDS)
    while requests_per_s:
        chats.append(asyncio.create_task(model.chat()))
        pause_s = 1 / requests_per_s if evenly else randomly.expovariate(requests_per_s)
        if pause_s > left_s:
            break
        left_s -= pause_s
        await asyncio.sleep(pause_s)
    await asyncio.sleep(left_s)
    counted = model.lines
    await asyncio.gather(*chats)
    for line in lines:
        line.cancel()
    await asyncio.gather(*lines, return_exceptions=True)
    model.lines = counted
    return model


def test_a_batch_has_all_of_a_model_that_nobody_else_asks() -> None:
    assert run(story(0, batch=True)).lines / SECONDS >= 0.95 * ANSWERS_PER_S


@pytest.mark.parametrize("evenly", [False, True])
@pytest.mark.parametrize("part", [0.2, 0.4, 0.6])
def test_clients_do_not_notice_a_batch_and_it_has_of_what_they_leave(part: float, evenly: bool) -> None:
    alone = run(story(part * ANSWERS_PER_S, batch=False, evenly=evenly)).first_token_ms
    beside = run(story(part * ANSWERS_PER_S, batch=True, evenly=evenly))
    # To a step of the engine: there is nothing shorter.
    assert percentile(beside.first_token_ms, 95) <= max(1.1 * percentile(alone, 95), STEP_S * 1000 + 1)
    assert beside.lines / SECONDS >= 0.3 * (1 - part) * ANSWERS_PER_S
