import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_apps.agent.checkpoints import KEY_PREFIX
from serve_apps.common import api
from serve_apps.common.protocol import INTERNAL_HEADER, REQUEST_ID_HEADER, TENANT_HEADER
from serve_apps.common.secrets import InternalCredential
from tests.serve_apps.agent.fake_models import TOKEN, FakeModels, Refuses, Says
from tests.serve_apps.agent.replica import app_of
from tests.serve_apps.gateway.redis import RedisServer
from tests.serve_apps.gateway.servers import PATIENCE_S, serving

CALL = Says({"tool": "calculate", "arguments": {"expression": "6 * 7"}})
ANSWER = Says({"tool": "answer"})
QUESTION = {"messages": [{"role": "user", "content": "6 * 7?"}]}


class Replica:
    """A client of one replica, for tenant acme."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def start(self, agent: str = "helper", **more: Any) -> str:
        response = self.client.post(f"/v1/agents/{agent}/runs", json={**QUESTION, **more})
        assert response.status_code == 202, response.text
        run: str = response.json()["id"]
        return run

    def get(self, run: str, agent: str = "helper", tenant: str = "acme") -> httpx.Response:
        return self.client.get(f"/v1/agents/{agent}/runs/{run}", headers={TENANT_HEADER: tenant})

    def ended(self, run: str, agent: str = "helper") -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while (shown := self.get(run, agent).json())["status"] == "in_progress":
            assert time.monotonic() < deadline, shown
            time.sleep(0.05)
        result: dict[str, Any] = shown
        return result


@contextmanager
def client_of(url: str) -> Iterator[Replica]:
    headers = {INTERNAL_HEADER: TOKEN, TENANT_HEADER: "acme", REQUEST_ID_HEADER: "request-1"}
    with httpx.Client(base_url=url, headers=headers, timeout=PATIENCE_S) as client:
        yield Replica(client)


@contextmanager
def serving_replica(name: str, gateway_url: str, redis_server: RedisServer, folder: Path) -> Iterator[Replica]:
    """A replica in this process."""
    app = app_of(name, gateway_url, redis_server.url, folder)
    with serving(app, lifespan="on") as url, client_of(url) as replica:
        yield replica


@pytest.fixture
def folder(tmp_path: Path, credential: InternalCredential) -> Path:
    """What a replica reads: the internal credential, and Redis' password."""
    return tmp_path


@pytest.fixture
def replica(gateway_url: str, redis_server: RedisServer, folder: Path) -> Iterator[Replica]:
    """A replica in this process."""
    with serving_replica("survivor", gateway_url, redis_server, folder) as replica:
        yield replica


