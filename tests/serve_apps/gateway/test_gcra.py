import asyncio
import math
import random
from typing import Any

import pytest

from serve_apps.gateway import gcra
from serve_apps.gateway.gcra import Amounts, Bounds, Bucket, Counters, Outcome
from serve_apps.gateway.limits import settle_arguments, take_arguments
from serve_apps.gateway.scripts import Script
from serve_apps.gateway.store import tenant_key
from tests.serve_apps.gateway.redis import RedisServer

NOW = 1_764_000_000.25
KEYS = [tenant_key("acme", what) for what in ("requests", "tokens", "running", "month:2026-11")]


def taken(bounds: Bounds, times: int, *, counters: Counters | None = None, now: float = NOW, tokens: int = 0) -> int:
    """How many of ``times`` requests at one moment are let in."""
    counters = counters or Counters()
    outcomes = [gcra.take(counters, bounds, now, tokens, f"lease-{now}-{index}") for index in range(times)]
    return sum(not outcome.refused_by for outcome in outcomes)


@pytest.mark.parametrize("limit", [1, 7, 60, 1_000])
def test_a_minutes_requests_may_come_at_once_and_not_one_more(limit: int) -> None:
    assert taken(Bounds(requests=Bucket.per_minute(limit)), limit + 5) == limit


@pytest.mark.parametrize("limit", [1, 7, 60])
def test_over_an_hour_no_more_than_the_rate_gets_in(limit: int) -> None:
    bounds, counters = Bounds(requests=Bucket.per_minute(limit)), Counters()
    drawn = random.Random(limit)
    moments = sorted(NOW + drawn.uniform(0, 3600) for _ in range(1000 * limit))
    let_in = sum(taken(bounds, 1, counters=counters, now=moment) for moment in moments)
    assert limit * 60 * 0.9 < let_in <= limit * 61


def test_a_refused_request_fits_when_it_was_told_to_come_back_and_not_before() -> None:
    bounds, counters = Bounds(requests=Bucket.per_minute(6)), Counters()
    taken(bounds, 6, counters=counters)
    refused = gcra.take(counters, bounds, NOW, 0, "late")
    assert refused.refused_by == "requests"
    wait_s = gcra.wait_s(refused, bounds, 0)
    assert wait_s == pytest.approx(10)
    assert gcra.take(counters, bounds, NOW + wait_s / 4, 0, "early").refused_by == "requests"
    assert gcra.take(counters, bounds, NOW + wait_s, 0, "in time").refused_by == ""


def test_a_refused_request_takes_nothing() -> None:
    bounds = Bounds(Bucket.per_minute(10), Bucket.per_minute(100), running=2)
    counters = Counters()
    assert taken(bounds, 1, counters=counters, tokens=90) == 1
    assert gcra.take(counters, bounds, NOW, 20, "too much") == pytest.approx(("tokens", 1, 90, False))
    assert len(counters.leases) == 1
    assert gcra.take(counters, bounds, NOW, 10, "fits") == pytest.approx(("", 2, 100, False))


def test_what_was_not_used_is_given_back() -> None:
    bounds, counters = Bounds(tokens=Bucket.per_minute(100)), Counters()
    assert taken(bounds, 1, counters=counters, tokens=100) == 1
    gcra.settle(counters, bounds, NOW, Amounts(0, -60), ())
    assert taken(bounds, 10, counters=counters, tokens=10) == 6


def test_what_was_used_beyond_the_estimate_is_paid_off_first() -> None:
    bounds, counters = Bounds(tokens=Bucket.per_minute(60)), Counters()
    assert taken(bounds, 1, counters=counters, tokens=10) == 1
    gcra.settle(counters, bounds, NOW, Amounts(0, 110), ())
    refused = gcra.take(counters, bounds, NOW + 30, 10, "")
    assert refused.refused_by == "tokens"
    assert gcra.wait_s(refused, bounds, 10) == pytest.approx(40)
    assert taken(bounds, 1, counters=counters, now=NOW + 70, tokens=10) == 1


def test_giving_back_late_fills_no_bucket_beyond_its_limit() -> None:
    bounds, counters = Bounds(tokens=Bucket.per_minute(100)), Counters()
    taken(bounds, 1, counters=counters, tokens=100)
    gcra.settle(counters, bounds, NOW + 300, Amounts(0, -100), ())
    assert taken(bounds, 20, counters=counters, now=NOW + 300, tokens=10) == 10


def test_an_advance_goes_with_a_request_while_half_of_every_limit_is_free() -> None:
    bounds = Bounds(Bucket.per_minute(100), Bucket.per_minute(1_000), running=10)
    for more, advanced in (
        (Amounts(49, 490), True),
        (Amounts(50, 490), False),
        (Amounts(49, 491), False),
    ):
        counters = Counters()
        outcome = gcra.take(counters, bounds, NOW, 10, "lease", more)
        assert outcome == ("", *((1 + more.requests, 10 + more.tokens) if advanced else (1, 10)), advanced)
        assert list(counters.leases) == ["lease"]
    counters = Counters()
    assert taken(bounds, 5, counters=counters, tokens=1) == 5
    assert not gcra.take(counters, bounds, NOW, 1, "sixth", Amounts(1, 1)).advanced


@pytest.mark.parametrize(("places", "advanced"), [(["a", "b", "c", "d"], True), (["a", "b", "c", "d", "e"], False)])
def test_places_go_with_an_advance_up_to_half_of_them(places: list[str], advanced: bool) -> None:
    counters = Counters()
    outcome = gcra.take(counters, Bounds(running=10), NOW, 10, "lease", Amounts(8, 80), places)
    assert outcome.advanced == advanced
    assert list(counters.leases) == ["lease", *(places if advanced else [])]


