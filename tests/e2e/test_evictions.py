"""What a drain may take away: evictions are asked for, as by `kubectl drain` and Karpenter, and not carried out."""

import json

from tests.e2e.release import CHANGE_TIMEOUT_S, Release
from tests.e2e.waiting import until
from tools.cluster.errors import KubectlFailed

KEPT = "Cannot evict pod as it would violate the pod's disruption budget"


def test_the_last_of_a_kind_stays_until_its_budget_goes(release: Release) -> None:
    """The head, the last worker of each group and Redis may not be evicted; without its budget the head may."""
    pods = {f"worker-{group}": release.pod(group) for group in ("cpu", "cpu-models")}
    pods |= {"head": release.pod("head"), "redis": f"{release.name}-redis-0"}
    until(
        "each budget counts its pod",
        lambda: counted(release),
        lambda found: all(found.get(f"{release.name}-{name}") == 1 for name in pods),
        CHANGE_TIMEOUT_S,
    )
    answers = {name: asked_to_evict(release, pod) for name, pod in pods.items()}
    assert [name for name, answer in answers.items() if KEPT not in answer] == [], answers
    release.upgrade("head.minAvailable=0")
    try:
        assert "Success" in asked_to_evict(release, pods["head"])
        assert KEPT in asked_to_evict(release, pods["redis"])
    finally:
        release.upgrade()


def counted(release: Release) -> dict[str, int]:
    """How many healthy pods each budget has found."""
    budgets = release.objects("poddisruptionbudgets")
    return {one["metadata"]["name"]: one.get("status", {}).get("currentHealthy", 0) for one in budgets}


def asked_to_evict(release: Release, pod: str) -> str:
    """What Kubernetes says to the eviction of a pod, which stays in any case."""
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod},
        "deleteOptions": {"dryRun": ["All"]},
    }
    path = f"/api/v1/namespaces/{release.namespace}/pods/{pod}/eviction"
    try:
        return release.kubectl("create", f"--raw={path}", "--filename=-", input=json.dumps(eviction))
    except KubectlFailed as refused:
        return str(refused)
