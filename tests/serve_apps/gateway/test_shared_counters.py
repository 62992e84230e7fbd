import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from serve_apps.gateway.gcra import Amounts, Bounds, Bucket, Outcome, Wanted
from serve_apps.gateway.metering import month, month_key
from serve_apps.gateway.shared_counters import SharedCounters
from serve_apps.gateway.store import Store, StoreDown, tenant_key
from tests.serve_apps.gateway.redis import RedisServer, with_stores

BOUNDS = Bounds(Bucket.per_minute(40), Bucket.per_minute(5000), running=20, budget=1)
ACME = ("acme", BOUNDS)

Story = Callable[[SharedCounters], Awaitable[None]]


def with_counters(redis_server: RedisServer, story: Story) -> None:
    """Run ``story``, and what it leaves under way."""

    async def play(store: Store) -> None:
        under_way: list[asyncio.Task[Any]] = []

        def begin(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
            under_way.append(asyncio.create_task(work))
            return under_way[-1]

        await story(SharedCounters(store, begin, time.time))
        await asyncio.gather(*under_way, return_exceptions=True)

    with_stores(redis_server, 1, play)


async def take(counters: SharedCounters, count: int, tenant: str = "acme") -> list[Outcome | BaseException]:
    """What becomes of ``count`` requests of 10 tokens that come at the same time."""
    taking = (counters.take((tenant, BOUNDS), Wanted(10, f"lease-{number}")) for number in range(count))
    return await asyncio.gather(*taking, return_exceptions=True)


def test_requests_that_come_together_are_one_script_and_each_has_its_own_outcome(redis_server: RedisServer) -> None:
    outcomes: list[Outcome | BaseException] = []

    async def story(counters: SharedCounters) -> None:
        outcomes.extend(await take(counters, 25))

    with_counters(redis_server, story)
    let_in = [Outcome("", number, 10 * number) for number in range(1, 21)]
    assert outcomes == [pytest.approx(each) for each in [*let_in, *5 * [Outcome("running", 20, 200)]]]
    with redis_server.client() as client:
        assert client.zcard(tenant_key("acme", "running")) == 20
        assert client.info("commandstats")["cmdstat_eval"]["calls"] == 1


def test_requests_that_end_together_are_one_script(redis_server: RedisServer) -> None:
    async def story(counters: SharedCounters) -> None:
        await take(counters, 10)
        for number in range(10):
            counters.settle(ACME, Amounts(0, -4), [f"lease-{number}"])

    with_counters(redis_server, story)
    with redis_server.client() as client:
        assert client.info("commandstats")["cmdstat_eval"]["calls"] == 2
        assert client.zcard(tenant_key("acme", "running")) == 0
        held_s = float(client.get(tenant_key("acme", "tokens"))) - time.time()
    assert held_s <= 60 * 60 / 5000  # less what was earned since


def test_tenants_that_come_together_have_counters_of_their_own(redis_server: RedisServer) -> None:
    spent = month_key("spent", month(time.time()))

    async def story(counters: SharedCounters) -> None:
        with redis_server.client() as client:
            client.hset(spent, "cost", 2)
        acme, other, poor = await asyncio.gather(*(take(counters, 2, tenant) for tenant in ("acme", "other", "spent")))
        assert acme == other == [pytest.approx(Outcome("", number, 10 * number)) for number in (1, 2)]
        assert poor == 2 * [Outcome("budget", 0, 0)]

    with_counters(redis_server, story)


def test_where_redis_is_down_all_of_them_hear_it(redis_server: RedisServer) -> None:
    async def story(counters: SharedCounters) -> None:
        redis_server.kill()
        assert [type(each) for each in await take(counters, 3)] == 3 * [StoreDown]
        assert counters.down
        counters.settle(ACME, Amounts(0, -4), ["lease-0"])  # nobody hears it, and nothing comes of that

    with_counters(redis_server, story)
