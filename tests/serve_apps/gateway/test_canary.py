import asyncio
import copy
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from serve_apps.common.errors import InvalidRequest, RateLimited, ServingError, Unavailable, UpstreamTimeout
from serve_apps.gateway.canary import SLOTS, VERDICT_TTL_S, Canary, Verdict, judge
from serve_apps.gateway.config import RoutingTable, Slo
from serve_apps.gateway.exchange import Exchange
from serve_apps.gateway.releases import Plan, Releases
from serve_apps.gateway.store import KEY_PREFIX, Store
from tests.serve_apps.gateway.redis import RedisServer
from tests.serve_apps.gateway.servers import PATIENCE_S
from tests.serve_apps.gateway.test_releases import CHAT, asks

RULES: dict[str, Any] = {"maxErrorRate": 0.1, "ttftP95S": 0.5, "itlP95S": 0.1, "minRequests": 10, "windowS": 100}
ALL_TAKEN = [("chat", "bad", "max_error_rate", True)]


def table(rules: dict[str, Any] | None = None, **weights: float) -> Releases:
    """The route ``chat`` with a stable version ``good``, unless weights say otherwise."""
    weights = weights or {"good": 80, "bad": 20}
    route: dict[str, Any] = {"versions": [{"model": name, "weight": weight} for name, weight in weights.items()]}
    route["canary"] = RULES if rules is None else rules
    models = {name: {"url": f"http://host/{name}", "task": "generate"} for name in weights}
    return Releases(RoutingTable.model_validate({"models": models, "routes": {"chat": route}}))


def plan_of(releases: Releases, version: str) -> Plan:
    return releases.plan(CHAT, asks(pin=version), "acme", lambda _: frozenset())


def exchanged(version: str = "bad", status: int = 200, first_byte_s: float | None = 0.1, **what: Any) -> Exchange:
    return Exchange("1", "POST", CHAT, version=version, status=status, first_byte_s=first_byte_s, **what)


@dataclass
class Replica:
    """The canary of one replica of the gateway, and what it said."""

    store: Store | None = None
    releases: Releases = field(default_factory=table)
    now_s: float = 1_000_000
    told: list[tuple[str, str, str, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.canary = Canary(self.store, lambda *told: self.told.append(told), lambda: self.now_s)
        self.canary.follow(self.releases)

    def change(self, releases: Releases) -> None:
        self.releases = releases
        self.canary.follow(releases)

    def observe(self, count: int, exchange: Exchange | None = None) -> None:
        exchange = exchange or exchanged()
        for _ in range(count):
            self.canary.observe(plan_of(self.releases, exchange.version), exchange)

    def fail(self, count: int, version: str = "bad") -> None:
        self.observe(count, exchanged(version, 502))

    @property
    def off(self) -> set[str]:
        return set(self.canary.off("chat"))


def alone(*exchanges: Exchange, releases: Releases | None = None) -> Replica:
    """A replica without Redis that saw each of ``exchanges`` ten times, and judged."""
    replica = Replica(releases=releases or table())
    for exchange in exchanges:
        replica.observe(10, exchange)
    asyncio.run(replica.canary.tick())
    return replica


def story(redis_server: RedisServer, play: Callable[[Replica, Replica], Awaitable[None]]) -> None:
    """Play with two replicas that share ``redis_server``."""

    async def played() -> None:
        replicas = [Replica(redis_server.store()) for _ in range(2)]
        try:
            await play(*replicas)
        finally:
            for replica in replicas:
                assert replica.store
                await replica.store.close()

    asyncio.run(played())


async def tick(*replicas: Replica) -> None:
    for replica in replicas:
        await replica.canary.tick()


async def back(*replicas: Replica) -> None:
    """Wait until each has seen that Redis is back."""
    async with asyncio.timeout(PATIENCE_S):
        for replica in replicas:
            while replica.store and replica.store.down:
                await asyncio.sleep(0.01)


# What a rule says


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ({"v/requests": 100, "v/errors": 10}, None),
        ({"v/requests": 100, "v/errors": 11}, Verdict("max_error_rate", 0.1, 11, 100)),
        ({"v/requests": 9, "v/errors": 9}, None),
        ({"v/requests": 10, "v/errors": 9}, Verdict("max_error_rate", 0.1, 9, 10)),
        ({"other/requests": 100, "other/errors": 100}, None),
        ({"v/requests": 100, "v/streams": 100, "v/late": 5}, None),
        ({"v/requests": 100, "v/streams": 100, "v/late": 6}, Verdict("ttft_p95_s", 0.5, 6, 100)),
        ({"v/requests": 100, "v/streams": 9, "v/late": 9}, None),
        ({"v/requests": 100, "v/streams": 100, "v/paced": 100, "v/slow": 5}, None),
        ({"v/requests": 100, "v/streams": 100, "v/paced": 100, "v/slow": 6}, Verdict("itl_p95_s", 0.1, 6, 100)),
        ({}, None),
    ],
)
def test_a_rule_is_broken_by_more_than_its_share_of_enough_requests(
    counts: dict[str, int], verdict: Verdict | None
) -> None:
    assert judge(Slo.model_validate(RULES), "v", counts) == verdict


