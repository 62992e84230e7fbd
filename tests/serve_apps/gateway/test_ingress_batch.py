"""Files and batches on their way to their application, and the lines of batches on their way to models."""

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.serve_apps.gateway.conftest import INTERNAL_TOKEN, GatewayServer, chat_at
from tests.serve_apps.gateway.servers import PATIENCE_S, Answer, Behaviour, Upstream, until

StartUpstream = Callable[[Behaviour], tuple[Upstream, str]]
StartGateway = Callable[..., GatewayServer]

LINE = {"authorization": "", "x-llm-internal": INTERNAL_TOKEN, "x-llm-tenant": "acme", "x-llm-background": "true"}


async def ok(answer: Answer) -> None:
    await answer.whole(200, b"{}", {"content-type": "application/json"})


async def ok_when_released(answer: Answer) -> None:
    await answer.released()
    await ok(answer)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/files"),
        ("GET", "/v1/files?limit=2"),
        ("DELETE", "/v1/files/file-1"),
        ("GET", "/v1/files/file-1/content"),
        ("POST", "/v1/batches"),
        ("POST", "/v1/batches/batch_1/cancel"),
    ],
)
def test_files_and_batches_go_to_their_application_with_the_tenant(
    upstream: StartUpstream, gateway: StartGateway, method: str, path: str
) -> None:
    server, url = upstream(ok)
    running = gateway({}, {"batch": f"{url}/internal/batch"})
    assert running.client.request(method, path, headers={"x-llm-tenant": "other"}).status_code == 200
    (seen,) = server.received
    assert f"{seen.path}?{seen.query.decode()}".rstrip("?") == f"/internal/batch{path}"
    assert (seen.method, seen.headers["x-llm-tenant"], seen.headers["x-llm-internal"]) == (
        method,
        "acme",
        INTERNAL_TOKEN,
    )
    assert running.metrics.next_tags("llm_gateway_requests")["model"] == "batch"


def test_without_batches_there_is_no_such_path(gateway: StartGateway) -> None:
    response = gateway(chat_at("http://host/x")).client.get("/v1/batches")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_path")


def test_nobody_without_a_key_reaches_them(upstream: StartUpstream, gateway: StartGateway) -> None:
    server, url = upstream(ok)
    assert gateway({}, {"batch": url}).client.get("/v1/files", headers={"authorization": ""}).status_code == 401
    assert server.received == []


def test_a_file_may_be_larger_than_other_bodies(upstream: StartUpstream, gateway: StartGateway) -> None:
    _, url = upstream(ok)
    running = gateway({}, {"batch": url}, maxRequestBytes=1024, maxUploadBytes=4096)
    assert running.client.post("/v1/files", content=b"x" * 4096).status_code == 200
    assert running.client.post("/v1/files", content=b"x" * 4097).status_code == 413
    assert running.client.post("/v1/batches", content=b"x" * 1025).status_code == 413


def test_they_count_among_the_tenants_requests(upstream: StartUpstream, gateway: StartGateway) -> None:
    _, url = upstream(ok)
    running = gateway({}, {"batch": url, "otherTenants": {"requestsPerMinute": 1}})
    assert running.client.get("/v1/batches").status_code == 200
    assert running.client.get("/v1/batches").status_code == 429


@pytest.mark.parametrize(("background", "priority"), [(True, 101), (False, 5)])
def test_a_line_goes_after_everybody(
    upstream: StartUpstream, gateway: StartGateway, background: bool, priority: int
) -> None:
    server, url = upstream(ok)
    models: dict[str, Any] = {"chat": {"url": url, "task": "generate", "takesPriority": True}}
    running = gateway(models, {"otherTenants": {"priority": 5}})
    assert running.chat().status_code == 200  # a client's own
    headers = LINE if background else {name: value for name, value in LINE.items() if name != "x-llm-background"}
    assert running.client.post("/v1/completions", json={"model": "chat"}, headers=headers).status_code == 200
    first, second = (json.loads(seen.body)["priority"] for seen in server.received)
    assert (first, second) == (5, priority)


