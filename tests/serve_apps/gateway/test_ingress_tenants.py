"""Tenants as clients of real gateways see them: limits over replicas, budgets, usage, and Redis coming and going."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from serve_apps.gateway import store
from serve_apps.gateway.metering import month, month_key
from serve_apps.gateway.store import tenant_key
from tests.serve_apps.gateway.conftest import GatewayServer
from tests.serve_apps.gateway.redis import RedisServer
from tests.serve_apps.gateway.servers import PATIENCE_S, Answer, Behaviour, Upstream
from tests.serve_apps.gateway.wire import connected, post

Gateways = Callable[..., GatewayServer]
Upstreams = Callable[[Behaviour], tuple[Upstream, str]]

PROMPT, COMPLETION = 20, 10
"""The tokens each answer says it took."""
ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 0,
    "model": "chat",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": PROMPT, "completion_tokens": COMPLETION, "total_tokens": PROMPT + COMPLETION},
}


async def answering(answer: Answer) -> None:
    await answer.whole(200, json.dumps(ANSWER).encode(), {"content-type": "application/json"})


async def answering_when_released(answer: Answer) -> None:
    await answer.released()
    await answering(answer)


async def failing(answer: Answer) -> None:
    await answer.whole(500, b"out of luck", {"content-type": "text/plain"})


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine must not look like a Redis that is down."""
    monkeypatch.setattr(store, "PATIENCE_S", 1.0)
    monkeypatch.setattr(store, "PROBE_S", 0.05)


