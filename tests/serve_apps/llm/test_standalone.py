"""The guard before a vLLM server without Ray, made as vLLM makes it: from its name, with nothing but the app."""

import importlib
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from serve_apps.common.protocol import INTERNAL_HEADER
from serve_apps.llm.standalone import StandaloneGuard
from tests.chart.render import render_chart, the

CHAT = "/v1/chat/completions"
CREDENTIAL = {INTERNAL_HEADER: "secret"}


@pytest.fixture(autouse=True)
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the chart gives the server's container."""
    (tmp_path / "internal").mkdir()
    (tmp_path / "internal" / "token").write_text("secret")
    monkeypatch.setenv("LLM_SERVING_SECRETS", str(tmp_path))
    monkeypatch.setenv("LLM_SERVING_TASK", "generate")


def client(mark: Path) -> TestClient:
    """A guarded server that would answer everything."""
    methods = ["GET", "POST"]
    app = Starlette(
        routes=[Route("/{path:path}", lambda request: PlainTextResponse("reached"), methods=methods)],
    )
    return TestClient(StandaloneGuard(app, mark))


@pytest.fixture
def server(tmp_path: Path) -> TestClient:
    return client(tmp_path / "draining")


def test_the_chart_names_it_as_vllm_wants_it() -> None:
    """vLLM imports what stands before the last dot and calls what stands behind it with the app."""
    model = {"runtime": "standalone", "source": "hf://org/chat@main", "accelerator": {"type": "L4"}}
    deployment = the(render_chart({"models": {"chat": model}}), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (flag,) = (one for one in container["args"] if one.startswith("--middleware="))
    module, _, name = flag.partition("=")[2].rpartition(".")
    assert getattr(importlib.import_module(module), name) is StandaloneGuard


def test_the_gateway_reaches_what_its_task_answers(server: TestClient) -> None:
    assert server.post(CHAT, headers=CREDENTIAL).text == "reached"


@pytest.mark.parametrize("headers", [{}, {INTERNAL_HEADER: "secreT"}, {"authorization": "Bearer secret"}])
def test_nobody_else_does(server: TestClient, headers: dict[str, str]) -> None:
    for path in (CHAT, "/v1/models", "/invocations", "/v1/load_lora_adapter"):
        assert server.post(path, headers=headers).status_code == 401
        assert server.get(path, headers=headers).status_code == 401


@pytest.mark.parametrize("path", ["/invocations", "/v1/embeddings", "/sleep", "/v1/load_lora_adapter", "/metrics"])
def test_what_its_task_does_not_answer_is_closed_to_the_gateway_too(server: TestClient, path: str) -> None:
    assert server.post(path, headers=CREDENTIAL).status_code == 404


def test_health_and_metrics_need_no_credential_and_only_those(server: TestClient) -> None:
    assert server.get("/health").text == server.get("/metrics").text == "reached"
    for path in ("/health/", "/metrics/", "//health", "/version", "/docs", "/"):
        assert server.get(path).status_code == 401
    assert server.post("/health").status_code == 401


def test_another_task_opens_other_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_SERVING_TASK", "embed")
    embedder = client(tmp_path / "draining")
    assert embedder.post("/v1/embeddings", headers=CREDENTIAL).text == "reached"
    assert embedder.post(CHAT, headers=CREDENTIAL).status_code == 404


def test_without_a_credential_or_a_task_it_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_SERVING_TASK", "dance")
    with pytest.raises(KeyError, match="dance"):
        client(tmp_path / "draining")
    (tmp_path / "internal" / "token").unlink()
    with pytest.raises(RuntimeError, match="internal credential: cannot read"):
        client(tmp_path / "draining")


def test_while_the_pod_drains_each_answer_closes_its_connection(tmp_path: Path) -> None:
    mark = tmp_path / "draining"
    server = client(mark)
    assert "connection" not in server.post(CHAT, headers=CREDENTIAL).headers
    mark.touch()
    assert server.post(CHAT, headers=CREDENTIAL).headers["connection"] == "close"
    assert server.post(CHAT).headers["connection"] == "close"


def test_a_container_that_starts_again_does_not_drain(tmp_path: Path) -> None:
    mark = tmp_path / "draining"
    mark.touch()
    assert "connection" not in client(mark).post(CHAT, headers=CREDENTIAL).headers
