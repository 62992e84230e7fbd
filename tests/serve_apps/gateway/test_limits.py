import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Literal

import pytest

from serve_apps.gateway import gcra
from serve_apps.gateway.advances import EARLY_S, LIFE_S
from serve_apps.gateway.config import Tenant
from serve_apps.gateway.limit_answers import LimitReached
from serve_apps.gateway.limits import FIRST_COMPLETION_TOKENS, MAX_IDLE_TENANTS, Grant, Limits
from serve_apps.gateway.metering import month, month_key
from serve_apps.gateway.request import Wish
from serve_apps.gateway.store import KEY_PREFIX, Store, tenant_key
from serve_apps.gateway.usage import Tokens
from tests.serve_apps.clock import Clock
from tests.serve_apps.gateway.redis import RedisServer, until_back, with_stores
from tests.serve_apps.gateway.servers import PATIENCE_S

NOON = 1_764_072_000.0
"""25 November 2025, 12:00 UTC."""


def limits(
    store: Store | None = None,
    *,
    replicas: int = 1,
    outage: Literal["share", "open"] = "share",
    spent: Callable[[str, int], float] = lambda tenant, replicas: 0,
    clock: Callable[[], float] | None = None,
) -> Limits:
    clock = clock or Clock(NOON)
    made = Limits(store, outage, spent, clock, stopwatch=clock)
    made.replicas = replicas
    return made


async def let_in(of: Limits, rules: Tenant, times: int, tokens: int = 0, tenant: str = "acme") -> list[Grant]:
    """The grants of those of ``times`` requests that are let in."""
    grants = []
    for _ in range(times):
        with contextlib.suppress(LimitReached):
            grants.append(await of.take(tenant, rules, tokens))
    return grants


async def let_in_together(of: Limits, rules: Tenant, times: int, tokens: int = 0) -> list[Grant]:
    """As ``let_in``, of requests that come at the same time."""
    asked = await asyncio.gather(*(of.take("acme", rules, tokens) for _ in range(times)), return_exceptions=True)
    assert all(isinstance(one, Grant | LimitReached) for one in asked)
    return [one for one in asked if isinstance(one, Grant)]


def refused(of: Limits, rules: Tenant, tokens: int = 0) -> LimitReached:
    with pytest.raises(LimitReached) as caught:
        asyncio.run(of.take("acme", rules, tokens))
    return caught.value


async def settled(of: Limits) -> None:
    """Wait for what nobody waits for."""
    await asyncio.gather(*of._tasks)


