"""LoRA adapters over the wire: what the model's replica is sent, and what callers are told."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.serve_apps.gateway.conftest import GatewayServer
from tests.serve_apps.gateway.fake_vllm import vllm
from tests.serve_apps.gateway.servers import Answer, Upstream, until

#: Bytes that would not survive a parse and a dump.
REST = b'"messages":[{"role":"user","content":"hi"}],"seed":12345678901234567890123,"temperature":0.10'
Serve = tuple[GatewayServer, Upstream]


@pytest.fixture
def served(gateway: Callable[..., GatewayServer], upstream: Callable[..., tuple[Upstream, str]]) -> Serve:
    """A gateway before one model with adapters; one is acme's (the caller), one somebody else's."""
    server, url = upstream(vllm)
    adapters = {"sql": {}, "mine": {"tenants": ["acme"]}, "theirs": {"tenants": ["other"]}}
    models = {"chat": {"url": url, "task": "generate", "adapters": adapters}}
    return gateway(models), server


def ask(running: GatewayServer, model: str, **headers: str) -> Any:
    body = b'{"model":%b,%b}' % (json.dumps(model).encode(), REST)
    return running.client.post(
        "/v1/chat/completions", content=body, headers={"content-type": "application/json", **headers}
    )


def test_the_replica_is_told_the_adapter_and_gets_the_body_as_it_came_but_for_the_name(served: Serve) -> None:
    running, server = served
    for name in ("sql", "chat:sql"):
        answer = ask(running, name)
        assert (answer.status_code, answer.json()["model"], answer.headers["x-llm-version"]) == (200, "sql", "chat")
        received = server.received[-1]
        assert received.body == b'{"model":"sql",%b}' % REST
        assert received.headers["x-llm-adapter"] == "sql"


def test_a_request_for_the_model_itself_names_no_adapter_whatever_the_client_says(served: Serve) -> None:
    running, server = served
    assert ask(running, "chat", **{"x-llm-adapter": "sql"}).status_code == 200
    assert "x-llm-adapter" not in server.received[-1].headers


def test_what_is_not_there_for_the_caller_is_an_unknown_model_and_asked_of_nobody(served: Serve) -> None:
    running, server = served
    for name in ("theirs", "chat:theirs", "chat:nope", "chat:../sql", "chat:/etc", "chat:a\0b", "nope"):
        answer = ask(running, name)
        assert answer.status_code == 404
        assert answer.json()["error"] == {
            "message": f'The model "{name}" does not exist. Models here: chat.',
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    assert server.received == []


def test_a_tenant_uses_and_sees_its_own(served: Serve) -> None:
    running, _ = served
    assert ask(running, "mine").status_code == 200
    cards = {card["id"]: card for card in running.client.get("/v1/models").json()["data"]}
    assert sorted(cards) == ["chat", "chat:mine", "chat:sql", "mine", "sql"]
    assert (cards["sql"]["parent"], cards["sql"]["paths"]) == ("chat", cards["chat"]["paths"])
    assert "parent" not in cards["chat"]
    assert running.client.get("/v1/models/chat:mine").status_code == 200
    assert running.client.get("/v1/models/theirs").status_code == 404


def test_who_may_use_a_model_may_use_its_adapters_and_who_has_one_alone_that_one(served: Serve) -> None:
    running, _ = served
    table = running.ingress._table().model_dump()
    for models, allowed in ((["chat"], {"chat", "sql"}), (["chat:sql"], {"sql"}), (["chat:mine"], set()), ([], set())):
        running.ingress.route_by(table | {"tenants": {"acme": {"models": models}}})
        assert {name for name in ("chat", "sql") if ask(running, name).status_code == 200} == allowed
        listed = {card["id"] for card in running.client.get("/v1/models").json()["data"]}
        assert listed & {"chat", "sql"} == allowed
    answer = ask(running, "sql")
    assert answer.status_code == 403
    assert 'You do not have access to the model "chat:sql"' in answer.json()["error"]["message"]


def test_what_the_replica_says_of_an_adapter_reaches_the_caller(
    gateway: Callable[..., GatewayServer], upstream: Callable[..., tuple[Upstream, str]]
) -> None:
    refusals = [(404, "model_not_found"), (422, "adapter_unusable"), (503, "adapter_unavailable")]
    errors = {
        f"any{status}": (status, {"message": "Not as it should be.", "type": "t", "param": None, "code": code})
        for status, code in refusals
    }

    async def refuses(answer: Answer) -> None:
        status, error = errors[answer.upstream.received[-1].headers["x-llm-adapter"]]
        await answer.whole(status, json.dumps({"error": error}).encode(), {"content-type": "application/json"})

    _, url = upstream(refuses)
    running = gateway({"chat": {"url": url, "task": "generate", "otherAdapters": True}})
    for name, (status, error) in errors.items():
        answer = ask(running, f"chat:{name}")
        assert (answer.status_code, answer.json()["error"]) == (status, error)


def test_the_audit_log_tells_the_adapter(served: Serve, capfd: pytest.CaptureFixture[str]) -> None:
    running, _ = served
    audited: list[dict[str, Any]] = []

    def two() -> bool:
        lines = capfd.readouterr().err.splitlines()
        audited.extend(json.loads(line) for line in lines if "serve_apps.gateway.audit" in line)
        return len(audited) == 2

    ask(running, "sql")
    ask(running, "chat")
    until(two)  # told after the answer
    with_adapter, without = audited
    assert (with_adapter["model"], with_adapter["adapter"]) == ("chat", "sql")
    assert "adapter" not in without