def test_a_rule_that_is_not_set_is_not_checked() -> None:
    worst = {"v/requests": 99, "v/errors": 99, "v/streams": 99, "v/late": 99, "v/paced": 99, "v/slow": 99}
    assert judge(Slo(), "v", worst) is None
    assert judge(Slo(max_error_rate=0), "v", worst) == Verdict("max_error_rate", 0, 99, 99)
    assert judge(Slo(max_error_rate=0), "v", {"v/requests": 99}) is None


# What counts for it


@pytest.mark.parametrize("status", [403, 404, 500, 502, 503, 504])
def test_a_version_that_fails_is_taken_out(status: int) -> None:
    replica = alone(exchanged(status=status))
    assert replica.off == {"bad"}
    assert replica.told == ALL_TAKEN


@pytest.mark.parametrize("status", [200, 400, 413, 422, 429, 499])
def test_refusals_wrong_requests_and_clients_that_left_are_no_errors(status: int) -> None:
    assert alone(exchanged(status=status)).off == set()


@pytest.mark.parametrize("status", [400, 429, 499])
def test_neither_do_they_hide_errors(status: int) -> None:
    assert alone(exchanged(status=502), *[exchanged(status=status)] * 20).off == {"bad"}


def test_a_broken_answer_is_an_error_unless_the_client_left() -> None:
    assert alone(exchanged(broken=True)).off == {"bad"}
    assert alone(exchanged(broken=True, client_left=True)).off == set()


def test_a_late_first_token_counts_from_when_the_version_was_asked() -> None:
    def began(first_byte_s: float, asked_s: float = 0, stream: bool = True) -> Exchange:
        return Exchange(
            "1", "POST", CHAT, version="bad", status=200, first_byte_s=first_byte_s, asked_s=asked_s, stream=stream
        )

    assert alone(began(0.6)).told == [("chat", "bad", "ttft_p95_s", True)]
    assert alone(began(0.4)).off == set()
    assert alone(began(30.6, asked_s=30)).off == {"bad"}
    assert alone(began(30.4, asked_s=30)).off == set()
    assert alone(began(0.6, stream=False)).off == set()  # a whole answer has no first token


def test_a_version_that_never_begins_is_late_too() -> None:
    rules = {"ttftP95S": 0.5, "minRequests": 10}
    assert alone(exchanged(status=504), releases=table(rules)).told == [("chat", "bad", "ttft_p95_s", True)]
    assert alone(exchanged(status=502), releases=table(rules)).told == []