def chat_at(url: str, **rules: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A table with the model ``chat``, 1 a token, and the rules of tenant acme."""
    price = {"prompt": 1_000_000, "completion": 1_000_000}
    return {"chat": {"url": url, "task": "generate", "price": price}}, {"tenants": {"acme": rules}, "replicas": 2}


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_replicas_grant_one_limit(upstream: Upstreams, gateway: Gateways, redis_server: RedisServer) -> None:
    _, url = upstream(answering)
    models, table = chat_at(url, requestsPerMinute=5)
    replicas = [gateway(models, table, redis=redis_server) for _ in range(2)]
    statuses = Counter(replica.chat().status_code for _ in range(4) for replica in replicas)
    assert statuses == {200: 5, 429: 3}


def test_an_answer_says_what_is_left_and_a_refusal_when_to_come_back(
    upstream: Upstreams, gateway: Gateways, redis_server: RedisServer
) -> None:
    _, url = upstream(answering)
    models, table = chat_at(url, requestsPerMinute=2, tokensPerMinute=100_000)
    server = gateway(models, table, redis=redis_server)
    answers = [server.chat(max_tokens=5) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0"]
    assert all(answer.headers["x-ratelimit-limit-tokens"] == "100000" for answer in answers)
    assert int(answers[2].headers["retry-after"]) in range(1, 31)
    error = answers[2].json()["error"]
    assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")


def test_who_asks_for_less_than_nothing_gets_no_tokens_for_it(
    upstream: Upstreams, gateway: Gateways, redis_server: RedisServer
) -> None:
    _, url = upstream(answering)
    models, table = chat_at(url, tokensPerMinute=1000)
    server = gateway(models, table, redis=redis_server)
    for length in (-500, -(2**63)):
        assert server.chat(max_tokens=length).json()["error"]["param"] == "max_tokens"
    assert int(server.chat(max_tokens=5).headers["x-ratelimit-remaining-tokens"]) in range(900, 1000)
    assert server.chat(max_tokens=2000).status_code == 429
    assert not any(server.metrics.values("llm_gateway_store_down"))


def test_openais_client_knows_the_refusals(upstream: Upstreams, gateway: Gateways, redis_server: RedisServer) -> None:
    _, url = upstream(answering)
    models, table = chat_at(url, requestsPerMinute=1, models=["chat"], maxTokens=50)
    models["large"] = models["chat"]
    server = gateway(models, table, redis=redis_server)
    http_client = openai.DefaultHttpxClient(trust_env=False)
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0, http_client=http_client)

    def ask(model: str = "chat", **more: Any) -> Any:
        return client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}], **more)

    with pytest.raises(openai.PermissionDeniedError) as denied:
        ask("large")
    assert denied.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as too_many:
        ask(max_tokens=51)
    assert too_many.value.param == "max_tokens"
    assert ask(max_tokens=50).choices[0].message.content == "Hi"
    with pytest.raises(openai.RateLimitError) as limited:
        ask()
    assert limited.value.code == "rate_limit_exceeded"
    assert [model.id for model in client.models.list()] == ["chat"]
    client.close()


def test_a_tenants_limit_of_tokens_is_written_into_requests_that_have_none(
    upstream: Upstreams, gateway: Gateways
) -> None:
    asked, url = upstream(answering)
    server = gateway(*chat_at(url, maxTokens=50))
    server.chat()
    server.chat(max_tokens=7)
    bodies = [json.loads(received.body) for received in asked.received]
    assert [body.get("max_tokens", body.get("max_completion_tokens")) for body in bodies] == [50, 7]


def test_what_a_request_really_used_is_charged(
    upstream: Upstreams, gateway: Gateways, redis_server: RedisServer
) -> None:
    _, url = upstream(answering)
    models, table = chat_at(url, tokensPerMinute=6_000)
    server = gateway(models, table, redis=redis_server)
    assert int(server.chat(max_tokens=4_000).headers["x-ratelimit-remaining-tokens"]) < 2_000
    left = 0

    def given_back() -> bool:
        nonlocal left
        answer = server.chat(max_tokens=1)
        left = int(answer.headers["x-ratelimit-remaining-tokens"])
        return left > 5_000

    eventually(given_back)
    assert left < 6_000


def test_a_request_that_failed_costs_no_tokens(
    upstream: Upstreams, gateway: Gateways, redis_server: RedisServer
) -> None:
    _, url = upstream(failing)
    models, table = chat_at(url, tokensPerMinute=6_000)
    server = gateway(models, table, redis=redis_server)
    assert server.chat(max_tokens=5_900).status_code == 502
    eventually(lambda: server.chat(max_tokens=5_900).status_code == 502)
    assert server.client.get("/v1/usage").json()["total"]["requests"] == 0


def test_places_are_held_while_answers_run_over_all_replicas(
    upstream: Upstreams, gateway: Gateways, redis_server: RedisServer
) -> None:
    behind, url = upstream(answering_when_released)
    models, table = chat_at(url, maxConcurrentRequests=1)
    one, other = (gateway(models, table, redis=redis_server) for _ in range(2))
    asking = threading.Thread(target=one.chat)
    asking.start()
    assert behind.asked.wait(PATIENCE_S)
    refused = other.chat()
    assert refused.status_code == 429
    assert "concurrent requests: Limit 1" in refused.json()["error"]["message"]
    behind.release.set()
    asking.join()
    eventually(lambda: other.chat().status_code == 200)


def test_a_client_that_leaves_gives_its_place_back(
    upstream: Upstreams, gateway: Gateways, redis_server: RedisServer
) -> None:
    behind, url = upstream(answering_when_released)
    models, table = chat_at(url, maxConcurrentRequests=1)
    server = gateway(models, table, redis=redis_server)
    with redis_server.client() as client:
        with connected(server.url) as wire:
            wire.send(post("/v1/chat/completions", server.key, b'{"model": "chat"}'))
            assert behind.asked.wait(PATIENCE_S)
            assert client.zcard(tenant_key("acme", "running")) == 1
        eventually(lambda: client.zcard(tenant_key("acme", "running")) == 0)
    behind.release.set()
    assert server.chat().status_code == 200


def test_a_budget_ends_when_it_is_spent_and_usage_says_on_what(
    upstream: Upstreams, gateway: Gateways, redis_server: RedisServer
) -> None:
    _, url = upstream(answering)
    models, table = chat_at(url, monthlyBudget=50)
    one, other = (gateway(models, table, redis=redis_server) for _ in range(2))
    assert [one.chat().status_code, other.chat().status_code] == [200, 200]
    with redis_server.client() as client:
        spent = month_key("acme", month(time.time()))
        eventually(lambda: float(client.hget(spent, "cost") or 0) == 60)
    for server in (one, other):
        refused = server.chat()
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == refused.json()["error"]["type"] == "insufficient_quota"
    usage = one.client.get("/v1/usage").json()
    assert usage["scope"] == "all"
    assert usage["models"] == {"chat": {"requests": 2, "prompt_tokens": 40, "completion_tokens": 20, "cost": 60}}
    assert usage["budget"] == {"monthly": 50, "spent": 60, "left": 0}


def test_usage_is_for_holders_of_a_key(upstream: Upstreams, gateway: Gateways) -> None:
    _, url = upstream(answering)
    server = gateway(*chat_at(url))
    assert server.client.get("/v1/usage").json()["tenant"] == "acme"
    assert httpx.get(f"{server.url}/v1/usage", timeout=PATIENCE_S, trust_env=False).status_code == 401


def test_anthropics_header_is_a_key_and_two_are_too_many(upstream: Upstreams, gateway: Gateways) -> None:
    asked, url = upstream(answering)
    server = gateway(*chat_at(url))
    body = {"model": "chat"}
    where = f"{server.url}/v1/chat/completions"
    with httpx.Client(timeout=PATIENCE_S, trust_env=False) as client:
        assert client.post(where, json=body, headers={"x-api-key": server.key}).status_code == 200
        twice = [("authorization", f"Bearer {server.key}")] * 2
        assert client.post(where, json=body, headers=twice).status_code == 400
    [received] = asked.received
    assert server.key not in str(received.headers), "the upstream saw the client's key"


def test_without_limits_redis_is_not_asked_by_a_request(
    upstream: Upstreams, gateway: Gateways, redis_server: RedisServer
) -> None:
    _, url = upstream(answering)
    server = gateway(*chat_at(url), redis=redis_server)
    assert server.chat().status_code == 200
    with redis_server.client() as client:
        assert "cmdstat_evalsha" not in client.info("commandstats")


@pytest.mark.parametrize("outage", ["kill", "hang"])
def test_no_request_fails_while_redis_comes_and_goes(
    upstream: Upstreams, gateway: Gateways, redis_server: RedisServer, outage: str
) -> None:
    _, url = upstream(answering)
    models, table = chat_at(
        url, requestsPerMinute=10**6, tokensPerMinute=10**9, maxConcurrentRequests=100, monthlyBudget=10**9
    )
    server = gateway(models, table, redis=redis_server)
    statuses: Counter[int] = Counter()
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=server.url, headers=server.client.headers, trust_env=False) as client:
            while not over.is_set():
                answer = client.post("/v1/chat/completions", json={"model": "chat"}, timeout=PATIENCE_S)
                statuses[answer.status_code] += 1

    def more() -> None:
        so_far = statuses.total()
        eventually(lambda: statuses.total() >= so_far + 30)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    try:
        more()
        redis_server.kill() if outage == "kill" else redis_server.hang()
        more()
        eventually(lambda: server.metrics.values("llm_gateway_store_down")[-1:] == [1])
        redis_server.start() if outage == "kill" else redis_server.go_on()
        eventually(lambda: server.metrics.values("llm_gateway_store_down")[-1:] == [0])
        more()
    finally:
        over.set()
        for asker in askers:
            asker.join()
    assert set(statuses) == {200}
    if outage == "hang":  # it forgot nothing: every request was counted, and once
        eventually(lambda: server.client.get("/v1/usage").json()["total"]["requests"] == statuses[200])
        with redis_server.client() as client:
            spent = month_key("acme", month(time.time()))
            eventually(lambda: client.hget(spent, "chat requests") == str(statuses[200]))
