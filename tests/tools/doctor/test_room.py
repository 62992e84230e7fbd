"""Room for a release: each check as a pair, of a cluster that has it and one that lacks it."""

from dataclasses import replace
from typing import Any

import pytest

from tests.tools.doctor.clusters import GPU_NODE, GPU_ROOM, cluster
from tests.tools.doctor.test_checks import wanted
from tools.doctor.cluster import Allowance, Bounds, Node
from tools.doctor.quantity import GI
from tools.doctor.room import findings
from tools.doctor.wanted import Claim, Container, Pods

L4 = {"karpenter.k8s.aws/instance-gpu-name": "l4"}
POOL = {"karpenter.sh/nodepool": "gpus"}
RAY = Container(
    "ray",
    {"cpu": 3, "memory": 12 * GI, "nvidia.com/gpu": 1},
    {"memory": 12 * GI, "nvidia.com/gpu": 1},
)
#: A group of two to five workers.
WORKERS = Pods("workerGroups.l4", 2, 5, [RAY], L4)
HEAD = Pods("head", 1, 1, [Container("ray", {"cpu": 4, "memory": 16 * GI}, {"memory": 16 * GI})], {})


def found(*pods: Pods, claims: list[Claim] | None = None, limits: Any = None, **there: Any) -> dict[str, str]:
    """Every line, by its subject."""
    there = {"quotas": [], "bounds": [], **there}
    needed = wanted(pods=list(pods) or [HEAD, WORKERS], claims=claims or [], node_pools=limits or {})
    return {one.subject: str(one) for one in findings(cluster(**there), needed)}


def place(selector: dict[str, str], least: int = 1, **there: Any) -> str:
    return found(replace(WORKERS, least=least, selector=selector), **there)["workerGroups.l4"]


def test_gpus_have_to_be_on_nodes_that_the_pods_select() -> None:
    selector = "karpenter.k8s.aws/instance-gpu-name=l4"
    asked = "pods of 1 GPUs, 3 CPUs and 12Gi"
    assert place(L4, node_pools={}) == f"ok   workerGroups.l4      1 {asked}; nodes with {selector} have room for 1"
    assert place({"gpu": "l4"}, least=2, node_pools={}) == (
        f"fix  workerGroups.l4      2 {asked}, and nodes with gpu=l4 have room for 0; add such nodes or a "
        "pool of them, or correct the group's nodeSelector"
    )
    assert place({}, nodes=[Node({}, {"cpu": 8, "memory": 64 * GI, "nvidia.com/gpu": 8})], node_pools={})[:2] == "ok"


@pytest.mark.parametrize("short", [{"cpu": 2.9}, {"memory": 11 * GI}, {"nvidia.com/gpu": 0}])
def test_a_node_that_is_short_of_one_thing_has_no_room(short: dict[str, float]) -> None:
    line = place(L4, nodes=[Node(GPU_NODE, {**GPU_ROOM, **short})], node_pools={})
    assert line.startswith("fix  workerGroups.l4")
    assert "have room for 0" in line


def test_or_karpenter_makes_them() -> None:
    pool = {**L4, **POOL}
    assert place(pool, nodes=[], node_pools={}).startswith("fix ")
    told = "1 pods of 1 GPUs, 3 CPUs and 12Gi; Karpenter makes their nodes from gpus"
    assert place(pool, nodes=[]).endswith(told)
    assert place(pool, nodes=[], node_pools={}, limits={"gpus": {}}).endswith(told)
    assert "Karpenter may make their nodes" in place(L4, nodes=[])
    assert place({"cloud.google.com/gke-accelerator": "nvidia-l4"}, nodes=[]).startswith("fix ")


def pool(gpus: float, used: float = 0, **more: Any) -> str:
    there = {"gpus": Allowance("gpus", {"nvidia.com/gpu": gpus}, {"nvidia.com/gpu": used})}
    return found(HEAD, replace(WORKERS, selector=POOL), **{"node_pools": there, **more})["NodePool gpus"]


def test_a_pools_limit_has_room_for_the_least_and_says_if_it_has_none_for_the_most() -> None:
    assert pool(5) == "ok   NodePool gpus        room for the release at its largest"
    assert pool(2) == (
        "ok   NodePool gpus        room to start; for a release at its largest nvidia.com/gpu: 5 needed and 2 left"
    )
    assert pool(4, used=3) == (
        "fix  NodePool gpus        nvidia.com/gpu: 2 needed and 1 left: raise it, or lower replicas.min and minReplicas"
    )


def test_the_limits_of_a_pool_that_comes_with_the_release_are_the_releases() -> None:
    assert pool(1, limits={"gpus": {"nvidia.com/gpu": 5}}).startswith("ok ")
    assert pool(5, limits={"gpus": {"nvidia.com/gpu": 1}}).startswith("fix ")


