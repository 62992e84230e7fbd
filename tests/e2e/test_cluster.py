"""The cluster that `make cluster` starts, where it is the one that all of this ran on."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.e2e.waiting import until
from tools.cluster.target import Target
from tools.demo.rendered import REPOSITORY

#: Kubernetes calls a node lost after 20 seconds of silence.
NOTICED_TIMEOUT_S = 300


@pytest.fixture
def ours(cluster: Target) -> Target:
    if cluster.kind != "ours":
        pytest.skip("not asked: a node of this cluster would be killed, and it is not of tools.cluster")
    return cluster


def test_a_second_start_changes_nothing(ours: Target) -> None:
    """`make cluster` on a running cluster: the nodes have not been started again, and its pods can be listed."""
    before = ready_since(ours)
    told = tools_cluster("up")
    assert f"export KUBECONFIG={ours.kubeconfig}" in told
    assert ready_since(ours) == before
    ours.kubectl("get", "pods", "--all-namespaces")


def test_a_node_is_lost_and_comes_back(ours: Target) -> None:
    """A node killed in one step is NotReady to Kubernetes, and Ready again after it has joined."""
    tools_cluster("lose", "node2")
    until("node2 is NotReady", lambda: ready(ours), lambda nodes: not nodes["node2"], NOTICED_TIMEOUT_S)
    assert ready(ours)["node1"]
    tools_cluster("join", "node2")
    until("node2 is Ready", lambda: ready(ours), lambda nodes: nodes["node2"], NOTICED_TIMEOUT_S)


def tools_cluster(*words: str) -> str:
    """What `python -m tools.cluster` prints."""
    command = [sys.executable, "-m", "tools.cluster", *words]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def nodes(cluster: Target) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(cluster.kubectl("get", "nodes", "--output=json"))["items"]
    return items


def ready_since(cluster: Target) -> dict[str, str]:
    """Since when each node has been Ready."""
    return {node["metadata"]["name"]: condition(node)["lastTransitionTime"] for node in nodes(cluster)}


def ready(cluster: Target) -> dict[str, bool]:
    """Whether each node is Ready."""
    return {node["metadata"]["name"]: condition(node)["status"] == "True" for node in nodes(cluster)}


def condition(node: dict[str, Any]) -> dict[str, Any]:
    """A node's condition Ready."""
    found: dict[str, Any] = next(one for one in node["status"]["conditions"] if one["type"] == "Ready")
    return found