def waiting(waited_s: float, **what: Any) -> Exchange:
    """A stream whose version was asked so long ago, after a minute in a queue, and has said nothing yet."""
    asked_s = what.pop("asked_s", 60.0)
    return Exchange(
        "1", "POST", CHAT, started_s=time.perf_counter() - 60 - waited_s, version="bad", stream=True, asked_s=asked_s
    )


def after_asking(*exchanges: Exchange, end: Callable[[Replica, Plan, Exchange], None] | None = None) -> Replica:
    """A replica that asked ten times for each of ``exchanges``, and judged while they waited or after their ``end``."""
    replica = Replica(releases=table({"ttftP95S": 5, "minRequests": 10}))
    plan = plan_of(replica.releases, "bad")
    for exchange in [copy.copy(exchange) for exchange in exchanges for _ in range(10)]:
        replica.canary.asking(plan, exchange)
        if end is not None:
            end(replica, plan, exchange)
    asyncio.run(replica.canary.tick())
    return replica


def test_a_first_token_is_late_while_it_is_still_waited_for() -> None:
    assert after_asking(waiting(6)).told == [("chat", "bad", "ttft_p95_s", True)]
    assert after_asking(waiting(4)).off == set()
    assert after_asking(waiting(6, asked_s=0)).off == set()  # it is the queue that is slow


def test_a_client_that_left_after_too_long_has_waited_too_long() -> None:
    def leave(replica: Replica, plan: Plan, exchange: Exchange) -> None:
        exchange.client_gone()
        replica.canary.observe(plan, exchange)

    assert after_asking(waiting(6), end=leave).off == {"bad"}
    assert after_asking(waiting(4), end=leave).off == set()


def test_a_late_first_token_is_counted_once() -> None:
    def begin(replica: Replica, plan: Plan, exchange: Exchange) -> None:
        asyncio.run(replica.canary.tick())
        exchange.began(200)
        replica.canary.observe(plan, exchange)

    def give_up(replica: Replica, plan: Plan, exchange: Exchange) -> None:
        replica.canary.failed(plan, exchange, UpstreamTimeout("slow"))
        replica.canary.observe(plan, exchange)

    for end in (begin, give_up):
        replica = Replica(releases=table({"ttftP95S": 5, "minRequests": 2}))
        plan, exchange = plan_of(replica.releases, "bad"), waiting(6)
        replica.canary.asking(plan, exchange)
        end(replica, plan, exchange)
        asyncio.run(replica.canary.tick())
        assert replica.off == set()


def test_a_slow_stream_counts() -> None:
    def paced(last_byte_s: float) -> Exchange:
        return exchanged(stream=True, pieces=11, last_byte_s=last_byte_s)

    assert alone(paced(0.1 + 10 * 0.11)).told == [("chat", "bad", "itl_p95_s", True)]
    assert alone(paced(0.1 + 10 * 0.09)).told == []


@pytest.mark.parametrize(
    ("error", "off"),
    [
        (Unavailable("gone"), {"bad"}),
        (UpstreamTimeout("slow"), {"bad"}),
        (RateLimited("busy"), set()),
        (InvalidRequest("too long"), set()),
    ],
)
def test_a_failure_before_the_first_byte_counts_whoever_is_asked_next(error: ServingError, off: set[str]) -> None:
    replica = Replica()
    plan = plan_of(replica.releases, "bad")
    for _ in range(10):
        exchange = exchanged(first_byte_s=None)
        replica.canary.failed(plan, exchange, error)
        exchange.version = "good"
        replica.canary.observe(plan, exchange)
    asyncio.run(replica.canary.tick())
    assert replica.off == off


def test_an_answer_that_never_began_is_no_request() -> None:
    """Whether it failed is told by its error, and whom nobody waits for says nothing."""
    assert alone(exchanged(status=502), *[exchanged(status=0, first_byte_s=None)] * 20).off == {"bad"}
    assert alone(exchanged(status=502, first_byte_s=None)).off == set()


