import re
from typing import Any

import pytest
import yaml

from tests.chart.render import REPOSITORY, of_kind, render_chart, the, worker_group
from tools.kube_apiserver import ApiServer

#: The examples of the page, by the heading they stand under.
PAGE = re.findall(
    r"(?ms)^(?:## |\*\*)([^\n*]+)(?:(?!^## |^\*\*).)*?```yaml\n(.*?)^```", (REPOSITORY / "docs/nodes.md").read_text()
)


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


@pytest.mark.parametrize("example", [text for _, text in PAGE], ids=[heading for heading, _ in PAGE])
def test_karpenter_accepts_what_the_page_shows(example: str, kube_apiserver: ApiServer) -> None:
    values = yaml.safe_load(example)
    objects = render_chart(values)
    assert of_kind(objects, "NodePool").keys() == values.get("nodePools", {}).keys()
    assert of_kind(objects, "EC2NodeClass").keys() == values.get("nodeClasses", {}).keys()
    kube_apiserver.dry_run(objects)


def test_every_example_of_the_page_is_found() -> None:
    assert len(PAGE) == (REPOSITORY / "docs/nodes.md").read_text().count("```yaml") > 5


def test_a_floor_on_demand_and_spot_above_take_the_same_models() -> None:
    """Serve places replicas by what a worker has, whatever its node costs."""
    objects = render_chart(yaml.safe_load((REPOSITORY / "tests/chart/cases/spot.yaml").read_text()))
    floor, above = worker_group(objects, "l40s"), worker_group(objects, "l40s-spot")
    assert floor["labels"]["llm-serving/accelerator"] == above["labels"]["llm-serving/accelerator"] == "L40S-x1"
    assert (floor["minReplicas"], floor["maxReplicas"]) == (2, 2)
    pools = [group["template"]["spec"]["nodeSelector"]["karpenter.sh/nodepool"] for group in (floor, above)]
    assert pools == ["gpu-on-demand", "gpu-spot"]
    of_pool = of_kind(objects, "NodePool")["gpu-on-demand"]["spec"]["template"]["spec"]["requirements"]
    assert of_pool == [{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]}]
