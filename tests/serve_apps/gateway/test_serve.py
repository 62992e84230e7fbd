"""Two replicas of the gateway on Ray Serve, behind its HAProxy and with a real Redis, as their clients see them."""

import asyncio
import json
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

import serve_apps
from serve_apps.common.metrics import GATEWAY_REQUESTS, GATEWAY_VERSION_OFF, GATEWAY_WAITING, Metric
from serve_apps.common.secrets import new_api_key
from tests.serve_apps.gateway.mutations import bodies
from tests.serve_apps.gateway.redis import PASSWORD, RedisServer
from tests.serve_apps.gateway.servers import Answer, Upstream, serving
from tests.serve_apps.gateway.test_app import PATIENCE_S, eventually
from tests.serve_apps.gateway.test_fuzz import check_refusal
from tools.demo.cluster import LocalCluster
from tools.ports import free_port

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
USAGE = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
TENANTS = ("acme", "hasty", "robust", "calm", "flood")
#: How long the busy model takes for an answer once it is let, in seconds, and how many each gateway lets it work on.
BUSY_S, PLACES = 0.05, 2
FLOOD = 60
#: Bodies of the seeded fuzzer.
SEED, BODIES = 7, 300


async def answering(answer: Answer) -> None:
    """A model, and what becomes of some others: their names say it."""
    model = json.loads(answer.upstream.received[-1].body)["model"]
    if model == "busy":
        while not answer.upstream.release.is_set():  # however long that takes
            await asyncio.sleep(0.02)
        await asyncio.sleep(BUSY_S)
    if model == "bad":
        await answer.whole(500, b"out of luck", {"content-type": "text/plain"})
    else:
        await answer.whole(200, json.dumps({"id": "1", "usage": USAGE}).encode(), JSON)


@dataclass
class Served:
    """What runs, and how it is asked."""

    cluster: LocalCluster
    redis: RedisServer
    upstream: Upstream
    client: httpx.Client
    keys: dict[str, str]

    def post(self, tenant: str, body: bytes, path: str = CHAT) -> httpx.Response:
        """Over a connection of its own, so that either replica may answer."""
        return self.client.post(path, content=body, headers={"authorization": f"Bearer {self.keys[tenant]}", **JSON})

    def chat(self, tenant: str = "acme", model: str = "good") -> httpx.Response:
        return self.post(tenant, json.dumps({"model": model, "messages": []}).encode())

    def usage(self, tenant: str) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self.keys[tenant]}"}
        usage: dict[str, Any] = self.client.get("/v1/usage", headers=headers).json()
        return usage

    def measured(self, metric: Metric) -> dict[str, float]:
        """A metric's values, added up for each replica."""
        values: dict[str, float] = defaultdict(float)
        for family in text_string_to_metric_families(self.cluster.metrics()):
            for sample in family.samples:
                if sample.name == metric.series:
                    values[sample.labels["replica"]] += sample.value
        return values


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    secrets = tmp_path_factory.mktemp("secrets")
    made = {tenant: new_api_key(tenant) for tenant in TENANTS}
    files = {f"api-keys/{tenant}": key.record for tenant, key in made.items()}
    for name, content in {**files, "internal/token": "internal-token", "redis/password": PASSWORD}.items():
        (secrets / name).parent.mkdir(exist_ok=True)
        (secrets / name).write_text(content)
    binary = shutil.which("redis-server")
    assert binary, "redis-server is missing: make packages"
    redis = RedisServer(binary, secrets / "redis" / "password")
    url = f"http://127.0.0.1:{free_port()}"
    environment = {
        "LLM_SERVING_SECRETS": str(secrets),
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(Path(serve_apps.__file__).parent / "haproxy"),
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    }
    with ExitStack() as stack:
        redis.start()
        stack.callback(redis.kill)
        upstream = Upstream(answering)
        upstream_url = stack.enter_context(serving(upstream))
        stack.callback(upstream.release.set)
        cluster = stack.enter_context(LocalCluster(environment, {}))
        cluster.deploy(config(url, redis.url, upstream_url))
        cluster.wait(["gateway"])
        eventually(lambda: httpx.get(f"{url}/readyz", trust_env=False).status_code == 200, "HAProxy routes to us")
        no_connection_is_kept = httpx.Limits(max_keepalive_connections=0)
        client = httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False, limits=no_connection_is_kept)
        keys = {tenant: key.key for tenant, key in made.items()}
        yield Served(cluster, redis, upstream, stack.enter_context(client), keys)