def test_a_request_that_comes_later_is_answered_before_a_line_that_waits(
    upstream: StartUpstream, gateway: StartGateway
) -> None:
    server, url = upstream(ok_when_released)
    models: dict[str, Any] = {"chat": {"url": url, "task": "generate", "queue": {"maxConcurrent": 1}}}
    running = gateway(models, {"otherTenants": {"priority": 100}})

    def ask(prompt: str, headers: dict[str, str]) -> Future[httpx.Response]:
        body = {"model": "chat", "prompt": prompt}
        return clients.submit(running.client.post, "/v1/completions", json=body, headers=headers)

    def waiting() -> int:
        return running.ingress._queues._lines["chat"]._waiting

    with ThreadPoolExecutor(3) as clients:
        asked = [ask("first", {})]
        until(lambda: server.received)
        asked.append(ask("line", LINE))
        until(lambda: waiting() == 1)
        asked.append(ask("later", {}))
        until(lambda: waiting() == 2)
        server.release.set()
        assert [answer.result(PATIENCE_S).status_code for answer in asked] == [200, 200, 200]
    assert [json.loads(seen.body)["prompt"] for seen in server.received] == ["first", "later", "line"]


ONE_AT_A_TIME = {"task": "generate", "queue": {"maxConcurrent": 1}}


def test_a_line_makes_room_for_a_client_and_may_come_again(upstream: StartUpstream, gateway: StartGateway) -> None:
    async def answered(answer: Answer) -> None:
        if b"line" in answer.upstream.received[-1].body:
            await answer.client_gone()
        else:
            await ok(answer)

    server, url = upstream(answered)
    running = gateway({"chat": {"url": url, **ONE_AT_A_TIME}})
    with ThreadPoolExecutor(1) as clients:
        body = {"model": "chat", "prompt": "line"}
        line = clients.submit(running.client.post, "/v1/completions", json=body, headers=LINE)
        until(lambda: server.received)
        assert running.chat().status_code == 200
        told = line.result(PATIENCE_S)
    assert (told.status_code, told.json()["error"]["code"], told.headers["retry-after"]) == (
        429,
        "model_overloaded",
        "1",
    )
    assert server.aborted.wait(PATIENCE_S)


def test_a_line_whose_answer_has_begun_is_answered_to_the_end(upstream: StartUpstream, gateway: StartGateway) -> None:
    async def answered(answer: Answer) -> None:
        await answer.begin(200, {"content-type": "application/json"})
        await answer.chunk(b"{")
        await answer.released()
        await answer.chunk(b"}", more=False)

    server, url = upstream(answered)
    running = gateway({"chat": {"url": url, **ONE_AT_A_TIME}})
    body = {"model": "chat", "prompt": "line"}
    with (
        running.client.stream("POST", "/v1/completions", json=body, headers=LINE) as line,
        ThreadPoolExecutor(1) as clients,
    ):
        chat = clients.submit(running.chat)
        until(lambda: running.ingress._queues._lines["chat"]._waiting)
        server.release.set()
        assert (line.status_code, line.read()) == (200, b"{}")
        assert chat.result(PATIENCE_S).status_code == 200


def test_a_client_cannot_say_that_it_is_a_line(upstream: StartUpstream, gateway: StartGateway) -> None:
    server, url = upstream(ok)
    models: dict[str, Any] = {"chat": {"url": url, "task": "generate", "takesPriority": True}}
    running = gateway(models)
    running.client.post("/v1/completions", json={"model": "chat"}, headers={"x-llm-background": "true"})
    (seen,) = server.received
    assert json.loads(seen.body)["priority"] == 0
    assert "x-llm-background" not in seen.headers


def test_a_line_may_name_only_the_tenants_models(upstream: StartUpstream, gateway: StartGateway) -> None:
    server, url = upstream(ok)
    models = chat_at(url) | {"large": {"url": url, "task": "generate"}}
    running = gateway(models, {"tenants": {"acme": {"models": ["chat"]}}})
    large = running.client.post("/v1/completions", json={"model": "large"}, headers=LINE)
    assert (large.status_code, large.json()["error"]["code"]) == (403, "model_not_found")
    assert running.client.post("/v1/completions", json={"model": "chat"}, headers=LINE).status_code == 200
    assert len(server.received) == 1


def test_a_line_waits_for_a_slot_like_anybody(upstream: StartUpstream, gateway: StartGateway) -> None:
    _, url = upstream(ok)
    running = gateway(chat_at(url), maxConcurrentRequests=1)
    with running.ingress._requests.take():
        refused = running.client.post("/v1/completions", json={"model": "chat"}, headers=LINE)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "gateway_overloaded")
    assert running.client.post("/v1/completions", json={"model": "chat"}, headers=LINE).status_code == 200
