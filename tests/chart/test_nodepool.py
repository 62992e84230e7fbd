from typing import Any

from tests.chart.render import of_kind, render_chart, the


def pool(**entry: Any) -> dict[str, Any]:
    spec: dict[str, Any] = the(render_chart({"nodePools": {"gpu": {"nodeClass": "gpu", **entry}}}), "NodePool")["spec"]
    return spec


def test_there_is_none_unless_declared_and_enabled() -> None:
    assert of_kind(render_chart(), "NodePool") == {}
    assert of_kind(render_chart({"nodePools": {"gpu": {"nodeClass": "gpu", "enabled": False}}}), "NodePool") == {}


def test_a_pool_without_more_has_gpu_nodes_of_three_families() -> None:
    assert pool() == {
        "limits": {"nvidia.com/gpu": 100},
        "disruption": {"consolidationPolicy": "WhenEmptyOrUnderutilized", "consolidateAfter": "5m"},
        "template": {
            "spec": {
                "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "gpu"},
                "requirements": [
                    {"key": "karpenter.k8s.aws/instance-family", "operator": "In", "values": ["g6e", "g5", "p4d"]},
                    {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]},
                    {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand", "spot"]},
                ],
                "taints": [{"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}],
            }
        },
    }


def test_what_is_set_replaces_its_block_whole() -> None:
    requirements = [{"key": "kubernetes.io/arch", "operator": "In", "values": ["arm64"]}]
    disruption = {"consolidationPolicy": "WhenEmpty", "consolidateAfter": "1m"}
    spec = pool(
        requirements=requirements,
        taints=[],
        limits={"cpu": 10},
        disruption=disruption,
        weight=10,
        expireAfter="720h",
        labels={"team": "ml"},
    )
    assert spec == {
        "weight": 10,
        "limits": {"cpu": 10},
        "disruption": disruption,
        "template": {
            "metadata": {"labels": {"team": "ml"}},
            "spec": {
                "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "gpu"},
                "requirements": requirements,
                "expireAfter": "720h",
            },
        },
    }


def test_every_pool_says_what_it_is_for() -> None:
    pools = of_kind(render_chart({"nodePools": {"a": {"nodeClass": "gpu"}, "b": {"nodeClass": "gpu"}}}), "NodePool")
    assert set(pools) == {"a", "b"}
    for one in pools.values():
        description = one["metadata"]["annotations"]["kubernetes.io/description"]
        assert description == "GPU nodes for the Ray workers of llm-serving."
