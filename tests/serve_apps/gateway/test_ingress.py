import asyncio
import gc
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from serve_apps.common.middleware import Message
from serve_apps.gateway import client, server
from serve_apps.gateway import upstream as gateway_upstream
from serve_apps.gateway.ingress import MAX_CONCURRENT_UPLOADS, _for_ever
from serve_apps.gateway.passage import Passage
from tests.serve_apps.gateway.conftest import INTERNAL_TOKEN, GatewayServer, chat_at
from tests.serve_apps.gateway.servers import PATIENCE_S, Answer, Behaviour, Upstream, read_until, until

StartUpstream = Callable[[Behaviour], tuple[Upstream, str]]
StartGateway = Callable[..., GatewayServer]

INTERNAL = {"authorization": "", "x-llm-internal": INTERNAL_TOKEN}


async def ok(answer: Answer) -> None:
    await answer.whole(200, b"{}", {"content-type": "application/json"})


async def ok_when_released(answer: Answer) -> None:
    await answer.released()
    await ok(answer)


def docs_at(url: str) -> dict[str, Any]:
    """A table with one pipeline, ``docs``, at ``url``."""
    return {"docs": {"url": url, "task": "pipeline"}}


def code_of(response: httpx.Response) -> Any:
    """The code of the error in a response, which must be OpenAI's in shape."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["code"]


# Who may ask


@pytest.mark.parametrize("authorization", ["", "Bearer sk-acme-0000", "Basic abc"])
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/chat/completions"), ("GET", "/v1/models")])
def test_without_a_key_of_ours_nothing_is_answered(
    upstream: StartUpstream, gateway: StartGateway, method: str, path: str, authorization: str
) -> None:
    server, url = upstream(ok)
    response = gateway(chat_at(url)).client.request(
        method, path, json={"model": "chat"}, headers={"authorization": authorization}
    )
    assert response.status_code == 401
    assert code_of(response) == "invalid_api_key"
    assert server.received == []


def test_a_keys_holder_is_the_tenant_upstream(upstream: StartUpstream, gateway: StartGateway) -> None:
    server, url = upstream(ok)
    assert gateway(chat_at(url)).chat().status_code == 200
    assert server.received[0].headers["x-llm-tenant"] == "acme"


def test_upstream_sees_the_gateways_credential_and_not_the_clients(
    upstream: StartUpstream, gateway: StartGateway
) -> None:
    server, url = upstream(ok)
    theirs = {"x-llm-internal": "guess", "x-llm-tenant": "other", "x-request-timeout-seconds": "1", "accept": "a/b"}
    gateway(chat_at(url)).client.post("/v1/chat/completions", json={"model": "chat"}, headers=theirs)
    seen = server.received[0].headers
    assert seen["x-llm-internal"] == INTERNAL_TOKEN
    assert seen["x-llm-tenant"] == "acme"
    assert seen["x-request-disconnect-disabled"] == "?1"
    assert seen["accept"] == "a/b"
    assert not {"authorization", "x-request-timeout-seconds", "accept-encoding"} & set(seen)


def test_a_body_that_came_with_its_headers_is_not_waited_for(
    upstream: StartUpstream, gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(client, "_read_in_time")
    server = gateway(chat_at(upstream(ok)[1]), auth="none")
    body = b'{"model": "chat"}'
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    )
    address = httpx.URL(server.url)
    with socket.create_connection((address.host, address.port or 80), PATIENCE_S) as connection:
        connection.sendall(head % len(body) + body)
        assert read_until(connection, b"\r\n\r\n{}").startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_pipelines_tenant_goes_on_upstream(upstream: StartUpstream, gateway: StartGateway) -> None:
    server, url = upstream(ok)
    headers = INTERNAL | {"x-llm-tenant": "other"}
    gateway(chat_at(url)).client.post("/v1/chat/completions", json={"model": "chat"}, headers=headers)
    assert server.received[0].headers["x-llm-tenant"] == "other"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json"])
def test_health_is_told_to_anybody(gateway: StartGateway, path: str) -> None:
    assert gateway({}).client.get(path, headers={"authorization": ""}).status_code == 200


# What is asked


def test_models_are_listed_to_a_keys_holder(gateway: StartGateway) -> None:
    listed = gateway(chat_at("http://host/internal/chat")).client.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == ["chat"]


@pytest.mark.parametrize(
    ("body", "code"),
    [(b'{"model": "chat"', "invalid_json"), (b'{"model": "\xff"}', "invalid_json"), (b"[1]", "invalid_json")],
)
def test_a_body_that_is_no_json_object_is_400(gateway: StartGateway, body: bytes, code: str) -> None:
    response = gateway(chat_at("http://host/x")).client.post("/v1/chat/completions", content=body)
    assert response.status_code == 400
    assert code_of(response) == code


def test_an_unknown_model_is_404_and_counted_as_unknown(gateway: StartGateway) -> None:
    running = gateway(chat_at("http://host/x"))
    response = running.client.post("/v1/chat/completions", json={"model": "gpt-4"})
    assert response.status_code == 404
    assert code_of(response) == "model_not_found"
    assert running.metrics.next_tags("llm_gateway_requests") == {"model": "unknown", "version": "", "status": "404"}


def test_an_answer_is_counted_under_its_model(upstream: StartUpstream, gateway: StartGateway) -> None:
    _, url = upstream(ok)
    running = gateway(chat_at(url))
    running.chat()
    assert running.metrics.next_tags("llm_gateway_requests") == {"model": "chat", "version": "chat", "status": "200"}


def test_health_is_not_counted(gateway: StartGateway) -> None:
    running = gateway({})
    running.client.get("/healthz")
    running.client.get("/nowhere")
    assert running.metrics.next_tags("llm_gateway_requests") == {"model": "unknown", "version": "", "status": "404"}
    assert len(running.metrics.tags("llm_gateway_requests")) == 1


def test_an_unknown_path_is_404(gateway: StartGateway) -> None:
    response = gateway({}).client.post("/invocations", json={"model": "chat"})
    assert response.status_code == 404
    assert code_of(response) == "unknown_path"


def test_a_wrong_method_is_405(gateway: StartGateway) -> None:
    response = gateway({}).client.get("/v1/chat/completions")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


def test_without_a_routing_table_the_gateway_is_not_ready(gateway: StartGateway) -> None:
    running = gateway(None)
    assert running.chat().status_code == 503
    assert running.client.get("/readyz").status_code == 503


def test_a_request_keeps_the_table_it_started_with(upstream: StartUpstream, gateway: StartGateway) -> None:
    server, url = upstream(ok_when_released)
    running = gateway(chat_at(url))
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(running.chat().status_code))
    asking.start()
    assert server.asked.wait(PATIENCE_S)
    running.ingress.route_by({})
    server.release.set()
    asking.join(PATIENCE_S)
    assert answers == [200]
    assert running.chat().status_code == 404


def test_a_wrong_table_leaves_the_old_one_in_force(upstream: StartUpstream, gateway: StartGateway) -> None:
    _, url = upstream(ok)
    running = gateway(chat_at(url))
    running.ingress.route_by({"models": {"chat": {"url": url, "task": "sing"}}})
    assert running.chat().status_code == 200


def test_a_wrong_first_table_is_an_error(gateway: StartGateway) -> None:
    running = gateway(None)
    with pytest.raises(ValidationError, match="sing"):
        running.ingress.route_by({"models": {"chat": {"url": "http://host/x", "task": "sing"}}})
    assert running.client.get("/readyz").status_code == 503


def test_an_application_that_is_not_there_is_503_to_the_gateway_itself(gateway: StartGateway) -> None:
    """Serve gives /internal/chat to the application at / while there is none at /internal/chat."""
    running = gateway({})
    running.ingress.route_by({"models": chat_at(running.url + "/internal/chat")})
    response = running.chat()
    assert response.status_code == 503
    assert code_of(response) == "model_unavailable"


def test_an_internal_path_is_unknown_to_anybody_else(gateway: StartGateway) -> None:
    assert gateway({}).client.post("/internal/chat/v1/completions").status_code == 404


# Request ids


def test_a_sane_request_id_is_kept_upstream_and_back(upstream: StartUpstream, gateway: StartGateway) -> None:
    server, url = upstream(ok)
    response = gateway(chat_at(url)).client.post(
        "/v1/chat/completions", json={"model": "chat"}, headers={"x-request-id": "job-7"}
    )
    assert response.headers["x-request-id"] == "job-7"
    assert server.received[0].headers["x-request-id"] == "job-7"


@pytest.mark.parametrize("path", ["/v1/models", "/nowhere", "/healthz"])
def test_every_answer_of_ours_carries_a_request_id(gateway: StartGateway, path: str) -> None:
    response = gateway({}).client.get(path, headers={"x-request-id": "not sane"})
    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])


# How much


def test_a_body_over_the_limit_is_413(upstream: StartUpstream, gateway: StartGateway) -> None:
    server, url = upstream(ok)
    response = gateway(chat_at(url), maxRequestBytes=1024).chat(prompt="x" * 1024)
    assert response.status_code == 413
    assert code_of(response) == "body_too_large"
    assert server.received == []


def test_a_chunked_body_over_the_limit_is_413(upstream: StartUpstream, gateway: StartGateway) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"model": "chat", "prompt": "'
        yield b"x" * 1024

    server, url = upstream(ok)
    response = gateway(chat_at(url), maxRequestBytes=1024).client.post("/v1/completions", content=chunks())
    assert response.status_code == 413
    assert server.received == []


def test_a_chunked_body_under_the_limit_goes_upstream_whole(upstream: StartUpstream, gateway: StartGateway) -> None:
    server, url = upstream(ok)
    content = iter([b'{"model":', b' "chat"}'])
    json_headers = {"content-type": "application/json"}
    answer = gateway(chat_at(url)).client.post("/v1/completions", content=content, headers=json_headers)
    assert answer.status_code == 200
    assert server.received[0].body == b'{"model": "chat"}'
    assert server.received[0].headers["content-length"] == "17"


def test_beyond_its_limit_the_gateway_refuses_clients_but_not_its_own_pipelines(
    upstream: StartUpstream, gateway: StartGateway
) -> None:
    server, url = upstream(ok_when_released)
    running = gateway(chat_at(url), maxConcurrentRequests=1)
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(running.chat().status_code))
    asking.start()
    assert server.asked.wait(PATIENCE_S)
    refused = running.chat()
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert code_of(refused) == "gateway_overloaded"
    server.release.set()
    own = running.client.post("/v1/chat/completions", json={"model": "chat"}, headers=INTERNAL)
    asking.join(PATIENCE_S)
    assert (own.status_code, answers) == (200, [200])
    until(lambda: running.chat().status_code == 200)  # a client has all of an answer before the gateway is done with it


# Upstreams


def external_at(url: str) -> dict[str, Any]:
    """A table with one model of another provider, ``big``, at ``url``."""
    there = {"url": url, "runtime": "external", "servedModel": "big-2026", "credential": "key"}
    return {"big": {"task": "generate", **there}}


def test_a_provider_sees_its_own_key_and_its_own_name_for_the_model_and_nothing_of_ours(
    upstream: StartUpstream, gateway: StartGateway, tmp_path: Path
) -> None:
    (tmp_path / "upstreams").mkdir()
    (tmp_path / "upstreams" / "key").write_text("sk-theirs\n")
    server, url = upstream(ok)
    theirs = {"x-llm-tenant": "root", "openai-organization": "ours", "cookie": "a=b"}
    running = gateway(external_at(url))
    assert running.client.post("/v1/chat/completions", json={"model": "big"}, headers=theirs).status_code == 200
    received = server.received[0]
    assert json.loads(received.body) == {"model": "big-2026"}
    assert received.headers["authorization"] == "Bearer sk-theirs"
    ours = {name for name in received.headers if name.startswith(("x-llm", "openai-org", "cookie"))}
    assert ours == set()
    assert INTERNAL_TOKEN not in str(received.headers)


def test_without_its_key_a_provider_is_not_asked(upstream: StartUpstream, gateway: StartGateway) -> None:
    server, url = upstream(ok)
    response = gateway(external_at(url)).client.post("/v1/chat/completions", json={"model": "big"})
    assert response.status_code == 503
    assert server.received == []


@pytest.mark.parametrize(("takes", "seen"), [(True, -5), (False, None)])
def test_a_tenants_priority_goes_to_engines_that_schedule_by_it(
    upstream: StartUpstream, gateway: StartGateway, takes: bool, seen: int | None
) -> None:
    server, url = upstream(ok)
    models = {"chat": {"url": url, "task": "generate", "takesPriority": takes}}
    running = gateway(models, {"tenants": {"acme": {"priority": -5}}})
    assert running.chat().status_code == 200
    assert json.loads(server.received[0].body).get("priority") == seen


def test_a_busy_model_is_waited_for_and_then_refused(upstream: StartUpstream, gateway: StartGateway) -> None:
    server, url = upstream(ok_when_released)
    queue = {"maxConcurrent": 1, "maxWaiting": 0}
    running = gateway({"chat": {"url": url, "task": "generate", "queue": queue}})
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(running.chat().status_code))
    asking.start()
    assert server.asked.wait(PATIENCE_S)
    refused = running.chat()
    server.release.set()
    asking.join(PATIENCE_S)
    assert (refused.status_code, code_of(refused), answers) == (429, "model_overloaded", [200])
    until(lambda: running.chat().status_code == 200)  # the place is free a moment after the answer


# Pipelines


def test_an_upload_goes_to_its_pipeline_unchanged(upstream: StartUpstream, gateway: StartGateway) -> None:
    server, url = upstream(ok)
    document = b"\x00%PDF\xff" * 1000
    response = gateway(docs_at(url + "/internal/rag")).client.post(
        "/v1/rag/docs/documents?name=a%20b.pdf", content=document, headers={"content-type": "application/pdf"}
    )
    assert response.status_code == 200
    seen = server.received[0]
    assert (seen.path, seen.query) == ("/internal/rag/v1/rag/docs/documents", b"name=a%20b.pdf")
    assert (seen.body, seen.headers["content-type"]) == (document, "application/pdf")


def test_an_upload_may_be_larger_than_other_bodies(upstream: StartUpstream, gateway: StartGateway) -> None:
    _, url = upstream(ok)
    running = gateway(docs_at(url), maxRequestBytes=1024, maxUploadBytes=4096)
    assert running.client.post("/v1/rag/docs/documents", content=b"x" * 4096).status_code == 200
    assert running.client.post("/v1/rag/docs/documents", content=b"x" * 4097).status_code == 413
    assert running.client.post("/v1/rag/docs/query", content=b"x" * 1025).status_code == 413


def test_more_uploads_than_memory_is_set_aside_for_are_refused(upstream: StartUpstream, gateway: StartGateway) -> None:
    server, url = upstream(ok_when_released)
    running = gateway(docs_at(url))
    answers: Queue[int] = Queue()

    def upload() -> None:
        answers.put(running.client.post("/v1/rag/docs/documents", content=b"x").status_code)

    uploads = [threading.Thread(target=upload) for _ in range(MAX_CONCURRENT_UPLOADS + 1)]
    for thread in uploads:
        thread.start()
    assert answers.get(timeout=PATIENCE_S) == 429  # the only one answered before the pipeline is
    server.release.set()
    assert [answers.get(timeout=PATIENCE_S) for _ in range(MAX_CONCURRENT_UPLOADS)] == [200] * MAX_CONCURRENT_UPLOADS
    for thread in uploads:
        thread.join(PATIENCE_S)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_pipelines_documents_are_listed_and_deleted(
    upstream: StartUpstream, gateway: StartGateway, method: str
) -> None:
    server, url = upstream(ok)
    path = "/v1/rag/docs/documents/docs/a%20b.md"
    assert gateway(docs_at(url)).client.request(method, path).status_code == 200
    assert (server.received[0].method, server.received[0].path) == (method, "/v1/rag/docs/documents/docs/a b.md")


def test_an_unknown_pipeline_is_told_those_there_are(gateway: StartGateway) -> None:
    response = gateway(docs_at("http://host/x")).client.post("/v1/rag/nope/query", json={})
    assert response.status_code == 404
    assert response.json()["error"]["message"].endswith("Pipelines here: docs.")


def test_an_encoded_way_out_of_a_pipeline_is_unknown(upstream: StartUpstream, gateway: StartGateway) -> None:
    server, url = upstream(ok)
    path = "/v1/rag/docs/%2e%2e/%2e%2e/%2e%2e/internal/chat"
    assert gateway(docs_at(url + "/internal/rag")).client.get(path).status_code == 404
    assert server.received == []


# When the gateway itself is at fault


def test_a_failure_of_ours_tells_nothing_of_our_inside(
    upstream: StartUpstream, gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, url = upstream(ok)
    running = gateway(chat_at(url))

    def fail(*_: object, **__: object) -> None:
        raise KeyError("a secret")

    monkeypatch.setattr("serve_apps.gateway.outgoing.upstream_headers", fail)
    response = running.chat()
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.headers["x-request-id"] in json.loads(response.content)["error"]["message"]


def test_a_websocket_is_closed(gateway: StartGateway) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    asyncio.run(gateway({}).ingress({"type": "websocket", "path": "/v1/realtime"}, receive, send))
    assert [message["type"] for message in sent] == ["websocket.close"]


# Tenants


@pytest.fixture
def limited(upstream: StartUpstream, gateway: StartGateway) -> GatewayServer:
    """A gateway whose tenant may name ``chat`` and ``docs`` twice a minute, with few tokens."""
    usage = b'{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}'

    async def answer_with_usage(answer: Answer) -> None:
        await answer.whole(200, usage, {"content-type": "application/json"})

    _, url = upstream(answer_with_usage)
    priced = {"url": url, "task": "generate", "price": {"prompt": 1_000_000, "completion": 2_000_000}}
    rules = {"models": ["chat", "docs"], "requestsPerMinute": 2, "maxTokens": 10}
    return gateway({"chat": priced, "other": priced, **docs_at(url)}, {"tenants": {"acme": rules}})


def test_a_tenant_that_asked_too_often_is_told_when_to_come_back(limited: GatewayServer) -> None:
    answers = [limited.chat() for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "2"
    assert int(answers[2].headers["retry-after"]) > 0
    assert code_of(answers[2]) == "rate_limit_exceeded"


def test_a_pipelines_own_calls_do_not_count_as_requests(limited: GatewayServer) -> None:
    headers = INTERNAL | {"x-llm-tenant": "acme"}
    inner = [limited.client.post("/v1/chat/completions", json={"model": "other"}, headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in inner] == [200, 200, 200]


def test_a_tenant_sees_and_names_only_its_models(limited: GatewayServer) -> None:
    listed = limited.client.get("/v1/models").json()["data"]
    assert [card["id"] for card in listed] == ["chat", "docs"]
    refused = limited.client.post("/v1/chat/completions", json={"model": "other"})
    assert (refused.status_code, code_of(refused)) == (403, "model_not_found")


@pytest.mark.parametrize(("asked", "status"), [(10, 200), (11, 400)])
def test_a_tenant_may_not_ask_for_more_tokens_than_its_rules_allow(
    limited: GatewayServer, asked: int, status: int
) -> None:
    assert limited.chat(max_tokens=asked).status_code == status


def test_a_tenants_usage_counts_models_and_not_pipelines_twice(limited: GatewayServer) -> None:
    assert limited.chat().status_code == 200
    assert limited.client.post("/v1/chat/completions", json={"model": "docs"}).status_code == 200
    used = limited.client.get("/v1/usage").json()
    assert used["tenant"] == "acme"
    assert used["total"] == {"requests": 1, "prompt_tokens": 3, "completion_tokens": 4, "cost": 11}


def test_who_leaves_a_stream_before_the_usage_is_told_has_used_what_it_got(
    upstream: StartUpstream, gateway: StartGateway
) -> None:
    async def stream_without_end(answer: Answer) -> None:
        await answer.begin(200, {"content-type": "text/event-stream"})
        for _ in range(3):
            await answer.chunk(b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n')
        await answer.client_gone()

    server, url = upstream(stream_without_end)
    running = gateway(chat_at(url))
    body = {"model": "chat", "stream": True}
    with running.client.stream("POST", "/v1/chat/completions", json=body) as response:
        next(response.iter_bytes())
    assert server.aborted.wait(PATIENCE_S)
    running.metrics.next_tags("llm_gateway_requests")
    used = running.client.get("/v1/usage").json()["total"]
    assert used["requests"] == 1
    assert used["prompt_tokens"] > 0
    assert used["completion_tokens"] > 0


def test_a_stream_whose_upstream_tells_no_usage_has_used_what_it_got(
    upstream: StartUpstream, gateway: StartGateway
) -> None:
    async def untold(answer: Answer) -> None:
        await answer.begin(200, {"content-type": "text/event-stream"})
        await answer.chunk(b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n')
        await answer.chunk(b"data: [DONE]\n\n", more=False)

    running = gateway(chat_at(upstream(untold)[1]))
    assert running.chat(stream=True).status_code == 200
    running.metrics.next_tags("llm_gateway_requests")
    used = running.client.get("/v1/usage").json()["total"]
    assert used["prompt_tokens"] > 0
    assert used["completion_tokens"] > 0


def test_helm_test_sees_every_model_whatever_other_tenants_may_use(gateway: StartGateway) -> None:
    running = gateway(chat_at("http://host/internal/chat"), {"otherTenants": {"models": []}})
    assert running.client.get("/v1/models").json()["data"] == []
    seen = running.client.get("/v1/models", headers=INTERNAL).json()["data"]
    assert [card["id"] for card in seen] == ["chat"]


def test_a_shadow_without_its_key_harms_no_request(upstream: StartUpstream, gateway: StartGateway) -> None:
    _, url = upstream(ok)
    routes = {"chat": {"versions": [{"model": "chat"}], "shadow": {"model": "big"}}}
    running = gateway({**chat_at(url), **external_at(url)}, {"routes": routes})
    assert running.chat().status_code == 200
    assert running.metrics.next_tags("llm_gateway_shadow_requests") == {"version": "big", "status": "none"}


@pytest.mark.parametrize(("headers", "status"), [(INTERNAL, 200), ({}, 403)], ids=["internal", "client"])
def test_helm_test_reaches_a_pipeline_whatever_other_tenants_may_use(
    upstream: StartUpstream, gateway: StartGateway, headers: dict[str, str], status: int
) -> None:
    _, url = upstream(ok)
    running = gateway(docs_at(url), {"otherTenants": {"models": []}})
    assert running.client.get("/v1/rag/docs/documents", headers=headers).status_code == status


def test_a_background_part_that_fails_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_apps.gateway.ingress.RESTART_S", 0)
    runs = 0

    async def story() -> None:
        again = asyncio.Event()

        async def run() -> None:
            nonlocal runs
            runs += 1
            if runs == 1:
                raise ValueError("once")
            again.set()
            await asyncio.Event().wait()

        part = asyncio.ensure_future(_for_ever(run))
        await asyncio.wait_for(again.wait(), PATIENCE_S)
        part.cancel()
        with pytest.raises(asyncio.CancelledError):
            await part

    asyncio.run(story())
    assert runs == 2


def test_what_is_over_is_freed_without_the_garbage_collector(upstream: StartUpstream, gateway: StartGateway) -> None:
    """Collecting what thousands of streams leave would stop the gateway for tens of milliseconds at a time."""

    async def two_pieces(answer: Answer) -> None:
        await answer.begin(200, {"content-type": "text/event-stream"})
        await answer.chunk(b"data: 1\n\n")
        await answer.released()
        await answer.chunk(b"data: [DONE]\n\n", more=False)

    streaming, url = upstream(two_pieces)
    _, unary_url = upstream(ok)
    running = gateway(chat_at(url) | {"other": chat_at(unary_url)["chat"]})
    gc.collect()
    gc.disable()
    try:
        for leaves in (True, False):
            body = {"model": "chat", "stream": True}
            with running.client.stream("POST", "/v1/chat/completions", json=body) as response:
                pieces = response.iter_raw()
                assert next(pieces) == b"data: 1\n\n"
                if not leaves:
                    streaming.release.set()
                    assert b"".join(pieces) == b"data: [DONE]\n\n"
            del response, pieces
        assert running.client.post("/v1/chat/completions", json={"model": "other"}).status_code == 200
        assert running.chat(max_tokens=-1).status_code == 400
        kept = {server.Client, gateway_upstream.Answer, Passage}
        until(lambda: not any(type(one) in kept for one in gc.get_objects()))
    finally:
        gc.enable()
