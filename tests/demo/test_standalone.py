"""A standalone model as its pod runs it: the rendered command and environment, with vLLM on CPU and SmolLM2."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from serve_apps.common import tracing
from serve_apps.common.protocol import INTERNAL_HEADER
from serve_apps.llm import drain as hook
from serve_apps.llm.standalone import DRAINING
from tests.serve_apps.common.collector import Collector, attributes, lineage
from tests.serve_apps.gateway.conftest import INTERNAL_TOKEN, GatewayServer, gateway  # noqa: F401  # a fixture
from tests.serve_apps.gateway.servers import serving
from tools.demo.models import models_root
from tools.demo.rendered import CHART, REPOSITORY, helm_template
from tools.gotools import helm
from tools.ports import free_port

FILES = [REPOSITORY / "values" / name for name in ("chat-8b.yaml", "environments/local.yaml")]
#: The environment has it on Ray, where a machine without Kubernetes can run it.
SETTINGS = [
    "overrides.models.chat.runtime=standalone",
    "overrides.models.chat.maxQueuedRequests=null",
    "overrides.models.chat.sampling.max_tokens=null",
]
START_TIMEOUT_S = 600
STOP_TIMEOUT_S = 90
CHAT = "/v1/chat/completions"
#: For what is a pod's own, where the test is not one.
HERE = {"/mnt/models": str(models_root())}


@dataclass(frozen=True)
class Server:
    """A running server."""

    client: httpx.Client
    credential: dict[str, str]
    collector: Collector
    """Where its spans go."""
    traces_url: str

    def ask(self, tokens: int = 4) -> dict[str, object]:
        """The body of a chat."""
        messages = [{"role": "user", "content": "What is the capital of France?"}]
        return {"model": "chat", "messages": messages, "max_tokens": tokens, "stream": True, "ignore_eos": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The container of the rendered Deployment as a process."""
    collector = Collector()
    with serving(collector) as traces_url, _running(tmp_path_factory, traces_url) as client:
        yield Server(client, {INTERNAL_HEADER: INTERNAL_TOKEN}, collector, traces_url)


@contextmanager
def _running(tmp_path_factory: pytest.TempPathFactory, traces_url: str) -> Iterator[httpx.Client]:
    objects = helm_template(helm(), FILES, [*SETTINGS, f"tracing.endpoint={traces_url}"])
    (deployment,) = (one for one in objects if one["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    DRAINING.unlink(missing_ok=True)  # of a run that was killed
    folder = tmp_path_factory.mktemp("pod")
    (folder / "internal").mkdir()
    (folder / "internal" / "token").write_text(INTERNAL_TOKEN)
    port = free_port()
    instead = {"--host=0.0.0.0": "--host=127.0.0.1", "--port=8000": f"--port={port}"}
    arguments = [_here(instead.get(one, one)) for one in container["args"]]
    program, *command = container["command"]
    assert program == "python"
    environment = {
        **os.environ,
        **{one["name"]: one["value"] for one in container["env"]},
        "LLM_SERVING_SECRETS": str(folder),
        "PYTHONPATH": str(REPOSITORY),
        "HF_HUB_OFFLINE": "1",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *command, *arguments], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=START_TIMEOUT_S) as client:
            _wait_until_healthy(client, process, folder / "log")
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        DRAINING.unlink(missing_ok=True)


def _here(argument: str) -> str:
    for theirs, ours in HERE.items():
        argument = argument.replace(theirs, ours)
    return argument


def _wait_until_healthy(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    """As the startup probe does."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-4000:]
        try:
            if client.get("/health").is_success:
                return
        except httpx.TransportError:
            time.sleep(1)
    raise AssertionError(log.read_text()[-4000:])


def test_without_the_credential_it_refuses(server: Server) -> None:
    for headers in ({}, {INTERNAL_HEADER: "another"}, {"authorization": f"Bearer {INTERNAL_TOKEN}"}):
        for path in (CHAT, "/v1/completions", "/tokenize", "/invocations", "/v1/load_lora_adapter"):
            answer = server.client.post(path, json=server.ask(), headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "internal_only"), path
        assert server.client.get("/v1/models", headers=headers).status_code == 401


def test_with_it_the_model_answers(server: Server) -> None:
    answer = server.client.post(CHAT, json={**server.ask(), "stream": False}, headers=server.credential)
    assert answer.json()["choices"][0]["message"]["content"]
    assert answer.json()["usage"]["completion_tokens"] == 4


def test_and_nothing_else_of_its_server(server: Server) -> None:
    for path in ("/invocations", "/v1/load_lora_adapter", "/sleep", "/v1/embeddings"):
        assert server.client.post(path, json={}, headers=server.credential).status_code == 404, path


def test_prometheus_and_the_hook_read_its_metrics(server: Server) -> None:
    metrics = server.client.get("/metrics").text
    for name in ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"):
        assert f"\n{name}{{" in metrics
    shown = set(re.findall(r"\(ray_vllm_\|vllm:\)(\w+)", (CHART / "dashboards" / "engine.json").read_text()))
    assert shown
    assert [name for name in sorted(shown) if f"\nvllm:{name}{{" not in metrics] == []
    assert "\nprocess_start_time_seconds " in metrics  # the alert ReplicasCrashing goes by it
    assert hook.under_way(metrics) == 0


def test_its_spans_are_children_of_the_gateways(
    server: Server,
    gateway: Callable[..., GatewayServer],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.traces_url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "gateway")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setattr(tracing, "_spans", None)
    tracing.configure()
    assert tracing._spans is not None
    trace = "0af7651916cd43dd8448eb211c80319c"
    asks = gateway({"chat": {"url": str(server.client.base_url), "task": "generate"}}).client
    answer = asks.post(CHAT, json=server.ask(), headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    assert answer.status_code == 200, answer.text
    spans = server.collector.trace(trace, 2)  # the gateway's ends after its answer, so nothing is closed before
    tracing._spans.close()
    assert {lineage(span, spans) for span in spans} == {(f"POST {CHAT}",), (f"POST {CHAT}", "llm_request")}
    assert server.collector.services == {"chat", "gateway"}
    of_model = next(span for span in spans if span.name == "llm_request")
    assert attributes(of_model)["gen_ai.usage.completion_tokens"] == 4
    assert b"capital" not in of_model.SerializeToString()


def test_a_pod_that_goes_finishes_its_stream_first(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Last of all: from here on the server drains."""
    monkeypatch.setattr(hook, "METRICS_URL", str(server.client.base_url.join("/metrics")))
    monkeypatch.setattr(hook, "UNLISTED_S", 0.0)
    ended: list[str] = []
    drains = threading.Thread(target=lambda: ended.append(hook.drain(START_TIMEOUT_S)))
    with server.client.stream("POST", CHAT, json=server.ask(8), headers=server.credential) as answer:
        lines = answer.iter_lines()
        next(lines)
        drains.start()
        pieces = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        assert pieces[-1]["choices"][0]["finish_reason"] == "length"
    drains.join(START_TIMEOUT_S)
    assert ended == ["drained"]
    DRAINING.touch()
    answer = server.client.post(CHAT, json={**server.ask(), "stream": False}, headers=server.credential)
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")
