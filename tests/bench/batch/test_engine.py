import asyncio

from bench.batch.engine import Engine
from tests.serve_apps.gateway.virtual_time import run


def test_as_many_as_there_are_places_get_a_token_in_each_step() -> None:
    async def story() -> float:
        engine = Engine(sequences=4, step_s=1)

        async def ask() -> None:
            assert len([token async for token in engine.tokens(10, 0)]) == 10

        await asyncio.gather(*(ask() for _ in range(8)))
        return asyncio.get_running_loop().time()

    assert 20 <= run(story()) < 21


def test_those_that_wait_go_by_priority_and_then_by_age() -> None:
    async def story() -> list[str]:
        engine, ended = Engine(sequences=1, step_s=1), []

        async def ask(name: str, priority: int) -> None:
            async for _ in engine.tokens(2, priority):
                pass
            ended.append(name)

        first = asyncio.create_task(ask("first", 101))
        await asyncio.sleep(0.1)
        left = asyncio.create_task(ask("who leaves", 0))
        others = [asyncio.create_task(ask(*who)) for who in (("line", 101), ("chat", 0), ("another chat", 0))]
        await asyncio.sleep(0.1)
        left.cancel()
        await asyncio.gather(first, *others)
        return ended

    assert run(story()) == ["first", "chat", "another chat", "line"]
