import asyncio
import json
from typing import Any

import pytest

from serve_apps.gateway import metering
from serve_apps.gateway.config import RoutingTable, Tenant
from serve_apps.gateway.exchange import Exchange
from serve_apps.gateway.metering import KEPT_S, Meter, ModelUsage, month, month_ends_in_s, month_key
from serve_apps.gateway.store import KEY_PREFIX, Store
from serve_apps.gateway.telemetry import Telemetry
from tests.serve_apps.clock import Clock
from tests.serve_apps.gateway.recorded_metrics import RecordedMetrics
from tests.serve_apps.gateway.redis import RedisServer, until_back, with_stores
from tests.serve_apps.gateway.servers import PATIENCE_S

NOON = 1_764_072_000.0
"""25 November 2025, 12:00 UTC."""

TABLE = RoutingTable.model_validate(
    {
        "models": {
            "chat-v1": {"url": "http://one", "task": "generate", "price": {"prompt": 1, "completion": 10}},
            "free": {"url": "http://two", "task": "generate"},
        },
        "tenants": {"acme": {"monthlyBudget": 10}},
    }
)


def meter(store: Store | None = None, *, clock: Clock | None = None, telemetry: Telemetry | None = None) -> Meter:
    return Meter(store, telemetry or RecordedMetrics().telemetry(), clock=clock or Clock(NOON))


def exchange(tenant: str = "acme", prompt: int = 100_000, completion: int = 50_000, **more: Any) -> Exchange:
    """One that costs 0.60: a prompt of 100 000 tokens, an answer of 50 000."""
    fields: dict[str, Any] = {"model": "chat", "version": "chat-v1", "status": 200} | more
    return Exchange(
        "id-1",
        "POST",
        "/v1/chat/completions",
        tenant=tenant,
        prompt_tokens=prompt,
        completion_tokens=completion,
        **fields,
    )


def test_an_exchange_costs_the_price_of_the_version_that_answered() -> None:
    of, paid, free = meter(), exchange(), exchange(version="free")
    of.record(paid, TABLE)
    of.record(free, TABLE)
    assert paid.cost == pytest.approx(0.6)
    assert free.cost == 0


def test_usage_is_the_tenants_own_month_by_model() -> None:
    of = meter()
    of.record(exchange(), TABLE)
    of.record(exchange(), TABLE)
    of.record(exchange(model="other", version="free"), TABLE)
    of.record(exchange(tenant="somebody", prompt=7), TABLE)
    rules = Tenant(monthly_budget=10, requests_per_minute=5, models=("other", "chat"))
    assert json.loads(asyncio.run(of.usage("acme", rules)).model_dump_json()) == {
        "object": "usage",
        "tenant": "acme",
        "month": "2025-11",
        "scope": "replica",
        "total": {"requests": 3, "prompt_tokens": 300_000, "completion_tokens": 150_000, "cost": pytest.approx(1.2)},
        "models": {
            "chat": {
                "requests": 2,
                "prompt_tokens": 200_000,
                "completion_tokens": 100_000,
                "cost": pytest.approx(1.2),
            },
            "other": {"requests": 1, "prompt_tokens": 100_000, "completion_tokens": 50_000, "cost": 0},
        },
        "budget": {"monthly": 10, "spent": pytest.approx(1.2), "left": pytest.approx(8.8)},
        "limits": {
            "requests_per_minute": 5,
            "tokens_per_minute": None,
            "max_concurrent_requests": None,
            "max_tokens": None,
            "models": ["chat", "other"],
        },
    }


def test_a_tenant_that_used_nothing_sees_nothing() -> None:
    usage = asyncio.run(meter().usage("acme", Tenant()))
    assert (usage.models, usage.total, usage.budget) == ({}, ModelUsage(), None)


def test_a_refused_request_is_no_request_and_a_broken_answer_is_one() -> None:
    of = meter()
    of.record(exchange(prompt=0, completion=0, status=429), TABLE)
    of.record(exchange(prompt=0, completion=0, status=0), TABLE)
    assert asyncio.run(of.usage("acme", Tenant())).total == ModelUsage()
    of.record(exchange(prompt=10, completion=0, broken=True), TABLE)
    assert asyncio.run(of.usage("acme", Tenant())).total.requests == 1