def test_what_a_fallback_does_is_not_the_versions_doing() -> None:
    replica = Replica()
    for _ in range(10):
        replica.canary.observe(plan_of(replica.releases, "good"), exchanged("bad", 502))
        replica.canary.observe(plan_of(replica.releases, "bad"), exchanged("good", 502))
    asyncio.run(replica.canary.tick())
    assert replica.off == set()


def test_the_stable_version_is_never_taken_out() -> None:
    assert alone(exchanged("good", 502), exchanged("bad", 502)).off == {"bad"}
    assert alone(exchanged("good", 502), releases=table(good=1, bad=50)).off == {"good"}


def test_a_route_without_rules_and_a_model_that_is_named_itself_are_not_watched() -> None:
    releases = Releases(
        RoutingTable.model_validate(
            {
                "models": {name: {"url": "http://host/m", "task": "generate"} for name in ("good", "bad")},
                "routes": {"chat": {"versions": [{"model": "good"}, {"model": "bad", "weight": 1}]}},
            }
        )
    )
    replica = alone(exchanged(status=502), releases=releases)
    plain = releases.plan(CHAT, asks("bad"), "acme", lambda _: frozenset())
    replica.canary.observe(plain, exchanged(status=502))
    replica.canary.failed(plain, exchanged(), Unavailable("gone"))
    assert replica.off == set()


# When it counts


def test_what_is_older_than_the_window_is_forgotten() -> None:
    replica = Replica()
    replica.fail(9)
    asyncio.run(replica.canary.tick())
    replica.now_s += RULES["windowS"] + 2 * RULES["windowS"] / SLOTS
    replica.fail(9)
    asyncio.run(replica.canary.tick())
    assert replica.off == set()
    replica.now_s += RULES["windowS"] - 1
    replica.fail(1)
    asyncio.run(replica.canary.tick())
    assert replica.off == {"bad"}


def test_it_stays_out_though_its_failures_are_long_past() -> None:
    replica = alone(exchanged(status=502))
    replica.now_s += 100 * RULES["windowS"]
    replica.observe(100)
    asyncio.run(replica.canary.tick())
    assert replica.off == {"bad"}
    assert replica.told == ALL_TAKEN


@pytest.mark.parametrize(
    "changed",
    [table(good=90, bad=10), table({**RULES, "maxErrorRate": 1}), table(good=80, bad=20, third=0)],
    ids=["weight", "rules", "versions"],
)
def test_a_change_of_the_routes_values_puts_it_back(changed: Releases) -> None:
    replica = alone(exchanged(status=502))
    replica.change(changed)
    assert replica.off == set()
    asyncio.run(replica.canary.tick())
    assert replica.off == set()
    assert replica.told == [*ALL_TAKEN, ("chat", "bad", "max_error_rate", False)]


def test_a_new_table_with_the_same_values_changes_nothing() -> None:
    replica = alone(exchanged(status=502))
    replica.change(table())
    assert replica.off == {"bad"}
    assert replica.told == ALL_TAKEN


def test_a_new_table_with_the_same_values_keeps_the_counts() -> None:
    replica = Replica()
    replica.fail(9)
    replica.change(table())
    replica.fail(1)
    asyncio.run(replica.canary.tick())
    assert replica.off == {"bad"}


def test_requests_that_began_under_other_values_do_not_count() -> None:
    replica = Replica()
    old = plan_of(replica.releases, "bad")
    replica.change(table(good=90, bad=10))
    for _ in range(10):
        replica.canary.observe(old, exchanged(status=502))
        replica.canary.failed(old, exchanged(), Unavailable("gone"))
    asyncio.run(replica.canary.tick())
    assert replica.off == set()


def test_a_route_that_is_gone_is_forgotten() -> None:
    replica = alone(exchanged(status=502))
    replica.change(Releases(RoutingTable()))
    assert replica.off == set()
    assert replica.told[-1] == ("chat", "bad", "max_error_rate", False)


