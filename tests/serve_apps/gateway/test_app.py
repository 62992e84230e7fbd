"""The gateway on a real Ray node, behind Ray Serve's own HAProxy, called by an unmodified OpenAI client."""

import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

import serve_apps
from serve_apps.common import metrics
from serve_apps.common.secrets import new_api_key
from tests.serve_apps.gateway.fake_model import ABORTED_PATH, BEGUN_PATH
from tests.serve_apps.gateway.wire import connected, post
from tools.demo.cluster import LocalCluster
from tools.ports import free_port

HAPROXY = Path(serve_apps.__file__).parent / "haproxy"
INTERNAL_TOKEN = "internal-token"
#: Longer than anything here takes on a busy machine, in seconds. Reached only where a test fails.
PATIENCE_S = 90
QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]


def eventually(holds: Callable[[], Any], what: str) -> None:
    """Wait until ``holds()``."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE_S} s: {what}")
        time.sleep(0.2)


def ready(url: str) -> bool:
    """Whether the gateway says that it is, through a HAProxy that may not listen yet."""
    try:
        return httpx.get(f"{url}/readyz", timeout=PATIENCE_S, trust_env=False).is_success
    except httpx.TransportError:
        return False


@dataclass
class Served:
    """The gateway and one fake model, running."""

    cluster: LocalCluster
    config: dict[str, Any]
    url: str
    key: str

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=PATIENCE_S)

    def routed(self, models: dict[str, Any]) -> dict[str, Any]:
        """The Serve config with another routing table."""
        config = copy.deepcopy(self.config)
        config["applications"][0]["deployments"][0]["user_config"]["models"] = models
        return config

    def gateway_pids(self) -> list[int]:
        """The processes of the gateway's replicas."""
        return self.cluster.live_pids("gateway", "Gateway")

    def counted(self, path: str) -> int:
        """What the model counts there: generations that wait for their client to leave, or that it left."""
        url, headers = f"{self.url}/internal/chat{path}", {"x-llm-internal": INTERNAL_TOKEN}
        return int(httpx.get(url, headers=headers, timeout=PATIENCE_S, trust_env=False).text)

    def model_names(self) -> set[str]:
        return {model.id for model in self.client.models.list()}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Both applications on a node of their own."""
    secrets = tmp_path_factory.mktemp("secrets")
    made = new_api_key("acme")
    for name, content in {"internal/token": INTERNAL_TOKEN, "api-keys/acme": made.record}.items():
        (secrets / name).parent.mkdir()
        (secrets / name).write_text(content)
    url = f"http://127.0.0.1:{free_port()}"
    config = {
        "proxy_location": "EveryNode",
        "http_options": {"host": "127.0.0.1", "port": int(url.rpartition(":")[2])},
        "applications": [
            {
                "name": "gateway",
                "route_prefix": "/",
                "import_path": "serve_apps.gateway.app:build_app",
                "args": {"maxConcurrentRequests": 8},
                "deployments": [
                    {
                        "name": "Gateway",
                        "ray_actor_options": {"num_cpus": 0.1},
                        "user_config": {
                            "models": {
                                "chat": {"url": f"{url}/internal/chat", "task": "generate"},
                                "absent": {"url": f"{url}/internal/absent", "task": "generate"},
                            }
                        },
                    }
                ],
            },
            {
                "name": "chat",
                "route_prefix": "/internal/chat",
                "import_path": "tests.serve_apps.gateway.fake_model:build_app",
                "args": {},
                "deployments": [{"name": "FakeModel", "ray_actor_options": {"num_cpus": 0.1}}],
            },
        ],
    }
    environment = {
        "LLM_SERVING_SECRETS": str(secrets),
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(HAPROXY),
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    }
    with LocalCluster(environment, {}) as cluster:
        cluster.deploy(config)
        cluster.wait(["gateway", "chat"])
        running = Served(cluster, config, url, made.key)
        eventually(lambda: ready(url), "HAProxy routes to us")
        yield running


def test_an_openai_client_gets_its_answer(served: Served) -> None:
    answer = served.client.chat.completions.create(model="chat", messages=QUESTION)
    seen = json.loads(answer.choices[0].message.content or "")
    assert seen["x-llm-tenant"] == "acme"
    assert "authorization" not in seen


def test_an_openai_client_gets_its_stream(served: Served) -> None:
    stream = served.client.chat.completions.create(model="chat", messages=QUESTION, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Paris is it"


def test_an_openai_client_lists_the_models(served: Served) -> None:
    assert served.model_names() == {"chat", "absent"}
    assert served.client.models.retrieve("chat").id == "chat"


def test_an_unknown_model_is_a_not_found_error_that_names_those_there_are(served: Served) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        served.client.chat.completions.create(model="gpt-4", messages=QUESTION)
    assert caught.value.code == "model_not_found"
    assert "Models here: absent, chat." in str(caught.value)


def test_a_wrong_key_is_an_authentication_error(served: Served) -> None:
    client = served.client.with_options(api_key="sk-acme-0000")
    with pytest.raises(openai.AuthenticationError) as caught:
        client.chat.completions.create(model="chat", messages=QUESTION)
    assert caught.value.code == "invalid_api_key"


def test_a_model_whose_application_is_not_there_is_unavailable(served: Served) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        served.client.chat.completions.create(model="absent", messages=QUESTION)
    assert (caught.value.status_code, caught.value.code) == (503, "model_unavailable")


def test_a_model_cannot_be_reached_around_the_gateway(served: Served) -> None:
    around = httpx.post(
        f"{served.url}/internal/chat/v1/chat/completions",
        json={"model": "chat"},
        headers={"authorization": f"Bearer {served.key}"},
        timeout=PATIENCE_S,
        trust_env=False,
    )
    assert around.status_code == 401


@pytest.mark.parametrize("given", ["job-7", None])
def test_an_answer_carries_one_request_id(served: Served, given: str | None) -> None:
    headers = {"authorization": f"Bearer {served.key}"} | ({"x-request-id": given} if given else {})
    response = httpx.post(
        f"{served.url}/v1/chat/completions",
        json={"model": "chat"},
        headers=headers,
        timeout=PATIENCE_S,
        trust_env=False,
    )
    (returned,) = response.headers.get_list("x-request-id")
    seen = json.loads(response.json()["choices"][0]["message"]["content"])
    assert seen["x-request-id"] == returned
    assert returned == given or given is None


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_aborts_the_generation(served: Served, stream: bool) -> None:
    begun, aborted = served.counted(BEGUN_PATH), served.counted(ABORTED_PATH)
    body = json.dumps({"model": "chat", "stream": stream, "user": "patient"}).encode()
    with connected(served.url) as wire:
        wire.send(post("/v1/chat/completions", served.key, body))
        eventually(lambda: served.counted(BEGUN_PATH) == begun + 1, "the model is asked")
        assert served.counted(ABORTED_PATH) == aborted
    eventually(lambda: served.counted(ABORTED_PATH) == aborted + 1, "the model sees that the client left")


def test_the_gateways_metrics_are_scraped(served: Served) -> None:
    served.client.chat.completions.create(model="chat", messages=QUESTION)

    def models_counted() -> set[str]:
        families = text_string_to_metric_families(served.cluster.metrics())
        samples = [sample for family in families for sample in family.samples]
        return {s.labels["model"] for s in samples if s.name == metrics.GATEWAY_REQUESTS.series}

    eventually(lambda: "chat" in models_counted(), "the request is counted")


def test_a_new_routing_table_applies_in_the_running_process(served: Served) -> None:
    pids = served.gateway_pids()
    assert len(pids) == 1
    served.cluster.deploy(served.routed({"renamed": {"url": f"{served.url}/internal/chat", "task": "generate"}}))
    eventually(lambda: served.model_names() == {"renamed"}, "the new table is in force")
    assert served.gateway_pids() == pids
    assert served.client.chat.completions.create(model="renamed", messages=QUESTION).choices
    served.cluster.deploy(served.config)
    eventually(lambda: served.model_names() == {"chat", "absent"}, "the old table is back in force")


def test_a_wrong_routing_table_leaves_the_old_one_in_force_and_the_replica_alive(served: Served) -> None:
    pids, names = served.gateway_pids(), served.model_names()
    served.cluster.deploy(served.routed({"chat": {"url": f"{served.url}/internal/chat", "task": "sing"}}))
    served.cluster.wait(["gateway"], PATIENCE_S)
    assert (served.gateway_pids(), served.model_names()) == (pids, names)