def test_a_month_begins_anew_in_utc() -> None:
    clock = Clock(NOON)
    of = meter(clock=clock)
    of.record(exchange(), TABLE)
    clock.now += month_ends_in_s(NOON) - 1
    assert of.spent("acme") == pytest.approx(0.6)
    clock.now += 1
    assert month(clock.now) == "2025-12"
    assert of.spent("acme") == 0
    asyncio.run(of.flush())
    assert asyncio.run(of.usage("acme", Tenant())).models == {}
    assert of._unsent == {}


def test_a_year_ends_with_its_month() -> None:
    assert month(NOON + month_ends_in_s(NOON)) == "2025-12"
    december = NOON + month_ends_in_s(NOON)
    assert month_ends_in_s(december) == 31 * 86400
    assert month(december + month_ends_in_s(december)) == "2026-01"


def test_replicas_add_up_in_redis(redis_server: RedisServer) -> None:
    async def story(one: Store, other: Store) -> None:
        first, second = meter(one), meter(other)
        for of in (first, second, second):
            of.record(exchange(), TABLE)
        await first.flush()
        await second.flush()
        usage = await first.usage("acme", Tenant(monthly_budget=10))
        assert usage.scope == "all"
        assert usage.total.cost == pytest.approx(1.8)
        usage.models["chat"].cost = 0
        assert usage.models == {"chat": ModelUsage(requests=3, prompt_tokens=300_000, completion_tokens=150_000)}
        assert usage.budget
        assert usage.budget.left == pytest.approx(8.2)
        assert second.spent("acme") == pytest.approx(1.8)

    with_stores(redis_server, 2, story)
    with redis_server.client() as client:
        assert float(client.hget(month_key("acme", "2025-11"), "cost") or 0) == pytest.approx(1.8)
        assert 0 < client.ttl(month_key("acme", "2025-11")) <= KEPT_S
        assert all(key.startswith(f"{KEY_PREFIX}{{acme}}:") and client.ttl(key) > 0 for key in client.keys("*"))