@contextmanager
def another(
    gateway_url: str, redis_server: RedisServer, folder: Path
) -> Iterator[tuple[Replica, subprocess.Popen[str]]]:
    """A replica in a process of its own, which can be killed."""
    command = [sys.executable, "-m", "tests.serve_apps.agent.replica", gateway_url, redis_server.url, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        with client_of(process.stdout.readline().strip()) as replica:
            yield replica, process
    finally:
        process.kill()
        process.communicate()


def test_a_run_is_answered_in_the_background_with_its_steps(replica: Replica, models: FakeModels) -> None:
    models.script = [CALL, ANSWER, Says("It is 42.")]
    shown = replica.ended(replica.start())
    assert api.Run.model_validate(shown).model_dump() == shown  # as /openapi.json describes it
    assert (shown["object"], shown["agent"], shown["status"], shown["error"]) == (
        "agent.run",
        "helper",
        "completed",
        None,
    )
    assert [step["result"] for step in shown["steps"]] == ["42"]
    assert shown["response"]["choices"][0]["message"]["content"] == "It is 42."
    assert shown["response"]["end_reason"] == "answered"
    assert {each.headers[TENANT_HEADER] for each in models.asked} == {"acme"}


def test_a_killed_replicas_run_goes_on_at_its_last_step(
    gateway_url: str,
    redis_server: RedisServer,
    folder: Path,
    models: FakeModels,
) -> None:
    models.script = [CALL, ANSWER, Says("It is", endless=True)]
    with another(gateway_url, redis_server, folder) as (victim, process):
        run = victim.start()
        assert models.began.wait(PATIENCE_S)
        assert [step["result"] for step in victim.get(run).json()["steps"]] == ["42"]
        process.kill()
        process.wait()
    models.script = [Says("It is 42.")]
    with serving_replica("survivor", gateway_url, redis_server, folder) as survivor:
        shown = survivor.ended(run)
    assert shown["response"]["choices"][0]["message"]["content"] == "It is 42."
    # Three turns before, and only the one that was cut off again.
    assert len(models.turns) == 4
    assert models.turns[3]["messages"] == models.turns[2]["messages"]
    assert shown["response"]["usage"]["total_tokens"] == 30


def test_a_replica_that_ends_hands_its_runs_over_at_once(
    gateway_url: str,
    redis_server: RedisServer,
    folder: Path,
    models: FakeModels,
) -> None:
    models.script = [Says({"tool": "answer"}), Says("It is", endless=True)]
    with serving_replica("leaving", gateway_url, redis_server, folder) as leaving:
        run = leaving.start()
        assert models.began.wait(PATIENCE_S)
    with redis_server.client() as client:
        assert client.get(f"{KEY_PREFIX}{{{run}}}:lease") is None
    models.script = [Says("42")]
    with serving_replica("next", gateway_url, redis_server, folder) as following:
        assert following.ended(run)["response"]["choices"][0]["message"]["content"] == "42"


def test_a_graphs_run_goes_on_at_its_step_with_the_results_of_those_before(
    gateway_url: str,
    redis_server: RedisServer,
    folder: Path,
    models: FakeModels,
) -> None:
    models.script = [Says("They are", endless=True)]
    with serving_replica("leaving", gateway_url, redis_server, folder) as leaving:
        run = leaving.start("sums")
        assert models.began.wait(PATIENCE_S)
        assert {step["result"] for step in leaving.get(run, "sums").json()["steps"]} == {"42", "56"}
    models.script = [Says("They are 42 and 56.")]
    with serving_replica("next", gateway_url, redis_server, folder) as following:
        shown = following.ended(run, "sums")
    assert shown["response"]["choices"][0]["message"]["content"] == "They are 42 and 56."
    assert len(shown["steps"]) == 3
    assert models.turns[1]["messages"] == models.turns[0]["messages"]


def test_a_model_that_is_busy_is_asked_again_later(replica: Replica, models: FakeModels) -> None:
    models.script = [Refuses(429, "slow down"), ANSWER, Says("42")]
    assert replica.ended(replica.start())["status"] == "completed"


def test_a_request_the_model_refuses_is_a_failed_run(replica: Replica, models: FakeModels) -> None:
    models.script = [Refuses(400, "the prompt is too long")]
    shown = replica.ended(replica.start())
    assert (shown["status"], shown["response"]) == ("failed", None)
    assert shown["error"]["message"] == "the prompt is too long"


def test_a_run_is_its_tenants_and_its_agents(replica: Replica, models: FakeModels) -> None:
    models.script = [ANSWER, Says("42")]
    run = replica.start()
    assert replica.get(run).status_code == 200
    for response in (replica.get(run, tenant="other"), replica.get(run, agent="other"), replica.get("run_1")):
        assert (response.status_code, response.json()["error"]["code"]) == (404, "run_not_found")


def test_a_run_that_is_deleted_ends_and_is_gone(
    replica: Replica, models: FakeModels, redis_server: RedisServer
) -> None:
    models.script = [ANSWER, Says("On", endless=True)]
    run = replica.start()
    assert models.began.wait(PATIENCE_S)
    assert replica.client.delete(f"/v1/agents/helper/runs/{run}").json()["deleted"] is True
    assert models.aborted.wait(PATIENCE_S)
    assert replica.get(run).status_code == 404
    with redis_server.client() as client:
        assert client.smembers(f"{KEY_PREFIX}active") == set()


def test_runs_need_redis(replica: Replica, redis_server: RedisServer) -> None:
    redis_server.kill()
    response = replica.client.post("/v1/agents/helper/runs", json=QUESTION)
    assert (response.status_code, response.json()["error"]["message"]) == (
        503,
        "Runs cannot be kept at the moment; try again.",
    )


@pytest.mark.parametrize(
    ("agent", "more", "status", "message"),
    [
        ("helpr", {}, 404, "no such agent 'helpr'; there are helper, sums"),
        ("helper", {"stream": True}, 400, "stream: a run is not streamed; leave it out"),
        ("helper", {"messages": []}, 400, "messages: required, a list that ends with a user's message"),
    ],
)
def test_a_run_that_makes_no_sense_is_refused(
    replica: Replica, agent: str, more: dict[str, Any], status: int, message: str
) -> None:
    response = replica.client.post(f"/v1/agents/{agent}/runs", json={**QUESTION, **more})
    assert (response.status_code, response.json()["error"]["message"]) == (status, message)
