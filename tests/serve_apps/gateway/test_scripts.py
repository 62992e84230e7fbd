import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from serve_apps.gateway.scripts import AT_ONCE, Script, Scripts
from serve_apps.gateway.store import KEY_PREFIX, Store, StoreDown
from tests.serve_apps.gateway.redis import RedisServer
from tests.serve_apps.gateway.servers import PATIENCE_S
from tests.serve_apps.gateway.test_store import until_back, with_store

COUNTER = [f"{KEY_PREFIX}counter"]
ADD = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
WRONG = Script("return redis.call('NOTHING')")
#: Longer than any test runs.
NEVER_S = 1000


class Counting:
    """A store's ``ask`` that counts the round trips."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.trips = 0

    async def ask(self, question: Callable[[Redis], Awaitable[list[Any]]]) -> list[Any]:
        self.trips += 1
        return await self._store.ask(question)


def test_scripts_run_in_the_order_they_are_asked_for_and_share_round_trips(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        counting = Counting(store)
        scripts = Scripts(counting.ask)
        wanted = 2 * AT_ONCE
        assert await asyncio.gather(*(scripts.run(ADD, COUNTER, [1]) for _ in range(wanted))) == [*range(1, wanted + 1)]
        assert counting.trips == 2
        await scripts.close()

    with_store(redis_server.store(), story)
    with redis_server.client() as client:
        assert client.info("commandstats")["cmdstat_eval"]["calls"] == AT_ONCE, "only until Redis knows the script"


def test_what_may_wait_goes_with_what_may_not(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        counting = Counting(store)
        scripts = Scripts(counting.ask)
        patient = asyncio.create_task(scripts.run(ADD, COUNTER, [1], NEVER_S))
        await asyncio.sleep(0.01)
        assert counting.trips == 0
        assert await scripts.run(ADD, COUNTER, [1]) == 2
        assert (await patient, counting.trips) == (1, 1)
        await scripts.close()

    with_store(redis_server.store(), story)


def test_what_may_wait_is_sent_in_time_and_when_all_ends(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        assert await store.run(ADD, COUNTER, [1], within_s=0.01) == 1
        left = asyncio.create_task(store.run(ADD, COUNTER, [1], NEVER_S))
        await asyncio.sleep(0)
        await store.close()
        assert await left == 2

    with_store(redis_server.store(), story)


def test_a_redis_that_forgot_a_script_is_told_it_again(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        await store.run(ADD, COUNTER, [1])
        with redis_server.client() as client:
            client.script_flush()
        assert await asyncio.gather(*(store.run(ADD, COUNTER, [1]) for _ in range(3))) == [2, 3, 4]

    with_store(redis_server.store(), story)


def test_a_connection_that_redis_has_closed_costs_nobody_an_answer(redis_server: RedisServer) -> None:
    heard: list[bool] = []

    async def story(store: Store) -> None:
        await store.run(ADD, COUNTER, [1])
        with redis_server.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
        await asyncio.sleep(0.05)
        assert await store.run(ADD, COUNTER, [1]) == 2

    with_store(redis_server.store(on_down=heard.append), story)
    assert heard == [False]


def test_who_goes_leaves_the_others_their_own_answers(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        await store.run(ADD, COUNTER, [10])
        first, second, third = (asyncio.create_task(store.run(ADD, COUNTER, [1])) for _ in range(3))
        await asyncio.sleep(0)
        second.cancel()
        assert (await first, await third) == (11, 13)
        with pytest.raises(asyncio.CancelledError):
            await second

    with_store(redis_server.store(), story)


def test_a_redis_that_dies_with_scripts_under_way_is_down_for_all_of_them(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        await store.run(ADD, COUNTER, [1])
        redis_server.hang()
        asking = [asyncio.create_task(store.run(ADD, COUNTER, [1])) for _ in range(AT_ONCE + 1)]
        await asyncio.sleep(0.05)
        redis_server.kill()
        async with asyncio.timeout(PATIENCE_S):
            outcomes = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [StoreDown] * (AT_ONCE + 1)
        with pytest.raises(StoreDown):
            await store.run(ADD, COUNTER, [1])
        redis_server.start()
        await until_back(store)
        assert await store.run(ADD, COUNTER, [1]) == 1

    with_store(redis_server.store(), story)


def test_a_script_that_redis_refuses_is_a_redis_that_is_ill(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        with pytest.raises(StoreDown):
            await store.run(WRONG, COUNTER, [])
        assert store.down

    with_store(redis_server.store(), story)
