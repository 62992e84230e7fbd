"""What the chart says applies in place does: the same processes go on, with the new values."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serve.conftest import Service
from tests.serve.waiting import until


@pytest.fixture
def change(service: Service) -> Iterator[dict[str, Any]]:
    """A copy of the config to change and deploy; the original is put back afterwards."""
    yield copy.deepcopy(service.config)
    service.cluster.deploy(service.config)
    service.cluster.wait([application["name"] for application in service.config["applications"]])


def deployment(config: dict[str, Any], application: str, name: str) -> dict[str, Any]:
    """One deployment's part of a Serve config."""
    found = next(one for one in config["applications"] if one["name"] == application)
    return next(one for one in found["deployments"] if one["name"] == name)


def processes(service: Service) -> dict[str, list[int]]:
    """The replicas' processes of every deployment that stays while others change; load may have brought one more."""
    until(lambda: service.cluster.live_pids("chat", "VLLMServer:chat"), lambda seen: len(seen) == 1)
    kept = [("gateway", "Gateway"), ("chat", "VLLMServer:chat"), ("embedder", "VLLMServer:embedder"), ("rag", "Rag")]
    return {name: service.cluster.live_pids(application, name) for application, name in kept}


def test_sampling_defaults_change_in_running_replicas(service: Service, change: dict[str, Any]) -> None:
    before = processes(service)
    assert service.chat().json()["usage"]["completion_tokens"] == 5
    deployment(change, "chat", "VLLMServer:chat")["user_config"]["sampling"]["max_tokens"] = 2
    service.cluster.deploy(change)
    until(lambda: service.chat().json()["usage"]["completion_tokens"], lambda seen: seen == 2)
    assert processes(service) == before


def test_limits_and_scaling_change_in_running_replicas(service: Service, change: dict[str, Any]) -> None:
    before = processes(service)
    chat = deployment(change, "chat", "VLLMServer:chat")
    chat["max_ongoing_requests"] = 3
    chat["autoscaling_config"]["target_ongoing_requests"] = 1.5
    service.cluster.deploy(change)

    def applied() -> dict[str, Any]:
        config: dict[str, Any] = service.cluster.status()["chat"]["deployments"]["VLLMServer:chat"]["deployment_config"]
        return config

    until(applied, lambda seen: seen["max_ongoing_requests"] == 3)
    service.cluster.wait(["chat"])
    assert processes(service) == before


def test_a_route_appears_and_disappears_without_a_restart(service: Service, change: dict[str, Any]) -> None:
    before = processes(service)
    table = deployment(change, "gateway", "Gateway")["user_config"]["models"]
    table["chat-alias"] = table["chat"]
    service.cluster.deploy(change)
    until(lambda: service.chat("chat-alias").status_code, lambda seen: seen == 200)
    service.cluster.deploy(service.config)
    until(lambda: service.chat("chat-alias").status_code, lambda seen: seen == 404)
    assert processes(service) == before


def test_an_added_model_leaves_the_others_untouched(service: Service, change: dict[str, Any]) -> None:
    before = processes(service)
    added = copy.deepcopy(next(one for one in change["applications"] if one["name"] == "chat"))
    added |= {"name": "added", "route_prefix": "/internal/added"}
    added["args"]["name"] = "added"
    added["deployments"][0]["name"] = "VLLMServer:added"
    change["applications"].append(added)
    table = deployment(change, "gateway", "Gateway")["user_config"]["models"]
    table["added"] = {"url": f"{service.root}/internal/added", "task": "generate"}
    service.cluster.deploy(change)
    service.cluster.wait(["added", "gateway"])
    until(lambda: service.chat("added").status_code, lambda seen: seen == 200)
    assert processes(service) == before


def test_an_invalid_table_leaves_the_old_one_in_force(service: Service, change: dict[str, Any]) -> None:
    before = processes(service)
    table = deployment(change, "gateway", "Gateway")["user_config"]["models"]
    table["chat-alias"] = table["chat"] | {"task": "guess"}
    service.cluster.deploy(change)
    service.cluster.wait(["gateway"])
    assert service.chat().status_code == 200
    assert service.chat("chat-alias").status_code == 404
    assert processes(service) == before