def test_a_pool_counts_what_is_sent_to_it_only() -> None:
    assert "NodePool gpus" not in found(HEAD, WORKERS)
    few = {"gpus": Allowance("gpus", {"cpu": 6}, {})}
    assert pool(0, node_pools=few).startswith("ok ")


#: What the two kinds of pods need at least: 3 pods, 10 CPUs, 40Gi, 2 GPUs.
QUOTAS: dict[str, tuple[float, float, str]] = {
    "pods": (6, 3, "pods: 3 needed and 2 left"),
    "count/pods": (6, 3, "count/pods: 3 needed and 2 left"),
    "cpu": (19, 10, "cpu: 10 needed and 9 left"),
    "requests.cpu": (19, 10, "requests.cpu: 10 needed and 9 left"),
    "requests.memory": (76 * GI, 40 * GI, "requests.memory: 40Gi needed and 39Gi left"),
    "limits.memory": (76 * GI, 40 * GI, "limits.memory: 40Gi needed and 39Gi left"),
    "requests.nvidia.com/gpu": (5, 2, "requests.nvidia.com/gpu: 2 needed and 1 left"),
}


@pytest.mark.parametrize("resource", QUOTAS)
def test_a_quota_has_room_or_lacks_some(resource: str) -> None:
    most, least, lacking = QUOTAS[resource]
    one = GI if "memory" in resource else 1

    def quota(hard: float, used: float = 0) -> str:
        return found(quotas=[Allowance("team", {resource: hard}, {resource: used})])["quota team"]

    assert quota(most) == "ok   quota team           room for the release at its largest"
    assert quota(most + one, one) == quota(most)
    assert quota(least).startswith("ok   quota team           room to start; for a release at its largest ")
    assert quota(least, one) == f"fix  quota team           {lacking}: raise it, or lower replicas.min and minReplicas"


@pytest.mark.parametrize(
    ("resource", "needed"),
    [
        ("persistentvolumeclaims", 2),
        ("requests.storage", 30 * GI),
        ("gp3.storageclass.storage.k8s.io/persistentvolumeclaims", 1),
        ("gp3.storageclass.storage.k8s.io/requests.storage", 20 * GI),
        ("io2.storageclass.storage.k8s.io/requests.storage", 0),
    ],
)
def test_claims_count_for_their_class_and_for_all(resource: str, needed: float) -> None:
    claims = [Claim("", 10 * GI), Claim("gp3", 20 * GI)]

    def quota(hard: float) -> bool:
        return found(claims=claims, quotas=[Allowance("team", {resource: hard}, {})])["quota team"].startswith("ok ")

    assert quota(needed)
    assert not needed or not quota(needed * 0.9)


def test_what_the_release_does_not_take_is_nobodys_business() -> None:
    full = Allowance("team", {"configmaps": 5, "services.loadbalancers": 0}, {"configmaps": 5})
    assert found(quotas=[full])["quota team"].startswith("ok ")
    assert found()["ResourceQuota"] == "ok   ResourceQuota        none in the namespace"


def test_a_quota_of_a_limit_that_pods_do_not_have_refuses_them() -> None:
    quotas = [Allowance("team", {"limits.cpu": 100}, {})]
    assert found(quotas=quotas)["quota team"] == (
        "fix  quota team           limits.cpu refuses pods without that limit: head, workerGroups.l4; take it out of "
        "the quota, or set their resources"
    )
    given = [Bounds("sizes", "Container", {}, {"cpu": 8})]
    assert found(quotas=quotas, bounds=given)["quota team"].startswith("ok ")


@pytest.mark.parametrize(
    ("bounds", "refused"),
    [
        (
            Bounds("sizes", "Container", {"memory": 12 * GI}, {"memory": 12 * GI}),
            "memory 16Gi for ray, sizes allows a container 12Gi",
        ),
        (Bounds("sizes", "Container", {}, {"cpu": 2}), "cpu 4 for ray, sizes allows a container 2"),
        (Bounds("sizes", "Pod", {"cpu": 3}, {}), "cpu 4, sizes allows a pod 3"),
    ],
)
def test_a_limit_range_refuses_what_is_larger(bounds: Bounds, refused: str) -> None:
    assert f"head needs {refused}" in found(bounds=[bounds])["LimitRange"]
    assert found(bounds=[bounds])["LimitRange"].startswith("fix ")


@pytest.mark.parametrize(
    "bounds",
    [
        Bounds("sizes", "Container", {"memory": 16 * GI}, {"memory": 16 * GI}),
        # A default is no bound for what has a limit.
        Bounds("sizes", "Container", {}, {"cpu": 4, "memory": GI}),
        Bounds("sizes", "Pod", {"cpu": 4, "memory": 16 * GI}, {}),
    ],
)
def test_a_limit_range_with_room_is_well(bounds: Bounds) -> None:
    assert found(bounds=[bounds])["LimitRange"] == "ok   LimitRange           room for every container"
    assert found()["LimitRange"] == "ok   LimitRange           none in the namespace"