def test_what_was_taken_in_advance_is_given_back() -> None:
    bounds, counters = Bounds(requests=Bucket.per_minute(100), tokens=Bucket.per_minute(1_000)), Counters()
    gcra.take(counters, bounds, NOW, 10, "lease", Amounts(30, 300))
    gcra.settle(counters, bounds, NOW, Amounts(-30, -300), ["lease"])
    assert gcra.take(counters, bounds, NOW, 10, "next") == pytest.approx(("", 2, 20, False))


def test_a_place_is_free_when_its_request_is_over_or_its_lease_is() -> None:
    bounds, counters = Bounds(running=2), Counters()
    assert taken(bounds, 5, counters=counters) == 2
    gcra.settle(counters, bounds, NOW, Amounts(0, 0), [f"lease-{NOW}-0"])
    assert taken(bounds, 5, counters=counters, now=NOW + 1) == 1
    assert taken(bounds, 5, counters=counters, now=NOW + gcra.LEASE_S + 0.5) == 1
    assert taken(bounds, 5, counters=counters, now=NOW + 3 * gcra.LEASE_S) == 2


def test_a_budget_that_is_spent_lets_nobody_in() -> None:
    bounds = Bounds(budget=10)
    assert taken(bounds, 1, counters=Counters(spent=9.99)) == 1
    assert gcra.take(Counters(spent=10), bounds, NOW, 0, "").refused_by == "budget"


@pytest.mark.parametrize(
    ("limit", "shares", "share"), [(60, 4, Bucket(15, 0.25)), (2, 4, Bucket(1, 1 / 120)), (10, 1, Bucket(10, 10 / 60))]
)
def test_a_share_is_an_equal_part_into_which_one_request_fits(limit: int, shares: int, share: Bucket) -> None:
    assert Bucket.per_minute(limit, shares) == share


@pytest.mark.parametrize("seed", range(8))
def test_redis_decides_as_python_does(redis_server: RedisServer, seed: int) -> None:
    """Random traffic, taken, settled and prolonged, in one tenant's counters and in a real Redis."""
    drawn = random.Random(seed)
    bounds = Bounds(
        requests=drawn.choice([None, Bucket.per_minute(drawn.randint(1, 200), drawn.randint(1, 3))]),
        tokens=drawn.choice([None, Bucket.per_minute(drawn.randint(100, 100_000), drawn.randint(1, 3))]),
        running=drawn.choice([None, drawn.randint(1, 8)]),
        budget=drawn.choice([None, 50.0]),
    )
    seen: set[str] = set()

    async def story() -> None:
        store, counters = redis_server.store(), Counters()
        take, settle = Script(gcra.TAKE), Script(gcra.SETTLE)
        now, running = NOW, dict[str, int]()
        for step in range(400):
            now += drawn.choice([0, 0, drawn.expovariate(1), drawn.expovariate(0.05)])
            if running and drawn.random() < 0.4:
                ended = drawn.sample(list(running), drawn.randint(1, min(3, len(running))))
                used = sum(running.pop(lease) for lease in ended)
                owed = Amounts(-drawn.randint(0, 3), drawn.randint(-used, 2_000))
                gcra.settle(counters, bounds, now, owed, ended)
                await store.run(settle, KEYS[:3], settle_arguments(bounds, owed, ended, now))
            if drawn.random() < 0.1:
                counters.spent += 1
                await store.ask(lambda redis: redis.hset(KEYS[3], "cost", repr(counters.spent)))
            tokens, lease = drawn.randint(1, 3_000), f"lease-{step}"
            advance = Amounts(drawn.randint(0, 30), drawn.randint(0, 20_000)) if drawn.random() < 0.3 else None
            places = [f"{lease}-{place}" for place in range(drawn.randint(0, 3))] if advance else []
            expected = gcra.take(counters, bounds, now, tokens, lease, advance, places)
            arguments = take_arguments(bounds, tokens, lease, now, advance, places)
            answer = await store.run(take, KEYS, arguments)
            outcome = Outcome(answer[0], float(answer[1]), float(answer[2]), bool(answer[3]))
            assert outcome == expected, f"step {step}"
            seen.add(expected.refused_by)
            if not expected.refused_by:
                running[lease] = tokens
                running |= dict.fromkeys(places if expected.advanced else [], 0)
        await store.close()

    asyncio.run(story())
    assert "" in seen


def test_redis_counts_by_its_own_clock_and_forgets_what_is_earned(redis_server: RedisServer) -> None:
    bounds = Bounds(Bucket.per_minute(6), Bucket.per_minute(6_000), running=3)

    async def story() -> list[Any]:
        store, take = redis_server.store(), Script(gcra.TAKE)
        answers = [await store.run(take, KEYS, take_arguments(bounds, 1000, f"lease-{number}")) for number in range(4)]
        await store.close()
        return answers

    assert [answer[0] for answer in asyncio.run(story())] == ["", "", "", "running"]
    with redis_server.client() as client:
        lifetimes = {key: client.pttl(key) for key in KEYS[:3]}
        leases = client.zrange(KEYS[2], 0, -1, withscores=True)
    assert all(0 < lifetime <= math.ceil(gcra.LEASE_S) * 1000 for lifetime in lifetimes.values()), lifetimes
    assert [name for name, _ in leases] == ["lease-0", "lease-1", "lease-2"]