def test_a_tenant_without_limits_asks_nobody(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        of = limits(store)
        grant = await of.take("acme", Tenant(max_tokens=5, priority=3, models=("chat",)), 1000)
        of.settle(grant, 10)
        assert grant.headers == []
        assert not of._tasks

    with_stores(redis_server, 1, story)
    with redis_server.client() as client:
        assert "cmdstat_evalsha" not in client.info("commandstats")


@pytest.mark.parametrize("shared", [False, True])
def test_the_headers_are_openais(redis_server: RedisServer, shared: bool) -> None:
    async def story(store: Store) -> None:
        of = limits(store if shared else None)
        grant = await of.take("acme", Tenant(requests_per_minute=60, tokens_per_minute=6000), 300)
        assert {name.decode(): value.decode() for name, value in grant.headers} == {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-limit-tokens": "6000",
            "x-ratelimit-remaining-tokens": "5700",
            "x-ratelimit-reset-tokens": "3s",
        }

    with_stores(redis_server, 1, story)


def test_only_what_is_limited_has_headers() -> None:
    grant = asyncio.run(limits().take("acme", Tenant(tokens_per_minute=10), 1))
    assert {name for name, _ in grant.headers} == {
        b"x-ratelimit-limit-tokens",
        b"x-ratelimit-remaining-tokens",
        b"x-ratelimit-reset-tokens",
    }


def test_too_many_requests_are_told_when_to_come_back() -> None:
    of, rules = limits(), Tenant(requests_per_minute=2)
    assert len(asyncio.run(let_in(of, rules, 2))) == 2
    error = refused(of, rules)
    assert error.message == (
        "Rate limit reached on requests per min (RPM): Limit 2, Used 2, Requested 1. Please try again in 30s."
    )
    assert (error.status, error.type, error.code) == (429, "requests", "rate_limit_exceeded")
    assert error.headers() == {
        "content-type": "application/json",
        "retry-after": "30",
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m0s",
    }


def test_too_many_tokens_are_told_when_to_come_back() -> None:
    of, rules = limits(), Tenant(tokens_per_minute=600)
    assert len(asyncio.run(let_in(of, rules, 1, tokens=500))) == 1
    error = refused(of, rules, tokens=200)
    assert error.message == (
        "Rate limit reached on tokens per min (TPM): Limit 600, Used 500, Requested 200. Please try again in 10s."
    )
    assert (error.type, error.code, error.retry_after_s) == ("tokens", "rate_limit_exceeded", 10)


def test_too_many_at_a_time_are_refused_until_one_is_over() -> None:
    of, rules = limits(), Tenant(max_concurrent_requests=2)
    grants = asyncio.run(let_in(of, rules, 5))
    assert len(grants) == 2
    error = refused(of, rules)
    assert error.message == ("Rate limit reached on concurrent requests: Limit 2. Try again when one of them is over.")
    assert (error.type, error.code, error.retry_after_s) == ("requests", "rate_limit_exceeded", 1)
    of.settle(grants[0], None)
    assert len(asyncio.run(let_in(of, rules, 5))) == 1


def test_a_spent_budget_is_openais_insufficient_quota() -> None:
    spent = {"acme": 9.99}
    of, rules = limits(spent=lambda tenant, _: spent[tenant]), Tenant(monthly_budget=10)
    assert len(asyncio.run(let_in(of, rules, 1))) == 1
    spent["acme"] = 10
    error = refused(of, rules)
    assert error.message == (
        "You exceeded your current quota: this month's budget of 10 is spent. GET /v1/usage says on what; it begins "
        "anew with the month (UTC)."
    )
    assert (error.status, error.type, error.code) == (429, "insufficient_quota", "insufficient_quota")
    assert error.headers()["x-should-retry"] == "false"
    assert error.retry_after_s == 5.5 * 86400


def test_a_request_is_settled_once() -> None:
    of, rules = limits(), Tenant(tokens_per_minute=100, max_concurrent_requests=9)
    [grant] = asyncio.run(let_in(of, rules, 1, tokens=100))
    of.settle(grant, 60)
    of.settle(grant, 0)
    assert len(asyncio.run(let_in(of, rules, 9, tokens=10))) == 4


@pytest.mark.parametrize(("used", "fit"), [(0, 10), (60, 4), (None, 0)])
@pytest.mark.parametrize("shared", [False, True])
def test_what_was_not_used_is_given_back(redis_server: RedisServer, shared: bool, used: int | None, fit: int) -> None:
    async def story(store: Store) -> None:
        of, rules = limits(store if shared else None), Tenant(tokens_per_minute=100)
        [grant] = await let_in(of, rules, 1, tokens=100)
        of.settle(grant, used)
        await settled(of)
        assert len(await let_in(of, rules, 20, tokens=10)) == fit

    with_stores(redis_server, 1, story)


def test_an_estimate_above_the_whole_limit_waits_for_an_empty_bucket_and_is_charged_later() -> None:
    clock = Clock(NOON)
    of, rules = limits(clock=clock), Tenant(tokens_per_minute=600)
    [grant] = asyncio.run(let_in(of, rules, 1, tokens=5000))
    of.settle(grant, 1200)
    assert refused(of, rules, tokens=100).retry_after_s == 70
    clock.now += 70
    assert len(asyncio.run(let_in(of, rules, 1, tokens=100))) == 1


def test_replicas_share_one_limit(redis_server: RedisServer) -> None:
    async def story(*stores: Store) -> None:
        rules = Tenant(requests_per_minute=10, tokens_per_minute=100_000, max_concurrent_requests=100)
        of = [limits(store, replicas=3) for store in stores]
        grants = await asyncio.gather(*(let_in(each, rules, 10, tokens=5) for each in of))
        assert sum(map(len, grants)) == 10

    with_stores(redis_server, 3, story)


def test_places_of_all_replicas_are_one_number_and_come_back(redis_server: RedisServer) -> None:
    async def story(one: Store, other: Store) -> None:
        first, second, rules = limits(one), limits(other), Tenant(max_concurrent_requests=3)
        held = await let_in(first, rules, 2)
        assert len(await let_in(second, rules, 5)) == 1
        first.settle(held[0], None)
        await settled(first)
        assert len(await let_in(second, rules, 5)) == 1

    with_stores(redis_server, 2, story)


def test_a_killed_replica_gives_its_places_back_and_a_living_one_keeps_them(redis_server: RedisServer) -> None:
    async def story(one: Store, other: Store) -> None:
        killed, living, rules = limits(one), limits(other), Tenant(max_concurrent_requests=2)
        await let_in(killed, rules, 1)
        await let_in(living, rules, 1)
        key = tenant_key("acme", "running")
        with redis_server.client() as client:
            for lease in client.zrange(key, 0, -1):  # as if a minute had gone by
                client.zadd(key, {lease: time.time() + 0.01})
        await living.renew()
        await asyncio.sleep(0.02)
        assert len(await let_in(living, rules, 5)) == 1

    with_stores(redis_server, 2, story)


def test_a_lease_that_is_over_is_not_renewed_into_being(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        of, rules = limits(store), Tenant(max_concurrent_requests=1)
        await let_in(of, rules, 1)
        with redis_server.client() as client:
            client.delete(tenant_key("acme", "running"))
        await of.renew()
        assert len(await let_in(of, rules, 1)) == 1

    with_stores(redis_server, 1, story)


def test_without_redis_too_running_requests_are_renewed() -> None:
    clock = Clock(NOON)
    of, rules = limits(clock=clock), Tenant(max_concurrent_requests=1)
    assert len(asyncio.run(let_in(of, rules, 1))) == 1
    clock.now += gcra.LEASE_S * 0.9
    asyncio.run(of.renew())
    clock.now += gcra.LEASE_S * 0.9
    assert asyncio.run(let_in(of, rules, 1)) == []
    clock.now += gcra.LEASE_S
    assert len(asyncio.run(let_in(of, rules, 1))) == 1


def test_the_budget_is_what_all_replicas_spent(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        of, rules = limits(store, clock=time.time), Tenant(monthly_budget=10)
        with redis_server.client() as client:
            client.hset(month_key("acme", month(time.time())), "cost", "9.999")
            assert len(await let_in(of, rules, 1)) == 1
            client.hset(month_key("acme", month(time.time())), "cost", "10.0")
        with pytest.raises(LimitReached) as caught:
            await of.take("acme", rules, 0)
        assert caught.value.code == "insufficient_quota"

    with_stores(redis_server, 1, story)


def test_tenants_do_not_share(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        rules = Tenant(requests_per_minute=2, tokens_per_minute=100, max_concurrent_requests=2)
        for where in (None, store):
            of = limits(where)
            for tenant in ("acme", "other"):
                assert len(await let_in(of, rules, 3, tokens=10, tenant=tenant)) == 2

    with_stores(redis_server, 1, story)


@pytest.mark.parametrize(("replicas", "share"), [(1, 12), (3, 4), (100, 1)])
def test_without_redis_each_replica_grants_its_share(replicas: int, share: int) -> None:
    for rules in (
        Tenant(requests_per_minute=12),
        Tenant(max_concurrent_requests=12),
        Tenant(tokens_per_minute=12),
    ):
        assert len(asyncio.run(let_in(limits(replicas=replicas), rules, 20, tokens=1))) == share


def test_without_redis_others_are_taken_to_spend_alike() -> None:
    asked: list[tuple[str, int]] = []

    def spent(tenant: str, replicas: int) -> float:
        asked.append((tenant, replicas))
        return 0

    asyncio.run(let_in(limits(replicas=3, spent=spent), Tenant(monthly_budget=1), 1))
    assert asked == [("acme", 3)]


def test_while_redis_is_down_each_replica_grants_its_share_and_after_that_all_of_it(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        of = limits(store, replicas=4)
        rules = Tenant(requests_per_minute=40, tokens_per_minute=4000, max_concurrent_requests=40)
        [grant] = await let_in(of, rules, 1, tokens=10)
        redis_server.kill()
        of.settle(grant, 5)  # nobody hears it, and nothing comes of that
        assert len(await let_in(of, rules, 40, tokens=10)) == 10
        assert store.down
        redis_server.start()
        await until_back(store)
        assert len(await let_in(of, rules, 60, tokens=10)) == 40
        await settled(of)

    with_stores(redis_server, 1, story)


def test_where_an_outage_opens_nothing_is_limited_meanwhile(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        of, rules = limits(store, replicas=4, outage="open"), Tenant(requests_per_minute=4)
        redis_server.kill()
        assert len(await let_in(of, rules, 40)) == 40
        redis_server.start()
        await until_back(store)
        assert len(await let_in(of, rules, 40)) == 4

    with_stores(redis_server, 1, story)


@pytest.mark.parametrize("outage", ["kill", "hang"])
def test_no_request_fails_because_redis_comes_and_goes(redis_server: RedisServer, outage: str) -> None:
    """Traffic far below the limits, over two outages in its midst."""

    async def story(_unused: Store) -> None:
        store = Store(redis_server.url, redis_server.password_file, probe_s=0.05)
        of, rules = (
            limits(store, clock=time.monotonic),
            Tenant(requests_per_minute=10**6, tokens_per_minute=10**9, max_concurrent_requests=99),
        )
        served, over = 0, False

        async def client() -> None:
            nonlocal served
            while not over:
                grant = await of.take("acme", rules, 100)
                await asyncio.sleep(0.001)
                of.settle(grant, 50)
                served += 1

        async def more_served() -> None:
            target = served + 50
            async with asyncio.timeout(PATIENCE_S):
                while served < target:
                    await asyncio.sleep(0.01)

        clients = [asyncio.create_task(client()) for _ in range(8)]
        for _outage in range(2):
            await more_served()
            redis_server.kill() if outage == "kill" else redis_server.hang()
            await more_served()
            while not store.down:  # until then there is something left in advance
                await more_served()
            redis_server.start() if outage == "kill" else redis_server.go_on()
            await until_back(store)
        await more_served()
        over = True
        await asyncio.gather(*clients)
        await settled(of)
        await store.close()

    with_stores(redis_server, 1, story)


def test_everything_in_redis_is_ours_by_name_and_ends(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        of = limits(store)
        rules = Tenant(requests_per_minute=5, tokens_per_minute=50, max_concurrent_requests=5, monthly_budget=5)
        grants = await let_in(of, rules, 3, tokens=10)
        of.settle(grants[0], 20)
        await of.renew()
        await settled(of)

    with_stores(redis_server, 1, story)
    with redis_server.client() as client:
        keys = client.keys("*")
        assert len(keys) == 3
        assert all(key.startswith(f"{KEY_PREFIX}{{acme}}:") and client.ttl(key) > 0 for key in keys), keys


def test_a_tenant_with_limits_costs_one_round_trip(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        of = limits(store)
        rules = Tenant(requests_per_minute=100, tokens_per_minute=5000, max_concurrent_requests=50, monthly_budget=5)
        await let_in(of, rules, 1, tokens=10)
        with redis_server.client() as client:
            client.config_resetstat()
            await let_in(of, rules, 10, tokens=10)
            commands = client.info("commandstats")
        asked = [name for name in commands if name not in ("cmdstat_config|resetstat", "cmdstat_info")]
        assert commands["cmdstat_evalsha"]["calls"] == 10
        # What else there is, the script called.
        assert set(asked) <= {f"cmdstat_{name}" for name in SCRIPTED}

    with_stores(redis_server, 1, story)


SCRIPTED = ("evalsha", "time", "get", "set", "hget", "zremrangebyscore", "zcard", "zadd", "expire")


#: So far from its limits that much is taken in advance.
BUSY = Tenant(requests_per_minute=60_000, tokens_per_minute=6_000_000, max_concurrent_requests=1000, monthly_budget=9)


def test_a_busy_tenant_asks_redis_now_and_then(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        of = limits(store)
        for _ in range(1000):
            grant = await of.take("acme", BUSY, 100)
            of.settle(grant, 40)
        of.give_back(all_of_it=True)
        await settled(of)

    with_stores(redis_server, 1, story)
    with redis_server.client() as client:
        stats = client.info("commandstats")
        assert stats["cmdstat_evalsha"]["calls"] < 30
        held_s = {what: float(client.get(tenant_key("acme", what)) or 0) - time.time() for what in REQUESTS_TOKENS}
        assert client.zcard(tenant_key("acme", "running")) == 0
    # All that was used, less what was earned since: the test has taken seconds at most.
    assert 0 < held_s["requests"] <= 1000 / 1000
    assert 0 < held_s["tokens"] <= 40 * 1000 / 100_000


REQUESTS_TOKENS = ("requests", "tokens")


def test_nothing_above_a_limit_is_let_in_and_what_others_hold_comes_back(redis_server: RedisServer) -> None:
    async def story(*stores: Store) -> None:
        rules = Tenant(requests_per_minute=600, max_concurrent_requests=600)
        of = [limits(store) for store in stores]
        admitted = 0
        began_s = time.monotonic()
        for _ in range(40):
            for each in of:
                admitted += len(await let_in(each, rules, 5))
        for each in of:
            each.give_back(all_of_it=True)
            await settled(each)
        admitted += len(await let_in(of[0], rules, 600))
        earned = (time.monotonic() - began_s) * 10 + 1
        assert 600 <= admitted <= 600 + earned

    with_stores(redis_server, 3, story)


def test_of_many_that_come_together_one_asks_for_all(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        of = limits(store)
        await of.take("other", BUSY, 100)  # now Redis knows the script
        assert len(await let_in_together(of, BUSY, 30, tokens=100)) == 30
        with redis_server.client() as client:
            assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 2
            assert client.zcard(tenant_key("acme", "running")) == 30

    with_stores(redis_server, 1, story)


def test_where_a_limit_is_near_each_of_them_asks(redis_server: RedisServer) -> None:
    async def story(store: Store, other: Store) -> None:
        of, rules = limits(store), Tenant(requests_per_minute=600, max_concurrent_requests=600)
        assert len(await let_in(limits(other), rules, 590)) == 590
        assert len(await let_in_together(of, rules, 30)) in (10, 11)
        with redis_server.client() as client:
            assert client.zcard(tenant_key("acme", "running")) in (600, 601)

    with_stores(redis_server, 2, story)


def test_half_a_limit_away_nothing_is_taken_in_advance(redis_server: RedisServer) -> None:
    async def story(store: Store, other: Store) -> None:
        of, rules = limits(store), Tenant(requests_per_minute=600)
        assert len(await let_in(limits(other), rules, 301)) == 301
        await let_in(of, rules, 20)
        with redis_server.client() as client:
            held_s = float(client.get(tenant_key("acme", "requests"))) - time.time()
        assert held_s <= 321 / 10

    with_stores(redis_server, 2, story)


async def ten_running_of_fifty(of: Limits) -> None:
    """Let fifty requests of 100 tokens in, of which forty are over."""
    for grant in (await let_in(of, BUSY, 50, tokens=100))[:40]:
        of.settle(grant, 100)


def test_an_advance_is_given_back_when_its_time_is_over(redis_server: RedisServer) -> None:
    clock = Clock(NOON)

    async def story(store: Store) -> None:
        of = limits(store, clock=clock)
        await ten_running_of_fifty(of)
        await settled(of)
        with redis_server.client() as client:
            of.give_back()
            await settled(of)
            before = client.zcard(tenant_key("acme", "running"))
            clock.now += LIFE_S
            of.give_back()
            await settled(of)
            after = client.zcard(tenant_key("acme", "running"))
        assert (before, after) == (50, 10)
        clock.now += 2 * LIFE_S
        of.give_back()
        assert not of._advances

    with_stores(redis_server, 1, story)


def test_an_advance_is_renewed_before_it_ends_and_nobody_waits_for_it(redis_server: RedisServer) -> None:
    clock = Clock(NOON)

    async def story(store: Store) -> None:
        of = limits(store, clock=clock)
        await ten_running_of_fifty(of)
        (advance,) = of._advances.values()
        clock.now += LIFE_S - EARLY_S
        last = of.take("acme", BUSY, 100)
        with pytest.raises(StopIteration) as let:  # without a wait
            last.send(None)
        assert let.value.value.lease
        assert advance.asking
        await settled(of)
        clock.now += EARLY_S
        assert not advance.is_over(clock.now)
        of.give_back(all_of_it=True)
        await settled(of)
        with redis_server.client() as client:
            assert client.zcard(tenant_key("acme", "running")) == 11
            held_s = {what: float(client.get(tenant_key("acme", what)) or 0) - time.time() for what in REQUESTS_TOKENS}
        assert held_s["requests"] <= 51 / 1000
        assert held_s["tokens"] <= 51 * 100 / 100_000

    with_stores(redis_server, 1, story)


def test_places_that_nobody_has_are_renewed_with_the_others(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        of = limits(store)
        grants = await let_in(of, BUSY, 50)
        of.settle(grants[-1], 0)
        key = tenant_key("acme", "running")
        with redis_server.client() as client:
            client.zadd(key, dict.fromkeys(client.zrange(key, 0, -1), time.time() + 1))
            await of.renew()
            assert client.zcount(key, time.time() + gcra.LEASE_S / 2, "+inf") == client.zcard(key) == 50

    with_stores(redis_server, 1, story)


def test_who_has_spent_the_budget_here_is_let_in_by_no_advance(redis_server: RedisServer) -> None:
    spent = 0.0

    async def story(store: Store) -> None:
        nonlocal spent
        of = limits(store, spent=lambda tenant, replicas: spent)
        for _ in range(50):
            of.settle(await of.take("acme", BUSY, 100), 100)
        with redis_server.client() as client:
            client.hset(month_key("acme", month(NOON)), "cost", 9)
        assert len(await let_in(of, BUSY, 1, tokens=100)) == 1, "it is not known yet"
        spent = 9
        assert await let_in(of, BUSY, 1, tokens=100) == []

    with_stores(redis_server, 1, story)


def test_who_leaves_while_redis_is_asked_leaves_nothing_behind(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        of = limits(store)
        grants = await let_in(of, BUSY, 200, tokens=100)
        (advance,) = of._advances.values()
        advance.end()
        leaving = asyncio.create_task(of.take("acme", BUSY, 100))
        await asyncio.sleep(0)
        assert advance.asking
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await settled(of)
        assert [each.asking for each in of._advances.values()] == [None]
        with redis_server.client() as client:
            assert client.zcard(tenant_key("acme", "running")) == len(grants)
        assert not advance.is_over(NOON), "what was taken is there for others"

    with_stores(redis_server, 1, story)


def test_what_was_taken_from_a_redis_that_went_down_is_forgotten(redis_server: RedisServer) -> None:
    clock = Clock(NOON)

    async def story(store: Store) -> None:
        of = limits(store, clock=clock)
        await let_in(of, BUSY, 100, tokens=100)
        assert of._advances
        redis_server.kill()
        clock.now += LIFE_S
        assert len(await let_in(of, BUSY, 1, tokens=100)) == 1
        assert store.down
        assert not of._advances

    with_stores(redis_server, 1, story)


def test_idle_tenants_are_forgotten() -> None:
    clock = Clock(NOON)
    of, rules = limits(clock=clock), Tenant(requests_per_minute=60)

    async def story() -> None:
        for number in range(MAX_IDLE_TENANTS):
            await of.take(f"tenant-{number}", rules, 0)
        clock.now += 2
        await of.take("one more", rules, 0)

    asyncio.run(story())
    assert list(of._counters) == ["one more"]


def wish(body: bytes = b"", max_tokens: int | None = None, choices: int = 1, path: str = "/v1/completions") -> Wish:
    return Wish(path, body, {}, "chat", max_tokens=max_tokens, choices=choices)


def test_an_estimate_is_the_prompt_and_what_may_be_generated() -> None:
    of = limits()
    assert of.estimate("chat", Tenant(), wish(b"x" * 400, max_tokens=50)) == 150
    assert of.estimate("chat", Tenant(), wish(b"x" * 400, max_tokens=50, choices=3)) == 250
    assert of.estimate("embed", Tenant(), wish(b"x" * 400, path="/v1/embeddings")) == 100


def test_where_a_request_does_not_say_the_models_usual_answer_counts() -> None:
    of = limits()
    assert of.estimate("chat", Tenant(), wish()) == FIRST_COMPLETION_TOKENS
    for _ in range(50):
        of.learn("chat", 40)
    assert of.estimate("chat", Tenant(), wish()) == 40
    assert of.estimate("chat", Tenant(max_tokens=10), wish()) == 10
    for _ in range(50):
        of.learn("chat", 140)
    assert 120 < of.estimate("chat", Tenant(), wish()) < 140
    assert of.estimate("large", Tenant(), wish()) == FIRST_COMPLETION_TOKENS


def test_an_answer_that_broke_off_used_its_prompt_and_a_token_for_each_piece() -> None:
    assert limits().assumed(wish(b"x" * 401), pieces=7) == Tokens(101, 7)