def test_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "serve_apps.gateway.canary"):
        alone(exchanged(status=502)).change(table(good=90, bad=10))
    out, back_in = caplog.records
    said = {key: vars(out)[key] for key in ("model", "version", "rule", "limit", "broke", "of", "window_s")}
    assert out.getMessage() == "version taken out of service: it broke its SLO"
    assert said == {
        "model": "chat",
        "version": "bad",
        "rule": "max_error_rate",
        "limit": 0.1,
        "broke": 10,
        "of": 10,
        "window_s": 100,
    }
    assert back_in.getMessage() == "version back in service"


# What replicas agree on


def test_what_replicas_count_is_added_up_and_all_obey_one_verdict(redis_server: RedisServer) -> None:
    async def play(one: Replica, other: Replica) -> None:
        one.fail(5)
        other.fail(4)
        await tick(one, other, one)
        assert (one.off, other.off) == (set(), set())
        other.fail(1)
        await tick(other, one)
        assert (one.off, other.off) == ({"bad"}, {"bad"})
        assert one.told == other.told == ALL_TAKEN

    story(redis_server, play)


def test_it_is_the_first_verdict_that_all_obey(redis_server: RedisServer) -> None:
    async def play(one: Replica, other: Replica) -> None:
        def late(replica: Replica) -> None:
            replica.observe(10, Exchange("1", "POST", CHAT, version="bad", status=200, first_byte_s=9, stream=True))

        late(one)
        await tick(one)
        other.fail(20)
        await tick(other, one)
        assert one.told == other.told == [("chat", "bad", "ttft_p95_s", True)]

    story(redis_server, play)


def test_a_replica_that_starts_later_obeys_too(redis_server: RedisServer) -> None:
    async def play(one: Replica, _: Replica) -> None:
        one.fail(10)
        await tick(one)
        late = Replica(one.store)
        await tick(late)
        assert late.off == {"bad"}

    story(redis_server, play)


def test_the_verdict_on_old_values_is_deleted_when_they_change(redis_server: RedisServer) -> None:
    async def play(one: Replica, other: Replica) -> None:
        one.fail(10)
        await tick(one, other)
        with redis_server.client() as client:
            (key,) = client.keys(f"{KEY_PREFIX}canary:*:off")
            assert 0 < client.ttl(key) <= VERDICT_TTL_S
        one.change(table(good=90, bad=10))
        await tick(one)
        assert one.off == set()
        assert other.off == {"bad"}  # its table is still the old one
        other.change(table(good=90, bad=10))
        await tick(other, one)
        assert other.off == set()
        with redis_server.client() as client:
            assert client.keys(f"{KEY_PREFIX}canary:*:off") == []

    story(redis_server, play)


def test_values_that_come_back_are_tried_anew(redis_server: RedisServer) -> None:
    async def play(one: Replica, _: Replica) -> None:
        one.fail(10)
        await tick(one)
        one.change(table(good=90, bad=10))
        one.change(table())
        await tick(one)
        assert one.off == set()
        one.fail(10)
        await tick(one)
        assert one.off == {"bad"}

    story(redis_server, play)


def test_counts_do_not_stay_in_redis(redis_server: RedisServer) -> None:
    async def play(one: Replica, _: Replica) -> None:
        one.observe(3)
        await tick(one)
        with redis_server.client() as client:
            (key,) = client.keys(f"{KEY_PREFIX}canary:*")
            assert client.hgetall(key) == {"bad/requests": "3"}
            assert RULES["windowS"] < client.ttl(key) < 2 * RULES["windowS"]

    story(redis_server, play)


def test_without_redis_each_replica_judges_by_itself_and_tells_the_others_later(redis_server: RedisServer) -> None:
    async def play(one: Replica, other: Replica) -> None:
        one.fail(5)
        other.fail(5)
        redis_server.kill()
        await tick(one, other)
        assert (one.off, other.off) == (set(), set())  # not enough for any of them
        one.fail(5)
        await tick(one, other)
        assert (one.off, other.off) == ({"bad"}, set())
        redis_server.start()  # empty
        await back(one, other)
        await tick(one, other)
        assert (one.off, other.off) == ({"bad"}, {"bad"})

    story(redis_server, play)