def config(url: str, redis_url: str, upstream: str) -> dict[str, Any]:
    """The Serve config: the gateway alone, in front of models that run elsewhere."""
    model = {"url": upstream, "task": "generate", "runtime": "standalone"}
    tasks = {"good": "generate", "bad": "generate", "chat": "generate", "embed": "embed", "rank": "score"}
    table = {
        "models": {
            **{name: model | {"task": task} for name, task in tasks.items()},
            "busy": model | {"queue": {"maxConcurrent": PLACES, "maxWaiting": FLOOD, "timeoutS": PATIENCE_S}},
        },
        "routes": {
            "assistant": {
                "versions": [{"model": "good", "weight": 50}, {"model": "bad", "weight": 50}],
                "fallback": ["good"],
                "canary": {"maxErrorRate": 0.1, "minRequests": 5, "windowS": 600},
            }
        },
        "tenants": {"hasty": {"requestsPerMinute": 6}, "robust": {"requestsPerMinute": 1000}},
        "replicas": 2,
    }
    gateway = {
        "name": "Gateway",
        "num_replicas": 2,
        "max_ongoing_requests": 2 * FLOOD,
        "ray_actor_options": {"num_cpus": 0.1},
        "user_config": table,
    }
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": "127.0.0.1", "port": int(url.rpartition(":")[2])},
        "applications": [
            {
                "name": "gateway",
                "route_prefix": "/",
                "import_path": "tests.serve_apps.gateway.patient_gateway:build_app",
                "args": {"redis": redis_url},
                "deployments": [gateway],
            }
        ],
    }


def test_replicas_grant_one_limit_and_say_one_usage(served: Served) -> None:
    began_s = time.monotonic()
    answers = [served.chat("hasty") for _ in range(12)]
    earned = int((time.monotonic() - began_s) / 10)  # of 6 a minute, on a busy machine
    granted = sum(answer.status_code == 200 for answer in answers)
    assert 6 <= granted <= 6 + earned
    refused = [answer for answer in answers if answer.status_code != 200]
    assert {(answer.status_code, int(answer.headers["retry-after"]) >= 1) for answer in refused} == {(429, True)}

    def told() -> tuple[str, int, int]:
        used = served.usage("hasty")
        return used["scope"], used["total"]["requests"], used["total"]["prompt_tokens"]

    eventually(lambda: told() == ("all", granted, granted * USAGE["prompt_tokens"]), "both have told what was used")
    eventually(lambda: served.chat().is_success and len(served.measured(GATEWAY_REQUESTS)) == 2, "both were asked")


def test_replicas_agree_on_a_version_that_fails(served: Served) -> None:
    def versions() -> set[str]:
        answers = [served.chat(model="assistant") for _ in range(10)]
        assert {answer.status_code for answer in answers} == {200}  # by the fallback
        return {answer.headers["x-llm-version"] for answer in answers}

    assert versions() == {"good"}
    with served.redis.client() as redis:
        eventually(lambda: versions() and redis.keys("llm-gateway:canary:*:off"), "it is taken out")
        (key,) = redis.keys("llm-gateway:canary:*:off")
        (told,) = redis.hgetall(key).items()
    assert (told[0], json.loads(told[1])["rule"]) == ("bad", "max_error_rate")
    eventually(lambda: [*served.measured(GATEWAY_VERSION_OFF).values()] == [1, 1], "both replicas obey")


def test_a_flood_leaves_places_to_another_tenant(served: Served) -> None:
    def waiting() -> float:
        return sum(served.measured(GATEWAY_WAITING).values())

    with ThreadPoolExecutor(FLOOD + 1) as clients:
        flood = [clients.submit(served.chat, "flood", "busy") for _ in range(FLOOD)]
        eventually(lambda: waiting() == FLOOD - 2 * PLACES, "the flood waits")
        calm = clients.submit(served.chat, "calm", "busy")
        eventually(lambda: waiting() == FLOOD - 2 * PLACES + 1, "so does the other tenant")
        served.upstream.release.set()
        assert {each.result().status_code for each in (*flood, calm)} == {200}
    asked = [each for each in served.upstream.received if json.loads(each.body)["model"] == "busy"]
    # It came last, and its gateway let it go next; the other gateway has half of the flood.
    assert [each.headers["x-llm-tenant"] for each in asked].index("calm") < FLOOD * 3 / 4


def test_bodies_that_clients_should_not_send_are_refused_as_openai_does(served: Served) -> None:
    statuses: Counter[int] = Counter()
    for path, body in bodies(SEED, BODIES):
        answer = served.post("acme", body, path)
        statuses[answer.status_code] += 1
        if answer.status_code != 200:
            check_refusal(path, answer.status_code, answer.content)
    assert set(statuses) >= {200, 400, 404}


def test_a_redis_that_is_gone_fails_no_request(served: Served) -> None:
    served.redis.kill()
    assert {served.chat("robust").status_code for _ in range(10)} == {200}
    assert served.usage("robust")["scope"] == "replica"
    served.redis.start()
    eventually(lambda: served.usage("robust")["scope"] == "all", "Redis is found again")