def test_what_was_not_sent_yet_is_seen_by_its_own_replica(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        of = meter(store)
        of.record(exchange(), TABLE)
        await of.flush()
        of.record(exchange(), TABLE)
        assert (await of.usage("acme", Tenant())).total.requests == 2
        assert of.spent("acme") == pytest.approx(1.2)

    with_stores(redis_server, 1, story)


def test_what_is_being_sent_is_seen_once(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        of = meter(store)
        for requests in range(1, 100):
            of.record(exchange(), TABLE)
            sending = asyncio.create_task(of.flush())
            await asyncio.sleep(0)
            assert (await of.usage("acme", Tenant())).total.requests == requests
            await sending

    with_stores(redis_server, 1, story)


def test_the_smallest_costs_add_up(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        of = meter(store)
        for _ in range(3):
            of.record(exchange(prompt=1, completion=0), TABLE)
            await of.flush()
        assert of.spent("acme") == pytest.approx(3e-6)

    with_stores(redis_server, 1, story)


def test_many_tenants_are_sent_together(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        of = meter(store)
        for number in range(250):
            of.record(exchange(f"tenant-{number}"), TABLE)
        await of.flush()
        for number in (0, 99, 100, 249):
            assert (await of.usage(f"tenant-{number}", Tenant())).total.requests == 1

    with_stores(redis_server, 1, story)


def test_what_redis_did_not_take_is_sent_when_it_is_back(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        of = meter(store)
        of.record(exchange(), TABLE)
        redis_server.kill()
        await of.flush()
        assert store.down
        of.record(exchange(), TABLE)
        usage = await of.usage("acme", Tenant(monthly_budget=10))
        assert (usage.scope, usage.total.requests) == ("replica", 2)
        redis_server.start()
        await until_back(store)
        await of.flush()
        await of.flush()
        usage = await of.usage("acme", Tenant())
        assert (usage.scope, usage.total.requests) == ("all", 2)

    with_stores(redis_server, 1, story)


def test_a_batch_whose_answer_was_lost_counts_once(redis_server: RedisServer) -> None:
    """Redis hangs when the batch comes in; it takes it in when it goes on, though nobody waits for it any more."""

    async def story(_unused: Store) -> None:
        store = redis_server.store(patience_s=1)
        of = meter(store)
        await store.ask(lambda redis: redis.ping())
        of.record(exchange(), TABLE)
        redis_server.hang()
        await of.flush()
        assert store.down
        redis_server.go_on()
        await until_back(store)
        with redis_server.client() as client:
            assert float(client.hget(month_key("acme", "2025-11"), "chat requests") or 0) == 1, "it came in"
        of.record(exchange(), TABLE)
        await of.flush()
        await of.flush()
        assert (await of.usage("acme", Tenant())).total.requests == 2
        await store.close()

    with_stores(redis_server, 1, story)


def test_spending_that_redis_has_not_seen_is_taken_to_be_the_same_on_all_replicas(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        of = meter(store)
        of.record(exchange(), TABLE)
        await of.flush()
        redis_server.kill()
        of.record(exchange(), TABLE)
        assert of.spent("acme", replicas=3) == pytest.approx(0.6 + 3 * 0.6)

    with_stores(redis_server, 1, story)


def test_what_is_left_is_sent_at_the_end(redis_server: RedisServer) -> None:
    async def story(store: Store) -> None:
        of = meter(store)
        running = asyncio.create_task(of.run())
        await asyncio.sleep(0)
        of.record(exchange(), TABLE)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    with_stores(redis_server, 1, story)
    with redis_server.client() as client:
        assert client.hget(month_key("acme", "2025-11"), "chat requests") == "1"


def test_it_is_sent_without_being_asked_for(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "FLUSH_S", 0.01)

    async def story(store: Store) -> None:
        of = meter(store)
        running = asyncio.create_task(of.run())
        of.record(exchange(), TABLE)
        async with asyncio.timeout(PATIENCE_S):
            while of._unsent or of._sending:
                await asyncio.sleep(0.01)
        running.cancel()
        assert of.spent("acme") == pytest.approx(0.6)

    with_stores(redis_server, 1, story)


def test_metrics_name_the_tenants_of_the_table_and_no_others() -> None:
    recorded = RecordedMetrics()
    telemetry = recorded.telemetry()
    of = meter(telemetry=telemetry)
    for tenant in ("acme", "acme", "somebody", "else"):
        of.record(exchange(tenant), TABLE)
    asyncio.run(of.flush())
    telemetry.tell()
    series = {"model": "chat", "version": "chat-v1"}
    assert recorded.tags("llm_gateway_tokens") == [
        {"tenant": "acme", **series, "kind": "prompt"},
        {"tenant": "acme", **series, "kind": "completion"},
        {"tenant": "other", **series, "kind": "prompt"},
        {"tenant": "other", **series, "kind": "completion"},
    ]
    assert recorded.values("llm_gateway_tokens") == [200_000, 100_000] * 2
    assert recorded.tags("llm_gateway_cost") == [
        {"tenant": "acme", "model": "chat"},
        {"tenant": "other", "model": "chat"},
    ]
    assert recorded.values("llm_gateway_cost") == pytest.approx([1.2, 1.2])
    assert recorded.tags("llm_gateway_budget_used_ratio") == [{"tenant": "acme"}]
    assert recorded.values("llm_gateway_budget_used_ratio") == pytest.approx([0.12])


def test_the_audit_log_has_a_line_for_each_exchange(capfd: pytest.CaptureFixture[str]) -> None:
    meter().record(exchange(), TABLE)
    line = json.loads(capfd.readouterr().err)
    assert line.pop("time")
    assert line.pop("duration_s") >= 0
    assert line == {
        "level": "INFO",
        "logger": "serve_apps.gateway.audit",
        "message": "request",
        "request_id": "id-1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "tenant": "acme",
        "model": "chat",
        "version": "chat-v1",
        "stream": False,
        "status": 200,
        "broken": False,
        "first_byte_s": None,
        "prompt_tokens": 100_000,
        "completion_tokens": 50_000,
        "cost": 0.6,
    }


def test_the_audit_log_can_be_turned_off(capfd: pytest.CaptureFixture[str]) -> None:
    of = Meter(None, RecordedMetrics().telemetry(), audit=False, clock=Clock(NOON))
    of.record(exchange(), TABLE)
    assert capfd.readouterr().err == ""
    assert of.spent("acme") == pytest.approx(0.6)