def test_what_was_counted_while_redis_was_down_is_added_up_later(redis_server: RedisServer) -> None:
    async def play(one: Replica, other: Replica) -> None:
        redis_server.kill()
        one.fail(5)
        other.fail(5)
        await tick(one, other)
        redis_server.start()
        await back(one, other)
        await tick(one, other)
        assert other.off == {"bad"}
        with redis_server.client() as client:
            (key,) = [key for key in client.keys(f"{KEY_PREFIX}canary:*") if not key.endswith(":off")]
            await tick(one, other)  # once
            assert client.hgetall(key) == {"bad/requests": "10", "bad/errors": "10"}

    story(redis_server, play)


def test_what_left_the_window_during_an_outage_is_not(redis_server: RedisServer) -> None:
    async def play(one: Replica, other: Replica) -> None:
        redis_server.kill()
        one.fail(9)
        await tick(one)
        redis_server.start()
        await back(one)
        one.now_s = other.now_s = one.now_s + 2 * RULES["windowS"]
        other.fail(1)
        await tick(one, other)
        assert other.off == set()

    story(redis_server, play)


def test_a_redis_that_lost_everything_is_told_again(redis_server: RedisServer) -> None:
    async def play(one: Replica, other: Replica) -> None:
        one.fail(10)
        await tick(one, other)
        redis_server.kill()
        await tick(one, other)
        assert (one.off, other.off) == ({"bad"}, {"bad"})
        redis_server.start()
        await back(one, other)
        await tick(other)
        late = Replica(other.store)
        await tick(late)
        assert late.off == {"bad"}
        # And what is counted now is counted together again.
        one.change(table(good=90, bad=10))
        other.change(table(good=90, bad=10))
        one.fail(5)
        other.fail(5)
        await tick(one, other, one)
        assert (one.off, other.off) == ({"bad"}, {"bad"})

    story(redis_server, play)


def test_verdicts_on_old_values_are_deleted_once_redis_is_back(redis_server: RedisServer) -> None:
    async def play(one: Replica, _: Replica) -> None:
        one.fail(10)
        await tick(one)
        redis_server.hang()
        assert one.store
        one.store._patience_s = 0.01
        one.change(table(good=90, bad=10))
        await tick(one)
        assert one.off == set()
        assert one.store.down
        one.store._patience_s = PATIENCE_S
        redis_server.go_on()
        await back(one)
        await tick(one)
        with redis_server.client() as client:
            assert client.keys(f"{KEY_PREFIX}canary:*:off") == []

    story(redis_server, play)


def test_it_runs_by_itself(redis_server: RedisServer) -> None:
    async def play(one: Replica, other: Replica) -> None:
        runs = [asyncio.ensure_future(replica.canary.run()) for replica in (one, other)]
        try:
            one.fail(10)
            async with asyncio.timeout(PATIENCE_S):
                while not (one.off and other.off):
                    await asyncio.sleep(0.01)
        finally:
            for run in runs:
                run.cancel()
            await asyncio.gather(*runs, return_exceptions=True)
        assert one.told == other.told == ALL_TAKEN

    story(redis_server, play)


def test_a_failure_of_its_own_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        replica = Replica()
        clock = iter([ZeroDivisionError()])

        def failing_once() -> float:
            for error in clock:
                raise error
            return replica.now_s

        replica.canary._clock = failing_once
        replica.fail(10)
        run = asyncio.ensure_future(replica.canary.run())
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not replica.off:
                    await asyncio.sleep(0.01)
        finally:
            run.cancel()

    asyncio.run(play())
    assert "the canary rules could not be checked" in caplog.text
